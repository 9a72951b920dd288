//! Edits by function: each node tries the edit on its documents first, and leaves them as they are. What one of them refuses, none
//! does.
//!
//! The locks of all shards are held until nodes have the edit: what they are sent later comes after it.

use super::{commit, recovery, taken};
use crate::{
    base::{error::Result, time},
    cluster::{Cluster, open_writes::OpenWrite},
    disguise::scrub,
    domain::{task::TaskStatus, task_details::nothing_done},
    fencing::{fenced, write_keys::LET_IN},
    ledger::{intents, tasks::Ending},
    node::{Node, Request, TIMEOUT, answers::task_error},
};
use futures_util::future::join_all;
use miroir_core::{
    error::ErrorBody,
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
use uuid::Uuid;

/// Runs an edit to the point where nodes have it, or its task has failed.
pub fn spawn(cluster: &Arc<Cluster>, write: OpenWrite) {
    let cluster = Arc::clone(cluster);
    tokio::spawn(async move {
        let uid = write.task.uid;
        if let Err(error) = run(&cluster, write).await {
            tracing::error!(uid, %error, "an edit could not be sent; the next start will");
        }
    });
}

/// Takes up an edit that a restart found, whose locks are held: nodes may have it already.
pub fn resume(cluster: &Arc<Cluster>, write: OpenWrite) {
    let cluster = Arc::clone(cluster);
    tokio::spawn(async move {
        // What was sent before goes under keys that are gone by now; what nodes had let in until then they have taken after this.
        tokio::time::sleep(LET_IN).await;
        let uid = write.task.uid;
        let nodes: BTreeSet<String> = write.writers.values().flatten().cloned().collect();
        let found = taken::find(&cluster, &nodes, &BTreeSet::from([uid])).await;
        let resumed = match found.taken.is_empty() && found.silent.is_empty() {
            true => run(&cluster, write).await,
            false => recovery::recover(&cluster, vec![write]).await,
        };
        if let Err(error) = resumed {
            tracing::error!(uid, %error, "an edit could not be taken up; the next start will");
        }
    });
}

async fn run(cluster: &Arc<Cluster>, write: OpenWrite) -> Result<()> {
    let uid = write.task.uid;
    let WriteOperation::Edit { filter, context, function } = write.operation.clone() else { return Ok(()) };
    let edit = Edit { filter, context, function };
    let shards_of = shards_by_node(&write.writers);
    let holds_all = |shards: &Vec<Shard>| shards.len() == write.writers.len();
    // Where every node has every document, all refuse what one does.
    if !shards_of.values().all(holds_all)
        && let Some(error) = refusal(cluster, &write.index, &edit, &shards_of).await
    {
        return fail(cluster, &write, error).await;
    }
    let path = ApiPath::of_index(&write.index, &["documents", "edit"]).with("customMetadata", &metadata(uid));
    let secret = Uuid::new_v4().simple().to_string();
    let answers = shards_of.iter().map(async |(name, shards)| {
        let Some(node) = cluster.node(name) else { return (name, None) };
        (name, Some(send(cluster, &node, path.clone(), edit.of_shards(&secret, shards)).await))
    });
    let (mut taken, mut silent) = (BTreeMap::new(), BTreeSet::new());
    for (name, answer) in join_all(answers).await {
        match answer {
            Some(Ok(Ok(task))) => drop(taken.insert(name.clone(), task)),
            Some(Ok(Err(error))) => {
                tracing::warn!(uid, node = name, error = error.message, "a node refuses an edit");
            }
            Some(Err(error)) => {
                tracing::warn!(uid, node = name, %error, "a node may not have an edit");
                silent.insert(name.clone());
            }
            None => {}
        }
    }
    // Its client has heard that it is taken: what became of it is in its task.
    let _ = commit::apply(cluster, &write, &taken, &silent, None).await?;
    Ok(())
}

fn shards_by_node(writers: &BTreeMap<Shard, Vec<String>>) -> BTreeMap<String, Vec<Shard>> {
    let mut shards_of: BTreeMap<String, Vec<Shard>> = BTreeMap::new();
    for (shard, nodes) in writers {
        for node in nodes {
            shards_of.entry(node.clone()).or_default().push(*shard);
        }
    }
    shards_of
}

/// Lets every node try the edit; gives the error of one that refuses it.
async fn refusal(
    cluster: &Arc<Cluster>,
    index: &str,
    edit: &Edit,
    shards_of: &BTreeMap<String, Vec<Shard>>,
) -> Option<ErrorBody> {
    // With documents, it has a primary key.
    let key = cluster.view().indexes.get(index)?.primary_key.clone()?;
    let secret = Uuid::new_v4().simple().to_string();
    let path = ApiPath::of_index(index, &["documents", "edit"]);
    let tried = shards_of.iter().map(async |(name, shards)| {
        let node = cluster.node(name)?;
        let body = edit.trial(&secret, shards, &key);
        let task = match send(cluster, &node, path.clone(), body).await {
            Ok(Ok(task)) => task,
            Ok(Err(error)) => return Some(error),
            Err(error) => {
                tracing::warn!(node = name, %error, "a node does not try an edit");
                return None;
            }
        };
        let task = ended(&node, task).await?;
        task_error(&task)
    });
    // What is no refusal is the node's own trouble.
    join_all(tried).await.into_iter().flatten().find(|error| error.kind == "invalid_request")
}

/// Sends an edit to a node: its task, or its refusal.
async fn send(
    cluster: &Cluster,
    node: &Node,
    path: ApiPath,
    body: Vec<u8>,
) -> Result<std::result::Result<u32, ErrorBody>> {
    let request = Request { body: body.into(), ..Request::own("POST", path, Some(&Value::Null)) };
    let answer = fenced::send(cluster, node, request.clone(), TIMEOUT).await?;
    match (answer.task_uid(), answer.error()) {
        (Some(task), _) if answer.is_success() => Ok(Ok(task)),
        (_, Some(error)) if (400..500).contains(&answer.status) => Ok(Err(error)),
        _ => Err(node.unexpected(&request, &answer)),
    }
}

/// A node's task, once it has ended; `None` where the node goes away.
async fn ended(node: &Node, uid: u32) -> Option<Value> {
    let mut pause = Duration::from_millis(10);
    loop {
        match node.ask("GET", ApiPath::new(["tasks", &uid.to_string()]), None).await {
            Ok(task) if TaskStatus::of_node(&task).is_some_and(TaskStatus::is_over) => {
                return Some(task);
            }
            Ok(_) => {}
            Err(error) if !node.is_up() => {
                tracing::warn!(node = node.name, %error, "a node goes away while it tries an edit");
                return None;
            }
            // One that is busy does not answer at once.
            Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(Duration::from_millis(300));
    }
}

async fn fail(cluster: &Cluster, write: &OpenWrite, mut error: ErrorBody) -> Result<()> {
    let uid = write.task.uid;
    error.message = scrub::shift_lines(&scrub::message(&error.message), EDIT_LINES_BEFORE);
    let now = time::now();
    let ending = Ending {
        status: TaskStatus::Failed,
        details: nothing_done(write.task.details.as_ref()),
        error: Some(error),
        started_at: Some(now.max(write.task.enqueued_at)),
        finished_at: now,
    };
    cluster.ledger.call(move |connection| intents::end(connection, uid, &ending)).await
}
