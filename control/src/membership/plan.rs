//! Plans an operation: the replicas that it moves, and how many documents and bytes that is.

use crate::{
    cluster::Cluster,
    domain::cluster_state::{ClusterState, Replica},
    mover::copy::fetch,
};
use miroir_core::{
    node_name::NodeName,
    placement::nodes_asked,
    shard::{Shard, tag_filter},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::BTreeMap;

/// The number of documents in a sample, from which the size of all documents is estimated.
const SAMPLE: usize = 50;

/// The plan of an operation.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// The version of the topology that the plan starts from; after the start of the operation, the version that resulted from
    /// it.
    pub version: u64,
    /// The number of replicas to be created.
    pub replicas: usize,
    /// The number of replicas to be deleted afterwards.
    pub deleted: usize,
    /// The number of documents to be copied, as counted now.
    pub documents: u64,
    /// The bytes of these documents, estimated from a sample.
    pub bytes: u64,
    /// The number of nodes that a search asks, on average: before, and afterwards.
    pub nodes_asked: Option<(f64, f64)>,
    /// The transfers from node to node.
    pub transfers: Vec<Transfer>,
}

/// Replicas that are copied from one node to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Transfer {
    /// The node whose replicas are read; `None` if no reachable node has an active one.
    pub source: Option<NodeName>,
    /// The node that gets the replicas.
    pub target: NodeName,
    /// The shards of the replicas.
    pub shards: Vec<Shard>,
    /// The number of documents, as counted now.
    pub documents: u64,
    /// The bytes of these documents, estimated from a sample.
    pub bytes: u64,
}

/// Plans the way from one cluster state to another.
pub async fn plan(cluster: &Cluster, before: &ClusterState, after: &ClusterState) -> Plan {
    let mut transfers: BTreeMap<(Option<NodeName>, NodeName), Vec<Shard>> = BTreeMap::new();
    let mut deleted = 0;
    for shard in after.shards() {
        let wanted = after.desired.get(usize::from(shard.0)).map_or(&[][..], Vec::as_slice);
        let held = before.of(shard);
        // Nothing is deleted from a lost node.
        let goes =
            |replica: &&Replica| !wanted.contains(&replica.node) && after.member(&replica.node).is_some();
        deleted += held.iter().filter(goes).count();
        for node in wanted.iter().filter(|node| held.iter().all(|replica| replica.node != **node)) {
            let is_up = |name: &&NodeName| cluster.node(name).is_some_and(|node| node.is_up());
            let source = after.active(shard).find(is_up).cloned();
            transfers.entry((source, node.clone())).or_default().push(shard);
        }
    }
    let asked = |placement| nodes_asked(placement).map(|(mean, _)| mean);
    let nodes_asked = asked(&before.desired).zip(asked(&after.desired));
    let mut plan = Plan { version: before.version, deleted, nodes_asked, ..Plan::default() };
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

/// The documents and bytes of some shards on a node. If the node does not answer for an index, it counts as empty, since this
/// is only an estimate.
async fn size(cluster: &Cluster, cluster_state: &ClusterState, node: &str, shards: &[Shard]) -> (u64, u64) {
    let Some(node) = cluster.node(node) else { return (0, 0) };
    let (mut documents, mut bytes) = (0, 0);
    for index in cluster_state.indexes.keys() {
        let query = json!({"filter": tag_filter(shards), "limit": SAMPLE, "retrieveVectors": true});
        let Ok(page) = fetch(&node, index, &query).await else { continue };
        let sample = page.results.len() as u64;
        let sampled: u64 = page.results.iter().map(|document| document.get().len() as u64).sum();
        documents += page.total;
        bytes += sampled * page.total / sample.max(1);
    }
    (documents, bytes)
}
