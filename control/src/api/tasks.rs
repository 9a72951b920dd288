//! Tasks: answered from the ledger, after nodes were asked for the state of tracked tasks.

use super::{Sent, Shared};
use crate::{
    auth::Grant,
    base::{
        error::{Error, Result, api_error},
        log, time,
    },
    cluster::{Cluster, missed::WrittenIds, tracked_tasks::TrackedTask},
    domain::{
        intent::{Effect, Intent, NodeTask},
        task::{TaskKind, TaskStatus},
    },
    ledger::{
        intents,
        tasks::{self as stored, Ending, Moment, NewTask, Query},
    },
    tracking::task_deletion,
};
use axum::{
    Json,
    extract::Path,
    response::{IntoResponse, Response},
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tracing::Instrument;

/// `GET /tasks`.
///
/// # Errors
/// A node's error about the client's query.
pub async fn list(cluster: Shared, sent: Sent) -> Result<Response> {
    let grant = sent.grant()?;
    let Some(mut query) = read(&sent.query, true) else {
        // A node checks the same parameters, and answers with Meilisearch's own error.
        return sent.natively(&cluster).await;
    };
    query.visible = grant.visible();
    let page = Page::read(&cluster, query).await?;
    Ok(page.answer(&page.tasks.iter().map(stored::Task::view).collect::<Vec<_>>()))
}

/// A page of tasks, or of batches.
#[derive(Debug)]
pub struct Page {
    /// The tasks of the page.
    pub tasks: Vec<stored::Task>,
    total: u64,
    limit: u32,
    next: Option<u32>,
}

impl Page {
    /// Reads a page from the ledger.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn read(cluster: &Cluster, mut query: Query) -> Result<Self> {
        cluster.tracked_tasks.refresh().await;
        let limit = query.limit;
        // Read one more task, to know whether there is a next page.
        query.limit = limit.saturating_add(1);
        let (mut tasks, total) =
            cluster.ledger.read(move |connection| stored::list(connection, &query)).await?;
        let next = if tasks.len() > limit as usize { tasks.pop().map(|task| task.uid) } else { None };
        Ok(Self { tasks, total, limit, next })
    }

    /// The response for this page, with these objects as its results.
    #[must_use]
    pub fn answer(&self, results: &[Value]) -> Response {
        let from = self.tasks.first().map(|task| task.uid);
        let Self { total, limit, next, .. } = self;
        Json(json!({"results": results, "total": total, "limit": limit, "from": from, "next": next}))
            .into_response()
    }
}

/// `GET /tasks/{uid}`.
///
/// # Errors
/// There is no such task, or the key may not see it.
pub async fn get(cluster: Shared, Path(uid): Path<String>, sent: Sent) -> Result<Response> {
    let grant = sent.grant()?;
    Ok(Json(find(&cluster, grant, &uid).await?.view()).into_response())
}

/// A task that a key may see.
///
/// # Errors
/// There is no such task, or the key may not see it.
pub async fn find(cluster: &Cluster, grant: &Grant, uid: &str) -> Result<stored::Task> {
    let Ok(number) = uid.parse::<u32>() else {
        let message = format!("Task uid `{uid}` is invalid. It should only contain numeric characters.");
        return Err(api_error(400, "invalid_request", "invalid_task_uids", message).into());
    };
    cluster.tracked_tasks.refresh().await;
    let query = Query { limit: 1, uids: Some(vec![number]), visible: grant.visible(), ..Query::default() };
    let (tasks, _) = cluster.ledger.read(move |connection| stored::list(connection, &query)).await?;
    let message = || format!("Task `{number}` not found.");
    let missing = || api_error(404, "invalid_request", "task_not_found", message()).into();
    tasks.into_iter().next().ok_or_else(missing)
}

