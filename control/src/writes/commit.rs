//! *Commit*: decides a write by the nodes' answers, and records which replicas have it.

use super::{
    accepted,
    recovery::{self, Recovered},
};
use crate::{
    base::{
        error::{Result, api_error},
        log,
        time::Nanos,
    },
    cluster::{
        Cluster,
        missed::{self, WrittenIds},
        open_writes::{Decision, OpenWrite},
        tracked_tasks::TrackedTask,
        write_keys::Late,
    },
    disguise::messages,
    domain::{
        cluster_state::ClusterState,
        intent::{Effect, NodeTask},
        task::TaskStatus,
        task_details::nothing_done,
        verdict::not_written,
    },
    fencing::write_keys::GRACE,
    ledger::{
        intents, late_tasks,
        tasks::{self, Ending, Task},
    },
};
use miroir_core::{
    error::{ApiError, Code, ErrorBody},
    node_name::NodeName,
    protocol::{Commit, NodeOutcome, WriteOperation},
    shard::Shard,
};
use rusqlite::Connection;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tracing::Instrument;

/// How often to look whether a write is decided.
const MOMENT: Duration = Duration::from_millis(50);

/// Answers a gateway's commit with the client's task summary.
///
/// # Errors
/// The error that the client gets instead of 202.
pub async fn commit(cluster: &Arc<Cluster>, commit: Commit) -> Result<Value> {
    let Some(write) = cluster.open.take(commit.uid, commit.begun.as_deref()) else {
        return decided_already(cluster, &commit).await?.map_err(Into::into);
    };
    // In a task of its own: if the gateway disconnects now, the commit must still be completed.
    let (cluster, supervisor) = (cluster.clone(), cluster.supervisor.clone());
    let span = log::write_span(Some(write.task.uid), &write.index);
    let deciding = async move {
        match decide(&cluster, &write, commit).await {
            Ok(Decided::Now(decision)) => {
                write.decision.send_replace(Some(decision.clone()));
                write.decided();
                Ok(decision)
            }
            Ok(Decided::Later { taken, unknown, written }) => {
                let uid = write.task.uid;
                recovery::wait_for_silent(&cluster, vec![Recovered { write, taken, written }], unknown);
                let what = format!("It is not known yet whether this write is done: task {uid} will tell.");
                Ok(Err(ApiError::new(Code::UNAVAILABLE, what)))
            }
            // The write stays open, with its locks: the gateway's next commit, or the recovery, decides it.
            Err(error) => {
                tracing::warn!(error = %error.chain(), "it is not decided yet what became of a write");
                Err(error)
            }
        }
    };
    let decided = supervisor.detach("commit", deciding.instrument(span)).await??;
    decided.map_err(Into::into)
}

/// The decision for a repeated commit, or for one that comes after the recovery of its write has begun.
///
/// # Errors
/// The ledger failed.
async fn decided_already(cluster: &Cluster, commit: &Commit) -> Result<Decision> {
    if let Some(mut decision) = commit.begun.as_deref().and_then(|begun| cluster.open.decision(begun))
        && let Ok(decision) = decision.wait_for(Option::is_some).await
        && let Some(decision) = &*decision
    {
        return Ok(decision.clone());
    }
    // The write was decided long ago, or is from before a restart: the ledger has its task. If the restart interrupted the
    // write, its recovery decides it.
    let (uid, begun) = (commit.uid, commit.begun.clone());
    let task = loop {
        let begun = begun.clone();
        let read = move |connection: &_| {
            Ok((tasks::get(connection, uid)?, intents::is_open(connection, uid, begun.as_deref())?))
        };
        match cluster.ledger.call(read).await? {
            (task, false) => break task,
            (_, true) => tokio::time::sleep(MOMENT).await,
        }
    };
    let is_lost =
        |task: &Task| task.error.as_ref().is_some_and(|error| error["code"] == Code::UNAVAILABLE.name());
    Ok(match task {
        Some(task) if !is_lost(&task) => Ok(task.summary()),
        _ => Err(unavailable("No node accepted this write.")),
    })
}

