//! Facet distributions and statistics of several nodes, as one.

use super::values::normalized;
use crate::{
    json::{RawObject, write_string},
    shard::TAG_FIELD,
};
use serde_json::{Map, Value, value::RawValue};
use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{BTreeMap, HashSet},
};

/// Up to so many candidates Meilisearch counts document by document, and orders numbers as text; above, by value.
///
/// Source: Meilisearch 1.50, `milli/src/search/facet/facet_distribution.rs`.
const COUNTED_BY_DOCUMENT: u64 = 3_000;

/// One facet over all nodes.
#[derive(Default)]
struct Facet<'a> {
    /// By normalised name.
    values: BTreeMap<String, FacetCount<'a>>,
    /// A node has counted numbers by value.
    by_value: bool,
}

/// One value: how it is spelt, its number where it is one, and its count.
struct FacetCount<'a> {
    name: Cow<'a, str>,
    number: Option<f64>,
    count: u64,
}

/// How the values of one facet are ordered and cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FacetOrder {
    /// By count, most first; else by name.
    pub by_count: bool,
    /// Numbers and strings together, by the bytes of the name where it is by name: as values of several indexes are merged.
    pub together: bool,
    /// The most values to show.
    pub limit: usize,
}

/// Adds up the counts of each value, and writes them in the order asked for, without the facet `hidden`.
///
/// `stats` are the merged statistics: they tell which facets have numbers. `candidates` is how many documents are counted,
/// as far as that is known.
pub fn merge_distributions(
    parts: &[&RawValue],
    stats: &Map<String, Value>,
    candidates: u64,
    hidden: Option<&str>,
    order: impl Fn(&str) -> FacetOrder,
    out: &mut Vec<u8>,
) {
    let mut facets: BTreeMap<Cow<'_, str>, Facet<'_>> = BTreeMap::new();
    for part in parts {
        let Ok(RawObject(members)) = serde_json::from_str(part.get()) else { continue };
        for (facet, values) in members {
            if facet == TAG_FIELD || Some(&*facet) == hidden {
                continue;
            }
            let stats = stats.get(&*facet);
            let Ok(RawObject(values)) = serde_json::from_str(values.get()) else { continue };
            facets.entry(facet).or_default().add(values, stats);
        }
    }
    out.push(b'{');
    for (position, (name, facet)) in facets.into_iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        write_string(&name, out);
        out.push(b':');
        let order = order(&name);
        facet.write(order, candidates, out);
    }
    out.push(b'}');
}

impl<'a> Facet<'a> {
    /// Adds a node's counts.
    fn add(&mut self, values: Vec<(Cow<'a, str>, &'a RawValue)>, stats: Option<&Value>) {
        let mut last: Option<String> = None;
        for (name, count) in values {
            let count = serde_json::from_str::<u64>(count.get()).unwrap_or(0);
            let number = stats.and_then(|stats| number(&name, stats));
            if number.is_some() {
                self.by_value |= last.as_deref().is_some_and(|last| last > &*name);
                last = Some(name.to_string());
            }
            let value = self.values.entry(normalized(&name));
            value.or_insert(FacetCount { name, number, count: 0 }).count += count;
        }
    }

    fn write(self, order: FacetOrder, candidates: u64, out: &mut Vec<u8>) {
        // Most documents have no more than one value: the sum says how many are counted at least.
        let sum = self.values.values().map(|value| value.count).fold(0, u64::saturating_add);
        let by_value = order.by_count || self.by_value || candidates.max(sum) > COUNTED_BY_DOCUMENT;
        let (mut numbers, mut strings): (Vec<_>, Vec<_>) =
            self.values.into_iter().partition(|(_, value)| value.number.is_some() && !order.together);
        if order.together {
            strings.sort_by(|(_, one), (_, other)| one.name.cmp(&other.name));
        } else if by_value {
            let number = |value: &FacetCount<'_>| value.number.unwrap_or_default();
            numbers.sort_by(|(_, one), (_, other)| number(one).total_cmp(&number(other)));
        }
        if order.by_count {
            // Of values with one count Meilisearch's heap gives the last first, as far as its tree of values shows them.
            for values in [&mut numbers, &mut strings] {
                values.reverse();
                values.sort_by_key(|(_, value)| Reverse(value.count));
            }
        }
        let shown = numbers.len().min(order.limit);
        // Where numbers are counted by value and fill the limit, Meilisearch misses it for the strings.
        let unlimited = by_value && !order.together && shown == order.limit;
        let left = if unlimited { usize::MAX } else { order.limit - shown };
        let shown = numbers.into_iter().take(shown).chain(strings.into_iter().take(left));
        out.push(b'{');
        for (position, (_, FacetCount { name, count, .. })) in shown.enumerate() {
            if position > 0 {
                out.push(b',');
            }
            write_string(&name, out);
            out.extend_from_slice(format!(":{count}").as_bytes());
        }
        out.push(b'}');
    }
}

