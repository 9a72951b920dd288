//! Clients' tasks.

pub use super::task_list::{Moment, Query, list, swap_names, uids};

use super::{cached::Cached, cell::Cell, meta_as, set_meta, webhooks};
use crate::{
    base::{
        error::{Error, Result},
        time::{self, Nanos},
    },
    domain::task::{TaskKind, TaskStatus},
};
use miroir_core::error::ErrorBody;
use rusqlite::{Connection, Row, params};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A task before it has a uid.
#[derive(Clone, Debug, Default)]
pub struct NewTask {
    /// `None` for global tasks.
    pub index: Option<String>,
    /// Meilisearch's task type.
    pub kind: TaskKind,
    /// Meilisearch's details of an enqueued task.
    pub details: Option<Value>,
    /// Metadata that the client gave.
    pub custom_metadata: Option<String>,
}

/// A client's task as the ledger stores it.
#[derive(Clone, Debug)]
pub struct Task {
    /// The client's task uid.
    pub uid: u32,
    /// `None` for global tasks.
    pub index: Option<String>,
    /// Meilisearch's task type.
    pub kind: TaskKind,
    /// How far it is.
    pub status: TaskStatus,
    /// Of Meilisearch's task object.
    pub details: Option<Value>,
    /// Of Meilisearch's task object.
    pub error: Option<Value>,
    /// The uid of the task that cancelled this one.
    pub canceled_by: Option<u32>,
    /// Metadata that the client gave.
    pub custom_metadata: Option<String>,
    /// When it got its uid.
    pub enqueued_at: Nanos,
    /// When the first node began.
    pub started_at: Option<Nanos>,
    /// When the last node ended.
    pub finished_at: Option<Nanos>,
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ending {
    /// How it ended.
    pub status: TaskStatus,
    /// The new details; `None` keeps the old ones.
    pub details: Option<Value>,
    /// Why it failed.
    pub error: Option<ErrorBody>,
    /// When the first node began.
    pub started_at: Option<Nanos>,
    /// When the last node ended.
    pub finished_at: Nanos,
}

impl Task {
    /// Meilisearch's task object.
    #[must_use]
    pub fn view(&self) -> Value {
        let mut view = json!({
            "uid": self.uid,
            "batchUid": self.started_at.map(|_| self.uid),
            "indexUid": self.index,
            "status": self.status,
            "type": self.kind,
            // It is noted a moment before the task ends.
            "canceledBy": self.canceled_by.filter(|_| self.status == TaskStatus::Canceled),
        });
        let Some(object) = view.as_object_mut() else { return view };
        if let Some(details) = &self.details {
            object.insert("details".to_owned(), details.clone());
        }
        let duration =
            self.started_at.zip(self.finished_at).and_then(|(start, end)| time::duration(start, end));
        object.insert("error".to_owned(), json!(self.error));
        object.insert("duration".to_owned(), json!(duration));
        object.insert("enqueuedAt".to_owned(), json!(time::format(self.enqueued_at)));
        object.insert("startedAt".to_owned(), json!(self.started_at.map(time::format)));
        object.insert("finishedAt".to_owned(), json!(self.finished_at.map(time::format)));
        if let Some(metadata) = &self.custom_metadata {
            object.insert("customMetadata".to_owned(), json!(metadata));
        }
        view
    }

    /// Meilisearch's task summary, the body of a 202: the task as it was when it was enqueued.
    #[must_use]
    pub fn summary(&self) -> Value {
        let mut view = json!({
            "taskUid": self.uid,
            "indexUid": self.index,
            "status": TaskStatus::Enqueued,
            "type": self.kind,
            "enqueuedAt": time::format(self.enqueued_at),
        });
        if let (Some(metadata), Some(object)) = (&self.custom_metadata, view.as_object_mut()) {
            object.insert("customMetadata".to_owned(), json!(metadata));
        }
        view
    }

