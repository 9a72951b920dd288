//! Tasks and batches as clients see them.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};
use time::{Duration, OffsetDateTime};

use super::{Kind, Status, Task, Work};
use crate::error::ApiError;

/// The summary of a task: the answer to a write.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    task_uid: u32,
    index_uid: Option<String>,
    status: Status,
    #[serde(rename = "type")]
    kind: Kind,
    #[serde(with = "time::serde::rfc3339")]
    enqueued_at: OffsetDateTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    custom_metadata: Option<String>,
}

impl From<&Task> for Summary {
    fn from(task: &Task) -> Self {
        Self {
            task_uid: task.uid,
            index_uid: task.work.index().map(String::from),
            status: task.status,
            kind: task.work.kind(),
            enqueued_at: task.enqueued_at,
            custom_metadata: task.custom_metadata.clone(),
        }
    }
}

/// A complete task.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskView {
    uid: u32,
    batch_uid: Option<u32>,
    index_uid: Option<String>,
    status: Status,
    #[serde(rename = "type")]
    kind: Kind,
    canceled_by: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Map<String, Value>>,
    error: Option<ApiError>,
    #[serde(serialize_with = "iso_duration")]
    duration: Option<Duration>,
    #[serde(with = "time::serde::rfc3339")]
    enqueued_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    started_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    finished_at: Option<OffsetDateTime>,
    #[serde(skip_serializing_if = "Option::is_none")]
    custom_metadata: Option<String>,
}

impl From<&Task> for TaskView {
    fn from(task: &Task) -> Self {
        Self {
            uid: task.uid,
            batch_uid: task.batch_uid,
            index_uid: task.work.index().map(String::from),
            status: task.status,
            kind: task.work.kind(),
            canceled_by: task.canceled_by,
            details: task.details.clone(),
            error: task.error.clone(),
            duration: task.started_at.zip(task.finished_at).map(|(start, end)| end - start),
            enqueued_at: task.enqueued_at,
            started_at: task.started_at,
            finished_at: task.finished_at,
            custom_metadata: task.custom_metadata.clone(),
        }
    }
}

/// Details that are left out of an ended batch if they are null.
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

/// A complete batch. Batches are not stored, but derived from their tasks.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BatchView {
    uid: u32,
    progress: Option<Value>,
    details: Map<String, Value>,
    stats: Value,
    #[serde(serialize_with = "iso_duration")]
    duration: Option<Duration>,
    #[serde(with = "time::serde::rfc3339::option")]
    started_at: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339::option")]
    finished_at: Option<OffsetDateTime>,
    batch_strategy: String,
}

impl BatchView {
    /// The batch of these tasks, which must not be empty.
    pub fn new(uid: u32, tasks: &[Task]) -> Self {
        let mut statuses = BTreeMap::<Status, u32>::new();
        let mut kinds = BTreeMap::<Kind, u32>::new();
        let mut indexes = BTreeMap::<String, u32>::new();
        let mut details = Map::new();
        for task in tasks {
            *statuses.entry(task.status).or_default() += 1;
            *kinds.entry(task.work.kind()).or_default() += 1;
            // A swap does not count for any index.
            let of =
                task.work.indexes().into_iter().filter(|_| !matches!(task.work, Work::SwapIndexes { .. }));
            for index in of {
                *indexes.entry(index.to_string()).or_default() += 1;
            }
            for (name, value) in task.details.iter().flatten() {
                let sum = details.get(name).and_then(Value::as_u64).zip(value.as_u64()).map(|(a, b)| a + b);
                details.insert(name.clone(), sum.map_or_else(|| value.clone(), Value::from));
            }
        }
        // Meilisearch reads an ended batch from its database, and treats null as absent, except among settings.
        let is_over = tasks.iter().all(|task| task.finished_at.is_some());
        details.retain(|name, value: &mut Value| {
            !(is_over && value.is_null() && NOT_NULL.contains(&name.as_str()))
        });
        let started_at = tasks.iter().find_map(|task| task.started_at);
        let finished_at = tasks.iter().find_map(|task| task.finished_at);
        let processing = tasks.iter().any(|task| task.status == Status::Processing);
        Self {
            uid,
            progress: processing.then(|| json!({ "steps": [], "percentage": 0.0 })),
            details,
            stats: json!({
                "totalNbTasks": tasks.len(),
                "status": statuses,
                "types": kinds,
                "indexUids": indexes,
            }),
            duration: started_at.zip(finished_at).map(|(start, end)| end - start),
            started_at,
            finished_at,
            batch_strategy: strategy(tasks),
        }
    }
}

/// The reason why a batch has no more tasks, as Meilisearch words it.
fn strategy(tasks: &[Task]) -> String {
    let Some(last) = tasks.last() else { return String::new() };
    let (uid, kind) = (last.uid, json!(last.work.kind()));
    let kind = kind.as_str().unwrap_or_default();
    match kind {
        "documentEdition" | "dumpCreation" | "export" | "indexCompaction" | "indexCreation" | "indexSwap"
        | "indexUpdate" | "taskCancelation" => format!(
            "created batch containing only task with id {uid} of type `{kind}` that cannot be batched with any other task."
        ),
        "snapshotCreation" | "taskDeletion" => format!(
            "stopped after the last task of type `{kind}` because they cannot be batched with tasks of any other type."
        ),
        "indexDeletion" => format!("stopped after task with id {uid} because it deletes the index"),
        _ => "batched all enqueued tasks".to_owned(),
    }
}

/// Serializes a duration in the ISO 8601 format, with 0, 3, 6 or 9 digits after the point.
fn iso_duration<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) if !duration.is_negative() => serializer.serialize_str(&iso(*duration)),
        _ => serializer.serialize_none(),
    }
}

fn iso(duration: Duration) -> String {
    let days = duration.whole_days();
    let seconds = duration.whole_seconds() - days * 86_400;
    let nanos = duration.subsec_nanoseconds();
    let date = if days == 0 { String::new() } else { format!("{days}D") };
    let time = match nanos {
        0 if seconds == 0 && days != 0 => String::new(),
        0 => format!("T{seconds}S"),
        n if n % 1_000_000 == 0 => format!("T{seconds}.{:03}S", n / 1_000_000),
        n if n % 1_000 == 0 => format!("T{seconds}.{:06}S", n / 1_000),
        n => format!("T{seconds}.{n:09}S"),
    };
    format!("P{date}{time}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_iso_8601() {
        assert_eq!(iso(Duration::ZERO), "PT0S");
        assert_eq!(iso(Duration::milliseconds(1500)), "PT1.500S");
        assert_eq!(iso(Duration::microseconds(7)), "PT0.000007S");
        assert_eq!(iso(Duration::days(2)), "P2D");
        assert_eq!(iso(Duration::days(1) + Duration::nanoseconds(1)), "P1DT0.000000001S");
    }
}
