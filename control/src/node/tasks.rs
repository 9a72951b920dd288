//! A node's tasks.

use super::{
    Node, SHORT_QUESTION, TIMEOUT,
    answers::{task_error, task_uid},
};
use crate::{
    base::error::{Error, Result},
    domain::task::{TaskKind, TaskStatus},
};
use miroir_core::{error::ErrorBody, path::ApiPath};
use serde_json::Value;
use std::{fmt, time::Duration};

/// What a node tells of one of its tasks.
#[derive(Clone, Debug)]
pub struct TaskInfo(Value);

impl TaskInfo {
    /// The task's object, as the node tells it.
    #[must_use]
    pub fn new(object: Value) -> Self {
        Self(object)
    }

    /// A member of the object; `None` where it is missing.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_str()
    }

    /// The node's uid of it.
    #[must_use]
    pub fn uid(&self) -> Option<u32> {
        task_uid(&self.0)
    }

    /// The index that it is about.
    #[must_use]
    pub fn index(&self) -> Option<&str> {
        self.text("indexUid")
    }

    /// What it does; `None` where that is unknown.
    #[must_use]
    pub fn kind(&self) -> Option<TaskKind> {
        self.text("type")?.parse().ok()
    }

    /// Its status; `None` where it is unknown.
    #[must_use]
    pub fn status(&self) -> Option<TaskStatus> {
        TaskStatus::of_node(&self.0)
    }

    /// Whether the node has ended it, one way or the other.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.status().is_some_and(TaskStatus::is_over)
    }

    /// Whether it has ended well.
    #[must_use]
    pub fn has_succeeded(&self) -> bool {
        self.status() == Some(TaskStatus::Succeeded)
    }

    /// Whether it has failed, or was cancelled.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        matches!(self.status(), Some(TaskStatus::Failed | TaskStatus::Canceled))
    }

    /// The error that it has failed with.
    #[must_use]
    pub fn error(&self) -> Option<ErrorBody> {
        task_error(&self.0)
    }

    /// When the node enqueued it, as the node tells it.
    #[must_use]
    pub fn enqueued_at(&self) -> Option<&str> {
        self.text("enqueuedAt")
    }

    /// What the request that made it carried.
    #[must_use]
    pub fn custom_metadata(&self) -> Option<&str> {
        self.text("customMetadata")
    }
}

/// Some of a node's tasks, oldest first.
#[derive(Clone, Debug, Default)]
pub struct TaskPage {
    /// The tasks, each with its uid.
    pub tasks: Vec<TaskInfo>,
    /// The uid that the next page begins with; `None` where this page is the last one.
    pub next: Option<u32>,
}

/// The most tasks of a page.
const PAGE: usize = 1000;

impl fmt::Display for TaskInfo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

fn list<U: Copy + Into<u64>>(uids: &[U]) -> String {
    uids.iter().map(|uid| (*uid).into().to_string()).collect::<Vec<_>>().join(",")
}

impl Node {
    /// One task.
    ///
    /// # Errors
    /// The node did not answer, or does not know it.
    pub async fn task(&self, uid: impl Into<u64>) -> Result<TaskInfo> {
        self.ask("GET", ApiPath::new(["tasks", &uid.into().to_string()]), None).await.map(TaskInfo)
    }

    /// A list of tasks, each with its uid.
    async fn list_tasks(&self, path: ApiPath, timeout: Duration) -> Result<TaskPage> {
        let request = format!("GET {path}");
        let mut answer = self.ask_within("GET", path, None, timeout).await?;
        let read = |task: Value| match task_uid(&task) {
            Some(_) => Ok(TaskInfo(task)),
            None => Err(self.unreadable(&request, &task)),
        };
        let next = match answer.get("next") {
            None | Some(Value::Null) => None,
            Some(next) => {
                let uid = next.as_u64().and_then(|uid| u32::try_from(uid).ok());
                Some(uid.ok_or_else(|| self.unreadable(&request, &answer))?)
            }
        };
        let tasks = match answer.get_mut("results") {
            Some(Value::Array(tasks)) => std::mem::take(tasks),
            _ => return Err(self.unreadable(&request, &answer)),
        };
        let tasks = tasks.into_iter().map(read).collect::<Result<_>>()?;
        Ok(TaskPage { tasks, next })
    }

