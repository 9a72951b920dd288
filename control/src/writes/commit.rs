//! *Commit*: decides a write by the nodes' answers, and records which replicas have it.

use super::accepted;
use crate::{
    base::{
        error::{Error, Result, api_error},
        log,
    },
    cluster::{
        Cluster,
        missed::WrittenIds,
        open_writes::{Decision, OpenWrite},
        tracked_tasks::TrackedTask,
    },
    disguise::messages,
    domain::{
        intent::{Effect, NodeTask},
        task::TaskStatus,
        task_details::nothing_done,
    },
    fencing::write_keys::GRACE,
    ledger::{
        intents,
        tasks::{self, Ending, Task},
    },
};
use miroir_core::{
    error::{ApiError, Code, ErrorBody},
    node_name::NodeName,
    protocol::{Commit, NodeOutcome, WriteOperation},
    shard::Shard,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tracing::Instrument;

/// Answers a gateway's commit with the client's task summary.
///
/// # Errors
/// The error that the client gets instead of 202.
pub async fn commit(cluster: &Arc<Cluster>, commit: Commit) -> Result<Value> {
    let Some(write) = cluster.open.take(commit.uid, commit.begun.as_deref()) else {
        return decided_already(cluster, &commit).await?.map_err(Into::into);
    };
    // In a task of its own: if the gateway disconnects now, the commit must still be completed.
    let cluster = cluster.clone();
    let span = log::write_span(Some(write.task.uid), &write.index);
    let deciding = async move {
        let decided = decide(&cluster, &write, commit).await;
        match &decided {
            Ok(decision) => _ = write.decision.send_replace(Some(decision.clone())),
            // The write stays open, with its locks: the gateway's next commit, or the recovery, decides it.
            Err(error) => {
                tracing::warn!(error = %error.chain(), "it is not decided yet what became of a write");
                cluster.open.insert(write);
            }
        }
        decided
    };
    let decided =
        tokio::spawn(deciding.instrument(span)).await.map_err(|error| Error::Other(error.to_string()))??;
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
    // The write was decided long ago, or before a restart: the ledger has its task.
    let uid = commit.uid;
    let task = cluster.ledger.call(move |connection| tasks::get(connection, uid)).await?;
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

/// Decides a write: the client's answer.
///
/// # Errors
/// The ledger failed: the write is not decided.
async fn decide(cluster: &Arc<Cluster>, write: &OpenWrite, commit: Commit) -> Result<Decision> {
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
            NodeOutcome::Refused { status, error } => refusals.push((result.node, status, error)),
            NodeOutcome::Unknown => {
                unknown.insert(result.node);
            }
        }
    }
    if taken.is_empty() && unknown.is_empty() && !refusals.is_empty() {
        return take_back(cluster, write, &refusals).await;
    }
    let asked = unknown.clone();
    let untaken = |taken: &BTreeMap<NodeName, u32>| {
        write.writers.values().any(|writers| {
            !writers.iter().any(|node| taken.contains_key(node))
                && writers.iter().any(|node| asked.contains(node))
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
            let mut found = accepted::find(cluster, &unknown, &BTreeSet::from([write.task.uid])).await;
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
        write.key.into_iter().for_each(|key| cluster.write_keys.late(node, key));
    }
    // No node has confirmed the write, and every shard has a replica that surely has not accepted it. The replicas whose answer
    // is unknown become stale, and are repaired from that one.
    let untouched = |writers: &Vec<NodeName>| writers.iter().any(|node| !unknown.contains(node));
    if taken.is_empty() && !write.writers.is_empty() && write.writers.values().all(untouched) {
        let doubtful = write.writers.iter().flat_map(|(shard, writers)| {
            writers.iter().filter(|node| unknown.contains(*node)).map(|node| (*shard, node.clone()))
        });
        let doubtful: Vec<_> = doubtful.collect();
        if doubtful.is_empty() {
            return take_back(cluster, write, &refusals).await;
        }
        let uid = write.task.uid;
        missed(cluster, write, doubtful, &written).await?;
        // Its uid must not be assigned again, because a node may have accepted the write under it.
        cluster.ledger.call(move |connection| tasks::forget(connection, uid)).await?;
        return Ok(Err(refused(&refusals)));
    }
    apply(cluster, write, &taken, &unknown, written).await
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

/// Records which replicas missed a write, or may have accepted one that others have not, and publishes this.
///
/// # Errors
/// The ledger failed.
async fn missed(
    cluster: &Cluster,
    write: &OpenWrite,
    replicas: Vec<(Shard, NodeName)>,
    written: &WrittenIds,
) -> Result<()> {
    if !replicas.is_empty() {
        let index = &write.index;
        tracing::warn!(uid = write.task.uid, index, replicas = replicas.len(), "replicas missed a write");
    }
    cluster.missed(&write.index, write.writers.keys().copied(), &replicas, written).await
}

/// The client's error for a write that no node has accepted. If every node refuses the request itself, the mistake is the
/// client's, and the client gets a node's error. 401 and 403 are different: they concern the gateway's write key, and the next
/// attempt uses another key.
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

/// Records which nodes accepted a write. Replicas that missed it become stale, and this is published, before the caller
/// releases the locks. If no node confirmed the write for a shard, the replicas on `silent` nodes, which may have accepted it,
/// become stale as far as another replica can stand in: all replicas then get what that one has. `written` are the document ids
/// that the gateway reported; any document may have changed in a shard that is missing there.
///
/// A write that only some shards have accepted is not acknowledged: its task fails, and the client must write again.
///
/// # Errors
/// The ledger failed.
pub async fn apply(
    cluster: &Arc<Cluster>,
    write: &OpenWrite,
    taken: &BTreeMap<NodeName, u32>,
    silent: &BTreeSet<NodeName>,
    written: WrittenIds,
) -> Result<Decision> {
    let uid = write.task.uid;
    let mut lost: Vec<Shard> = Vec::new();
    let mut not_taken: Vec<(Shard, NodeName)> = Vec::new();
    let mut tasks_of: BTreeMap<&NodeName, Vec<Shard>> = BTreeMap::new();
    for (shard, writers) in &write.writers {
        let (took, not): (Vec<_>, Vec<_>) = writers.iter().partition(|node| taken.contains_key(*node));
        if took.is_empty() {
            lost.push(*shard);
            not_taken.extend(
                writers.iter().filter(|node| silent.contains(*node)).map(|node| (*shard, node.clone())),
            );
            continue;
        }
        for node in took {
            tasks_of.entry(node).or_default().push(*shard);
        }
        not_taken.extend(not.into_iter().map(|node| (*shard, node.clone())));
    }
    let node_tasks: Vec<NodeTask> = tasks_of
        .into_iter()
        .filter_map(|(node, shards)| {
            let node_task = *taken.get(node)?;
            Some(NodeTask { node: node.clone(), node_task, main: true, shards })
        })
        .collect();
    missed(cluster, write, not_taken, &written).await?;
    let failure = (!lost.is_empty()).then(|| {
        let names = lost.iter().map(|shard| shard.0.to_string()).collect::<Vec<_>>().join(", ");
        tracing::error!(uid, shards = names, "no replica of some shards accepted a write");
        let count = lost.len();
        let message = format!(
            "The documents of {count} shard(s) were not written, since no replica took them: {names}."
        );
        ApiError::new(Code::UNAVAILABLE, message)
    });
    let now = cluster.clock.wall();
    let ending = failure.as_ref().map(|failure| Ending {
        status: TaskStatus::Failed,
        details: nothing_done(write.task.details.as_ref()),
        error: Some(failure.body.clone()),
        started_at: Some(now),
        finished_at: now,
    });
    let found = cluster
        .ledger
        .call(move |connection| {
            intents::sent(connection, uid, &node_tasks)?;
            if let Some(ending) = &ending {
                tasks::finish(connection, uid, ending)?;
            }
            intents::all_node_tasks(connection, uid)
        })
        .await?;
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
