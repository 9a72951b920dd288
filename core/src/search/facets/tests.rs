use super::*;
use serde_json::json;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Merges the parts' values, each given with its smallest and largest number.
fn merged(parts: &[(&str, [f64; 2])], by_count: bool, limit: usize) -> String {
    let raw = |text: &str| serde_json::from_str::<Box<RawValue>>(text).unwrap();
    let parts: Vec<_> = parts
        .iter()
        .map(|(part, [min, max])| (raw(part), raw(&json!({"n": {"min": min, "max": max}}).to_string())))
        .collect();
    let parts: Vec<FacetPart<'_>> =
        parts.iter().map(|(distribution, stats)| FacetPart { distribution, stats: Some(stats) }).collect();
    let mut out = Vec::new();
    let order = |_: &str| FacetOrder { by_count, together: false, limit };
    merge_distributions(&parts, 0, None, order, &mut out);
    String::from_utf8(out).unwrap()
}

const NONE: [f64; 2] = [0.0, -1.0];

#[test]
fn numbers_come_first_as_text_or_by_value() {
    let by_text = [
        (r#"{"n":{"-2":1,"10":1,"9":1,"-x":1,"5 x":1}}"#, [-2.0, 10.0]),
        (r#"{"n":{"10":1,"2":1,"a":1}}"#, [2.0, 10.0]),
    ];
    assert_eq!(merged(&by_text, false, 5), r#"{"n":{"-2":1,"10":2,"2":1,"9":1,"-x":1}}"#);
    // One node has counted so many documents that it counted by value.
    let by_value = [
        (r#"{"n":{"-2":1,"9":1,"10":1,"-x":1,"5 x":1}}"#, [-2.0, 10.0]),
        (r#"{"n":{"10":1,"2":1,"a":1}}"#, [2.0, 10.0]),
    ];
    assert_eq!(merged(&by_value, false, 6), r#"{"n":{"-2":1,"2":1,"9":1,"10":2,"-x":1,"5 x":1}}"#);
    assert_eq!(merged(&by_value, false, 2), r#"{"n":{"-2":1,"2":1,"-x":1,"5 x":1,"a":1}}"#);
    let many = [(r#"{"n":{"10":2000,"9":1}}"#, [9.0, 10.0]), (r#"{"n":{"10":2000}}"#, [10.0, 10.0])];
    assert_eq!(merged(&many, false, 5), r#"{"n":{"9":1,"10":4000}}"#);
}

#[test]
fn texts_that_look_like_numbers_are_texts() {
    // On the first node 3 and 7 are numbers, and "4" and "5" are strings; on the other node all are strings.
    let parts =
        [(r#"{"n":{"3":1,"7":1,"4":1,"5":1,"x":1}}"#, [3.0, 7.0]), (r#"{"n":{"1":1,"5":1,"9":1}}"#, NONE)];
    assert_eq!(merged(&parts, false, 9), r#"{"n":{"3":1,"7":1,"1":1,"4":1,"5":2,"9":1,"x":1}}"#);
    assert_eq!(merged(&parts, false, 4), r#"{"n":{"3":1,"7":1,"1":1,"4":1}}"#);
    // When ordered by count, the limit applies to strings too, unless the numbers fill it.
    let parts =
        [(r#"{"n":{"7":2,"3":1,"4":3,"5":1}}"#, [3.0, 7.0]), (r#"{"n":{"9":4,"8":4,"2":2,"1":1}}"#, NONE)];
    assert_eq!(merged(&parts, true, 4), r#"{"n":{"7":2,"3":1,"9":4,"8":4}}"#);
    assert_eq!(merged(&parts, true, 2), r#"{"n":{"7":2,"3":1,"9":4,"8":4,"4":3,"2":2,"5":1,"1":1}}"#);
    // A number and a string with the same text are shown once: at the number's position, with the string's count.
    let parts = [(r#"{"n":{"3":1,"7":1}}"#, [3.0, 7.0]), (r#"{"n":{"7":5,"a":1}}"#, NONE)];
    assert_eq!(merged(&parts, false, 9), r#"{"n":{"3":1,"7":5,"a":1}}"#);
}

#[test]
fn long_values_are_one_where_nodes_cut_them() {
    let (one, other) = ("a".repeat(468) + "b", "A".repeat(468) + "c");
    let parts = [(format!(r#"{{"g":{{"{one}":1}}}}"#), NONE), (format!(r#"{{"g":{{"{other}":1}}}}"#), NONE)];
    let parts: Vec<_> = parts.iter().map(|(part, range)| (part.as_str(), *range)).collect();
    assert_eq!(merged(&parts, false, 9), format!(r#"{{"g":{{"{other}":2}}}}"#));
}

#[test]
fn a_value_is_spelt_as_most_documents_of_a_node_that_spells_it_so() {
    let parts = [(r#"{"g":{"ABC":2}}"#, NONE), (r#"{"g":{"Abc":3}}"#, NONE), (r#"{"g":{"abc":1}}"#, NONE)];
    let turned: Vec<_> = parts.iter().rev().copied().collect();
    assert_eq!(merged(&parts, false, 9), r#"{"g":{"Abc":6}}"#);
    assert_eq!(merged(&turned, false, 9), r#"{"g":{"Abc":6}}"#);
    let even = [(r#"{"g":{"b":1}}"#, NONE), (r#"{"g":{"B":1}}"#, NONE)];
    assert_eq!(merged(&even, true, 9), r#"{"g":{"B":2}}"#);
}

#[test]
fn of_one_count_the_last_comes_first() {
    let parts = [(r#"{"g":{"a":1,"c":1,"b":2}}"#, NONE), (r#"{"g":{"d":1,"b":1}}"#, NONE)];
    assert_eq!(merged(&parts, true, 3), r#"{"g":{"b":3,"d":1,"c":1}}"#);
}

#[test]
fn counts_are_added_up() {
    let parts =
        [(r#"{"genre":{"a":1,"b":5},"empty":{}}"#, NONE), (r#"{"genre":{"b":1,"c":9},"empty":{}}"#, NONE)];
    assert_eq!(merged(&parts, false, 100), r#"{"empty":{},"genre":{"a":1,"b":6,"c":9}}"#);
    assert_eq!(merged(&parts, true, 2), r#"{"empty":{},"genre":{"c":9,"b":6}}"#);
}

#[test]
fn the_tag_is_no_facet() {
    let parts = [(r#"{"_miroir_shard":{",,,":3},"genre":{"a":1}}"#, NONE)];
    assert_eq!(merged(&parts, false, 100), r#"{"genre":{"a":1}}"#);
}

#[test]
fn statistics_span_all() {
    let parts =
        [r#"{"p":{"min":1.5,"max":3.0}}"#, r#"{"p":{"min":2.0,"max":7.0},"q":{"min":0.0,"max":0.0}}"#];
    let parts: Vec<&RawValue> = parts.iter().map(|part| serde_json::from_str(part).unwrap()).collect();
    assert_eq!(
        Value::Object(merge_stats(&parts, None)),
        json!({"p":{"min":1.5,"max":7.0},"q":{"min":0.0,"max":0.0}})
    );
}
