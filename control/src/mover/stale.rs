//! Replicas that are stale in one index: they get what they missed of it, and are read and written for other indexes meanwhile.
//!
//! Where the ledger has the ids of all documents that a replica missed, only these are compared and sent: a node that was away
//! for seconds is whole at once. Otherwise the documents of the shards are compared, of this index only.

use super::{Move, PAUSE, SMALL, copy::Copy, hand_over::TrustedNodes, source};
use crate::{
    base::{error::Result, log, time::Instant},
    cluster::{
        Cluster,
        moves::{
            Mover,
            recording::{self, IndexChanges, RecordedWrites, Recording},
        },
    },
    domain::cluster_state::Missed,
    node::Node,
};
use miroir_core::shard::Shard;
use std::sync::Arc;
use tracing::Instrument;

/// Starts to mend, on each node that answers, the replicas that are stale in an index.
pub fn spawn(cluster: &Arc<Cluster>) {
    let cluster_state = cluster.cluster_state();
    if cluster_state.stale.is_empty() {
        return;
    }
    let nodes = cluster.nodes();
    for node in nodes.iter().filter(|node| node.answers()) {
        if next(cluster, node).is_none() {
            continue;
        }
        let node = node.clone();
        let span = log::move_span(&node.name);
        Mover::alone(cluster, format!("replay {}", node.name), |cluster| {
            let mending = async move {
                if let Err(error) = mend(&cluster, &node).await {
                    tracing::warn!(error = %error.chain(), "a node could not get yet what it missed of an index");
                    cluster.mover.progress.failed(&node.name, &error);
                    tokio::time::sleep(PAUSE).await;
                }
            };
            mending.instrument(span)
        });
    }
}

/// Some replicas of a node that can get what they missed of an index from one other node.
struct Stale {
    source: Arc<Node>,
    index: String,
    missed: Missed,
    shards: Vec<Shard>,
    /// The number of the newest change of a replica before this was found.
    found: u64,
}

/// What is to be mended next on a node; first what takes least. A node that is behind may lack the indexes: it catches up first.
fn next(cluster: &Cluster, target: &Node) -> Option<Stale> {
    let found = cluster.mover.changes.newest();
    let cluster_state = cluster.cluster_state();
    if cluster_state.behind.contains(&target.name) {
        return None;
    }
    let source_of = |index: &str, shard: Shard| {
        cluster_state.whole(index, shard).find_map(|name| source(cluster, name, target))
    };
    [Missed::Recorded, Missed::Anything].into_iter().find_map(|missed| {
        let of_target = || {
            let stale = cluster_state.stale.iter();
            stale.filter(|(_, node, _, of)| **node == target.name && *of == missed)
        };
        let (index, source) =
            of_target().find_map(|(index, _, shard, _)| Some((index, source_of(index, shard)?)))?;
        let is_same = |of: &str, shard: Shard| {
            of == index && source_of(of, shard).is_some_and(|node| node.name == source.name)
        };
        let shards =
            of_target().filter(|(of, _, shard, _)| is_same(of, *shard)).map(|(_, _, shard, _)| shard);
        let most = if missed == Missed::Recorded { usize::MAX } else { cluster.mover.slots.limit() };
        let shards = shards.take(most).collect();
        Some(Stale { index: index.to_owned(), source, missed, shards, found })
    })
}

/// Gives a node what its replicas have missed of single indexes.
async fn mend(cluster: &Arc<Cluster>, node: &Arc<Node>) -> Result<()> {
    // A node that has just come back may not have its write keys yet.
    cluster.write_keys.catch_up(cluster, node).await?;
    while let Some(Stale { source, index, missed, shards, found }) = next(cluster, node) {
        if cluster.write_keys.may_accept_late(&node.name) {
            cluster.write_keys.fence_late(cluster, node).await?;
        }
        let copied = || Move::new(cluster, &source, node, Some(&index), &shards, found);
        match missed {
            Missed::Recorded => copied().replay(&index).await?,
            Missed::Anything => {
                let _slots = cluster.mover.slots.take(shards.len()).await;
                copied().compare(&index).await?;
            }
        }
    }
    Ok(())
}

impl Move<'_> {
    /// Sends the documents that the target has missed of an index.
    async fn replay(mut self, index: &str) -> Result<()> {
        self.is_replay = true;
        let begun = self.cluster.clock.monotonic();
        let recording = self.cluster.mover.recorder.start(Some(index), self.shards.iter().copied());
        let trusted = self.quiet().await?;
        let ids = self.cluster.missed_ids(index, &self.target.name, self.shards).await?;
        let missed = RecordedWrites::from([(index.to_owned(), IndexChanges::Ids(ids))]);
        let mut copy = Copy::new(self);
        copy.is_throttled = recording::count(&missed) > SMALL;
        self.send(begun, &recording, &trusted, copy, missed).await
    }

    /// Compares all documents of an index in these shards, and sends those that differ.
    async fn compare(self, index: &str) -> Result<()> {
        let begun = self.cluster.clock.monotonic();
        let _shown = self.cluster.mover.progress.started(&self.source.name, &self.target.name, self.shards);
        let recording = self.cluster.mover.recorder.start(Some(index), self.shards.iter().copied());
        let trusted = self.quiet().await?;
        let all = RecordedWrites::from([(index.to_owned(), IndexChanges::All)]);
        self.send(begun, &recording, &trusted, Copy::new(self), all).await
    }

    async fn send(
        self,
        begun: Instant,
        recording: &Recording,
        trusted: &TrustedNodes<'_>,
        mut copy: Copy<'_>,
        missed: RecordedWrites,
    ) -> Result<()> {
        let copied = async {
            copy.again(&missed).await?;
            copy.indexed().await?;
            self.finish(begun, recording, trusted, &mut copy).await
        };
        let copied = copied.await;
        copy.end().await?;
        copied
    }
}
