//! Hands replicas over: runs the last round of a copy under the locks of its shards. After that, the new replica is read and
//! written.

use super::{Move, copy::Copy};
use crate::{
    base::{
        error::{Error, Result},
        time::Instant,
    },
    cluster::{
        Cluster,
        locks::{LockGuard, Scope},
        moves::recording::Recording,
    },
    fencing::late_tasks,
    node::Node,
};
use miroir_core::shard::Shard;
use std::{collections::BTreeSet, time::Duration};

/// How long to wait for the locks: later writers queue behind this request.
const LOCK_PATIENCE: Duration = Duration::from_millis(300);
/// How long writers may have to wait in all. A hand-over that takes longer is given up, and tried again later.
const LONGEST: Duration = Duration::from_millis(1_700);

/// The locks of some shards, in all indexes.
pub fn scope(shards: &[Shard]) -> Scope {
    Scope { indexes: None, shards: Some(shards.iter().copied().collect()) }
}

/// The hand-over of a copy that is nearly complete.
pub struct HandOver<'a> {
    /// The move that is nearly complete.
    pub of: Move<'a>,
    /// The recording of what was written since the last round.
    pub recording: &'a Recording,
    /// The source and the target, as they were when the copy began.
    pub trusted: &'a TrustedNodes<'a>,
}

/// The nodes of a copy. A request that one of them takes late, after the copy began, makes the copy worthless: it may be in the
/// source's documents, or over the target's.
pub struct TrustedNodes<'a> {
    cluster: &'a Cluster,
    /// Each with the number of late tasks that were seen on it.
    nodes: [(&'a Node, u64); 2],
}

impl<'a> TrustedNodes<'a> {
    /// Examines what the nodes have taken until now.
    ///
    /// # Errors
    /// A node did not answer, or the ledger failed.
    pub async fn examine(cluster: &'a Cluster, nodes: [&'a Node; 2]) -> Result<Self> {
        for node in nodes {
            late_tasks::examine(cluster, node).await?;
        }
        Ok(Self { cluster, nodes: nodes.map(|node| (node, cluster.late_tasks.seen(&node.name))) })
    }

    /// Makes sure that the nodes have taken nothing late since the copy began.
    ///
    /// # Errors
    /// They have, or one of them did not answer; or the ledger failed.
    async fn check(&self) -> Result<()> {
        for (node, before) in self.nodes {
            late_tasks::examine(self.cluster, node).await?;
            if self.cluster.late_tasks.seen(&node.name) != before {
                let name = &node.name;
                return Err(Error::Other(format!(
                    "node `{name}` has taken an earlier request during a copy: the copy begins anew"
                )));
            }
        }
        Ok(())
    }
}

