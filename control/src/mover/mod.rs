//! The mover: makes stale replicas whole, whether they missed a write or are new. It is the only code that copies documents
//! from node to node. A replica that is stale in one index only gets the documents that it missed (`stale.rs`).
//!
//! While a replica is being copied, it is neither read nor written, so nothing races with the copy. Writes to its shard are
//! recorded meanwhile, and copied in further rounds until little is left. Only the last round runs under the shard's locks.

pub mod copy;
mod departures;
pub mod document;
mod hand_over;
mod old_copies;
mod stale;

use crate::{
    base::{
        error::{Error, Result},
        log,
        time::Instant,
    },
    cluster::{
        Cluster,
        locks::Scope,
        moves::{
            Mover,
            recording::{self, Recording},
        },
    },
    domain::cluster_state::{ClusterState, Replica, ReplicaState},
    node::Node,
    sync,
};
use copy::Copy;
use hand_over::{HandOver, TrustedNodes};
use miroir_core::{node_name::NodeName, shard::Shard};
use std::{sync::Arc, time::Duration};
use tracing::Instrument;

/// What the mover's work is called in logs and metrics.
const MOVER: &str = "mover";
/// How often the mover looks for work.
const TICK: Duration = Duration::from_millis(200);
/// A round of at most this many documents is not throttled.
const SMALL: usize = 1000;
/// How long a move waits for gateways to know its target before it reports that it waits.
const LOG_AFTER: Duration = Duration::from_secs(5);
/// The pause after a move to a node has failed.
const PAUSE: Duration = Duration::from_secs(1);
/// If a round took at most this long, the next one can be the last, under locks.
const SHORT: Duration = Duration::from_millis(800);

