//! Hits that dynamic search rules pin: each node places its own among its hits, and the merge places all of them again.
//!
//! One node processes the actions of all rules one after another, and an action that waits for its position delays the actions
//! after it: an action that is not reached before the end of the page pins nothing. Of the reached actions, the lowest position
//! comes first.
//!
//! Source: Meilisearch 1.50, `merge_positioned_hits_into_page` in `milli/src/search/mod.rs`, and `search/federated/perform.rs`.

use crate::{
    search::{
        hits::{answer::Hit, fields::pinned_position},
        values::document_id::DocumentId,
    },
    topology::{IndexConfig, Pin},
};
use serde_json::Value;
use std::collections::HashMap;

/// The most hits that pins make the gateway ask a node for. A node may pin a hit too late because another of its pinned hits is
/// in the way; with more hits it shows both.
const FARTHEST: u64 = 10_000;

/// The order of a pinned hit among the pinned hits, lowest first: by its position, then by the rule action that pins it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Counted from 0.
    pub position: u64,
    /// The index of the action among the actions of all rules, by precedence; `usize::MAX` if it is not known.
    pub action: usize,
}

/// The rule actions for an index, by what they pin.
#[derive(Debug)]
pub struct Pins<'c> {
    actions: HashMap<(DocumentId, u64), usize>,
    primary_key: Option<&'c str>,
}

impl<'c> Pins<'c> {
    /// The pins of an index; `None` if it has none.
    #[must_use]
    pub fn of(index: &'c IndexConfig) -> Option<Self> {
        (!index.pins.is_empty()).then_some(())?;
        let mut actions = HashMap::with_capacity(index.pins.len());
        for (action, Pin { id, position }) in index.pins.iter().enumerate() {
            if let Some(id) = DocumentId::of_value(&Value::String(id.clone())) {
                actions.entry((id, u64::from(*position))).or_insert(action);
            }
        }
        Some(Self { actions, primary_key: index.primary_key.as_deref() })
    }

    /// The place of a hit; `None` if it is not pinned.
    #[must_use]
    pub fn place(&self, hit: &Hit<'_>) -> Option<Place> {
        let position = pinned_position(hit.details()?)?;
        let id = self.primary_key.and_then(|key| hit.id(key));
        let action = id.and_then(|id| self.actions.get(&(id.clone(), position)).copied());
        Some(Place { position, action: action.unwrap_or(usize::MAX) })
    }
}

/// The fewest hits to ask nodes for so that they show all pinned hits; 0 if the hits of the page are enough, because no action
/// can delay another.
#[must_use]
pub fn reach(index: &IndexConfig) -> u64 {
    let positions = || index.pins.iter().map(|pin| pin.position);
    if positions().is_sorted() {
        return 0;
    }
    let last = positions().max().map_or(0, u64::from);
    last.saturating_add(index.pins.len() as u64).saturating_add(1).min(FARTHEST)
}

/// The first `end` hits, with the pinned ones placed among the others. `pins` must be in the order of their actions.
#[must_use]
pub fn page<T>(mut pins: Vec<(u64, T)>, others: Vec<T>, end: usize, legacy_search: bool) -> Vec<T> {
    if !legacy_search {
        let (mut placed, mut left) = (0, others.len() as u64);
        let come_to = pins.iter().take_while(|(position, _)| {
            let before = position.saturating_sub(placed).min(left);
            left -= before;
            placed += before + 1;
            placed <= end as u64
        });
        let come_to = come_to.count();
        pins.truncate(come_to);
        pins.sort_by_key(|(position, _)| *position);
    }
    among(pins, others, end)
}

/// The first `end` hits, with the pinned ones among the others: each at its position, or after the pinned hits that occupy it,
/// or after the last of the others.
#[must_use]
pub fn among<T>(pins: Vec<(u64, T)>, others: Vec<T>, end: usize) -> Vec<T> {
    let mut placed = Vec::with_capacity(end.min(others.len() + pins.len()));
    let (mut pins, mut others) = (pins.into_iter().peekable(), others.into_iter());
    while placed.len() < end {
        let due = pins.next_if(|(position, _)| *position <= placed.len() as u64);
        let next = due.map(|(_, hit)| hit).or_else(|| others.next());
        let Some(hit) = next.or_else(|| pins.next().map(|(_, hit)| hit)) else { break };
        placed.push(hit);
    }
    placed
}