fn unavailable(what: &str) -> ApiError {
    ApiError::new(Code::UNAVAILABLE, format!("{what} Try again later."))
}

/// What a commit comes to.
enum Decided {
    /// The client's answer.
    Now(Decision),
    /// It depends on silent nodes whether the write is done.
    Later {
        /// The nodes that have it, with their task's uid.
        taken: BTreeMap<NodeName, u32>,
        /// The nodes that may have it.
        unknown: BTreeSet<NodeName>,
        /// The documents that it concerns.
        written: WrittenIds,
    },
}

/// Decides a write: the client's answer.
///
/// # Errors
/// The ledger failed: the write is not decided.
async fn decide(cluster: &Arc<Cluster>, write: &OpenWrite, commit: Commit) -> Result<Decided> {
    if commit.results.iter().any(|result| !matches!(result.outcome, NodeOutcome::Enqueued { .. })) {
        tracing::warn!(uid = commit.uid, gateway = write.gateway, results = ?commit.results, "not every node accepted a write");
    }
    let written = commit.written;
    let mut taken = BTreeMap::new();
    let mut refusals = Vec::new();
    let mut unknown = BTreeSet::new();
    for result in commit.results {
        match result.outcome {
            NodeOutcome::Enqueued { task_uid } => {
                taken.insert(result.node, task_uid);
            }
            NodeOutcome::Refused { status, error } => {
                if matches!(status, 401 | 403) {
                    write.key.into_iter().for_each(|key| cluster.write_keys.refused(&result.node, key));
                }
                refusals.push((result.node, status, error));
            }
            NodeOutcome::Unknown => {
                unknown.insert(result.node);
            }
        }
    }
    if taken.is_empty() && unknown.is_empty() && !refusals.is_empty() {
        return take_back(cluster, write, &refusals).await.map(Decided::Now);
    }
    let asked = unknown.clone();
    let untaken = |taken: &BTreeMap<NodeName, u32>| {
        let cluster_state = cluster.cluster_state();
        let stays = |shard: Shard, node: &NodeName| {
            taken.contains_key(node)
                && cluster_state.writers(&write.index, shard).any(|writer| writer == node)
        };
        write.writers.iter().any(|(shard, writers)| {
            !writers.iter().any(|node| stays(*shard, node)) && writers.iter().any(|node| asked.contains(node))
        })
    };
    // For some shard no node has confirmed the write, but a node without an answer may have accepted it. Fence the key, so that
    // no callout can arrive any more, then ask these nodes.
    if untaken(&taken) {
        if let Some(key) = write.key {
            cluster.write_keys.fence(cluster, key, GRACE).await?;
        }
        let nodes_with_fenced_keys = cluster.write_keys.nodes_with_fenced_keys();
        let mut pause = Duration::from_millis(50);
        for _ in 0..7 {
            tokio::time::sleep(pause).await;
            let mut found = accepted::find(cluster, &unknown, &BTreeSet::from([write.task.uid])).await?;
            taken.extend(found.taken.remove(&write.task.uid).unwrap_or_default());
            unknown = found.silent;
            unknown.extend(nodes_with_fenced_keys.intersection(&asked).cloned());
            if !untaken(&taken) {
                break;
            }
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }
    for node in asked.iter().filter(|node| !taken.contains_key(*node)) {
        write.key.into_iter().for_each(|key| cluster.write_keys.late(node, key, Late::Documents));
    }
    // No node has confirmed the write, and every shard has a replica that surely has not accepted it. The replicas whose answer
    // is unknown become stale, and are repaired from that one.
    let untouched = |writers: &Vec<NodeName>| writers.iter().any(|node| !unknown.contains(node));
    if taken.is_empty() && !write.writers.is_empty() && write.writers.values().all(untouched) {
        if asked.is_empty() {
            return take_back(cluster, write, &refusals).await.map(Decided::Now);
        }
        let uid = write.task.uid;
        let not_taken = not_taken(write, &taken);
        let recorder = cluster.mover.recorder.clone();
        let (index, writers) = (write.index.clone(), write.writers.clone());
        let forget = move |connection: &_, cluster_state: &mut ClusterState| {
            for shard in writers.keys() {
                let missed = missed::kind(&written, *shard);
                cluster_state.withdraw_or_keep_one(&index, *shard, |node| unknown.contains(node), missed);
            }
            let shards = writers.keys().copied();
            missed::record(connection, cluster_state, &recorder, &index, shards, &written)?;
            late_tasks::store_missed(connection, uid, &not_taken)?;
            // Its uid must not be assigned again, because a node may still accept the write under it.
            tasks::forget(connection, uid)
        };
        cluster.change_stored(forget).await?;
        return Ok(Decided::Now(Err(refused(&refusals))));
    }
    if recovery::depends_on_silent(cluster, write, &taken, &unknown) {
        return Ok(Decided::Later { taken, unknown, written });
    }
    apply(cluster, write, &taken, &unknown, written).await.map(Decided::Now)
}

/// Removes the task of a write that no node has accepted, as if the write had never begun.
///
/// # Errors
/// The ledger failed.
async fn take_back(
    cluster: &Arc<Cluster>,
    write: &OpenWrite,
    refusals: &[(NodeName, u16, Option<ErrorBody>)],
) -> Result<Decision> {
    let uid = write.task.uid;
    cluster.ledger.call(move |connection| tasks::take_back(connection, uid)).await?;
    Ok(Err(refused(refusals)))
}

/// The shards of which each node has not accepted its part of a write: it may still do so.
pub(super) fn not_taken(
    write: &OpenWrite,
    taken: &BTreeMap<NodeName, u32>,
) -> BTreeMap<NodeName, Vec<Shard>> {
    let mut not_taken: BTreeMap<NodeName, Vec<Shard>> = BTreeMap::new();
    for (shard, writers) in &write.writers {
        for node in writers.iter().filter(|node| !taken.contains_key(*node)) {
            not_taken.entry(node.clone()).or_default().push(*shard);
        }
    }
    not_taken
}

/// The client's error for a write that no node has accepted. If every node refuses the request itself, the mistake is the
/// client's, and the client gets a node's error. 401 and 403 are different: they concern the gateway's write key, which was fenced, or is
/// made on the node again.
fn refused(refusals: &[(NodeName, u16, Option<ErrorBody>)]) -> ApiError {
    let first = refusals.iter().find_map(|(_, status, error)| Some((*status, error.as_ref()?)));
    match first {
        Some((status, error)) if refusals.iter().all(|(_, status, _)| is_clients(*status)) => {
            api_error(status, &error.kind, &error.code, messages::message(&error.message))
        }
        _ => unavailable("No node can accept this write now."),
    }
}

/// How many documents an addition indexes; `None` for other operations.
#[must_use]
pub fn indexed(operation: &WriteOperation) -> Option<u64> {
    match operation {
        WriteOperation::AddDocuments { distinct, .. } => Some(*distinct),
        _ => None,
    }
}

fn is_clients(status: u16) -> bool {
    (400..500).contains(&status) && status != 401 && status != 403 && status != 408 && status != 429
}

/// Records which nodes accepted a write. Replicas that missed it leave the read set of its index, and this is published, before the
/// caller releases the locks. A shard is written if a replica accepted it that is read from now on; an old copy becomes active again
/// where it is the only one. Otherwise the replicas on `silent` nodes, which may have accepted it, become stale as far as another
/// replica can stand in: all replicas then get what that one has. `written` are the document ids that the gateway reported; any
/// document may have changed in a shard that is missing there.
///
/// A write that only some shards have accepted is not acknowledged: its task fails, and the client must write again.
///
/// # Errors
/// The ledger failed: nothing of it is stored.
pub async fn apply(
    cluster: &Arc<Cluster>,
    write: &OpenWrite,
    taken: &BTreeMap<NodeName, u32>,
    silent: &BTreeSet<NodeName>,
    written: WrittenIds,
) -> Result<Decision> {
    let uid = write.task.uid;
    let mut tasks_of: BTreeMap<&NodeName, Vec<Shard>> = BTreeMap::new();
    for (shard, writers) in &write.writers {
        for node in writers.iter().filter(|node| taken.contains_key(*node)) {
            tasks_of.entry(node).or_default().push(*shard);
        }
    }
    let node_tasks: Vec<NodeTask> = tasks_of
        .into_iter()
        .filter_map(|(node, shards)| {
            let node_task = *taken.get(node)?;
            Some(NodeTask { node: node.clone(), node_task, main: true, shards })
        })
        .collect();
    let not_taken = not_taken(write, taken);
    if !not_taken.is_empty() {
        let replicas: usize = not_taken.values().map(Vec::len).sum();
        tracing::warn!(uid, replicas, "replicas missed a write");
    }
    let stored =
        Stored { uid, details: write.task.details.clone(), now: cluster.clock.wall(), node_tasks, not_taken };
    let (found, failure) = if stored.not_taken.is_empty() && is_whole(&cluster.cluster_state(), write) {
        // Nearly always: the replicas do not change, and writes need not wait for each other.
        (cluster.ledger.call(move |connection| stored.store(connection, None)).await?, None)
    } else {
        let recorder = cluster.mover.recorder.clone();
        let (index, writers) = (write.index.clone(), write.writers.clone());
        let took: BTreeSet<NodeName> = taken.keys().cloned().collect();
        let (silent, written) = (silent.clone(), written.clone());
        let decide = move |connection: &_, cluster_state: &mut ClusterState| {
            let missed = |shard| missed::kind(&written, shard);
            let lost = cluster_state.commit(&index, &writers, |node| took.contains(node), &silent, missed);
            let shards = writers.keys().copied();
            missed::record(connection, cluster_state, &recorder, &index, shards, &written)?;
            let failure = (!lost.is_empty()).then(|| {
                tracing::error!(uid, shards = ?lost, "no replica of some shards accepted a write");
                not_written(&lost, "no replica took them")
            });
            Ok((stored.store(connection, failure.as_ref())?, failure))
        };
        cluster.change_stored(decide).await?
    };
    cluster.tracked_tasks.add(TrackedTask {
        task: write.task.clone(),
        node_tasks: found,
        effect: Effect::None,
        indexed: indexed(&write.operation),
        written: written.clone(),
        guard: None,
    });
    // Only after the task is tracked: a move that reads the recording must find the write among the tasks that it waits for.
    for shard in &write.record {
        cluster.mover.recorder.written(&write.index, *shard, written.get(shard));
    }
    Ok(failure.map_or_else(|| Ok(write.task.summary()), Err))
}

/// Whether a write that all of its nodes took changes nothing of the replicas: none is stale in its index, and each shard has one that is
/// read.
fn is_whole(cluster_state: &ClusterState, write: &OpenWrite) -> bool {
    write.writers.iter().all(|(shard, nodes)| {
        cluster_state.stale.of(&write.index, *shard).next().is_none()
            && nodes.iter().any(|node| cluster_state.is_whole(&write.index, *shard, node))
    })
}

/// What the ledger stores of a decided write, besides the state of replicas.
struct Stored {
    uid: u32,
    details: Option<Value>,
    now: Nanos,
    node_tasks: Vec<NodeTask>,
    not_taken: BTreeMap<NodeName, Vec<Shard>>,
}

impl Stored {
    /// Stores it, with the end of a write that has failed. Returns all tasks that nodes have of the write.
    fn store(&self, connection: &Connection, failure: Option<&ApiError>) -> Result<Vec<NodeTask>> {
        late_tasks::store_missed(connection, self.uid, &self.not_taken)?;
        intents::sent(connection, self.uid, &self.node_tasks)?;
        if let Some(failure) = failure {
            let ending = Ending {
                status: TaskStatus::Failed,
                details: nothing_done(self.details.as_ref()),
                error: Some(failure.body.clone()),
                started_at: Some(self.now),
                finished_at: self.now,
            };
            tasks::finish(connection, self.uid, &ending)?;
        }
        intents::all_node_tasks(connection, self.uid)
    }
}
