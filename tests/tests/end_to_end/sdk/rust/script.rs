//! A script of calls.

use meilisearch_sdk::{client::Client, errors::Error, task_info::TaskInfo, tasks::Task};
use serde::Serialize;
use serde_json::{Value, json};
use std::{fmt::Debug, time::Duration};

/// Members whose values differ between any two servers.
const VOLATILE: [&str; 6] = ["processingTimeMs", "createdAt", "updatedAt", "uid", "key", "queryVector"];

/// A value as text, with members sorted by name, without volatile members.
fn plain(value: &Value) -> String {
    match value {
        Value::Object(members) => {
            let mut members: Vec<_> =
                members.iter().filter(|(name, _)| !VOLATILE.contains(&name.as_str())).collect();
            members.sort_by_key(|(name, _)| *name);
            let members: Vec<String> =
                members.iter().map(|(name, value)| format!("{name}: {}", plain(value))).collect();
            format!("{{{}}}", members.join(", "))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(", ")),
        value => value.to_string(),
    }
}

/// A task by its uid.
pub struct Uid(pub u32);

impl AsRef<u32> for Uid {
    fn as_ref(&self) -> &u32 {
        &self.0
    }
}

/// Calls, and what each gave.
pub struct Script {
    pub client: Client,
    pub lines: Vec<String>,
}

impl Script {
    pub fn told<T>(
        &mut self,
        name: &str,
        result: Result<T, Error>,
        tell: impl FnOnce(&T) -> Value,
    ) -> Option<T> {
        let line = match &result {
            Ok(value) => plain(&tell(value)),
            Err(Error::Meilisearch(error)) => format!("{error:?}"),
            Err(error) => error.to_string().replace(self.client.get_host(), "…"),
        };
        self.lines.push(format!("{name}: {line}"));
        result.ok()
    }

    pub fn said<T: Serialize>(&mut self, name: &str, result: Result<T, Error>) -> Option<T> {
        self.told(name, result, |value| serde_json::to_value(value).unwrap())
    }

    pub fn seen<T: Debug>(&mut self, name: &str, result: Result<T, Error>) -> Option<T> {
        self.told(name, result, |value| json!(format!("{value:?}")))
    }

    /// Records a call that creates a task, and waits for the task.
    pub async fn done(&mut self, name: &str, result: Result<TaskInfo, Error>) {
        let Some(task) =
            self.told(name, result, |task| json!(format!("{} {:?}", task.status, task.index_uid)))
        else {
            return;
        };
        let pause = Some(Duration::from_millis(20));
        let ended = task.wait_for_completion(&self.client, pause, Some(Duration::from_secs(60))).await;
        self.told(&format!("{name}: task"), ended, |task| match task {
            Task::Succeeded { content } => {
                json!(format!("{:?} {:?}", content.index_uid, content.update_type))
            }
            Task::Failed { content } => {
                json!(format!(
                    "{:?} {:?} {}",
                    content.task.index_uid, content.task.update_type, content.error
                ))
            }
            task => json!(format!("{task:?}")),
        });
    }
}
