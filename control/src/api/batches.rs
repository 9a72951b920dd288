//! Batches. Each node forms its own batches, so clients see each task as a batch of its own, with the task's uid. Progress and
//! durations are those of one of the task's nodes.

use super::{Sent, Shared, tasks};
use crate::{
    base::{
        error::{Error, Result, api_error},
        time,
    },
    cluster::Cluster,
    domain::task::TaskKind,
    ledger::{
        intents,
        tasks::{self as stored, Query, Task},
    },
    node::TaskInfo,
};
use axum::{
    Json,
    extract::Path,
    response::{IntoResponse, Response},
};
use futures_util::future::join_all;
use miroir_core::node_name::NodeName;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The statistics of a batch that are taken from one node.
const OF_NODE: [&str; 3] = ["progressTrace", "writeChannelCongestion", "internalDatabaseSizes"];

/// Details that are left out of an ended batch if they are null: Meilisearch reads an ended batch from its database, and treats
/// null as absent.
const NOT_NULL: [&str; 9] = [
    "indexedDocuments",
    "editedDocuments",
    "primaryKey",
    "deletedDocuments",
    "canceledTasks",
    "deletedTasks",
    "originalFilter",
    "dumpUid",
    "context",
];

/// Meilisearch's batch object.
fn cluster_state(task: &Task, of_node: Option<&Value>) -> Value {
    let count = |name: Option<&str>| -> Map<String, Value> {
        name.into_iter().map(|name| (name.to_owned(), json!(1))).collect()
    };
    let duration = task.started_at.zip(task.finished_at).and_then(|(start, end)| time::duration(start, end));
    let mut details = task.details.clone().unwrap_or_else(|| json!({}));
    if let Some(details) = details.as_object_mut().filter(|_| task.finished_at.is_some()) {
        details.retain(|name, value| !(value.is_null() && NOT_NULL.contains(&name.as_str())));
    }
    let progress = of_node.filter(|_| task.finished_at.is_none()).and_then(|batch| batch.get("progress"));
    let mut stats = json!({
        "totalNbTasks": 1,
        "status": count(Some(task.status.name())),
        "types": count(Some(task.kind.name())),
        "indexUids": count(task.index.as_deref()),
        // The default if no node took part.
        "progressTrace": {},
    });
    for name in OF_NODE {
        if let Some(told) = of_node.and_then(|batch| batch.get("stats")?.get(name)) {
            stats[name] = told.clone();
        }
    }
    let mut batch = json!({
        "uid": task.uid,
        "progress": progress,
        "details": details,
        "stats": stats,
    });
    if let Some(embedder) = of_node.and_then(|batch| batch.get("embedderStats")) {
        batch["embedderStats"] = embedder.clone();
    }
    batch["duration"] = json!(duration);
    batch["startedAt"] = json!(task.started_at.map(time::format));
    batch["finishedAt"] = json!(task.finished_at.map(time::format));
    batch["batchStrategy"] = json!(strategy(task));
    batch
}

/// The reason why a batch contains no other tasks, as Meilisearch words it.
///
/// Source: Meilisearch 1.50, `create_batch.rs` and `autobatcher.rs` of its index scheduler.
fn strategy(task: &Task) -> String {
    let Task { uid, kind, .. } = task;
    match kind {
        TaskKind::DocumentEdition
        | TaskKind::DumpCreation
        | TaskKind::Export
        | TaskKind::IndexCompaction
        | TaskKind::IndexCreation
        | TaskKind::IndexSwap
        | TaskKind::IndexUpdate
        | TaskKind::TaskCancelation => {
            format!(
                "created batch containing only task with id {uid} of type `{kind}` that cannot be batched with any other task."
            )
        }
        TaskKind::SnapshotCreation | TaskKind::TaskDeletion => {
            format!(
                "stopped after the last task of type `{kind}` because they cannot be batched with tasks of any other type."
            )
        }
        TaskKind::IndexDeletion => format!("stopped after task with id {uid} because it deletes the index"),
        _ => "batched all enqueued tasks".to_owned(),
    }
}

/// The batches of these tasks, for clients.
async fn views(cluster: &Cluster, tasks: &[Task]) -> Vec<Value> {
    let of_nodes = of_nodes(cluster, tasks).await.unwrap_or_else(|error| {
        tracing::warn!(error = %error.chain(), "nodes could not be asked for their batches");
        BTreeMap::new()
    });
    tasks.iter().map(|task| cluster_state(task, of_nodes.get(&task.uid))).collect()
}

