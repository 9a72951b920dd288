//! The mover: makes stale replicas whole, whether they missed a write or are new. It is the only code that copies documents
//! from node to node.
//!
//! While a replica is being copied, it is neither read nor written, so nothing races with the copy. Writes to its shard are
//! recorded meanwhile, and copied in further rounds until little is left. Only the last round runs under the shard's locks.

pub mod copy;
pub mod document;
mod hand_over;
mod old_copies;

use crate::{
    base::{
        error::{Error, Result},
        log,
    },
    cluster::{
        Cluster,
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
use std::{collections::BTreeMap, sync::Arc, time::Duration};
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
        old_copies::spawn_due_work(&cluster);
    }
}

/// Brings a node up to date, and makes its stale replicas whole.
async fn fill(cluster: &Arc<Cluster>, node: &Arc<Node>) -> Result<()> {
    sync::catch_up(cluster, &node.name).await?;
    while let Some((source, shards)) = next(cluster, node) {
        // Requests that could still reach the node late must be fenced before its copies are replaced.
        if cluster.write_keys.may_accept_late(&node.name) {
            cluster.write_keys.fence_late(cluster, node).await?;
        }
        let _slots = cluster.mover.slots.take(shards.len()).await;
        let begun = counts(cluster, [&source.name, &node.name], &shards);
        Move { cluster, source: &source, target: node, shards: &shards, begun: &begun }.run().await?;
    }
    Ok(())
}

/// Some stale replicas of a node that can be copied from one other node.
fn next(cluster: &Cluster, target: &Node) -> Option<(Arc<Node>, Vec<Shard>)> {
    let cluster_state = cluster.cluster_state();
    // A source must not be behind: it might lack indexes.
    let source_of = |shard: Shard| {
        let mut active = cluster_state.active(shard).filter_map(|name| cluster.node(name));
        active.find(|node| {
            node.is_up() && node.name != target.name && !cluster_state.behind.contains(&node.name)
        })
    };
    let stale = cluster_state.stale_on(&target.name);
    let source = stale.iter().find_map(|shard| source_of(*shard))?;
    let of_source =
        stale.into_iter().filter(|shard| source_of(*shard).is_some_and(|node| node.name == source.name));
    let shards = of_source.take(cluster.mover.slots.limit()).collect();
    Some((source.clone(), shards))
}

/// How often the two replicas of each shard had changed when a copy began.
type Counts = BTreeMap<Shard, [u64; 2]>;

fn counts(cluster: &Cluster, nodes: [&NodeName; 2], shards: &[Shard]) -> Counts {
    let count = |shard| nodes.map(|node| cluster.mover.changes.count(shard, node));
    shards.iter().map(|shard| (*shard, count(*shard))).collect()
}

/// A copy of some shards, from an active replica to one that is stale.
#[derive(Clone, Copy)]
struct Move<'a> {
    cluster: &'a Arc<Cluster>,
    source: &'a Arc<Node>,
    target: &'a Arc<Node>,
    shards: &'a [Shard],
    begun: &'a Counts,
}