    /// Those of these tasks that the node knows.
    ///
    /// # Errors
    /// The node did not answer, or refused.
    pub async fn tasks<U: Copy + Into<u64>>(&self, uids: &[U]) -> Result<Vec<TaskInfo>> {
        let path = ApiPath::from("/tasks").with("limit", &uids.len().to_string()).with("uids", &list(uids));
        Ok(self.list_tasks(path, TIMEOUT).await?.tasks)
    }

    /// A page of the node's tasks, of whatever state, from this uid on.
    ///
    /// # Errors
    /// The node did not answer in time, or refused.
    pub async fn tasks_from(&self, uid: u32, timeout: Duration) -> Result<TaskPage> {
        let path = ApiPath::from("/tasks")
            .with("reverse", "true")
            .with("from", &uid.to_string())
            .with("limit", &PAGE.to_string());
        self.list_tasks(path, timeout).await
    }

    /// The newest tasks, newest first.
    ///
    /// # Errors
    /// The node did not answer in time, or refused.
    pub async fn newest_tasks(&self, timeout: Duration) -> Result<Vec<TaskInfo>> {
        let path = ApiPath::from("/tasks").with("limit", &PAGE.to_string());
        Ok(self.list_tasks(path, timeout).await?.tasks)
    }

    /// The uid of the newest task; `None` if there is none.
    ///
    /// # Errors
    /// The node did not answer, or refused.
    pub async fn newest_task(&self) -> Result<Option<u32>> {
        let page = self.list_tasks(ApiPath::from("/tasks?limit=1"), SHORT_QUESTION).await?;
        Ok(page.tasks.first().and_then(TaskInfo::uid))
    }

    /// The tasks of these kinds that are newer than `bound`, oldest first.
    ///
    /// # Errors
    /// The node did not answer, or refused.
    pub async fn tasks_after(&self, bound: Option<u32>, kinds: &[TaskKind]) -> Result<Vec<TaskInfo>> {
        let kinds = kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(",");
        let mut next = bound.map_or(Some(0), |bound| bound.checked_add(1));
        let mut all = Vec::new();
        while let Some(from) = next {
            let path = ApiPath::from("/tasks?reverse=true")
                .with("limit", &PAGE.to_string())
                .with("from", &from.to_string())
                .with("types", &kinds);
            let page = self.list_tasks(path, TIMEOUT).await?;
            next = page.next;
            all.extend(page.tasks.into_iter().filter(|task| task.uid() > bound));
        }
        Ok(all)
    }

    /// Those of these batches that the node knows, as it tells them.
    ///
    /// # Errors
    /// The node did not answer, or refused.
    pub async fn batches(&self, uids: &[u64], limit: usize) -> Result<Vec<Value>> {
        let path = ApiPath::from("/batches").with("limit", &limit.to_string()).with("batchUids", &list(uids));
        let answer = self.ask("GET", path, None).await?;
        self.results("GET /batches", &answer).cloned()
    }

    /// How many tasks the node has, ended or not.
    ///
    /// # Errors
    /// The node did not answer, or refused.
    pub async fn count_tasks(&self) -> Result<u64> {
        let path = "/tasks?limit=1";
        let answer = self.ask("GET", path, None).await?;
        let total = answer.get("total").and_then(Value::as_u64);
        total.ok_or_else(|| self.unreadable(format!("GET {path}"), &answer))
    }

    /// Deletes the tasks that ended before a date.
    ///
    /// # Errors
    /// The node did not answer, or refused.
    pub async fn delete_ended_tasks(&self, before: &str) -> Result<()> {
        let path = ApiPath::from("/tasks")
            .with("statuses", "succeeded,failed,canceled")
            .with("beforeFinishedAt", before);
        self.ask("DELETE", path, None).await.map(drop)
    }

