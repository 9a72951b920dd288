//! Hybrid searches: keyword and semantic answers as one, decided over all nodes.
//!
//! One node searches by keywords first. Where these hits are good enough it gives them alone; else it searches by the
//! vector too, and merges both lists by score. Merging needs nothing from other nodes, so the nodes' own merged lists are
//! merged once more here. The decision needs all of them: where it is open, nodes are asked for their keyword hits too.
//! Source: Meilisearch 1.50, `milli/src/search/hybrid.rs` and `meilisearch/src/routes/indexes/search.rs` (`search_kind`).

use super::{answer::Hit, rank::Weighted};
use serde_json::{Map, Value, value::RawValue};
use std::{cmp::Ordering, collections::BTreeMap};

/// Keyword hits whose scores times the keywords' share reach this need no semantic ones.
const GOOD_ENOUGH: f64 = 0.45;

/// Meilisearch's `semanticRatio` where none is given.
const DEFAULT_RATIO: f32 = 0.5;

/// A search by keywords and by a vector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hybrid {
    /// The share of the semantic scores, between 0 and 1, both excluded.
    ratio: f32,
}

impl Hybrid {
    /// Whether these parameters ask for both; `None` for a search by keywords only, or by a vector only.
    #[must_use]
    pub fn of(parameters: &BTreeMap<String, Box<RawValue>>) -> Option<Self> {
        let hybrid: Map<String, Value> = serde_json::from_str(parameters.get("hybrid")?.get()).ok()?;
        let ratio = match hybrid.get("semanticRatio") {
            Some(ratio) => ratio.as_f64()? as f32,
            None => DEFAULT_RATIO,
        };
        let text: String = serde_json::from_str(parameters.get("q")?.get()).ok()?;
        (ratio > 0.0 && ratio < 1.0 && !text.trim().is_empty()).then_some(Self { ratio })
    }

    /// Whether keyword hits can be good enough at all.
    #[must_use]
    pub fn is_open(self) -> bool {
        self.keyword_score(1.0) >= GOOD_ENOUGH
    }

    /// Whether these keyword hits, of which `wanted` are asked for, need no semantic ones.
    pub fn good_enough<'a>(
        self,
        wanted: usize,
        mut hits: impl ExactSizeIterator<Item = &'a Hit<'a>>,
    ) -> bool {
        hits.len() >= wanted && hits.all(|hit| self.keyword_score(score(hit)) >= GOOD_ENOUGH)
    }

    fn keyword_score(self, score: f64) -> f64 {
        score * f64::from(1.0 - self.ratio)
    }

    /// Whether one hit goes first, by its score; `None` where both come from the same search, and their ranks decide.
    #[must_use]
    pub fn compare(self, one: &Hit<'_>, other: &Hit<'_>) -> Option<Ordering> {
        if one.rank.is_semantic() == other.rank.is_semantic() {
            return None;
        }
        let values = |hit: &Hit<'_>| {
            let share = if hit.rank.is_semantic() { self.ratio } else { 1.0 - self.ratio };
            let details: Map<String, Value> = hit.fields.read("_rankingScoreDetails").unwrap_or_default();
            Weighted::of_source(&details, f64::from(share), score(hit))
        };
        // Of equal hits the semantic one goes first.
        let semantic_first = other.rank.is_semantic().cmp(&one.rank.is_semantic());
        Some(compare_values(&values(one), &values(other)).then(semantic_first))
    }
}

/// Score values as milli compares them: what is a score goes before what is none, unless it is 0.
fn compare_values(one: &[Weighted], other: &[Weighted]) -> Ordering {
    for (left, right) in one.iter().zip(other) {
        let ordering = match (left.as_score(), right.as_score()) {
            (Some(left), Some(right)) if (left - right).abs() <= f64::EPSILON => Ordering::Equal,
            (Some(left), Some(right)) => right.total_cmp(&left),
            (Some(0.0), None) => Ordering::Greater,
            (None, Some(0.0)) => Ordering::Less,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => left.compare_value(right),
        };
        if ordering.is_ne() {
            return ordering;
        }
    }
    other.len().cmp(&one.len())
}

fn score(hit: &Hit<'_>) -> f64 {
    hit.fields.read("_rankingScore").unwrap_or(0.0)
}
