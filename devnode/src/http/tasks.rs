//! `/tasks` and `/batches`.

use std::collections::BTreeMap;

use axum::extract::Path;
use axum::response::Response;
use serde::Serialize;
use serde_json::json;

use super::{Answer, Call, ok};
use crate::auth::{Action, Rights};
use crate::error::{ApiError, Code, Result};
use crate::tasks::query::{Page, Selection};
use crate::tasks::view::{BatchView, TaskView};
use crate::tasks::{Task, Work};

#[derive(Serialize)]
struct Listed<T> {
    results: Vec<T>,
    total: usize,
    limit: u32,
    from: Option<u32>,
    next: Option<u32>,
}

/// Whether the caller may see the task. This requires the right to its index, or to all indexes if the task does not concern
/// exactly one.
fn visible(rights: &Rights, task: &Task) -> bool {
    match task.work.indexes().as_slice() {
        [index] => rights.covers(index),
        _ => rights.covers_all(),
    }
}

/// `GET /tasks`
pub async fn list(call: Call) -> Answer {
    let rights = call.allow(Action::TasksGet, None)?;
    let page: Page = call.params()?;
    let found = call.node.queue.find(&page, |task| visible(&rights, task));
    let results: Vec<TaskView> = found.tasks.iter().map(TaskView::from).collect();
    let from = found.tasks.first().map(|task| task.uid);
    ok(&Listed { results, total: found.total, limit: page.limit.0, from, next: found.next })
}

fn uid(text: &str, code: Code, what: &str) -> Result<u32> {
    text.parse().map_err(|_| {
        ApiError::new(
            code,
            format!("{what} uid `{text}` is invalid. It should only contain numeric characters."),
        )
    })
}

/// `GET /tasks/{uid}`
pub async fn one(Path(text): Path<String>, call: Call) -> Answer {
    let rights = call.allow(Action::TasksGet, None)?;
    let uid = uid(&text, Code::InvalidTaskUids, "Task")?;
    match call.node.queue.get(uid).filter(|task| visible(&rights, task)) {
        Some(task) => ok(&TaskView::from(&task)),
        None => Err(ApiError::new(Code::TaskNotFound, format!("Task `{uid}` not found."))),
    }
}

/// The tasks that a cancelation or deletion selects. Refuses a request without any parameter, which would select all tasks.
fn selected(call: &Call, action: Action) -> Result<Vec<u32>> {
    let rights = call.allow(action, None)?;
    let selection: Selection = call.params()?;
    if call.raw_query() == "?" {
        let (code, verb) = match action {
            Action::TasksCancel => (Code::MissingTaskFilters, "cancel"),
            _ => (Code::MissingTaskFilters, "delete"),
        };
        let message = format!(
            "Query parameters to filter the tasks to {verb} are missing. Available query parameters are: `uids`, \
             `indexUids`, `statuses`, `types`, `canceledBy`, `beforeEnqueuedAt`, `afterEnqueuedAt`, `beforeStartedAt`, \
             `afterStartedAt`, `beforeFinishedAt`, `afterFinishedAt`."
        );
        return Err(ApiError::new(code, message));
    }
    let found = call.node.queue.find(&Page::from(selection), |task| visible(&rights, task));
    let mut uids: Vec<u32> = found.tasks.iter().map(|task| task.uid).collect();
    uids.sort_unstable();
    Ok(uids)
}

/// `POST /tasks/cancel`
pub async fn cancel(call: Call) -> Answer {
    let uids = selected(&call, Action::TasksCancel)?;
    let query = call.raw_query();
    let details = json!({ "matchedTasks": uids.len(), "canceledTasks": null, "originalFilter": query });
    enqueue(call, Work::CancelTasks { query, uids }, details).await.map(as_ok)
}

/// `DELETE /tasks`
pub async fn delete(call: Call) -> Answer {
    let uids = selected(&call, Action::TasksDelete)?;
    let query = call.raw_query();
    let details = json!({ "matchedTasks": uids.len(), "deletedTasks": null, "originalFilter": query });
    enqueue(call, Work::DeleteTasks { query, uids }, details).await.map(as_ok)
}

async fn enqueue(call: Call, work: Work, details: serde_json::Value) -> Answer {
    call.enqueue(work, details.as_object().cloned(), None).await
}

/// Sets the status 200: cancelations and deletions of tasks answer 200, all other writes 202.
fn as_ok(mut response: Response) -> Response {
    *response.status_mut() = axum::http::StatusCode::OK;
    response
}

fn grouped(tasks: Vec<Task>) -> BTreeMap<u32, Vec<Task>> {
    let mut batches = BTreeMap::<u32, Vec<Task>>::new();
    for task in tasks {
        if let Some(batch) = task.batch_uid {
            batches.entry(batch).or_default().push(task);
        }
    }
    batches
}

/// `GET /batches`
pub async fn batches(call: Call) -> Answer {
    let rights = call.allow(Action::TasksGet, None)?;
    let mut page: Page = call.params()?;
    let (limit, from) = (std::mem::replace(&mut page.limit.0, u32::MAX), page.from.take());
    let reverse = page.reverse.is_some_and(|reverse| reverse.0);
    let found = call.node.queue.find(&page, |task| visible(&rights, task));
    let mut all: Vec<(u32, Vec<Task>)> = grouped(found.tasks).into_iter().collect();
    if !reverse {
        all.reverse();
    }
    let total = all.len();
    let from = from.map(|from| from.0);
    let mut rest = all
        .into_iter()
        .filter(|(uid, _)| from.is_none_or(|from| if reverse { *uid >= from } else { *uid <= from }));
    let mut shown = Vec::new();
    for (uid, _) in rest.by_ref().take(limit as usize) {
        // A batch is shown with all its tasks, even if only some of them matched.
        shown.push((uid, whole_batch(&call, uid)?));
    }
    let next = rest.next().map(|(uid, _)| uid);
    let from = shown.first().map(|(uid, _)| *uid);
    let results: Vec<BatchView> = shown.iter().map(|(uid, tasks)| BatchView::new(*uid, tasks)).collect();
    ok(&Listed { results, total, limit, from, next })
}

fn whole_batch(call: &Call, uid: u32) -> Result<Vec<Task>> {
    let query: Page = crate::validate::query(&format!("batchUids={uid}&limit={}", u32::MAX))?;
    Ok(call.node.queue.find(&query, |_| true).tasks)
}

/// `GET /batches/{uid}`
pub async fn batch(Path(text): Path<String>, call: Call) -> Answer {
    let rights = call.allow(Action::TasksGet, None)?;
    let uid = uid(&text, Code::InvalidBatchUids, "Batch")?;
    let tasks = whole_batch(&call, uid)?;
    if tasks.is_empty() || !tasks.iter().any(|task| visible(&rights, task)) {
        return Err(ApiError::new(Code::BatchNotFound, format!("Batch `{uid}` not found.")));
    }
    ok(&BatchView::new(uid, &tasks))
}
