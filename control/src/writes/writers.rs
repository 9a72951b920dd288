//! Which nodes get a write, and which ids of documents its commit must list.

use crate::{base::error::Result, cluster::Cluster, domain::cluster_state::Missed};
use miroir_core::{
    node_name::NodeName,
    protocol::{Begin, WriteOperation},
    shard::Shard,
};
use std::{collections::BTreeMap, time::Duration};

/// Of a write of at most this many documents, the commit always lists the ids.
const SMALL: u64 = 1_000;
/// How long a write waits for its nodes, before it continues without that.
const PATIENCE: Duration = Duration::from_secs(3);

/// Waits, for a limited time, until each shard has a reachable node that has everything of the index, which may just get what it
/// missed; and until the reachable nodes that will get this write have caught up. A node that is behind may lack the index, and
/// would create it without its settings.
pub async fn ready(cluster: &Cluster, index: &str, shards: &[Shard]) {
    let begun = cluster.clock.monotonic();
    let is_ready = || {
        let (cluster_state, nodes) = (cluster.cluster_state(), cluster.nodes());
        let is_up = |name: &NodeName| nodes.iter().any(|node| node.name == *name && node.is_up());
        let learns = |name: &NodeName| cluster_state.behind.contains(name) && is_up(name);
        shards.iter().all(|shard| {
            cluster_state.whole(index, *shard).any(is_up)
                && (cluster_state.behind.is_empty() || !cluster_state.writers(index, *shard).any(learns))
        })
    };
    while !is_ready() && cluster.clock.since(begun) < PATIENCE {
        tokio::time::sleep(PATIENCE / 60).await;
    }
}

/// The shards of which the commit must list the ids of the documents: those that are being copied; those of which a replica has
/// missed something; and all if the write is small, since a node may miss it, or fail to index it.
pub fn recorded(cluster: &Cluster, begin: &Begin) -> Vec<Shard> {
    let count = match begin.operation {
        WriteOperation::AddDocuments { documents, .. } => documents,
        WriteOperation::DeleteDocuments { ids, .. } => ids,
        _ => u64::MAX,
    };
    if count <= SMALL {
        return begin.shards.clone();
    }
    let mut record = cluster.mover.recorder.recorded(&begin.index, &begin.shards);
    let cluster_state = cluster.cluster_state();
    let is_stale = |shard: &Shard| cluster_state.stale.of(&begin.index, *shard).next().is_some();
    record.extend(begin.shards.iter().filter(|shard| is_stale(shard)));
    record.sort_unstable();
    record.dedup();
    record
}

/// The nodes that must get the write, by shard. If a shard has a whole replica on a reachable node, its replicas on unreachable
/// nodes become stale in this index: they would only delay the write, and miss it.
///
/// # Errors
/// The ledger failed.
pub async fn choose(
    cluster: &Cluster,
    index: &str,
    shards: &[Shard],
) -> Result<BTreeMap<Shard, Vec<NodeName>>> {
    let is_up = |name: &NodeName| cluster.node(name).is_some_and(|node| node.is_up());
    cluster
        .change(|cluster_state| {
            for shard in shards {
                let writers = cluster_state.writers(index, *shard);
                let away: Vec<NodeName> = writers.filter(|name| !is_up(name)).cloned().collect();
                if cluster_state.whole(index, *shard).any(is_up) {
                    for name in away {
                        cluster_state.mark_missed(index, *shard, &name, Missed::Recorded);
                    }
                }
            }
        })
        .await?;
    let cluster_state = cluster.cluster_state();
    let writers = |shard: &Shard| cluster_state.writers(index, *shard).cloned().collect();
    Ok(shards.iter().map(|shard| (*shard, writers(shard))).collect())
}
