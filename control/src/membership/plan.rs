//! What an operation would move, how many documents and bytes.

use crate::{
    cluster::Cluster,
    domain::cluster_state::{Replica, View},
    mover::copy::fetch,
};
use miroir_core::shard::{Shard, tag_filter};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

/// Documents whose sizes tell how large the others are.
const SAMPLE: usize = 50;

/// What is to be moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The topology's version that it starts from; once it has started, that with which it did.
    pub version: u64,
    /// Replicas that are to be made.
    pub replicas: usize,
    /// Replicas that are to be deleted afterwards.
    pub deleted: usize,
    /// Documents that are to be copied, as many as there are now.
    pub documents: u64,
    /// Their bytes, estimated from a sample.
    pub bytes: u64,
    /// From where to where.
    pub transfers: Vec<Transfer>,
}

/// Replicas that go from one node to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transfer {
    /// Whose are read.
    pub source: Option<String>,
    /// Who gets them.
    pub target: String,
    /// Which.
    pub shards: Vec<Shard>,
    /// Documents, as many as there are now.
    pub documents: u64,
    /// Their bytes, estimated from a sample.
    pub bytes: u64,
}

/// Plans the way from one view to another.
pub async fn plan(cluster: &Cluster, before: &View, after: &View) -> Plan {
    let mut transfers: BTreeMap<(Option<String>, String), Vec<Shard>> = BTreeMap::new();
    let mut deleted = 0;
    for shard in after.shards() {
        let wanted = after.desired.get(usize::from(shard.0)).map_or(&[][..], Vec::as_slice);
        let held = before.of(shard);
        // A node that is lost has no part in it.
        let goes =
            |replica: &&Replica| !wanted.contains(&replica.node) && after.member(&replica.node).is_some();
        deleted += held.iter().filter(goes).count();
        for node in wanted.iter().filter(|node| held.iter().all(|replica| replica.node != **node)) {
            let is_up = |name: &&str| cluster.node(name).is_some_and(|node| node.is_up());
            let source = after.active(shard).find(is_up).map(ToOwned::to_owned);
            transfers.entry((source, node.clone())).or_default().push(shard);
        }
    }
    let mut plan = Plan { version: before.version, deleted, ..Plan::default() };
    for ((source, target), shards) in transfers {
        let (documents, bytes) = match &source {
            Some(source) => size(cluster, before, source, &shards).await,
            None => (0, 0),
        };
        plan.replicas += shards.len();
        plan.documents += documents;
        plan.bytes += bytes;
        plan.transfers.push(Transfer { source, target, shards, documents, bytes });
    }
    plan
}

/// How much a node has of some shards. What it does not tell counts as nothing: this is an estimate.
async fn size(cluster: &Cluster, view: &View, node: &str, shards: &[Shard]) -> (u64, u64) {
    let Some(node) = cluster.node(node) else { return (0, 0) };
    let (mut documents, mut bytes) = (0, 0);
    for index in view.indexes.keys() {
        let query = json!({"filter": tag_filter(shards), "limit": SAMPLE, "retrieveVectors": true});
        let Ok(page) = fetch(&node, index, &query).await else { continue };
        let sample = page.results.len() as u64;
        let sampled: u64 = page.results.iter().map(|document| document.get().len() as u64).sum();
        documents += page.total;
        bytes += sampled * page.total / sample.max(1);
    }
    (documents, bytes)
}
