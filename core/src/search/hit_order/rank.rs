//! Decides whether one hit goes before another, by the ranking rules' values in `_rankingScoreDetails`.
//!
//! If the details give counts, counts are compared, because the denominators of scores differ between nodes. This module has no
//! list of rules: it recognizes a rule by the shape of its details, so new rules work too. Source: Meilisearch 1.50,
//! `milli/src/score_details.rs`.

use super::geo::{Place, compare_distances};
use crate::{
    json::RawObject,
    search::values::{FacetValue, directed},
};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, value::RawValue};
use std::{borrow::Cow, cmp::Ordering, collections::HashMap};

/// The name of the rule for vector searches.
const SIMILARITY: &str = "vectorSort";

/// The start of the name that details give to a sort on an attribute that is not displayed; they do not show its value either.
pub const HIDDEN: &str = "<hidden-rule-";

/// The attributes that hits are sorted by, whether displayed or not, and the values of one hit for them.
#[derive(Clone, Copy, Debug)]
pub struct Sorted<'s> {
    /// Attributes, each with `true` for ascending order, from [`crate::topology::IndexConfig::sorts`].
    pub by: &'s [(String, bool)],
    /// The values, by attribute.
    pub values: &'s HashMap<String, Vec<FacetValue>>,
}

/// The values of all ranking rules for one hit, in the order of the rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rank {
    rules: Vec<Rule>,
    semantic: bool,
}

/// One rule's details.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Detail<'a> {
    order: u64,
    score: Option<f64>,
    typo_count: Option<f64>,
    #[serde(borrow)]
    match_type: Option<&'a RawValue>,
    matching_words: Option<f64>,
    attribute_ranking_order_score: Option<f64>,
    query_word_distance_score: Option<f64>,
    similarity: Option<f64>,
    /// `Some` even if the value is null.
    #[serde(borrow, default, deserialize_with = "present")]
    value: Option<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    distance: Option<&'a RawValue>,
}

/// Deserializes a member that is present, whatever its value.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// One rule's value.
#[derive(Clone, Debug, PartialEq)]
enum Rule {
    /// Numbers of which more is better, compared in order.
    Scores(Vec<f64>),
    /// A sort on an attribute.
    Sort { ascending: bool, value: Option<FacetValue> },
    /// A sort on a distance in metres; a document without a place comes last.
    Distance { ascending: bool, metres: Option<f64> },
}

impl Rank {
    /// Parses a hit's `_rankingScoreDetails`. Rules that cannot be parsed count as equal.
    #[must_use]
    pub fn read(details: &RawValue, sorted: Option<Sorted<'_>>) -> Self {
        let Ok(RawObject(details)) = serde_json::from_str(details.get()) else { return Self::default() };
        let semantic = details.iter().any(|(name, _)| name == SIMILARITY);
        Self { rules: rules(&details, sorted).into_iter().map(|(rule, _)| rule).collect(), semantic }
    }

    /// Whether a vector found the hit.
    #[must_use]
    pub fn is_semantic(&self) -> bool {
        self.semantic
    }

    /// `Less` if this hit goes first; `Equal` if no rule tells the hits apart.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Ordering {
        self.rules
            .iter()
            .zip(&other.rules)
            .map(|(one, other)| one.compare(other))
            .find(|ordering| ordering.is_ne())
            .unwrap_or(Ordering::Equal)
    }
}

