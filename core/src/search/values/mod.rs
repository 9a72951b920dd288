//! The values by which Meilisearch sorts, counts and deduplicates documents: numbers, and strings without case.
//!
//! Source: Meilisearch 1.50, `milli/src/lib.rs` (`normalize_facet`) and `update/new/extract/faceted/facet_document.rs`.

pub mod document_id;
pub mod document_values;

use crate::json::RawObject;
use serde_json::{Value, value::RawValue};
use std::cmp::Ordering;
use unicode_normalization::UnicodeNormalization;

/// The most bytes that nodes keep of a normalized string.
///
/// Source: Meilisearch 1.50, `MAX_FACET_VALUE_LENGTH` in `milli/src/lib.rs`.
const LONGEST: usize = 468;

/// A value as Meilisearch compares it.
#[derive(Clone, Debug, PartialEq)]
pub enum FacetValue {
    /// A number.
    Number(f64),
    /// A normalized string.
    Text(String),
}

impl FacetValue {
    /// The value of a JSON scalar; a boolean becomes its name. `None` for null, arrays and objects.
    #[must_use]
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => number.as_f64().map(Self::Number),
            Value::String(text) => Some(Self::Text(normalized(text))),
            Value::Bool(flag) => Some(Self::Text(flag.to_string())),
            _ => None,
        }
    }

    /// Whether documents are sorted by this value. Only `distinct` uses the empty string.
    #[must_use]
    pub fn sorts(&self) -> bool {
        !matches!(self, Self::Text(text) if text.is_empty())
    }

    /// Orders numbers before strings in both directions.
    #[must_use]
    pub fn compare(&self, other: &Self, ascending: bool) -> Ordering {
        match (self, other) {
            (Self::Number(one), Self::Number(two)) => directed(one.total_cmp(two), ascending),
            (Self::Text(one), Self::Text(two)) => directed(one.cmp(two), ascending),
            (Self::Number(_), Self::Text(_)) => Ordering::Less,
            (Self::Text(_), Self::Number(_)) => Ordering::Greater,
        }
    }

    /// A text that is equal only for equal values.
    #[must_use]
    pub fn key(&self) -> String {
        match self {
            // Adding 0.0 makes both zeros one value.
            Self::Number(number) => format!("n{}", number + 0.0),
            Self::Text(text) => format!("t{text}"),
        }
    }
}

/// Normalizes a string: compatibility decomposition, lower case, without outer white space, cut to the length that nodes keep;
/// accents stay.
#[must_use]
pub fn normalized(text: &str) -> String {
    let text = text.trim();
    let mut text = if text.is_ascii() {
        text.to_ascii_lowercase()
    } else {
        text.nfkd().collect::<String>().to_lowercase()
    };
    text.truncate(text.floor_char_boundary(LONGEST));
    text
}

/// A normalized string without its accents, which orders the values in a facet search.
#[must_use]
pub fn without_marks(text: &str) -> String {
    text.chars().filter(|letter| !unicode_normalization::char::is_combining_mark(*letter)).collect()
}

/// The ordering, or its reverse.
#[must_use]
pub fn directed(ordering: Ordering, ascending: bool) -> Ordering {
    if ascending { ordering } else { ordering.reverse() }
}

/// All values of a document at a dotted path, inside objects and arrays.
#[must_use]
pub fn values_at(document: &RawObject<'_>, path: &str) -> Vec<FacetValue> {
    let mut values = Vec::new();
    for (name, value) in &document.0 {
        match path.strip_prefix(name.as_ref()) {
            Some("") => collect(value, "", &mut values),
            Some(rest) if rest.starts_with('.') => collect(value, rest.trim_start_matches('.'), &mut values),
            _ => {}
        }
    }
    values
}

fn collect(raw: &RawValue, path: &str, values: &mut Vec<FacetValue>) {
    if let Ok(value) = serde_json::from_str::<Value>(raw.get()) {
        collect_value(&value, path, values);
    }
}

/// The recursion is bounded: [`serde_json`] parses no deeper than 128 levels.
fn collect_value(value: &Value, path: &str, values: &mut Vec<FacetValue>) {
    match value {
        Value::Array(members) => members.iter().for_each(|member| collect_value(member, path, values)),
        Value::Object(members) => {
            for (name, value) in members {
                match path.strip_prefix(name.as_str()) {
                    Some("") => collect_value(value, "", values),
                    Some(rest) if rest.starts_with('.') => {
                        collect_value(value, rest.trim_start_matches('.'), values);
                    }
                    _ => {}
                }
            }
        }
        scalar if path.is_empty() => values.extend(FacetValue::of(scalar)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn at(document: &str, path: &str) -> Vec<String> {
        let document: RawObject<'_> = serde_json::from_str(document).unwrap();
        values_at(&document, path).iter().map(FacetValue::key).collect()
    }

    #[test]
    fn values_are_found_in_objects_and_arrays() {
        let document = r#"{"a":{"b":[1,"X",null,true,{"c":3}]},"a.b":2,"d":[{"e":1},{"e":[2,3]}],"ab":9}"#;
        assert_eq!(at(document, "a.b"), ["n1", "tx", "ttrue", "n2"]);
        assert_eq!(at(document, "a.b.c"), ["n3"]);
        assert_eq!(at(document, "d.e"), ["n1", "n2", "n3"]);
        assert_eq!(at(document, "a"), [""; 0]);
    }

    #[test]
    fn case_and_forms_are_normalised_and_accents_stay() {
        assert_eq!(normalized("  École ﬁ "), "e\u{301}cole fi");
        assert_ne!(normalized("ecole"), normalized("école"));
        assert_eq!(normalized("ABC"), "abc");
    }

    #[test]
    fn long_texts_are_cut_between_letters() {
        assert_eq!(normalized(&"A".repeat(500)), "a".repeat(468));
        assert_eq!(normalized(&format!("a{}", "\u{4e00}".repeat(200))).len(), 1 + 155 * 3);
        assert!(!FacetValue::Text(String::new()).sorts() && FacetValue::Number(0.0).sorts());
    }
}
