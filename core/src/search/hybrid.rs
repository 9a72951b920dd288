//! Hybrid searches: merges keyword and semantic answers, and decides over all nodes which of them are needed.
//!
//! One node searches by keywords first. If these hits are good enough, it returns only them; if not, it also searches by the
//! vector, and merges both lists by score. A node needs nothing from other nodes for its merge, so the nodes' merged lists are
//! merged once more here. The decision needs the hits of all nodes: if it is open, nodes are also asked for their keyword hits.
//! Source: Meilisearch 1.50, `milli/src/search/hybrid.rs` and `meilisearch/src/routes/indexes/search.rs` (`search_kind`).

use super::{
    hit_order::rank::Weighted,
    hits::{answer::Hit, fields::SCORE},
};
use serde_json::{Map, Value, value::RawValue};
use std::{cmp::Ordering, collections::BTreeMap};

/// No semantic hits are needed if all keyword hits' scores, multiplied by the share of the keywords, reach this.
const GOOD_ENOUGH: f64 = 0.45;

/// Meilisearch's default for `semanticRatio`.
const DEFAULT_RATIO: f32 = 0.5;

/// A search by keywords and by a vector.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Hybrid {
    /// The weight of semantic scores, between 0 and 1 exclusive.
    ratio: f32,
}

impl Hybrid {
    /// Parses the parameters; `None` for a search by keywords only, or by a vector only.
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

    /// Whether these keyword hits need no semantic ones; `wanted` is the number of requested hits.
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

    /// Compares two hits by score; `None` if both come from the same search, so that their ranks decide.
    #[must_use]
    pub fn compare(self, one: &Hit<'_>, other: &Hit<'_>) -> Option<Ordering> {
        if one.rank().is_semantic() == other.rank().is_semantic() {
            return None;
        }
        self.mixed(one).compare(&self.mixed(other))
    }

    /// The value by which [`Self::compare`] compares a hit.
    #[must_use]
    pub fn mixed(self, hit: &Hit<'_>) -> Mixed {
        let semantic = hit.rank().is_semantic();
        let share = if semantic { self.ratio } else { 1.0 - self.ratio };
        let details = hit.details();
        let values = details.map(|details| Weighted::of_source(details, f64::from(share), score(hit)));
        Mixed { semantic, values: values.unwrap_or_default() }
    }

    /// The fewest hits to ask a node for, so that it finds these keyword hits not good enough. Not all of them are.
    #[must_use]
    pub fn least(self, keywords: &[Hit<'_>]) -> u64 {
        let bad = keywords.iter().position(|hit| self.keyword_score(score(hit)) < GOOD_ENOUGH);
        bad.unwrap_or(keywords.len()) as u64 + 1
    }
}

/// The value that orders a hit among the hits of the other search.
#[derive(Clone, Debug)]
pub struct Mixed {
    semantic: bool,
    values: Vec<Weighted>,
}

impl Mixed {
    /// Which hit goes first; `None` if both come from the same search.
    #[must_use]
    pub fn compare(&self, other: &Self) -> Option<Ordering> {
        // If both are equal, the semantic hit goes first.
        let semantic_first = other.semantic.cmp(&self.semantic);
        semantic_first.is_ne().then(|| compare_values(&self.values, &other.values).then(semantic_first))
    }
}

/// Compares score values as milli does: a score goes before a value that is not a score, unless the score is 0.
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
    hit.fields.last(SCORE).and_then(|score| serde_json::from_str(score.get()).ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        search::{
            query::{IndexQuery, Merged},
            request::SearchRequest,
        },
        shard::Shard,
        topology::IndexConfig,
    };
    use serde_json::json;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn query(body: &Value) -> IndexQuery {
        let request = SearchRequest::from_body(body.to_string().as_bytes()).unwrap();
        IndexQuery::new("movies".into(), IndexConfig::default(), request)
    }

    fn answer(hits: &[Value], semantic: u64) -> String {
        json!({"hits": hits, "query": "q", "queryVector": [1.0], "processingTimeMs": 1, "limit": 2, "offset": 0,
               "estimatedTotalHits": hits.len() * 10, "semanticHitCount": semantic})
        .to_string()
    }

    fn word(id: u64, score: f64) -> Value {
        json!({"id": id, "_rankingScore": score,
               "_rankingScoreDetails": {"proximity": {"order": 0, "score": score}}})
    }

    fn near(id: u64, score: f64) -> Value {
        json!({"id": id, "_rankingScore": score,
               "_rankingScoreDetails": {"vectorSort": {"order": 0, "similarity": score}}})
    }

    fn bytes(list: &[String]) -> Vec<&[u8]> {
        list.iter().map(String::as_bytes).collect()
    }

