//! Records what replicas miss of an index, with the ids of the documents, so that only these are copied later.

use super::{Cluster, moves::recording::Recorder};
use crate::{
    base::error::Result,
    domain::cluster_state::{ClusterState, Missed},
    ledger::stale::{self, MissedDocuments},
};
use miroir_core::{node_name::NodeName, shard::Shard};
use rusqlite::Connection;
use std::collections::{BTreeMap, BTreeSet};

/// The most documents of one replica and one index whose ids are recorded. With more, the whole index is compared.
const MOST_RECORDED: usize = 10_000;

/// The ids of the documents that a write wrote or deleted, by shard. If a shard is missing, it may have changed any document.
pub type WrittenIds = BTreeMap<Shard, BTreeSet<String>>;

/// What a replica misses of an index that has missed a write to it.
#[must_use]
pub fn kind(written: &WrittenIds, shard: Shard) -> Missed {
    if ids_of(written, shard).is_some() { Missed::Recorded } else { Missed::Anything }
}

fn ids_of(written: &WrittenIds, shard: Shard) -> Option<&BTreeSet<String>> {
    written.get(&shard).filter(|ids| ids.len() <= MOST_RECORDED)
}

/// Records a write to some shards of an index for all replicas that are stale in it. It is called where the ones that missed this
/// write are marked, in the same transaction: for none of them the ledger lacks ids that it is believed to have.
///
/// Running recordings of the mover hear of it before a hand-over can trust such a replica again.
///
/// # Errors
/// The database failed.
pub fn record(
    connection: &Connection,
    cluster_state: &mut ClusterState,
    recorder: &Recorder,
    index: &str,
    shards: impl IntoIterator<Item = Shard>,
    written: &WrittenIds,
) -> Result<()> {
    for shard in shards {
        let stale = |cluster_state: &ClusterState| -> Vec<(NodeName, Missed)> {
            cluster_state.stale.of(index, shard).map(|(node, missed)| (node.clone(), missed)).collect()
        };
        let all = stale(cluster_state);
        if all.is_empty() {
            continue;
        }
        let ids = ids_of(written, shard);
        recorder.written(index, shard, ids);
        for (node, _) in all {
            cluster_state.mark_missed(index, shard, &node, kind(written, shard));
        }
        for (node, missed) in stale(cluster_state) {
            let (Some(ids), Missed::Recorded) = (ids, missed) else { continue };
            let documents =
                MissedDocuments { index: index.to_owned(), node: node.clone(), shard, ids: ids.clone() };
            if stale::add(connection, &documents)? > MOST_RECORDED {
                cluster_state.mark_missed(index, shard, &node, Missed::Anything);
                stale::forget(connection, index, &node, shard)?;
            }
        }
    }
    Ok(())
}

impl Cluster {
    /// The ids of the documents that a node's replicas of these shards have missed of an index. What is missed from now on comes
    /// to the recordings that run already.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn missed_ids(
        &self,
        index: &str,
        node: &NodeName,
        shards: &[Shard],
    ) -> Result<BTreeSet<String>> {
        // A change that is under way has not told the recordings that began after it.
        let _one = self.changing.lock().await;
        let (index, node, shards) = (index.to_owned(), node.clone(), shards.to_vec());
        self.ledger.call(move |connection| stale::ids(connection, &index, &node, &shards)).await
    }
}
