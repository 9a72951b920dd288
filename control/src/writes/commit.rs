//! *Commit*: what nodes took becomes what is true.

use super::taken;
use crate::{
    base::{
        error::{Error, Result, api_error},
        time,
    },
    cluster::{
        Cluster,
        open_writes::{Decision, OpenWrite},
        tracked::Unsettled,
    },
    disguise::scrub,
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
    protocol::{Commit, NodeOutcome, WriteOperation},
    shard::Shard,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// Answers a gateway's commit with the client's task summary.
///
/// # Errors
/// What the client is told instead of 202.
pub async fn commit(cluster: &Arc<Cluster>, commit: Commit) -> Result<Value> {
    let Some(write) = cluster.open.take(commit.uid, commit.begun.as_deref()) else {
        return decided_already(cluster, &commit).await?.map_err(Into::into);
    };
    // A gateway that leaves now must not tear it.
    let cluster = cluster.clone();
    let decided = tokio::spawn(async move {
        let decided = decide(&cluster, &write, commit).await;
        match &decided {
            Ok(decision) => _ = write.decision.send_replace(Some(decision.clone())),
            // It keeps its locks: its gateway's next commit, or its recovery, decides.
            Err(_) => cluster.open.insert(write),
        }
        decided
    });
    let decided = decided.await.map_err(|error| Error::Other(error.to_string()))??;
    decided.map_err(Into::into)
}

/// The decision on a second commit, or on one that comes after its write's recovery has begun.
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
    // Taken, and long ago, or before a restart: the ledger knows.
    let uid = commit.uid;
    let task = cluster.ledger.call(move |connection| tasks::get(connection, uid)).await?;
    let is_lost =
        |task: &Task| task.error.as_ref().is_some_and(|error| error["code"] == Code::UNAVAILABLE.name());
    Ok(match task {
        Some(task) if !is_lost(&task) => Ok(task.summary()),
        _ => Err(unavailable("This write was not taken.")),
    })
}

fn unavailable(what: &str) -> ApiError {
    ApiError::new(Code::UNAVAILABLE, format!("{what} Try again later."))
}

/// What the client is told, once it is known.
///
/// # Errors
/// The ledger failed: nothing is decided.
async fn decide(cluster: &Arc<Cluster>, write: &OpenWrite, commit: Commit) -> Result<Decision> {
    if commit.results.iter().any(|result| !matches!(result.outcome, NodeOutcome::Enqueued { .. })) {
        tracing::warn!(uid = commit.uid, gateway = write.gateway, results = ?commit.results, "not every node took a write");
    }
    let written = Some(commit.written);
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
    let untaken = |taken: &BTreeMap<String, u32>| {
        write.writers.values().any(|writers| {
            !writers.iter().any(|node| taken.contains_key(node))
                && writers.iter().any(|node| asked.contains(node))
        })
    };
    // A shard that nobody has taken for sure, but somebody may have: the nodes know, once nothing more can come.
    if untaken(&taken) {
        if let Some(key) = write.key {
            cluster.epochs.fence(cluster, key, GRACE).await?;
        }
        let owing = cluster.epochs.owing();
        let mut pause = Duration::from_millis(50);
        for _ in 0..7 {
            tokio::time::sleep(pause).await;
            let mut found = taken::find(cluster, &unknown, &BTreeSet::from([write.task.uid])).await;
            taken.extend(found.taken.remove(&write.task.uid).unwrap_or_default());
            unknown = found.silent;
            unknown.extend(owing.intersection(&asked).cloned());
            if !untaken(&taken) {
                break;
            }
            pause = (pause * 2).min(Duration::from_secs(2));
        }
    }
    for node in asked.iter().filter(|node| !taken.contains_key(*node)) {
        write.key.into_iter().for_each(|key| cluster.epochs.late(node, key));
    }
    // Every shard has a replica that has not taken it for sure: as that one is, so will be those that have not said.
    let untouched = |writers: &Vec<String>| writers.iter().any(|node| !unknown.contains(node));
    if taken.is_empty() && !write.writers.is_empty() && write.writers.values().all(untouched) {
        let doubtful = write.writers.iter().flat_map(|(shard, writers)| {
            writers.iter().filter(|node| unknown.contains(*node)).map(|node| (*shard, node.clone()))
        });
        let doubtful: Vec<_> = doubtful.collect();
        if doubtful.is_empty() {
            return take_back(cluster, write, &refusals).await;
        }
        let uid = write.task.uid;
        stale(cluster, uid, doubtful).await?;
        // Its uid is not given again: a node may have it.
        cluster.ledger.call(move |connection| tasks::forget(connection, uid)).await?;
        return Ok(Err(refused(&refusals)));
    }
    apply(cluster, write, &taken, &unknown, written).await
}