/// `POST /tasks/cancel`: nodes cancel their tasks, and the clients' tasks end as those of the nodes do.
///
/// # Errors
/// The query is empty or invalid.
pub async fn cancel(cluster: Shared, sent: Sent) -> Result<Response> {
    let (query, text) = match select(&cluster, &sent, "cancel").await? {
        Ok(selected) => selected,
        Err(refusal) => return Ok(refusal),
    };
    let uids = cluster.ledger.read(move |connection| stored::uids(connection, &query)).await?;
    let new = NewTask {
        index: None,
        kind: TaskKind::TaskCancelation,
        details: Some(json!({"matchedTasks": uids.len(), "canceledTasks": null, "originalFilter": text})),
        custom_metadata: None,
    };
    // After a crash, the cancelation ends with the tasks that it has cancelled until then.
    let intent = Intent::without_requests();
    let clock = cluster.clock.clone();
    let begin = move |connection: &_| intents::begin(connection, &new, &intent, clock.wall());
    let task = cluster.ledger.call(begin).await?;
    let stopped = stop_exports(&cluster, &uids, task.uid).await?;
    let parts = cluster.tracked_tasks.cancel(&uids, task.uid);
    let asked = parts.into_iter().map(async |(node, node_tasks)| {
        let node = cluster.node(&node)?;
        let silent = |error: &Error| {
            tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a node may not cancel its tasks");
        };
        let node_task = node.cancel_tasks(&node_tasks).await.inspect_err(silent).ok()??;
        Some(NodeTask { node: node.name.clone(), node_task, main: true, shards: Vec::new() })
    });
    let span = log::task_span(Some(task.uid), Some(task.kind.name()), None);
    let node_tasks: Vec<NodeTask> = join_all(asked).instrument(span).await.into_iter().flatten().collect();
    let summary = task.summary();
    if node_tasks.is_empty() {
        let details = json!({"matchedTasks": uids.len(), "canceledTasks": stopped, "originalFilter": text});
        end(&cluster, task.uid, details).await?;
    } else {
        let (uid, stored) = (task.uid, node_tasks.clone());
        cluster.ledger.call(move |connection| intents::sent(connection, uid, &stored)).await?;
        let effect = Effect::None;
        cluster.tracked_tasks.add(TrackedTask {
            task,
            node_tasks,
            effect,
            indexed: None,
            written: WrittenIds::new(),
            guard: None,
        });
    }
    Ok(Json(summary).into_response())
}

/// Cancels the exports among these tasks. Returns their number.
async fn stop_exports(cluster: &Cluster, uids: &[u32], by: u32) -> Result<usize> {
    let stopped = cluster.exports.stop(uids);
    let finished_at = cluster.clock.wall();
    let ending = move || Ending {
        status: TaskStatus::Canceled,
        details: None,
        error: None,
        started_at: None,
        finished_at,
    };
    cluster
        .ledger
        .call(move |connection| {
            let mut count = 0;
            for uid in stopped {
                // It may have ended just before.
                if stored::finish(connection, uid, &ending())? {
                    stored::set_canceled_by(connection, uid, by)?;
                    intents::close(connection, uid)?;
                    count += 1;
                }
            }
            Ok(count)
        })
        .await
}

/// `DELETE /tasks`: deletes ended tasks from the ledger. Tasks that are being processed are waited for and deleted too, because
/// a single node deletes tasks only between two batches.
///
/// # Errors
/// The query is empty or invalid.
pub async fn delete(cluster: Shared, sent: Sent) -> Result<Response> {
    let (mut query, text) = match select(&cluster, &sent, "delete").await? {
        Ok(selected) => selected,
        Err(refusal) => return Ok(refusal),
    };
    cluster.tracked_tasks.refresh().await;
    query.limit = u32::MAX;
    let uids = cluster.ledger.read(move |connection| stored::uids(connection, &query)).await?;
    let task = task_deletion::begin(&cluster, uids.len(), text).await?;
    let summary = task.summary();
    let under_way = cluster.tracked_tasks.under_way(&uids);
    if under_way.is_empty() && uids.len() <= AT_ONCE {
        task_deletion::run(&cluster, task, uids).await?;
    } else {
        let (cluster, supervisor) = (cluster.0.clone(), cluster.supervisor.clone());
        let span = log::task_span(Some(task.uid), Some(task.kind.name()), None);
        let deleting = async move {
            cluster.tracked_tasks.ended(&under_way).await;
            if let Err(error) = task_deletion::run(&cluster, task, uids).await {
                tracing::error!(error = %error.chain(), "tasks could not be deleted");
            }
        };
        supervisor.spawn("task deletion", deleting.instrument(span));
    }
    Ok(Json(summary).into_response())
}

/// A deletion of more tasks than this is not waited for by its client.
const AT_ONCE: usize = 10_000;

/// The query of a cancelation or deletion, and its text; or the response of a node that refuses the query.
async fn select(cluster: &Shared, sent: &Sent, verb: &str) -> Result<Result<(Query, String), Response>> {
    let grant = sent.grant()?;
    let Some(mut query) = read(&sent.query, false) else {
        return Ok(Err(sent.natively(cluster).await?));
    };
    let text = &sent.query;
    if text.is_empty() {
        let message = format!(
            "Query parameters to filter the tasks to {verb} are missing. Available query parameters are: `uids`, \
             `indexUids`, `statuses`, `types`, `canceledBy`, `beforeEnqueuedAt`, `afterEnqueuedAt`, \
             `beforeStartedAt`, `afterStartedAt`, `beforeFinishedAt`, `afterFinishedAt`."
        );
        return Err(api_error(400, "invalid_request", "missing_task_filters", message).into());
    }
    query.limit = u32::MAX;
    query.visible = grant.visible();
    Ok(Ok((query, format!("?{text}"))))
}