/// The rules in these details with their scores, in the order of the rules.
fn rules(details: &[(Cow<'_, str>, &RawValue)], sorted: Option<Sorted<'_>>) -> Vec<(Rule, f64)> {
    let mut rules: Vec<(u64, bool, Rule, f64)> = details
        .iter()
        .filter_map(|(name, detail)| {
            let detail: Detail<'_> = serde_json::from_str(detail.get()).ok()?;
            let score = detail.score.unwrap_or(0.0);
            Some((detail.order, name.starts_with(HIDDEN), Rule::read(name, &detail), score))
        })
        .collect();
    rules.sort_by_key(|(order, ..)| *order);
    let sorts = rules.iter_mut().filter(|(_, _, rule, _)| matches!(rule, Rule::Sort { .. }));
    for ((_, is_hidden, rule, _), (attribute, ascending)) in sorts.zip(sorted.iter().flat_map(|it| it.by)) {
        if *is_hidden {
            let values = sorted.and_then(|sorted| sorted.values.get(attribute)).into_iter().flatten();
            let values = values.filter(|value| value.sorts());
            let value = values.min_by(|one, other| one.compare(other, *ascending)).cloned();
            *rule = Rule::Sort { ascending: *ascending, value };
        }
    }
    rules.into_iter().map(|(_, _, rule, score)| (rule, score)).collect()
}

/// The value by which a federated search compares hits of different queries: scores of groups of rules, and the sorts between
/// the groups.
#[derive(Clone, Debug, PartialEq)]
pub struct Weighted(Rule);

impl Weighted {
    /// The values of a hit with these details, whose score multiplied by `weight` is `score`.
    ///
    /// If all rules except sorts are adjacent, which they are without sorts, their score is exactly the hit's score. If a sort
    /// separates them, Meilisearch multiplies the rules' own numbers, and the details show only their ratios: the scores of the
    /// groups are then approximate.
    #[must_use]
    pub fn of(details: &RawValue, weight: f64, score: f64, sorted: Option<Sorted<'_>>) -> Vec<Self> {
        let Ok(RawObject(details)) = serde_json::from_str(details.get()) else { return Vec::new() };
        let mut weighted: Vec<Self> = Vec::new();
        let mut share = 1.0;
        for (rule, score) in rules(&details, sorted) {
            match (rule, weighted.last_mut()) {
                (Rule::Scores(_), Some(Self(Rule::Scores(sum)))) => {
                    share *= 1e-3;
                    sum.iter_mut().for_each(|sum| *sum += score * weight * share);
                }
                (Rule::Scores(_), _) => {
                    share = 1.0;
                    weighted.push(Self(Rule::Scores(vec![score * weight])));
                }
                (rule, _) => weighted.push(Self(rule)),
            }
        }
        let mut groups = weighted.iter_mut().filter(|Self(rule)| matches!(rule, Rule::Scores(_)));
        if let (Some(Self(group)), None) = (groups.next(), groups.next()) {
            *group = Rule::Scores(vec![score]);
        }
        weighted
    }

    /// The same for comparing hits of a keyword search with those of a vector search. If there are several groups, the first
    /// one gets the whole score: that is closer to its own score than a product of the rules' ratios.
    #[must_use]
    pub fn of_source(details: &RawValue, weight: f64, score: f64) -> Vec<Self> {
        let mut weighted = Self::of(details, weight, score * weight, None);
        if let Some(Self(group)) = weighted.iter_mut().find(|Self(rule)| matches!(rule, Rule::Scores(_))) {
            *group = Rule::Scores(vec![score * weight]);
        }
        weighted
    }

    /// The score, if this value is one.
    #[must_use]
    pub fn as_score(&self) -> Option<f64> {
        match &self.0 {
            Rule::Scores(scores) => scores.first().copied(),
            _ => None,
        }
    }

    /// Compares two sort values.
    #[must_use]
    pub fn compare_value(&self, other: &Self) -> Ordering {
        self.0.compare(&other.0)
    }

    /// `Less` if `one` goes first; `None` if the values cannot be compared and the total score decides.
    #[must_use]
    pub fn compare(one: &[Self], other: &[Self]) -> Option<Ordering> {
        for (position, (Self(left), Self(right))) in one.iter().zip(other).enumerate() {
            let ordering = match (left, right) {
                (Rule::Scores(one), Rule::Scores(two)) => {
                    let close = one.iter().zip(two).all(|(one, two)| (one - two).abs() <= f64::EPSILON);
                    if close { Ordering::Equal } else { left.compare(right) }
                }
                (Rule::Sort { ascending, .. }, Rule::Sort { ascending: same, .. })
                | (Rule::Distance { ascending, .. }, Rule::Distance { ascending: same, .. })
                    if ascending == same =>
                {
                    left.compare(right)
                }
                _ => {
                    let left = |list: &[Self]| list.len() - position;
                    return Some(left(other).cmp(&left(one))).filter(|ordering| ordering.is_ne());
                }
            };
            if ordering.is_ne() {
                return Some(ordering);
            }
        }
        Some(other.len().cmp(&one.len()))
    }
}

impl Rule {
    fn read(name: &str, detail: &Detail<'_>) -> Self {
        let ascending = name.ends_with(":asc");
        let parsed = |raw: Option<&RawValue>| serde_json::from_str::<Value>(raw?.get()).ok();
        if let Some(distance) = detail.distance {
            // The distance in the details is rounded; the place is exact, so the distance is computed from it.
            let place = parsed(detail.value).and_then(|place| {
                let coordinate = |name: &str| place.get(name).and_then(Value::as_f64);
                Some(Place { latitude: coordinate("lat")?, longitude: coordinate("lng")? })
            });
            let from = name.rsplit_once(':').and_then(|(point, _)| Place::of_point(point));
            let exact = place.zip(from).map(|(place, from)| from.distance(place));
            return Self::Distance { ascending, metres: exact.or_else(|| parsed(Some(distance))?.as_f64()) };
        }
        if detail.value.is_some() {
            return Self::Sort {
                ascending,
                // A number that is out of range is like none.
                value: FacetValue::of(&parsed(detail.value).unwrap_or(Value::Null)),
            };
        }
        if name == SIMILARITY {
            // A vector search also finds documents without a vector; they have no similarity.
            return Self::Scores(vec![detail.similarity.unwrap_or(f64::NEG_INFINITY)]);
        }
        if name == "skipped" {
            return Self::Scores(vec![f64::NEG_INFINITY]);
        }
        let matched = |kind: &RawValue| match kind.get() {
            r#""exactMatch""# => 2.0,
            r#""matchesStart""# => 1.0,
            _ => 0.0,
        };
        let parts = [
            detail.typo_count.map(|typos| -typos),
            detail.match_type.map(matched),
            detail.matching_words,
            detail.attribute_ranking_order_score,
            detail.query_word_distance_score,
        ];
        let mut scores: Vec<f64> = parts.into_iter().flatten().collect();
        if scores.is_empty() {
            scores.extend(detail.score);
        }
        Self::Scores(scores)
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Scores(one), Self::Scores(two)) => {
                let mut differing = one.iter().zip(two).map(|(one, two)| two.total_cmp(one));
                differing.find(|ordering| ordering.is_ne()).unwrap_or(Ordering::Equal)
            }
            (Self::Sort { ascending, value: one }, Self::Sort { value: two, .. }) => {
                missing_last(one.as_ref(), two.as_ref(), |one, two| one.compare(two, *ascending))
            }
            (Self::Distance { ascending, metres: one }, Self::Distance { metres: two, .. }) => {
                missing_last(one.as_ref(), two.as_ref(), |one, two| {
                    directed(compare_distances(*one, *two), *ascending)
                })
            }
            _ => Ordering::Equal,
        }
    }
}

/// Compares two values; a missing value comes last.
pub(in crate::search) fn missing_last<T>(
    one: Option<T>,
    other: Option<T>,
    compare: impl FnOnce(T, T) -> Ordering,
) -> Ordering {
    match (one, other) {
        (Some(one), Some(other)) => compare(one, other),
        (one, other) => other.is_some().cmp(&one.is_some()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn rank(details: Value) -> Rank {
        Rank::read(&serde_json::value::to_raw_value(&details).unwrap(), None)
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