/// Takes the pinned hits out of the lists, ordered by `key`; equal keys keep their order.
pub fn take<T: Copy, K: Ord>(lists: &mut [Vec<T>], key: impl Fn(&T) -> Option<(u64, K)>) -> Vec<(u64, T)> {
    let mut pins = Vec::new();
    for list in lists {
        list.retain(|hit| match key(hit) {
            Some((position, key)) => {
                pins.push((key, position, *hit));
                false
            }
            None => true,
        });
    }
    pins.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    pins.into_iter().map(|(_, position, hit)| (position, hit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        search::{hits::answer::NodeAnswer, merge::merge, request::SearchRequest},
        shard::Shard,
    };
    use serde_json::json;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn pins(pins: &[(&str, u32)]) -> IndexConfig {
        let pins = pins.iter().map(|(id, position)| Pin { id: (*id).to_owned(), position: *position });
        IndexConfig { primary_key: Some("id".into()), pins: pins.collect(), ..IndexConfig::default() }
    }

    fn found(id: u64, score: f64) -> Value {
        json!({"id": id, "_rankingScoreDetails": {"words": {"order": 0, "score": score}}})
    }

    fn pinned(id: u64, position: u64) -> Value {
        json!({"id": id, "_rankingScoreDetails": {"pin": {"order": 0, "position": position}}})
    }

    /// The ids of a page merged from these nodes' hits.
    fn page(index: &IndexConfig, body: &str, nodes: &[&[Value]]) -> Vec<u64> {
        let bodies: Vec<String> = nodes
            .iter()
            .map(|hits| json!({"hits": hits, "estimatedTotalHits": hits.len(), "limit": 20, "offset": 0}))
            .map(|answer| answer.to_string())
            .collect();
        let parts: Vec<NodeAnswer<'_>> =
            bodies.iter().map(|body| NodeAnswer::read(body.as_bytes()).unwrap()).collect();
        let request = SearchRequest::from_body(body.as_bytes()).unwrap();
        let answer: Value = serde_json::from_slice(&merge(&request, index, &parts)).unwrap();
        answer["hits"].as_array().unwrap().iter().map(|hit| hit["id"].as_u64().unwrap()).collect()
    }

    #[test]
    fn pinned_hits_of_several_nodes_are_where_one_node_has_them() {
        let index = pins(&[("10", 0), ("20", 0), ("11", 2), ("12", 50)]);
        // On each node, pinned hits stand at their positions among the node's own hits.
        let nodes: [&[Value]; 2] = [
            &[pinned(10, 0), found(1, 0.9), pinned(11, 2), found(2, 0.3), pinned(12, 50)],
            &[pinned(20, 0), found(3, 0.8), found(4, 0.1)],
        ];
        assert_eq!(page(&index, "{}", &nodes), [10, 20, 11, 1, 3, 2, 4, 12]);
        assert_eq!(page(&index, r#"{"offset":2,"limit":3}"#, &nodes), [11, 1, 3]);
        assert_eq!(page(&index, r#"{"limit":1}"#, &nodes), [10]);
    }

    #[test]
    fn an_action_waits_for_those_before_it() {
        // One node reaches 10 only once 20 is placed.
        let index = pins(&[("20", 3), ("10", 0)]);
        let nodes: [&[Value]; 2] =
            [&[pinned(10, 0), found(1, 0.9)], &[found(2, 0.8), found(3, 0.7), pinned(20, 3)]];
        assert_eq!(page(&index, "{}", &nodes), [10, 1, 2, 20, 3]);
        assert_eq!(page(&index, r#"{"limit":4}"#, &nodes), [1, 2, 3, 20]);
        assert_eq!(page(&index, r#"{"limit":3}"#, &nodes), [1, 2, 3]);
        let legacy = IndexConfig { totals_stop: true, ..index };
        assert_eq!(page(&legacy, "{}", &nodes), [1, 2, 3, 20, 10]);
    }

    #[test]
    fn nodes_are_asked_for_what_may_be_in_the_way() {
        assert_eq!(reach(&pins(&[("1", 0), ("2", 0), ("3", 7)])), 0);
        assert_eq!(reach(&pins(&[("3", 7), ("1", 0)])), 10);
        let request = SearchRequest::from_body(br#"{"limit":2,"filter":"a = 1"}"#).unwrap();
        let query = |index: IndexConfig| {
            let query = crate::search::query::IndexQuery::new("m".into(), index, request.clone());
            serde_json::from_slice::<Value>(&query.for_shards(&[Shard(0)]).pop().unwrap()).unwrap()
        };
        assert_eq!(query(pins(&[("3", 7), ("1", 0)]))["limit"], 10);
        assert_eq!(query(pins(&[("1", 0)]))["limit"], 2);
        assert_eq!(query(pins(&[("1", 0)]))["filter"], json!(["_miroir_shard IN [\",,,\"]", "a = 1"]));
    }

    #[test]
    fn details_tell_of_a_pin() {
        let details = |text: &str| pinned_position(serde_json::from_str(text).unwrap());
        assert_eq!(details(r#"{"pin":{"order":0,"position":4}}"#), Some(4));
        assert_eq!(details(r#"{"words":{"order":0,"score":1.0}}"#), None);
        assert_eq!(details(r#"{"\"pin\":asc":{"order":0,"value":"pin"}}"#), None);
    }
}