    /// Cancels tasks; gives the task that does so, unless the answer names none.
    ///
    /// # Errors
    /// The node did not answer, or refused.
    pub async fn cancel_tasks(&self, uids: &[u32]) -> Result<Option<u32>> {
        let path = ApiPath::from("/tasks/cancel").with("uids", &list(uids));
        let answer = self.ask("POST", path, None).await?;
        Ok(answer.get("taskUid").and_then(Value::as_u64).and_then(|uid| u32::try_from(uid).ok()))
    }

    /// Waits until the node has ended a task.
    ///
    /// # Errors
    /// The task failed, or the node did not answer.
    pub async fn wait_for_task(&self, uid: u64) -> Result<()> {
        let mut pause = Duration::from_millis(20);
        loop {
            let task = self.task(uid).await?;
            if task.has_succeeded() {
                return Ok(());
            }
            if task.has_failed() {
                return Err(self.failed(&task));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
    }

    /// Waits until the node has ended these tasks, the last of which is the newest.
    ///
    /// # Errors
    /// One of them failed: the error names its index; or the node did not answer.
    pub async fn wait_for_tasks(&self, uids: &[u64]) -> Result<()> {
        let Some(last) = uids.last() else { return Ok(()) };
        let mut pause = Duration::from_millis(20);
        while !self.task(*last).await?.is_over() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
        for uids in uids.chunks(PAGE) {
            if let Some(failed) = self.tasks(uids).await?.iter().find(|task| task.has_failed()) {
                return Err(self.failed(failed));
            }
        }
        Ok(())
    }

    /// The error for a task that has failed.
    fn failed(&self, task: &TaskInfo) -> Error {
        let why = task.error().map_or_else(|| task.to_string(), |error| error.message);
        let (kind, index) = (task.text("type").unwrap_or("task"), task.index().unwrap_or("none"));
        let uid = task.uid().unwrap_or_default();
        Error::Other(format!(
            "node `{}` refuses `{kind}` of index `{index}` in its task {uid}: {why}",
            self.name
        ))
    }

    /// Waits until the node has ended all tasks that it has now, whoever sent them.
    ///
    /// # Errors
    /// It did not answer.
    pub async fn wait_for_current_tasks(&self) -> Result<()> {
        let first = async |path: &'static str| -> Result<Option<u64>> {
            let tasks = self.ask("GET", path, None).await?;
            Ok(tasks.pointer("/results/0/uid").and_then(Value::as_u64))
        };
        let Some(last) = first("/tasks?limit=1").await? else { return Ok(()) };
        let mut pause = Duration::from_millis(20);
        let unfinished = "/tasks?statuses=enqueued,processing&reverse=true&limit=1";
        while first(unfinished).await?.is_some_and(|oldest| oldest <= last) {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
        Ok(())
    }

    /// Whether a list of tasks that it is asked for is empty.
    async fn has_no_task_of(&self, path: &'static str) -> Result<bool> {
        Ok(self.ask("GET", path, None).await?.get("total").and_then(Value::as_u64) == Some(0))
    }

    /// Whether the node has nothing to do.
    ///
    /// # Errors
    /// The node did not answer, or refused.
    pub async fn is_idle(&self) -> Result<bool> {
        self.has_no_task_of("/tasks?statuses=enqueued,processing&limit=1").await
    }

    /// Whether the node has nothing to do that changes indexes or their settings, other than documents.
    ///
    /// # Errors
    /// The node did not answer, or refused.
    pub async fn keeps_its_settings(&self) -> Result<bool> {
        let path = "/tasks?limit=1&statuses=enqueued,processing\
                    &types=indexCreation,indexUpdate,indexDeletion,indexSwap,settingsUpdate";
        self.has_no_task_of(path).await
    }

    /// Whether the node has nothing to do that makes indexes, as settings do, too, or deletes some.
    ///
    /// # Errors
    /// The node did not answer, or refused.
    pub async fn keeps_its_indexes(&self) -> Result<bool> {
        let path = "/tasks?limit=1&statuses=enqueued,processing\
                    &types=indexCreation,indexUpdate,indexDeletion,indexSwap,settingsUpdate,documentAdditionOrUpdate";
        self.has_no_task_of(path).await
    }
}
