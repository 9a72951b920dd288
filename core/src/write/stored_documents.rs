//! Looks up which documents of a write are already stored, and with which sequences.
//!
//! A rewritten document keeps its place among the documents that no ranking rule tells apart, as on one node. Only the nodes
//! know that place: it is in the stored document that the write will replace. A missing or late answer affects nothing but that
//! place.

use super::{Payload, Plan};
use crate::{
    http::{CallId, Callout, Upstream},
    path::ApiPath,
    shard::{Shard, TAG_FIELD},
    topology::Topology,
};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};

/// The most documents of a write that are looked up. Larger writes usually load whole collections, and then the collection's
/// order counts.
const MOST: usize = 1_000;
/// How long a node may take, in milliseconds; it is short because the shards stay locked meanwhile.
const TIMEOUT_MS: u64 = 1_000;

/// One request to each node of a small set that holds all the documents.
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
        if let Some(node) = holder(topology, index, plan, shard, &ids) {
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
        has_stand_in: false,
    };
    ids.into_iter().map(call).collect()
}

/// A readable node that is a writer of the shard; preferably one that is already being asked.
fn holder(
    topology: &Topology,
    index: &str,
    plan: &Plan,
    shard: Shard,
    asked: &BTreeMap<u16, BTreeSet<String>>,
) -> Option<u16> {
    let position = plan.shards.binary_search(&shard).ok()?;
    let stale = topology.config().stale.of(&[index]);
    let writers = plan.writers.get(position)?.iter();
    let writers: Vec<u16> = writers
        .filter_map(|writer| topology.node_named(plan.nodes.get(usize::from(*writer))?))
        .filter(|node| topology.readable(shard, &stale).any(|readable| readable == *node))
        .collect();
    writers.iter().find(|node| asked.contains_key(node)).or(writers.first()).copied()
}