/// The number that a name stands for, if it is one: written as Meilisearch writes numbers, and in the facet's range.
fn number(name: &str, stats: &Value) -> Option<f64> {
    let number: f64 = name.parse().ok()?;
    let within = stats.get("min")?.as_f64()? <= number && number <= stats.get("max")?.as_f64()?;
    (within && number.to_string() == name).then_some(number)
}

/// The smallest `min` and the largest `max` of each facet, as they were written.
pub fn merge_stats(parts: &[&RawValue], hidden: Option<&str>) -> Map<String, Value> {
    let mut merged: BTreeMap<String, (Value, Value)> = BTreeMap::new();
    for part in parts {
        let Ok(stats) = serde_json::from_str::<Map<String, Value>>(part.get()) else { continue };
        for (facet, stat) in stats {
            if facet == TAG_FIELD || Some(&*facet) == hidden {
                continue;
            }
            let (Some(min), Some(max)) = (stat.get("min"), stat.get("max")) else { continue };
            let entry = merged.entry(facet).or_insert_with(|| (min.clone(), max.clone()));
            if min.as_f64() < entry.0.as_f64() {
                entry.0 = min.clone();
            }
            if max.as_f64() > entry.1.as_f64() {
                entry.1 = max.clone();
            }
        }
    }
    merged
        .into_iter()
        .map(|(facet, (min, max))| (facet, serde_json::json!({ "min": min, "max": max })))
        .collect()
}

/// How often a value of this facet is told by a part that is not the first to tell it.
pub fn repeated_values(parts: &[&RawValue], facet: &str) -> u64 {
    let mut seen: HashSet<Cow<'_, str>> = HashSet::new();
    let mut repeated = 0;
    for part in parts {
        let Ok(facets) = serde_json::from_str::<RawObject<'_>>(part.get()) else { continue };
        let Some(RawObject(values)) = facets.read(facet) else { continue };
        repeated += values.into_iter().map(|(value, _)| u64::from(!seen.insert(value))).sum::<u64>();
    }
    repeated
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn merged(parts: &[&str], by_count: bool, limit: usize) -> String {
        let parts: Vec<&RawValue> = parts.iter().map(|part| serde_json::from_str(part).unwrap()).collect();
        let mut out = Vec::new();
        let order = |_: &str| FacetOrder { by_count, together: false, limit };
        let stats = json!({"n": {"min": -5.0, "max": 1000.0}});
        merge_distributions(&parts, stats.as_object().unwrap(), 10, None, order, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn numbers_come_first_as_text_or_by_value() {
        let by_text = [r#"{"n":{"-2":1,"10":1,"9":1,"-x":1,"5 x":1}}"#, r#"{"n":{"10":1,"2":1,"a":1}}"#];
        assert_eq!(merged(&by_text, false, 5), r#"{"n":{"-2":1,"10":2,"2":1,"9":1,"-x":1}}"#);
        // One node has counted so many documents that it has counted by value.
        let by_value = [r#"{"n":{"-2":1,"9":1,"10":1,"-x":1,"5 x":1}}"#, r#"{"n":{"10":1,"2":1,"a":1}}"#];
        assert_eq!(merged(&by_value, false, 6), r#"{"n":{"-2":1,"2":1,"9":1,"10":2,"-x":1,"5 x":1}}"#);
        assert_eq!(merged(&by_value, false, 2), r#"{"n":{"-2":1,"2":1,"-x":1,"5 x":1,"a":1}}"#);
        let many = [r#"{"n":{"10":2000,"9":1}}"#, r#"{"n":{"10":2000}}"#];
        assert_eq!(merged(&many, false, 5), r#"{"n":{"9":1,"10":4000}}"#);
    }

    #[test]
    fn of_one_count_the_last_comes_first() {
        let parts = [r#"{"g":{"a":1,"c":1,"b":2}}"#, r#"{"g":{"d":1,"b":1}}"#];
        assert_eq!(merged(&parts, true, 3), r#"{"g":{"b":3,"d":1,"c":1}}"#);
    }

    #[test]
    fn counts_are_added_up() {
        let parts = [r#"{"genre":{"a":1,"b":5},"empty":{}}"#, r#"{"genre":{"b":1,"c":9},"empty":{}}"#];
        assert_eq!(merged(&parts, false, 100), r#"{"empty":{},"genre":{"a":1,"b":6,"c":9}}"#);
        assert_eq!(merged(&parts, true, 2), r#"{"empty":{},"genre":{"c":9,"b":6}}"#);
    }

    #[test]
    fn the_tag_is_no_facet() {
        let parts = [r#"{"_miroir_shard":{",,,":3},"genre":{"a":1}}"#];
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
}
