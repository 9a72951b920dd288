//! Tasks of nodes that are asked a question.

use crate::{
    base::error::Error,
    node::{Node, TaskInfo},
};
use std::time::Duration;

/// How long a task of such an index is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A node's task, once it has ended; `None` where it is of another index.
pub(super) async fn ended(node: &Node, uid: u32, index: &str) -> Option<TaskInfo> {
    let begun = node.clock().monotonic();
    while node.clock().since(begun) < PATIENCE {
        let silent = |error: &Error| {
            tracing::warn!(node = node.name, index, error = %error.chain(), "a node does not tell of a task");
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
