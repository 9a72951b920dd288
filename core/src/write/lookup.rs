//! Which of a write's documents are there already, and since when.
//!
//! A document that is written again keeps its place among those that no ranking rule tells apart, as on one node. Only the
//! nodes know that place: it is in the document that is about to be replaced. An answer that is missing or late changes
//! nothing but that place.

use super::{Payload, Plan};
use crate::{
    http::{CallId, Callout, Upstream},
    path::ApiPath,
    shard::{Shard, TAG_FIELD},
    topology::Topology,
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// The most documents of a write that are looked up. Larger writes load whole collections: their order is the collection's.
const MOST: usize = 1_000;
/// How long a node may take, milliseconds: the shards stay locked meanwhile.
const TIMEOUT_MS: u64 = 1_000;

/// One request to each of as few nodes as have all the documents.
pub(super) fn calls(
    topology: &Topology,
    index: &str,
    payload: &Payload,
    plan: &Plan,
    mut id: impl FnMut() -> CallId,
) -> Vec<Callout> {
    let Some(primary_key) = &plan.primary_key else { return Vec::new() };
    let mut ids: BTreeMap<u16, BTreeSet<String>> = BTreeMap::new();
    for (shard, documents) in payload.looked_up(MOST) {
        if let Some(node) = holder(topology, plan, shard, &ids) {
            ids.entry(node).or_default().extend(documents);
        }
    }
    let call = |(node, ids): (u16, BTreeSet<String>)| Callout {
        id: id(),
        upstream: Upstream::Node(node),
        method: "POST",
        path: ApiPath::of_index(index, &["documents", "fetch"]),
        headers: vec![
            ("authorization".to_owned(), format!("Bearer {}", plan.key)),
            ("content-type".to_owned(), "application/json".to_owned()),
        ],
        body: json!({"ids": ids, "fields": [primary_key, TAG_FIELD], "limit": ids.len()})
            .to_string()
            .into_bytes(),
        timeout_ms: topology.config().limits.write_timeout_ms.min(TIMEOUT_MS),
    };
    ids.into_iter().map(call).collect()
}

/// A node that has a shard, and is written: one that is asked already, where there is one.
fn holder(
    topology: &Topology,
    plan: &Plan,
    shard: Shard,
    asked: &BTreeMap<u16, BTreeSet<String>>,
) -> Option<u16> {
    let position = plan.shards.binary_search(&shard).ok()?;
    let writers = plan.writers.get(position)?.iter();
    let writers: Vec<u16> = writers
        .filter_map(|writer| topology.node_named(plan.nodes.get(usize::from(*writer))?))
        .filter(|node| topology.readable(shard).contains(node))
        .collect();
    writers.iter().find(|node| asked.contains_key(node)).or(writers.first()).copied()
}