/// For each task, the batch object of one of its nodes. Tasks whose nodes are unreachable, or have deleted their tasks, are
/// left out.
async fn of_nodes(cluster: &Cluster, tasks: &[Task]) -> Result<BTreeMap<u32, Value>> {
    let uids: Vec<u32> = tasks.iter().map(|task| task.uid).collect();
    let parts = cluster
        .ledger
        .call(move |connection| {
            uids.into_iter()
                .map(|uid| Ok((uid, intents::all_node_tasks(connection, uid)?)))
                .collect::<Result<Vec<_>>>()
        })
        .await?;
    let mut wanted: BTreeMap<NodeName, BTreeMap<u64, u32>> = BTreeMap::new();
    for (uid, parts) in parts {
        let is_up = |name: &str| cluster.node(name).is_some_and(|node| node.is_up());
        if let Some(part) = parts.into_iter().find(|part| part.main && is_up(&part.node)) {
            wanted.entry(part.node).or_default().insert(part.node_task.into(), uid);
        }
    }
    let asked =
        wanted.iter().map(async |(node, wanted)| of_node(cluster, node, wanted).await.unwrap_or_default());
    Ok(join_all(asked).await.into_iter().flatten().collect())
}

/// A node's batch objects, by the ledger's task uid. `wanted` maps the node's task uids to those of the ledger.
async fn of_node(cluster: &Cluster, node: &str, wanted: &BTreeMap<u64, u32>) -> Option<Vec<(u32, Value)>> {
    let node = cluster.node(node)?;
    let silent = |error: &Error| {
        tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a node does not tell of its batches");
    };
    let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_u64);
    let uids: Vec<u64> = wanted.keys().copied().collect();
    let tasks = node.tasks(&uids).await.inspect_err(silent).ok()?;
    let number_of = |task: &TaskInfo, name: &str| task.get(name).and_then(Value::as_u64);
    let of_batch =
        |task: &TaskInfo| Some((*wanted.get(&number_of(task, "uid")?)?, number_of(task, "batchUid")?));
    let batches: Vec<(u32, u64)> = tasks.iter().filter_map(of_batch).collect();
    if batches.is_empty() {
        return None;
    }
    let uids: Vec<u64> = batches.iter().map(|(_, batch)| *batch).collect();
    let told = node.batches(&uids, wanted.len()).await.inspect_err(silent).ok()?;
    let told: BTreeMap<u64, &Value> =
        told.iter().filter_map(|batch| Some((number(batch, "uid")?, batch))).collect();
    let of_task = |(uid, batch): &(u32, u64)| {
        let mut batch = (*told.get(batch)?).clone();
        crate::disguise::messages::value(&mut batch);
        Some((*uid, batch))
    };
    Some(batches.iter().filter_map(of_task).collect())
}

/// `GET /batches`.
///
/// # Errors
/// A node's error about the client's query.
pub async fn list(cluster: Shared, sent: Sent) -> Result<Response> {
    let grant = sent.grant()?;
    let Some(mut query) = tasks::read(&sent.query, true) else {
        return sent.natively(&cluster).await;
    };
    query.visible = grant.visible();
    // A batch exists once its task has started.
    query.dates.push(("started_at", true, 0));
    let page = tasks::Page::read(&cluster, query).await?;
    Ok(page.answer(&views(&cluster, &page.tasks).await))
}

/// `GET /batches/{uid}`.
///
/// # Errors
/// There is no such batch, or the key may not see it.
pub async fn get(cluster: Shared, Path(uid): Path<String>, sent: Sent) -> Result<Response> {
    let grant = sent.grant()?;
    let Ok(number) = uid.parse::<u32>() else {
        let message = format!("Batch uid `{uid}` is invalid. It should only contain numeric characters.");
        return Err(api_error(400, "invalid_request", "invalid_batch_uids", message).into());
    };
    cluster.tracked_tasks.refresh().await;
    let query = Query {
        limit: 1,
        uids: Some(vec![number]),
        visible: grant.visible(),
        dates: vec![("started_at", true, 0)],
        ..Query::default()
    };
    let (tasks, _) = cluster.ledger.call(move |connection| stored::list(connection, &query)).await?;
    match views(&cluster, &tasks).await.pop() {
        Some(batch) => Ok(Json(batch).into_response()),
        None => {
            Err(api_error(404, "invalid_request", "batch_not_found", format!("Batch `{number}` not found."))
                .into())
        }
    }
}