    fn merged(query: &IndexQuery, own: &[String], keywords: &[String]) -> Option<Value> {
        match query.merge(&bytes(own), &bytes(keywords), &[]).unwrap() {
            Merged::Body(body) => Some(serde_json::from_slice(&body).unwrap()),
            Merged::Instead(_) => None,
        }
    }

    fn ids(answer: &Value) -> Vec<u64> {
        answer["hits"].as_array().unwrap().iter().map(|hit| hit["id"].as_u64().unwrap()).collect()
    }

    #[test]
    fn keywords_are_asked_for_only_where_they_can_be_good_enough() {
        let asked = |body: Value| query(&body).for_shards(&[Shard(0)]).len();
        let hybrid = |ratio: f64| json!({"q": "a", "vector": [1], "hybrid": {"embedder": "e", "semanticRatio": ratio}});
        assert_eq!([0.0, 0.1, 0.5, 0.55, 0.6, 1.0].map(|ratio| asked(hybrid(ratio))), [1, 2, 2, 1, 1, 1]);
        assert_eq!(asked(json!({"q": "a", "hybrid": {"embedder": "e"}})), 2, "the ratio is 0.5");
        assert_eq!(asked(json!({"q": " ", "vector": [1], "hybrid": {"embedder": "e"}})), 1);
        assert_eq!(asked(json!({"vector": [1], "hybrid": {"embedder": "e"}})), 1);
        assert_eq!(asked(json!({"q": "a"})), 1);
        let bodies = query(&hybrid(0.5)).for_shards(&[Shard(0)]);
        let [own, keywords] = [0, 1].map(|at| serde_json::from_slice::<Value>(&bodies[at]).unwrap());
        assert_eq!(own["hybrid"]["semanticRatio"], 0.5);
        assert_eq!((&keywords["hybrid"], &keywords["vector"]), (&Value::Null, &Value::Null));
        assert_eq!(own["showRankingScore"], true);
    }

    #[test]
    fn good_keyword_hits_of_all_nodes_together_need_no_semantic_ones() {
        let query = query(&json!({"q": "a", "limit": 2, "hybrid": {"embedder": "e"}}));
        // Neither node has two good hits, but both together have.
        let own = [answer(&[near(9, 0.99), word(1, 0.95)], 1), answer(&[near(8, 0.98), word(2, 0.96)], 1)];
        let keywords = [answer(&[word(1, 0.95)], 0), answer(&[word(2, 0.96)], 0)];
        let answer = merged(&query, &own, &keywords).unwrap();
        assert_eq!(ids(&answer), [2, 1]);
        assert_eq!((&answer["semanticHitCount"], &answer["estimatedTotalHits"]), (&json!(0), &json!(20)));
        assert_eq!(
            (&answer["queryVector"], &answer["hits"][0]["_rankingScore"]),
            (&Value::Null, &Value::Null)
        );
    }

    #[test]
    fn else_hits_are_mixed_by_their_shares() {
        let body = json!({"q": "a", "limit": 3, "showRankingScore": true,
                          "hybrid": {"embedder": "e", "semanticRatio": 0.4}});
        let own = [
            answer(&[word(1, 0.9), near(2, 0.8), near(3, 0.7)], 2),
            answer(&[near(4, 0.75), word(5, 0.4)], 1),
        ];
        let keywords = [answer(&[word(1, 0.9)], 0), answer(&[word(5, 0.4)], 0)];
        let answer = merged(&query(&body), &own, &keywords).unwrap();
        assert_eq!(ids(&answer), [1, 2, 4]);
        assert_eq!((&answer["semanticHitCount"], &answer["estimatedTotalHits"]), (&json!(2), &json!(50)));
        assert_eq!(answer["hits"][0]["_rankingScore"], 0.9);
        assert_eq!(answer["queryVector"], json!([1.0]));
    }

    #[test]
    fn a_node_that_decided_otherwise_is_asked_again() {
        let sorted = |id: u64, rank: u64, score: f64| {
            json!({"id": id, "_rankingScore": score,
                   "_rankingScoreDetails": {"rank:asc": {"order": 0, "value": rank},
                                            "words": {"order": 1, "score": score}}})
        };
        let query = query(&json!({"q": "a", "limit": 1, "hybrid": {"embedder": "e"}}));
        let own = [answer(&[sorted(1, 5, 0.95)], 0), answer(&[sorted(2, 3, 0.2)], 0)];
        assert!(merged(&query, &own, &own).is_none());
        match query.merge(&bytes(&own), &bytes(&own), &[]) {
            Ok(Merged::Instead(again)) => {
                let bodies = again.for_shards(&[Shard(0)]);
                assert_eq!(bodies.len(), 1);
                assert_eq!(serde_json::from_slice::<Value>(&bodies[0]).unwrap()["limit"], 1000);
            }
            other => panic!("{other:?}"),
        }
    }
}