    /// # Errors
    /// The database failed, or the row cannot be read.
    pub(super) fn from_row(row: &Row<'_>) -> Result<Self> {
        let uid: u32 = row.get(0)?;
        let cell = |column| Cell { table: "tasks", row: &uid, column };
        let json = |column, text: Option<String>| text.map(|text| cell(column).json(&text)).transpose();
        let (kind, status): (String, String) = (row.get(2)?, row.get(3)?);
        Ok(Self {
            uid,
            index: row.get(1)?,
            kind: cell("type").parse(&kind, str::parse)?,
            status: cell("status").parse(&status, str::parse)?,
            details: json("details", row.get(4)?)?,
            error: json("error", row.get(5)?)?,
            canceled_by: row.get(6)?,
            custom_metadata: row.get(7)?,
            enqueued_at: row.get(8)?,
            started_at: row.get(9)?,
            finished_at: row.get(10)?,
        })
    }
}

pub(super) const COLUMNS: &str = "uid, index_uid, type, status, details, error, canceled_by, custom_metadata, enqueued_at, \
                       started_at, finished_at";

/// Enqueues a task under the next uid. Uids start at 0, as Meilisearch's do, and are not reused, except by [`take_back`].
///
/// # Errors
/// The database failed, or all 32-bit uids are used.
pub fn insert(connection: &Connection, task: &NewTask, enqueued_at: Nanos) -> Result<Task> {
    let next: u64 = meta_as(connection, "next_task")?.unwrap_or(0);
    let uid = u32::try_from(next).map_err(|_| Error::Other("no task uid is left".to_owned()))?;
    set_meta(connection, "next_task", &(next + 1).to_string())?;
    connection
        .prepare_cached(
            "INSERT INTO tasks (uid, index_uid, type, status, details, custom_metadata, enqueued_at)
             VALUES (?1, ?2, ?3, 'enqueued', ?4, ?5, ?6)",
        )?
        .execute(params![
            uid,
            task.index,
            task.kind.name(),
            task.details.as_ref().map(Value::to_string),
            task.custom_metadata,
            enqueued_at
        ])?;
    Ok(Task {
        uid,
        index: task.index.clone(),
        kind: task.kind,
        status: TaskStatus::Enqueued,
        details: task.details.clone(),
        error: None,
        canceled_by: None,
        custom_metadata: task.custom_metadata.clone(),
        enqueued_at,
        started_at: None,
        finished_at: None,
    })
}

/// Removes a task for which nothing was done, because nodes refused its requests.
///
/// # Errors
/// The database failed.
pub fn forget(connection: &Connection, uid: u32) -> Result<()> {
    connection.execute_cached("DELETE FROM tasks WHERE uid = ?1", [uid])?;
    connection.execute_cached("DELETE FROM intents WHERE uid = ?1", [uid])?;
    connection.execute_cached("DELETE FROM node_tasks WHERE uid = ?1", [uid])?;
    Ok(())
}

/// Removes those of these tasks that have ended, with all that the ledger has of them. Returns how many they were.
///
/// # Errors
/// The database failed.
pub fn forget_ended(connection: &Connection, uids: &[u32]) -> Result<usize> {
    let uids = serde_json::to_string(uids)?;
    let ended = "SELECT uid FROM tasks NOT INDEXED WHERE uid IN (SELECT value FROM json_each(?1))
                 AND status IN ('succeeded', 'failed', 'canceled')";
    for table in ["intents", "node_tasks"] {
        connection
            .prepare_cached(&format!("DELETE FROM {table} WHERE uid IN ({ended})"))?
            .execute([&uids])?;
    }
    Ok(connection.prepare_cached(&format!("DELETE FROM tasks WHERE uid IN ({ended})"))?.execute([&uids])?)
}

/// Changes the details of a task that has not ended.
///
/// # Errors
/// The database failed.
pub fn set_details(connection: &Connection, uid: u32, details: &Value) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE tasks SET details = ?2 WHERE uid = ?1 AND status IN ('enqueued', 'processing')",
        )?
        .execute(params![uid, details.to_string()])?;
    Ok(())
}

/// When the oldest task began that is not ended, or of which something is open; `None` if there is none.
///
/// # Errors
/// The database failed.
pub fn oldest_open(connection: &Connection) -> Result<Option<Nanos>> {
    let sql = "SELECT min(enqueued_at) FROM tasks
               WHERE status IN ('enqueued', 'processing') OR uid IN (SELECT uid FROM intents)";
    Ok(connection.query_row_cached(sql, [], |row| row.get(0))?)
}

/// The number of tasks.
///
/// # Errors
/// The database failed.
pub fn count(connection: &Connection) -> Result<u64> {
    Ok(connection.query_row_cached("SELECT count(*) FROM tasks", [], |row| row.get(0))?)
}

/// The `meta` key of the uid after the highest one that was taken back.
const TAKEN_BACK: &str = "taken_back";

/// Whether a task has had this uid, be it for a moment.
///
/// # Errors
/// The database failed, or a row cannot be read.
pub fn is_given(connection: &Connection, uid: u32) -> Result<bool> {
    let below =
        |key| Ok::<_, Error>(meta_as::<u64>(connection, key)?.is_some_and(|next| u64::from(uid) < next));
    Ok(below("next_task")? || below(TAKEN_BACK)?)
}

/// Like [`forget`], for a task of which no client knows. If its uid is the last one, the next task gets it, so that clients see
/// no gap.
///
/// # Errors
/// The database failed, or a row cannot be read.
pub fn take_back(connection: &Connection, uid: u32) -> Result<()> {
    forget(connection, uid)?;
    let next = u64::from(uid) + 1;
    let highest = meta_as(connection, TAKEN_BACK)?.unwrap_or(0).max(next);
    set_meta(connection, TAKEN_BACK, &highest.to_string())?;
    let next = next.to_string();
    connection.execute_cached(
        "UPDATE meta SET value = ?1 WHERE key = 'next_task' AND value = ?2",
        params![uid.to_string(), next],
    )?;
    Ok(())
}

