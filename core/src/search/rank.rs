//! Whether one hit goes before another: the ranking rules' values, from `_rankingScoreDetails`.
//!
//! Nodes are compared by counts where the details give counts, since the scores' denominators are a node's own.
//! Nothing here is a list of rules: a rule is known by the shape of its details, so new rules work.
//! Source: Meilisearch 1.50, `milli/src/score_details.rs`.

use serde_json::{Map, Value};
use std::cmp::Ordering;

/// What all ranking rules say of one hit, first rule first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rank(Vec<Rule>);

/// One rule's value.
#[derive(Clone, Debug, PartialEq)]
enum Rule {
    /// More is better, first number first.
    Scores(Vec<f64>),
    /// A sort on an attribute.
    Sort { ascending: bool, value: SortValue },
    /// A sort on a distance, in metres; a document without a place comes last.
    Distance { ascending: bool, metres: Option<f64> },
}

/// What a document is sorted by: numbers before strings, missing last, in both directions.
#[derive(Clone, Debug, PartialEq)]
enum SortValue {
    Number(f64),
    Text(String),
    Missing,
}

impl Rank {
    /// Reads a hit's `_rankingScoreDetails`. What is not understood counts as equal.
    #[must_use]
    pub fn from_details(details: &Map<String, Value>) -> Self {
        let mut rules: Vec<(u64, Rule)> = details
            .iter()
            .filter_map(|(name, detail)| {
                let detail = detail.as_object()?;
                let order = detail.get("order")?.as_u64()?;
                Some((order, Rule::read(name, detail)))
            })
            .collect();
        rules.sort_by_key(|(order, _)| *order);
        Self(rules.into_iter().map(|(_, rule)| rule).collect())
    }

    /// `Less` where this hit goes first; `Equal` where no rule tells.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        self.0
            .iter()
            .zip(&other.0)
            .map(|(one, other)| one.compare(other))
            .find(|ordering| ordering.is_ne())
            .unwrap_or(Ordering::Equal)
    }
}

impl Rule {
    fn read(name: &str, detail: &Map<String, Value>) -> Self {
        let number = |key: &str| detail.get(key).and_then(Value::as_f64);
        let ascending = name.ends_with(":asc");
        if detail.contains_key("distance") {
            return Self::Distance { ascending, metres: number("distance") };
        }
        if let Some(value) = detail.get("value") {
            return Self::Sort { ascending, value: SortValue::read(value) };
        }
        if name == "skipped" {
            return Self::Scores(vec![f64::NEG_INFINITY]);
        }
        let matched = |kind: &Value| match kind.as_str() {
            Some("exactMatch") => 2.0,
            Some("matchesStart") => 1.0,
            _ => 0.0,
        };
        let parts = [
            number("typoCount").map(|typos| -typos),
            detail.get("matchType").map(matched),
            number("matchingWords"),
            number("attributeRankingOrderScore"),
            number("queryWordDistanceScore"),
            number("similarity"),
        ];
        let scores: Vec<f64> = parts.into_iter().flatten().collect();
        if scores.is_empty() {
            Self::Scores(number("score").into_iter().collect())
        } else {
            Self::Scores(scores)
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Scores(one), Self::Scores(two)) => {
                let mut differing = one.iter().zip(two).map(|(one, two)| two.total_cmp(one));
                differing.find(|ordering| ordering.is_ne()).unwrap_or(Ordering::Equal)
            }
            (Self::Sort { ascending, value: one }, Self::Sort { value: two, .. }) => {
                one.compare(two, *ascending)
            }
            (Self::Distance { ascending, metres: one }, Self::Distance { metres: two, .. }) => {
                match (one, two) {
                    (Some(one), Some(two)) => directed(one.total_cmp(two), *ascending),
                    (one, two) => two.is_some().cmp(&one.is_some()),
                }
            }
            _ => Ordering::Equal,
        }
    }
}