impl Mover {
    /// Spawns some work, unless work of this name is running already.
    fn alone<F>(cluster: &Arc<Cluster>, name: String, work: impl FnOnce(Arc<Cluster>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Some(claim) = cluster.mover.claim(name) else { return };
        let work = work(cluster.clone());
        let cluster = cluster.clone();
        let supervisor = cluster.supervisor.clone();
        supervisor.spawn(MOVER, async move {
            let _claim = claim;
            if cluster.supervisor.catch(MOVER, work).await.is_err() {
                // The next look for work starts it again.
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
}

/// Moves and repairs replicas, forever.
pub async fn watch(cluster: Arc<Cluster>) {
    loop {
        tokio::time::sleep(TICK).await;
        // A node that misses checks is left alone: fencing what it may still take would refuse writes on the others, in vain.
        for node in cluster.nodes().iter().filter(|node| node.answers()) {
            let cluster_state = cluster.cluster_state();
            if cluster_state.behind.contains(&node.name) || next(&cluster, node).is_some() {
                let node = node.clone();
                let span = log::move_span(&node.name);
                Mover::alone(&cluster, format!("fill {}", node.name), |cluster| {
                    let filling = async move {
                        if let Err(error) = fill(&cluster, &node).await {
                            tracing::warn!(error = %error.chain(), "stale replicas of a node could not be copied yet");
                            cluster.mover.progress.failed(&node.name, &error);
                            tokio::time::sleep(PAUSE).await;
                        }
                    };
                    filling.instrument(span)
                });
            }
        }
        stale::spawn(&cluster);
        old_copies::spawn_due_work(&cluster);
        departures::spawn(&cluster);
    }
}

/// Brings a node up to date, and makes its stale replicas whole.
async fn fill(cluster: &Arc<Cluster>, node: &Arc<Node>) -> Result<()> {
    sync::catch_up(cluster, &node.name).await?;
    loop {
        let found = cluster.mover.changes.newest();
        let Some((source, shards)) = next(cluster, node) else { return Ok(()) };
        // Requests that could still reach the node late must be fenced before its copies are replaced.
        if cluster.write_keys.may_accept_late(&node.name) {
            cluster.write_keys.fence_late(cluster, node).await?;
        }
        let _slots = cluster.mover.slots.take(shards.len()).await;
        Move::new(cluster, &source, node, None, &shards, found).run().await?;
    }
}

/// Some stale replicas of a node that can be copied from one other node.
fn next(cluster: &Cluster, target: &Node) -> Option<(Arc<Node>, Vec<Shard>)> {
    let cluster_state = cluster.cluster_state();
    let source_of = |shard: Shard| {
        let mut active = cluster_state.active(shard).filter(|name| cluster_state.has_everything(shard, name));
        active.find_map(|name| source(cluster, name, target))
    };
    let stale = cluster_state.stale_on(&target.name);
    let source = stale.iter().find_map(|shard| source_of(*shard))?;
    let of_source =
        stale.into_iter().filter(|shard| source_of(*shard).is_some_and(|node| node.name == source.name));
    let shards = of_source.take(cluster.mover.slots.limit()).collect();
    Some((source.clone(), shards))
}

/// A node, if documents can be copied from it to another. It must not be behind: it might lack indexes.
fn source(cluster: &Cluster, name: &NodeName, target: &Node) -> Option<Arc<Node>> {
    let is_behind = cluster.cluster_state().behind.contains(name);
    cluster.node(name).filter(|node| node.is_up() && node.name != target.name && !is_behind)
}

/// A copy of some shards, from an active replica to one that is stale.
#[derive(Clone, Copy)]
struct Move<'a> {
    cluster: &'a Arc<Cluster>,
    source: &'a Arc<Node>,
    target: &'a Arc<Node>,
    /// The index in which the target's replicas are stale; `None` if they are stale as a whole.
    index: Option<&'a str>,
    shards: &'a [Shard],
    /// Whether only documents are copied whose ids were recorded. Otherwise the target has everything that the source has in the end.
    is_replay: bool,
    /// The number of the newest change of a replica before it was found what is to be copied.
    begun: u64,
}

impl<'a> Move<'a> {
    /// `found` is the number of the newest change of a replica before it was found what is to be copied: whatever changes from then on,
    /// also while this waits to begin, makes the copy worthless.
    fn new(
        cluster: &'a Arc<Cluster>,
        source: &'a Arc<Node>,
        target: &'a Arc<Node>,
        index: Option<&'a str>,
        shards: &'a [Shard],
        found: u64,
    ) -> Self {
        Self { cluster, source, target, index, shards, is_replay: false, begun: found }
    }

    async fn run(self) -> Result<()> {
        let Self { cluster, target, shards, .. } = self;
        let begun = cluster.clock.monotonic();
        let _shown = cluster.mover.progress.started(&self.source.name, &target.name, shards);
        // From here on [`old_copies`] does not delete the documents of these replicas. Replicas that are no longer wanted may
        // have been emptied before, and must stay empty.
        if !shards.iter().all(|shard| self.is_wanted(*shard)) {
            return Ok(());
        }
        self.known_to_gateways().await;
        let recording = cluster.mover.recorder.start(None, shards.iter().copied());
        let trusted = self.quiet().await?;
        let mut copy = Copy::new(self);
        let copied = async {
            copy.everything().await?;
            copy.indexed().await?;
            self.finish(begun, &recording, &trusted, &mut copy).await
        };
        let copied = copied.await;
        copy.end().await?;
        copied
    }

    /// Waits until nothing that began before the recording can change the copies. Returns the nodes as they are then.
    async fn quiet(self) -> Result<TrustedNodes<'a>> {
        // Writes that had begun before the recording started are not recorded: wait until they are committed, and indexed on
        // the source.
        self.cluster.locks.drained(&self.scope()).await;
        self.source_has_indexed().await?;
        // A node that was killed still handles the tasks that it had accepted before. They could change the copy after it was
        // compared.
        self.target.wait_for_current_tasks().await?;
        TrustedNodes::examine(self.cluster, [self.source.as_ref(), self.target.as_ref()]).await
    }

    /// Copies what was written meanwhile, and hands over.
    async fn finish(
        self,
        begun: Instant,
        recording: &Recording,
        trusted: &TrustedNodes<'_>,
        copy: &mut Copy<'_>,
    ) -> Result<()> {
        let replicas = self.catch_up_and_hand_over(recording, trusted, copy).await?;
        tracing::info!(
            node = self.target.name.as_str(),
            from = self.source.name.as_str(),
            index = self.index,
            replicas,
            documents = copy.cost.documents,
            deleted = copy.cost.deleted,
            bytes = copy.cost.bytes,
            took = ?self.cluster.clock.since(begun),
            "replicas are complete"
        );
        Ok(())
    }

    /// The locks of the shards, in the indexes that are copied.
    fn scope(self) -> Scope {
        match self.index {
            Some(index) => Scope::shards(index, self.shards),
            None => hand_over::scope(self.shards),
        }
    }

    /// Copies in rounds what was written meanwhile. After each round, hands over the shards that had no write since; after a
    /// short round, all shards that are left. Returns the number of shards handed over.
    async fn catch_up_and_hand_over(
        self,
        recording: &Recording,
        trusted: &TrustedNodes<'_>,
        copy: &mut Copy<'_>,
    ) -> Result<usize> {
        let mut left = self.shards.to_vec();
        let mut done = 0;
        let mut pause = Duration::from_millis(20);
        loop {
            let begun = self.cluster.clock.monotonic();
            let dirty = recording.take();
            self.of(&left).source_has_indexed().await?;
            // An operation that the source has done may still wait in the target's queue. Compared before it, documents look right
            // under names that it is about to change, and nothing would be sent that corrects this.
            self.target.wait_for_current_tasks().await?;
            // A throttled copy could never catch up with a shard that is written all the time.
            copy.is_throttled = recording::count(&dirty) > SMALL;
            copy.again(&dirty).await?;
            copy.indexed().await?;
            let took = self.cluster.clock.since(begun);
            left.retain(|shard| self.is_wanted(*shard));
            let quiet: Vec<Shard> =
                left.iter().copied().filter(|shard| self.is_quiet(recording, *shard)).collect();
            let chosen = if took < SHORT { &left } else { &quiet };
            let hand_over = HandOver { of: self.of(chosen), recording, trusted };
            let handed_over = if took < SHORT && quiet.len() < left.len() {
                hand_over.of_all(copy).await?
            } else {
                hand_over.of_quiet(copy).await?
            };
            recording.end(&handed_over);
            copy.handed_over(&handed_over);
            done += handed_over.len();
            left.retain(|shard| !handed_over.contains(shard));
            if left.is_empty() {
                return Ok(done);
            }
            tracing::debug!(
                node = self.target.name.as_str(),
                left = left.len(),
                ?took,
                "a round of a copy has ended"
            );
            tokio::time::sleep(pause).await;
            pause =
                if handed_over.is_empty() { (pause * 3 / 2).min(PAUSE) } else { Duration::from_millis(20) };
        }
    }

    fn of<'b>(self, shards: &'b [Shard]) -> Move<'b>
    where
        'a: 'b,
    {
        Move { shards, ..self }
    }

    /// Whether the source has indexed everything that it accepted for a shard, and the copy has all of it.
    fn is_quiet(self, recording: &Recording, shard: Shard) -> bool {
        recording.is_clean(shard) && !self.cluster.tracked_tasks.is_pending(&self.source.name, shard)
    }

    /// Whether the source has had everything of the shard that is copied since the copy began, and the target's replica has been stale in
    /// the same way.
    fn is_wanted(self, shard: Shard) -> bool {
        self.is_wanted_in(&self.cluster.cluster_state(), shard)
    }

    /// Like [`Self::is_wanted`], for a cluster state that is about to change.
    fn is_wanted_in(self, cluster_state: &ClusterState, shard: Shard) -> bool {
        let (source, target) = (&self.source.name, &self.target.name);
        let is_stale = match self.index {
            Some(index) => {
                cluster_state.is_whole(index, shard, source)
                    && cluster_state.stale.get(index, target, shard).is_some()
            }
            None => {
                let stale = |replica: &Replica| replica.state == ReplicaState::Stale;
                cluster_state.has_everything(shard, source)
                    && cluster_state.replica(shard, target).is_some_and(stale)
            }
        };
        is_stale
            && [source, target]
                .iter()
                .all(|node| self.cluster.mover.changes.last(shard, node, self.index) <= self.begun)
    }

    /// Waits until every gateway knows the target and has got an answer from it. Otherwise gateways could neither write to it
    /// nor read from it, and it may become the only readable replica.
    async fn known_to_gateways(self) {
        let Self { cluster, target, .. } = self;
        let begun = cluster.clock.monotonic();
        let mut is_logged = false;
        loop {
            let is_known = |since| cluster.gateways.confirmed(since);
            let known =
                cluster.cluster_state().member(&target.name).is_none_or(|member| is_known(member.since));
            let outside_nodes = cluster.gateways.vms_that_cannot_reach(&target.name);
            if known && outside_nodes.is_empty() {
                return;
            }
            if cluster.clock.since(begun) > LOG_AFTER && !is_logged {
                is_logged = true;
                let error = Error::Other(format!(
                    "node `{}` is not ready for copies yet: {}",
                    target.name,
                    if known {
                        format!(
                            "it has not answered the gateways' workers {}; can they reach its URL?",
                            outside_nodes.join(", ")
                        )
                    } else {
                        "not all gateways have confirmed the topology that names it".to_owned()
                    }
                ));
                tracing::warn!(error = %error.chain(), "a move waits for gateways");
                cluster.mover.progress.failed(&target.name, &error);
            }
            tokio::time::sleep(TICK).await;
        }
    }

    async fn source_has_indexed(self) -> Result<()> {
        if self.cluster.tracked_tasks.indexed(&self.source.name, self.shards).await {
            return Ok(());
        }
        Err(Error::Other(format!("node `{}` became unreachable", self.source.name)))
    }
}

#[cfg(test)]
mod tests;