/// Reads one task.
///
/// # Errors
/// The database failed, or the row cannot be read.
pub fn get(connection: &Connection, uid: u32) -> Result<Option<Task>> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM tasks WHERE uid = ?1"))?;
    statement.query_and_then([uid], Task::from_row)?.next().transpose()
}

/// Marks an enqueued task as processing.
///
/// # Errors
/// The database failed.
pub fn start(connection: &Connection, uid: u32, started_at: Nanos) -> Result<()> {
    connection
        .prepare_cached(
            "UPDATE tasks SET status = 'processing', started_at = ?2 WHERE uid = ?1 AND status = 'enqueued'",
        )?
        .execute(params![uid, started_at])?;
    Ok(())
}

/// Adds a task that has failed with this error before any node got it.
///
/// # Errors
/// The database failed.
pub fn insert_failed(
    connection: &Connection,
    new: &NewTask,
    details: impl FnOnce(&Task) -> Option<Value>,
    error: ErrorBody,
    now: Nanos,
) -> Result<Task> {
    let task = insert(connection, new, now)?;
    let ending = Ending {
        status: TaskStatus::Failed,
        details: details(&task),
        error: Some(error),
        started_at: Some(now),
        finished_at: now,
    };
    finish(connection, task.uid, &ending)?;
    Ok(task)
}

/// Ends a task. A terminal state is written once: returns `false` if the task had already ended.
///
/// # Errors
/// The database failed.
pub fn finish(connection: &Connection, uid: u32, ending: &Ending) -> Result<bool> {
    let changed = connection
        .prepare_cached(
            "UPDATE tasks SET status = ?2, details = coalesce(?3, details), error = ?4,
             started_at = coalesce(?5, started_at), finished_at = ?6
             WHERE uid = ?1 AND status IN ('enqueued', 'processing')",
        )?
        .execute(params![
            uid,
            ending.status.name(),
            ending.details.as_ref().map(Value::to_string),
            ending.error.as_ref().map(serde_json::to_string).transpose()?,
            ending.started_at,
            ending.finished_at
        ])?;
    if changed == 1 {
        webhooks::note(connection, uid)?;
    }
    Ok(changed == 1)
}

/// Notes which task cancelled this one.
///
/// # Errors
/// The database failed.
pub fn set_canceled_by(connection: &Connection, uid: u32, by: u32) -> Result<()> {
    connection.execute_cached("UPDATE tasks SET canceled_by = ?2 WHERE uid = ?1", [uid, by])?;
    Ok(())
}

/// The number of tasks that a task has cancelled.
///
/// # Errors
/// The database failed.
pub fn count_canceled(connection: &Connection, by: u32) -> Result<u64> {
    Ok(connection
        .query_row_cached("SELECT count(*) FROM tasks WHERE canceled_by = ?1", [by], |row| row.get(0))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;

    fn addition(index: &str) -> NewTask {
        NewTask {
            index: Some(index.into()),
            kind: TaskKind::DocumentAdditionOrUpdate,
            details: Some(json!({"receivedDocuments": 1, "indexedDocuments": null})),
            custom_metadata: None,
        }
    }

    #[tokio::test]
    async fn uids_go_on_after_a_crash_and_ends_are_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        let first = ledger.call(|connection| insert(connection, &addition("a"), 1)).await.unwrap();
        let second = ledger.call(|connection| insert(connection, &addition("b"), 1)).await.unwrap();
        assert_eq!((first.uid, second.uid), (0, 1));
        ledger.call(move |connection| forget(connection, 1)).await.unwrap();
        // A second handle on the same file, without a clean shutdown, as after a crash.
        let ledger = Ledger::open(folder.path()).unwrap();
        let third = ledger.call(|connection| insert(connection, &addition("b"), 1)).await.unwrap();
        assert_eq!(third.uid, 2, "a uid is never given twice");
        let ending =
            |status| Ending { status, details: None, error: None, started_at: Some(5), finished_at: 9 };
        assert!(ledger.call(move |c| finish(c, 0, &ending(TaskStatus::Succeeded))).await.unwrap());
        assert!(!ledger.call(move |c| finish(c, 0, &ending(TaskStatus::Failed))).await.unwrap());
        let task = ledger.call(|c| get(c, 0)).await.unwrap().unwrap();
        assert_eq!(task.view()["status"], "succeeded");
        assert_eq!(task.view()["duration"], "PT0.000000004S");
    }
}
