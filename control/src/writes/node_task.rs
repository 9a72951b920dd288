//! Node tasks of probes: requests that only find out what a node would say.

use crate::{
    base::error::Error,
    node::{Node, TaskInfo},
};
use std::time::Duration;

/// How long to wait for the task of a probe.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until a node's task has ended; `None` if it belongs to another index, or does not end in time.
pub(super) async fn ended(node: &Node, uid: u32, index: &str) -> Option<TaskInfo> {
    let begun = node.clock().monotonic();
    while node.clock().since(begun) < PATIENCE {
        let silent = |error: &Error| {
            tracing::warn!(node = node.name.as_str(), index, error = %error.chain(), "a node does not tell of a task");
        };
        let task = node.task(uid).await.inspect_err(silent).ok()?;
        if task.index() != Some(index) || task.status().is_none() {
            return None;
        }
        if task.is_over() {
            return Some(task);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    None
}