impl SortValue {
    fn read(value: &Value) -> Self {
        match value {
            Value::Number(number) => Self::Number(number.as_f64().unwrap_or(f64::NAN)),
            // Facet strings are compared without case and outer white space.
            Value::String(text) => Self::Text(text.trim().to_lowercase()),
            _ => Self::Missing,
        }
    }

    fn compare(&self, other: &Self, ascending: bool) -> Ordering {
        match (self, other) {
            (Self::Number(one), Self::Number(two)) => directed(one.total_cmp(two), ascending),
            (Self::Text(one), Self::Text(two)) => directed(one.cmp(two), ascending),
            _ => self.kind().cmp(&other.kind()),
        }
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Number(_) => 0,
            Self::Text(_) => 1,
            Self::Missing => 2,
        }
    }
}

fn directed(ordering: Ordering, ascending: bool) -> Ordering {
    if ascending { ordering } else { ordering.reverse() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn rank(details: Value) -> Rank {
        Rank::from_details(details.as_object().unwrap())
    }

    fn sorted(name: &str, values: [Value; 5]) -> Vec<Value> {
        let mut values = values.to_vec();
        values.sort_by(|one, two| {
            rank(json!({name: {"order": 0, "value": one}}))
                .compare(&rank(json!({name: {"order": 0, "value": two}})))
        });
        values
    }

    #[test]
    fn rules_count_in_their_order() {
        let words = |words: u32, typos: u32| {
            rank(json!({
                "typo": {"order": 1, "typoCount": typos, "maxTypoCount": 4, "score": 0.5},
                "words": {"order": 0, "matchingWords": words, "maxMatchingWords": 3, "score": 0.1},
            }))
        };
        assert_eq!(words(3, 2).compare(&words(2, 0)), Ordering::Less);
        assert_eq!(words(3, 0).compare(&words(3, 1)), Ordering::Less);
        assert_eq!(words(3, 1).compare(&words(3, 1)), Ordering::Equal);
    }

    #[test]
    fn exactness_and_attributes_compare_part_by_part() {
        let exact = |kind: &str| rank(json!({"exactness": {"order": 0, "matchType": kind, "score": 0.1}}));
        assert_eq!(exact("exactMatch").compare(&exact("matchesStart")), Ordering::Less);
        assert_eq!(exact("noExactMatch").compare(&exact("matchesStart")), Ordering::Greater);
        let attribute = |order: f64, distance: f64| {
            rank(json!({"attribute": {"order": 0, "attributeRankingOrderScore": order,
                                      "queryWordDistanceScore": distance, "score": 0.0}}))
        };
        assert_eq!(attribute(1.0, 0.1).compare(&attribute(0.9, 1.0)), Ordering::Less);
        assert_eq!(attribute(1.0, 0.1).compare(&attribute(1.0, 0.2)), Ordering::Greater);
        let unknown = |score: f64| rank(json!({"futureRule": {"order": 0, "score": score}}));
        assert_eq!(unknown(0.9).compare(&unknown(0.8)), Ordering::Less);
    }

    #[test]
    fn sorts_put_numbers_before_strings_and_missing_last() {
        let values = || [json!("b"), json!(null), json!(10), json!("A"), json!(9)];
        assert_eq!(sorted("x:asc", values()), [json!(9), json!(10), json!("A"), json!("b"), json!(null)]);
        assert_eq!(sorted("x:desc", values()), [json!(10), json!(9), json!("b"), json!("A"), json!(null)]);
    }

    #[test]
    fn distances_are_directed_and_missing_places_are_last() {
        let at = |direction: &str, metres: Value| {
            rank(
                json!({format!("_geoPoint(1, 2):{direction}"): {"order": 0, "value": null, "distance": metres}}),
            )
        };
        assert_eq!(at("asc", json!(5)).compare(&at("asc", json!(9))), Ordering::Less);
        assert_eq!(at("desc", json!(5)).compare(&at("desc", json!(9))), Ordering::Greater);
        assert_eq!(at("desc", json!(null)).compare(&at("desc", json!(9))), Ordering::Greater);
    }
}