/// A write that no node has taken was never there.
///
/// # Errors
/// The ledger failed.
async fn take_back(
    cluster: &Arc<Cluster>,
    write: &OpenWrite,
    refusals: &[(String, u16, Option<ErrorBody>)],
) -> Result<Decision> {
    let uid = write.task.uid;
    cluster.ledger.call(move |connection| tasks::take_back(connection, uid)).await?;
    Ok(Err(refused(refusals)))
}

/// Replicas that missed a write, or may have taken what others have not: they are published as stale.
///
/// # Errors
/// The ledger failed.
async fn stale(cluster: &Cluster, uid: u32, replicas: Vec<(Shard, String)>) -> Result<()> {
    if replicas.is_empty() {
        return Ok(());
    }
    tracing::warn!(uid, replicas = replicas.len(), "replicas missed a write");
    cluster
        .change(|view| {
            for (shard, node) in &replicas {
                view.mark_stale(*shard, node);
            }
        })
        .await
}

/// What the client is told of a write that no node has taken. A request that every node refuses as it stands is the client's
/// mistake: the client gets a node's own words. 401 and 403 are not: they are about the gateway's key, which is another one
/// the next time.
fn refused(refusals: &[(String, u16, Option<ErrorBody>)]) -> ApiError {
    let first = refusals.iter().find_map(|(_, status, error)| Some((*status, error.as_ref()?)));
    match first {
        Some((status, error)) if refusals.iter().all(|(_, status, _)| is_clients(*status)) => {
            api_error(status, &error.kind, &error.code, scrub::message(&error.message))
        }
        _ => unavailable("No node takes this write now."),
    }
}

/// How many documents an addition indexes.
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

/// Makes what nodes took the truth: replicas that missed it are stale, and published as such, before the caller lets go of the locks.
/// So are those of a shard that nobody took for sure, on nodes that are `silent` and may have taken it, as far as another
/// replica can stand in: whatever that one has is then what all get. `written` are the ids that the gateway told.
///
/// A write that some shards have taken, and others not, is not acknowledged: its task fails, and the client is to write again.
///
/// # Errors
/// The ledger failed.
pub async fn apply(
    cluster: &Arc<Cluster>,
    write: &OpenWrite,
    taken: &BTreeMap<String, u32>,
    silent: &BTreeSet<String>,
    written: Option<BTreeMap<Shard, BTreeSet<String>>>,
) -> Result<Decision> {
    let uid = write.task.uid;
    let mut lost: Vec<Shard> = Vec::new();
    let mut missed: Vec<(Shard, String)> = Vec::new();
    let mut tasks_of: BTreeMap<&String, Vec<Shard>> = BTreeMap::new();
    for (shard, writers) in &write.writers {
        let (took, not): (Vec<_>, Vec<_>) = writers.iter().partition(|node| taken.contains_key(*node));
        if took.is_empty() {
            lost.push(*shard);
            missed.extend(
                writers.iter().filter(|node| silent.contains(*node)).map(|node| (*shard, node.clone())),
            );
            continue;
        }
        for node in took {
            tasks_of.entry(node).or_default().push(*shard);
        }
        missed.extend(not.into_iter().map(|node| (*shard, node.clone())));
    }
    let node_tasks: Vec<NodeTask> = tasks_of
        .into_iter()
        .filter_map(|(node, shards)| {
            let node_task = *taken.get(node)?;
            Some(NodeTask { node: node.clone(), node_task, main: true, shards })
        })
        .collect();
    stale(cluster, uid, missed).await?;
    let failure = (!lost.is_empty()).then(|| {
        let names = lost.iter().map(|shard| shard.0.to_string()).collect::<Vec<_>>().join(", ");
        tracing::error!(uid, shards = names, "shards took no part of a write");
        let count = lost.len();
        let message = format!(
            "The documents of {count} shard(s) were not written, since no replica took them: {names}."
        );
        ApiError::new(Code::UNAVAILABLE, message)
    });
    let now = time::now();
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
    cluster.settler.add(Unsettled {
        task: write.task.clone(),
        node_tasks: found,
        effect: Effect::None,
        indexed: indexed(&write.operation),
        guard: None,
    });
    // Only now: a copy that reads what was written must find the write among what it waits for.
    for shard in &write.record {
        let ids = written.as_ref().and_then(|written| written.get(shard));
        cluster.mover.recorder.written(&write.index, *shard, ids);
    }
    Ok(failure.map_or_else(|| Ok(write.task.summary()), Err))
}