impl HandOver<'_> {
    /// Hands over those shards that were not written since they were copied. Returns them.
    ///
    /// # Errors
    /// The target has missed an operation, or did not answer in time.
    pub async fn of_quiet(&self, copy: &Copy<'_>) -> Result<Vec<Shard>> {
        let Move { cluster, shards, .. } = self.of;
        let begun = self.of.cluster.clock.monotonic();
        let Some(guard) = self.lock().await else { return Ok(Vec::new()) };
        let is_quiet = |shard: &Shard| self.of.is_quiet(self.recording, *shard);
        let quiet: Vec<Shard> = shards.iter().copied().filter(is_quiet).collect();
        self.within(begun, delete_unknown_indexes(cluster, copy)).await?;
        self.done(begun, quiet, guard).await
    }

    /// Copies what was written since the last round, and hands over all shards. Returns them; none if the locks are not free
    /// soon, or the source has too much to index.
    ///
    /// # Errors
    /// A node did not answer in time. The copy is in an unknown state, and starts again.
    pub async fn of_all(&self, copy: &mut Copy<'_>) -> Result<Vec<Shard>> {
        let begun = self.of.cluster.clock.monotonic();
        let Some(guard) = self.lock().await else { return Ok(Vec::new()) };
        // Until here the hand-over can be given up without side effects; later it cannot.
        let indexed = tokio::time::timeout(LONGEST / 2, self.of.source_has_indexed()).await;
        let Ok(indexed) = indexed else { return Ok(Vec::new()) };
        indexed?;
        self.within(begun, self.last(copy)).await?;
        self.done(begun, self.of.shards.to_vec(), guard).await
    }

    async fn lock(&self) -> Option<LockGuard> {
        if self.of.shards.is_empty() {
            return None;
        }
        let lock = self.of.cluster.locks.lock(self.of.scope());
        tokio::time::timeout(LOCK_PATIENCE, lock).await.ok()
    }

    /// Runs some work under the locks, within the time that writers may wait.
    async fn within(&self, begun: Instant, work: impl Future<Output = Result<()>>) -> Result<()> {
        let late = || {
            Error::Other(format!("the last round of a copy to node `{}` took too long", self.of.target.name))
        };
        tokio::time::timeout(LONGEST.saturating_sub(self.of.cluster.clock.since(begun)), work)
            .await
            .map_err(|_| late())?
    }

    /// Marks the target's replicas as active: from now on they are read and written.
    async fn done(&self, begun: Instant, shards: Vec<Shard>, guard: LockGuard) -> Result<Vec<Shard>> {
        let Move { cluster, target, .. } = self.of;
        if cluster.cluster_state().behind.contains(&target.name) {
            return Err(Error::Other(format!("node `{}` has missed an operation", target.name)));
        }
        // Under the locks no new write begins in these shards. But an earlier request to the target may have had no answer, and
        // could still arrive.
        if cluster.write_keys.may_accept_late(&target.name) {
            return Err(Error::Other(format!(
                "node `{}` may still receive an earlier request late",
                target.name
            )));
        }
        self.within(begun, self.trusted.check()).await?;
        let mut done = Vec::new();
        cluster
            .change(|cluster_state| {
                // Without locks, the end of a task may show that the source or the target lacks something.
                let is_done = |shard: &Shard| {
                    self.recording.is_clean(*shard) && self.of.is_wanted_in(cluster_state, *shard)
                };
                done = shards.into_iter().filter(is_done).collect();
                // What was recorded does not tell what becomes of other tasks that the target has not ended.
                if !self.of.is_replay {
                    cluster.tracked_tasks.replaced(self.of.index, &target.name, &done);
                }
                for shard in &done {
                    match self.of.index {
                        Some(index) => cluster_state.mark_whole(index, *shard, &target.name),
                        None => cluster_state.mark_active(*shard, &target.name),
                    }
                }
            })
            .await?;
        drop(guard);
        let shards = done;
        if !shards.is_empty() {
            cluster.mover.progress.handed_over(shards.len(), self.of.cluster.clock.since(begun));
        }
        Ok(shards)
    }

    /// Copies what is left, then compares it to make sure that it is the same.
    async fn last(&self, copy: &mut Copy<'_>) -> Result<()> {
        let Move { cluster, target, .. } = self.of;
        let dirty = self.recording.take();
        // Not throttled, because writers are waiting.
        copy.is_throttled = false;
        copy.again(&dirty).await?;
        copy.indexed().await?;
        let sent = copy.cost;
        copy.again(&dirty).await?;
        if (copy.cost.documents, copy.cost.deleted) != (sent.documents, sent.deleted) {
            return Err(Error::Other(format!(
                "node `{}` does not have the documents that it was sent",
                target.name
            )));
        }
        delete_unknown_indexes(cluster, copy).await
    }
}

/// Deletes from the target the indexes that are no longer in the catalogue: an index that was deleted during the copy may have
/// been created again by a late page.
async fn delete_unknown_indexes(cluster: &Cluster, copy: &Copy<'_>) -> Result<()> {
    let known: BTreeSet<String> = cluster.cluster_state().indexes.keys().cloned().collect();
    for index in copy.written.difference(&known) {
        let _one = cluster.creating.lock(index).await;
        if !cluster.cluster_state().indexes.contains_key(index) {
            copy.delete_index(index).await?;
        }
    }
    Ok(())
}