/// Ends a task that needs no node.
async fn end(cluster: &Cluster, uid: u32, details: Value) -> Result<()> {
    let now = cluster.clock.wall();
    let ending = Ending {
        status: TaskStatus::Succeeded,
        details: Some(details),
        error: None,
        started_at: Some(now),
        finished_at: now,
    };
    cluster.ledger.call(move |connection| intents::end(connection, uid, &ending)).await
}

/// Parses the query of `GET /tasks`; `None` if a node would refuse it.
pub(super) fn read(text: &str, paged: bool) -> Option<Query> {
    let mut query = Query { limit: 20, ..Query::default() };
    for (name, value) in url::form_urlencoded::parse(text.as_bytes()) {
        let is_star = members(&value).any(|part| part == "*");
        let numbers = || members(&value).map(|part| part.parse().ok()).collect::<Option<Vec<u32>>>();
        match name.as_ref() {
            "limit" if paged => query.limit = value.parse().ok()?,
            "from" if paged => query.from = Some(value.parse().ok()?),
            "reverse" if paged => query.reverse = value.parse().ok()?,
            "uids" if !is_star => query.uids = Some(numbers()?),
            // In a cluster each task is its own batch, with the same uid.
            "batchUids" if !is_star => query.uids = Some(numbers()?),
            "canceledBy" if !is_star => query.canceled_by = Some(numbers()?),
            "statuses" if !is_star => {
                query.statuses = Some(among(&value, TaskStatus::ALL, TaskStatus::name)?)
            }
            "types" if !is_star => query.types = Some(among(&value, TaskKind::ALL, TaskKind::name)?),
            "indexUids" if !is_star => {
                let uids: Vec<String> = members(&value).map(ToOwned::to_owned).collect();
                if uids.iter().any(|uid| crate::domain::index_uid::check_index_uid(uid).is_err()) {
                    return None;
                }
                query.indexes = Some(uids);
            }
            "uids" | "batchUids" | "canceledBy" | "statuses" | "types" | "indexUids" => {}
            name => {
                let (after, column) = DATES.iter().find_map(|(parameter, column)| {
                    let after = name.strip_prefix("after") == Some(parameter);
                    let before = name.strip_prefix("before") == Some(parameter);
                    (after || before).then_some((after, *column))
                })?;
                if value != "*" {
                    query.dates.push((column, after, time::parse_filter(&value, after)?));
                }
            }
        }
    }
    Some(query)
}

const DATES: [(&str, Moment); 3] =
    [("EnqueuedAt", Moment::Enqueued), ("StartedAt", Moment::Started), ("FinishedAt", Moment::Finished)];

/// The members of a comma-separated list, without empty ones.
///
/// Source: `serde-cs` 0.2.
fn members(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').filter(|member| !member.is_empty())
}

/// What a list names, in any case.
fn among<T: Copy>(value: &str, all: &[T], name: impl Fn(T) -> &'static str) -> Option<Vec<T>> {
    members(value).map(|part| all.iter().copied().find(|it| name(*it).eq_ignore_ascii_case(part))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_as_meilisearch_reads_them() {
        let query = read(
            "limit=3&from=9&reverse=true&uids=1,2&statuses=Succeeded,failed&types=*&indexUids=a,b\
             &afterEnqueuedAt=2024-01-01&canceledBy=4",
            true,
        )
        .unwrap();
        assert_eq!((query.limit, query.from, query.reverse), (3, Some(9), true));
        assert_eq!(query.uids, Some(vec![1, 2]));
        assert_eq!(query.statuses.unwrap(), [TaskStatus::Succeeded, TaskStatus::Failed]);
        assert_eq!(query.types, None);
        assert_eq!(query.dates, [(Moment::Enqueued, true, time::parse("2024-01-02T00:00:00Z").unwrap())]);
        let gaps = read("indexUids=x,&uids=,1,,2&statuses=", true).unwrap();
        assert_eq!((gaps.indexes, gaps.uids), (Some(vec!["x".to_owned()]), Some(vec![1, 2])));
        assert_eq!(gaps.statuses, Some(Vec::new()));
        for refused in
            ["limit=x", "unknown=1", "types=nope", "indexUids=a%20b", "uids=1,%202", "beforeStartedAt=soon"]
        {
            assert!(read(refused, true).is_none(), "{refused}");
        }
    }
}
