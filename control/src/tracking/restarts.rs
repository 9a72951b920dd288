//! Nodes that may have stopped while the control plane was down.
//!
//! A node that is killed while it processes a task begins it again, and may swap indexes or edit documents twice: Meilisearch stores the
//! change and the task's end one after the other. What it creates, deletes or renames twice fails the second time. Of the first attempt nothing is left: the task has the moment when the second one
//! began. But a node that has nothing else to do begins a task at once, and one that has to start first does not.
//!
//! Source: Meilisearch 1.50, `tick` in `index-scheduler/src/scheduler/mod.rs`, and `ProcessingBatch::new`.

use crate::{
    base::{
        error::Result,
        time::{self, Nanos},
    },
    cluster::Cluster,
    domain::verdict::TrackedNodeTask,
    node::Node,
};
use futures_util::future::join_all;
use miroir_core::node_name::NodeName;
use serde_json::Value;
use std::collections::BTreeSet;

/// A node needs longer than this to start and begin a task, in nanoseconds.
const START: Nanos = 200_000_000;

/// The nodes that may have stopped before they ended these tasks: each left a task waiting although it had nothing else to do, or
/// does not tell.
pub(super) async fn find(cluster: &Cluster, parts: &[TrackedNodeTask]) -> BTreeSet<NodeName> {
    let ended = parts.iter().filter(|part| part.seen.state.is_over());
    let asked = ended.map(async |part| {
        let node = cluster.node(&part.node)?;
        let idle = idle(&node, part.node_task).await.inspect_err(
            |error| tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a node does not tell when it began a task"),
        );
        idle.map_or(true, |idle| idle > START).then(|| node.name.clone())
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// How long a node had nothing to do before it began a task that it had already, by its own clock.
async fn idle(node: &Node, uid: u32) -> Result<Nanos> {
    let moment = |object: &Value, name: &str| object.get(name).and_then(Value::as_str).and_then(time::parse);
    let task = node.task(uid).await?;
    let of_task = |name| task.get(name).and_then(Value::as_str).and_then(time::parse);
    let (Some(enqueued), Some(started)) = (of_task("enqueuedAt"), of_task("startedAt")) else { return Ok(0) };
    let batch = task.get("batchUid").and_then(Value::as_u64).and_then(|batch| batch.checked_sub(1));
    let before = match batch {
        // A node processes one batch after the other.
        Some(before) => node.batches(&[before], 1).await?.first().and_then(|it| moment(it, "finishedAt")),
        None => None,
    };
    Ok(started - before.map_or(enqueued, |before| before.max(enqueued)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{
            intent::NodeTask,
            verdict::{ReportedState, State},
        },
        testing::{ClusterBuilder, Reply, Script},
    };
    use serde_json::json;

    #[tokio::test]
    async fn a_task_that_waits_without_a_reason_may_have_been_begun_twice() {
        let at = |milliseconds: u32| {
            format!("2026-01-01T00:00:{:02}.{:03}Z", milliseconds / 1000, milliseconds % 1000)
        };
        for (started, before, expected) in [
            (5, None, false),
            (900, None, true),
            // It was busy until then.
            (900, Some(880), false),
            (900, Some(100), true),
        ] {
            let script = Script::new(move |call| {
                let finished = before.map(at);
                Reply::Answer(
                    200,
                    match call.url.path() {
                        "/tasks/7" => {
                            json!({"uid": 7, "enqueuedAt": at(0), "startedAt": at(started), "batchUid": before.map_or(0, |_| 4)})
                        }
                        _ => json!({"results": [{"uid": 3, "finishedAt": finished}]}),
                    },
                )
            });
            let data = tempfile::tempdir().unwrap();
            let cluster = ClusterBuilder::new(data.path()).transport(script).build();
            let task = NodeTask { node: "a".into(), node_task: 7, main: true, shards: Vec::new() };
            let mut part = TrackedNodeTask::of(task);
            part.report(ReportedState { state: State::Succeeded, ..ReportedState::default() }, false);
            assert_eq!(!find(&cluster, &[part]).await.is_empty(), expected, "{started} {before:?}");
        }
    }
}