impl<'a> Move<'a> {
    async fn run(self) -> Result<()> {
        let Self { cluster, source, target, shards, .. } = self;
        let begun = cluster.clock.monotonic();
        let _shown = cluster.mover.progress.started(&source.name, &target.name, shards);
        // From here on [`old_copies`] does not delete the documents of these replicas. Replicas that are no longer wanted may
        // have been emptied before, and must stay empty.
        if !shards.iter().all(|shard| self.is_wanted(*shard)) {
            return Ok(());
        }
        self.known_to_gateways().await;
        let recording = cluster.mover.recorder.start(shards.iter().copied());
        // Writes that had begun before the recording started are not recorded: wait until they are committed, and indexed on
        // the source.
        cluster.locks.drained(&hand_over::scope(shards)).await;
        self.source_has_indexed().await?;
        // A node that was killed still handles the tasks that it had accepted before. They could change the copy after it was
        // compared.
        target.wait_for_current_tasks().await?;
        let trusted = TrustedNodes::examine(cluster, [source.as_ref(), target.as_ref()]).await?;
        let mut copy = Copy::new(cluster, source, target, shards);
        copy.everything().await?;
        copy.indexed().await?;
        let replicas = self.catch_up_and_hand_over(&recording, &trusted, &mut copy).await?;
        tracing::info!(
            node = target.name.as_str(),
            from = source.name.as_str(),
            replicas,
            documents = copy.cost.documents,
            deleted = copy.cost.deleted,
            bytes = copy.cost.bytes,
            took = ?cluster.clock.since(begun),
            "replicas are complete"
        );
        Ok(())
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

    /// Whether the source has had an active replica of the shard since the copy began, and the target a stale one.
    fn is_wanted(self, shard: Shard) -> bool {
        self.is_wanted_in(&self.cluster.cluster_state(), shard)
    }

    /// Like [`Self::is_wanted`], for a cluster state that is about to change.
    fn is_wanted_in(self, cluster_state: &ClusterState, shard: Shard) -> bool {
        let stale = |replica: &Replica| replica.state == ReplicaState::Stale;
        let nodes = [&self.source.name, &self.target.name];
        cluster_state.active(shard).any(|name| *name == self.source.name)
            && cluster_state.replica(shard, &self.target.name).is_some_and(stale)
            && self.begun.get(&shard) == counts(self.cluster, nodes, &[shard]).get(&shard)
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
mod tests {
    use super::*;
    use crate::testing::ClusterBuilder;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test(start_paused = true)]
    async fn work_that_panics_is_free_again_after_a_pause() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = Arc::new(ClusterBuilder::new(folder.path()).build());
        let runs = Arc::new(AtomicU32::new(0));
        let look = || {
            let runs = runs.clone();
            Mover::alone(&cluster, "fill a".to_owned(), |_| async move {
                runs.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(10)).await;
                panic!("on purpose")
            });
        };
        for _ in 0..3 {
            look();
            tokio::time::sleep(PAUSE / 2).await;
        }
        assert_eq!(runs.load(Ordering::Relaxed), 1, "it is not started again and again");
        look();
        tokio::time::sleep(PAUSE / 2).await;
        assert_eq!(runs.load(Ordering::Relaxed), 2);
        assert_eq!(cluster.supervisor.failures().get(MOVER), Some(&2));
    }

    #[tokio::test]
    async fn a_copy_ends_whose_source_was_not_complete_all_the_time() {
        let folder = tempfile::tempdir().unwrap();
        let nodes = ["a", "b", "c"].map(|name| format!("{name}=http://{name}:7700"));
        let cluster = Arc::new(ClusterBuilder::new(folder.path()).nodes(nodes).build());
        let shard = Shard(0);
        cluster.change(|state| _ = state.mark_stale(shard, "b")).await.unwrap();
        let [source, target] = ["a", "b"].map(|name| cluster.node(name).unwrap());
        let nodes = [&source.name, &target.name];
        let begun = counts(&cluster, nodes, &[shard]);
        let copy =
            Move { cluster: &cluster, source: &source, target: &target, shards: &[shard], begun: &begun };
        assert!(copy.is_wanted(shard));
        // What becomes of others does not matter.
        cluster.change(|state| _ = state.mark_stale(shard, "c")).await.unwrap();
        cluster.change(|state| state.mark_active(shard, "c")).await.unwrap();
        assert!(copy.is_wanted(shard));
        cluster.change(|state| _ = state.mark_stale(shard, "a")).await.unwrap();
        assert!(!copy.is_wanted(shard));
        cluster.change(|state| state.mark_active(shard, "a")).await.unwrap();
        assert!(!copy.is_wanted(shard), "it is complete again, and what was copied from it may not be");
        let begun = counts(&cluster, nodes, &[shard]);
        assert!(Move { begun: &begun, ..copy }.is_wanted(shard));
    }
}
