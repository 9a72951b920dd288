//! Records what replicas miss of an index, with the ids of the documents, so that only these are copied later.

use super::Cluster;
use crate::{
    base::error::Result,
    domain::cluster_state::{ClusterState, Missed},
    ledger::stale::{self, MissedDocuments},
};
use miroir_core::{node_name::NodeName, shard::Shard};
use std::collections::{BTreeMap, BTreeSet};

/// The most documents of one replica and one index whose ids are recorded. With more, the whole index is compared.
const MOST_RECORDED: usize = 10_000;

/// The ids of the documents that a write wrote or deleted, by shard. If a shard is missing, it may have changed any document.
pub type WrittenIds = BTreeMap<Shard, BTreeSet<String>>;

impl Cluster {
    /// Records a write to some shards of an index: `replicas` missed it, and so did all replicas that are stale in the index
    /// already. Nothing is done if all replicas have everything.
    ///
    /// It is stored in one transaction which replicas are stale and which ids they missed. Running recordings of the mover hear
    /// of it before a hand-over can trust the replica again.
    ///
    /// # Errors
    /// The ledger failed, and nothing has changed.
    pub async fn missed(
        &self,
        index: &str,
        shards: impl IntoIterator<Item = Shard>,
        replicas: &[(Shard, NodeName)],
        written: &WrittenIds,
    ) -> Result<()> {
        if replicas.is_empty() && self.cluster_state().stale.is_empty() {
            return Ok(());
        }
        let shards: BTreeSet<Shard> = shards.into_iter().collect();
        let ids_of = |shard: Shard| written.get(&shard).filter(|ids| ids.len() <= MOST_RECORDED);
        let kind = |shard| if ids_of(shard).is_some() { Missed::Recorded } else { Missed::Anything };
        let mark = |cluster_state: &mut ClusterState| {
            for (shard, node) in replicas {
                cluster_state.mark_missed(index, *shard, node, kind(*shard));
            }
            for shard in &shards {
                let stale: Vec<NodeName> =
                    cluster_state.stale.of(index, *shard).map(|(node, _)| node.clone()).collect();
                if !stale.is_empty() {
                    self.mover.recorder.written(index, *shard, ids_of(*shard));
                }
                for node in stale {
                    cluster_state.mark_missed(index, *shard, &node, kind(*shard));
                }
            }
            Ok(())
        };
        let documents = |cluster_state: &ClusterState| {
            let of_shard = |shard: &Shard| {
                let ids = ids_of(*shard)?;
                let stale = cluster_state.stale.of(index, *shard);
                let recorded = stale.filter(|(_, missed)| *missed == Missed::Recorded);
                let documents = |(node, _): (&NodeName, Missed)| MissedDocuments {
                    index: index.to_owned(),
                    node: node.clone(),
                    shard: *shard,
                    ids: ids.clone(),
                };
                Some(recorded.map(documents).collect::<Vec<_>>())
            };
            shards.iter().filter_map(of_shard).flatten().collect()
        };
        let too_many = self.change_with(mark, documents).await?;
        if too_many.is_empty() {
            return Ok(());
        }
        self.change(|cluster_state| {
            for (shard, node) in &too_many {
                cluster_state.mark_missed(index, *shard, node, Missed::Anything);
            }
        })
        .await
    }

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

/// Those of these documents' replicas that have missed too many documents to go on recording.
pub(super) fn too_many(documents: &[MissedDocuments], counts: &[usize]) -> Vec<(Shard, NodeName)> {
    let of_replicas = documents.iter().zip(counts).filter(|(_, count)| **count > MOST_RECORDED);
    of_replicas.map(|(documents, _)| (documents.shard, documents.node.clone())).collect()
}
