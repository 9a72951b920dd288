//! Batches: nodes batch as they like, so that for clients each task is a batch of its own, with the task's uid. How far it is, and
//! how long its steps took, is what one of its nodes tells.

use super::{Sent, Shared, tasks};
use crate::{
    base::{
        error::{Result, api_error},
        time,
    },
    cluster::Cluster,
    domain::task::TaskKind,
    ledger::{
        intents,
        tasks::{self as stored, Query, Task},
    },
};
use axum::{
    Json,
    extract::Path,
    response::{IntoResponse, Response},
};
use futures_util::future::join_all;
use miroir_core::path::ApiPath;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};

/// What one node tells of a batch, where it tells anything.
const OF_NODE: [&str; 3] = ["progressTrace", "writeChannelCongestion", "internalDatabaseSizes"];

/// Details that a batch that is over does not tell where they are null: Meilisearch reads the batch back from where it is stored, and
/// takes null for absent.
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
fn view(task: &Task, of_node: Option<&Value>) -> Value {
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
        // Where no node had a part.
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

/// Why a batch has no more tasks than this one.
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

/// These tasks as batches.
async fn views(cluster: &Cluster, tasks: &[Task]) -> Vec<Value> {
    let of_nodes = of_nodes(cluster, tasks).await.unwrap_or_else(|error| {
        tracing::warn!(%error, "nodes could not be asked for their batches");
        HashMap::new()
    });
    tasks.iter().map(|task| view(task, of_nodes.get(&task.uid))).collect()
}

/// What a node tells of its batches with these tasks, by task. One that is away, or has forgotten them, tells nothing.
async fn of_nodes(cluster: &Cluster, tasks: &[Task]) -> Result<HashMap<u32, Value>> {
    let uids: Vec<u32> = tasks.iter().map(|task| task.uid).collect();
    let parts = cluster
        .ledger
        .call(move |connection| {
            uids.into_iter()
                .map(|uid| Ok((uid, intents::all_node_tasks(connection, uid)?)))
                .collect::<Result<Vec<_>>>()
        })
        .await?;
    let mut wanted: BTreeMap<String, HashMap<u64, u32>> = BTreeMap::new();
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

/// What a node tells of its batches, by the cluster's tasks: `wanted` has them by the node's own.
async fn of_node(cluster: &Cluster, node: &str, wanted: &HashMap<u64, u32>) -> Option<Vec<(u32, Value)>> {
    let node = cluster.node(node)?;
    let number = |value: &Value, name: &str| value.get(name).and_then(Value::as_u64);
    let list = |numbers: &mut dyn Iterator<Item = u64>| {
        numbers.map(|number| number.to_string()).collect::<Vec<_>>().join(",")
    };
    let page = |path: &'static str, name: &str, numbers: String| {
        ApiPath::from(path).with("limit", &wanted.len().to_string()).with(name, &numbers)
    };
    let path = page("/tasks", "uids", list(&mut wanted.keys().copied()));
    let tasks = node.ask("GET", path, None).await.ok()?;
    let tasks = tasks.get("results")?.as_array()?.iter();
    let batches: Vec<(u32, u64)> = tasks
        .filter_map(|task| Some((*wanted.get(&number(task, "uid")?)?, number(task, "batchUid")?)))
        .collect();
    if batches.is_empty() {
        return None;
    }
    let path = page("/batches", "batchUids", list(&mut batches.iter().map(|(_, batch)| *batch)));
    let told = node.ask("GET", path, None).await.ok()?;
    let told: HashMap<u64, &Value> = told
        .get("results")?
        .as_array()?
        .iter()
        .filter_map(|batch| Some((number(batch, "uid")?, batch)))
        .collect();
    let of_task = |(uid, batch): &(u32, u64)| {
        let mut batch = (*told.get(batch)?).clone();
        crate::disguise::scrub::value(&mut batch);
        Some((*uid, batch))
    };
    Some(batches.iter().filter_map(of_task).collect())
}

/// `GET /batches`.
///
/// # Errors
/// A node's refusal of the client's query.
pub async fn list(cluster: Shared, sent: Sent) -> Result<Response> {
    let grant = sent.grant()?;
    let Some(mut query) = tasks::read(&sent.query, true) else {
        return sent.natively(&cluster).await;
    };
    query.visible = grant.visible();
    // A batch is there once it has begun.
    query.dates.push(("started_at", true, 0));
    let page = tasks::Page::read(&cluster, query).await?;
    Ok(page.answer(&views(&cluster, &page.tasks).await))
}

/// `GET /batches/{uid}`.
///
/// # Errors
/// There is no such batch, or the key does not see it.
pub async fn get(cluster: Shared, Path(uid): Path<String>, sent: Sent) -> Result<Response> {
    let grant = sent.grant()?;
    let Ok(number) = uid.parse::<u32>() else {
        let message = format!("Batch uid `{uid}` is invalid. It should only contain numeric characters.");
        return Err(api_error(400, "invalid_request", "invalid_batch_uids", message).into());
    };
    cluster.settler.refresh().await;
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
