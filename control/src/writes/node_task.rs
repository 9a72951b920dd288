//! Tasks of nodes that are asked a question.

use crate::domain::task::TaskStatus;
use crate::node::Node;
use miroir_core::path::ApiPath;
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long a task of such an index is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// A node's task, once it has ended; `None` where it is of another index.
pub(super) async fn ended(node: &Node, uid: u32, index: &str) -> Option<Value> {
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        let task = node.ask("GET", ApiPath::new(["tasks", &uid.to_string()]), None).await.ok()?;
        if task.get("indexUid").and_then(Value::as_str) != Some(index) {
            return None;
        }
        if TaskStatus::of_node(&task).is_some_and(TaskStatus::is_over) {
            return Some(task);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    None
}
