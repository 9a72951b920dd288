//! Batches: nodes batch as they like, so that for clients each task is a batch of its own, with the task's uid.

use super::{Sent, Shared, tasks};
use crate::error::{Result, api_error};
use crate::{
    ledger::tasks::{self as stored, Query, Task},
    time,
};
use axum::{
    Json,
    extract::Path,
    response::{IntoResponse, Response},
};
use serde_json::{Map, Value, json};

/// Meilisearch's batch object.
fn view(task: &Task) -> Value {
    let count = |name: Option<&str>| -> Map<String, Value> {
        name.into_iter().map(|name| (name.to_owned(), json!(1))).collect()
    };
    let duration = task.started_at.zip(task.finished_at).and_then(|(start, end)| time::duration(start, end));
    json!({
        "uid": task.uid,
        "progress": null,
        "details": task.details.clone().unwrap_or_else(|| json!({})),
        "stats": {
            "totalNbTasks": 1,
            "status": count(Some(&task.status)),
            "types": count(Some(&task.kind)),
            "indexUids": count(task.index.as_deref()),
            // Steps are each node's own.
            "progressTrace": {},
        },
        "duration": duration,
        "startedAt": task.started_at.map(time::format),
        "finishedAt": task.finished_at.map(time::format),
        "batchStrategy": "batched all enqueued tasks",
    })
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
    tasks::page(&cluster, query, view).await
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
    match tasks.first() {
        Some(task) => Ok(Json(view(task)).into_response()),
        None => {
            Err(api_error(404, "invalid_request", "batch_not_found", format!("Batch `{number}` not found."))
                .into())
        }
    }
}
