//! Edits by function. Each node first tries the edit on its documents without changing them. If one node refuses it, no node
//! applies it.
//!
//! The locks of all shards are held until nodes have queued the edit, so that later writes come after it in their queues.

use super::{accepted, commit, recovery};
use crate::{
    base::{error::Result, log},
    cluster::{
        Cluster,
        missed::WrittenIds,
        open_writes::{OpenWrite, UndecidedWrite},
    },
    disguise::messages,
    domain::{task::TaskStatus, task_details::nothing_done},
    fencing::{in_flight, write_keys::LATE_REQUESTS_END},
    ledger::{intents, tasks::Ending},
    node::{Node, Request, TIMEOUT, TaskInfo},
};
use futures_util::future::join_all;
use miroir_core::{
    error::ErrorBody,
    node_name::NodeName,
    path::ApiPath,
    protocol::{WriteOperation, metadata},
    shard::Shard,
    write::{EDIT_LINES_BEFORE, Edit},
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tracing::Instrument;

/// Runs an edit until nodes have queued it, or its task has failed.
pub fn spawn(cluster: &Arc<Cluster>, write: OpenWrite) {
    let (cluster, supervisor) = (Arc::clone(cluster), &cluster.supervisor);
    let write = cluster.open.insert_taken(write);
    let span = log::write_span(Some(write.task.uid), &write.index);
    let sending = async move {
        let uid = write.task.uid;
        if let Err(error) = run(&cluster, write).await {
            tracing::error!(uid, error = %error.chain(), "an edit could not be sent; its recovery decides it");
        }
    };
    supervisor.spawn("edit", sending.instrument(span));
}

/// Resumes an edit that was open before a restart; its locks are held. Nodes may have queued it already.
pub fn resume(cluster: &Arc<Cluster>, write: UndecidedWrite) {
    let (cluster, supervisor) = (Arc::clone(cluster), &cluster.supervisor);
    let span = log::write_span(Some(write.task.uid), &write.index);
    let resuming = async move {
        // The requests sent before the restart carry keys that are deleted by now. After this pause, nodes have queued every
        // request that they had let in before.
        tokio::time::sleep(LATE_REQUESTS_END).await;
        let uid = write.task.uid;
        let nodes: BTreeSet<NodeName> = write.writers.values().flatten().cloned().collect();
        let found = accepted::find(&cluster, &nodes, &BTreeSet::from([uid])).await;
        let resumed = match found.taken.is_empty() && found.silent.is_empty() {
            true => run(&cluster, write).await,
            false => recovery::recover(&cluster, vec![write]).await,
        };
        if let Err(error) = resumed {
            tracing::error!(uid, error = %error.chain(), "an edit could not be resumed; its recovery decides it");
        }
    };
    supervisor.spawn("edit", resuming.instrument(span));
}

async fn run(cluster: &Arc<Cluster>, write: UndecidedWrite) -> Result<()> {
    let uid = write.task.uid;
    let WriteOperation::Edit { filter, context, function } = write.operation.clone() else { return Ok(()) };
    let edit = Edit { filter, context, function };
    let shards_of = shards_by_node(&write.writers);
    let holds_all = |shards: &Vec<Shard>| shards.len() == write.writers.len();
    // If every node has every document, all nodes refuse what one of them refuses, so a trial is not needed.
    if !shards_of.values().all(holds_all)
        && let Some(error) = refusal(cluster, &write.index, &edit, &shards_of).await
    {
        fail(cluster, &write, error).await?;
        write.decided();
        return Ok(());
    }
    let path = ApiPath::of_index(&write.index, &["documents", "edit"]).with("customMetadata", &metadata(uid));
    let secret = cluster.random.name();
    let answers = shards_of.iter().map(async |(name, shards)| {
        let Some(node) = cluster.node(name) else { return (name, None) };
        (name, Some(send(cluster, &node, path.clone(), edit.of_shards(&secret, shards)).await))
    });
    let (mut taken, mut silent) = (BTreeMap::new(), BTreeSet::new());
    for (name, answer) in join_all(answers).await {
        match answer {
            Some(Ok(Ok(task))) => drop(taken.insert(name.clone(), task)),
            Some(Ok(Err(error))) => {
                tracing::warn!(uid, node = name.as_str(), error = error.message, "a node refuses an edit");
            }
            Some(Err(error)) => {
                tracing::warn!(uid, node = name.as_str(), error = %error.chain(), "a node may not have accepted an edit");
                silent.insert(name.clone());
            }
            None => {}
        }
    }
    // The client has its 202 already: the task tells the result.
    let _ = commit::apply(cluster, &write, &taken, &silent, WrittenIds::new()).await?;
    write.decided();
    Ok(())
}

fn shards_by_node(writers: &BTreeMap<Shard, Vec<NodeName>>) -> BTreeMap<NodeName, Vec<Shard>> {
    let mut shards_of: BTreeMap<NodeName, Vec<Shard>> = BTreeMap::new();
    for (shard, nodes) in writers {
        for node in nodes {
            shards_of.entry(node.clone()).or_default().push(*shard);
        }
    }
    shards_of
}

/// Lets every node try the edit. Returns the error of a node that refuses it.
async fn refusal(
    cluster: &Arc<Cluster>,
    index: &str,
    edit: &Edit,
    shards_of: &BTreeMap<NodeName, Vec<Shard>>,
) -> Option<ErrorBody> {
    // An index without a primary key has no documents.
    let key = cluster.cluster_state().indexes.get(index)?.primary_key.clone()?;
    let secret = cluster.random.name();
    let path = ApiPath::of_index(index, &["documents", "edit"]);
    let tried = shards_of.iter().map(async |(name, shards)| {
        let node = cluster.node(name)?;
        let body = edit.trial(&secret, shards, &key);
        let task = match send(cluster, &node, path.clone(), body).await {
            Ok(Ok(task)) => task,
            Ok(Err(error)) => return Some(error),
            Err(error) => {
                tracing::warn!(node = name.as_str(), error = %error.chain(), "a node could not try an edit");
                return None;
            }
        };
        ended(&node, task).await?.error()
    });
    // Other errors are the node's own failures, and no refusal.
    join_all(tried).await.into_iter().flatten().find(|error| error.kind == "invalid_request")
}

/// Sends an edit to a node. Returns the node's task, or its refusal.
async fn send(
    cluster: &Cluster,
    node: &Node,
    path: ApiPath,
    body: Vec<u8>,
) -> Result<std::result::Result<u32, ErrorBody>> {
    let request = Request { body: body.into(), ..Request::own("POST", path, Some(&Value::Null)) };
    let answer = in_flight::send(cluster, node, request.clone(), TIMEOUT).await?;
    match (answer.task_uid(), answer.error()) {
        (Some(task), _) if answer.is_success() => Ok(Ok(task)),
        (_, Some(error)) if (400..500).contains(&answer.status) => Ok(Err(error)),
        _ => Err(node.unexpected(&request, &answer)),
    }
}

/// Waits until a node's task has ended; `None` if the node becomes unreachable.
async fn ended(node: &Node, uid: u32) -> Option<TaskInfo> {
    let mut pause = Duration::from_millis(10);
    loop {
        match node.task(uid).await {
            Ok(task) if task.is_over() => return Some(task),
            Ok(task) if task.status().is_none() => return None,
            Ok(_) => {}
            Err(error) if !node.is_up() => {
                tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a node became unreachable while it tried an edit");
                return None;
            }
            // A busy node may answer late: ask again.
            Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(Duration::from_millis(300));
    }
}

async fn fail(cluster: &Cluster, write: &OpenWrite, mut error: ErrorBody) -> Result<()> {
    let uid = write.task.uid;
    error.message = messages::shift_lines(&messages::message(&error.message), EDIT_LINES_BEFORE);
    let now = cluster.clock.wall();
    let ending = Ending {
        status: TaskStatus::Failed,
        details: nothing_done(write.task.details.as_ref()),
        error: Some(error),
        started_at: Some(now.max(write.task.enqueued_at)),
        finished_at: now,
    };
    cluster.ledger.call(move |connection| intents::end(connection, uid, &ending)).await
}
