//! Keeps the task queues of nodes short. Every write is a task on each node that takes it, and only nodes themselves have them.
//!
//! A node deletes its oldest 100,000 ended tasks when it has a million, whatever the control plane may still ask it, and it refuses new
//! tasks when their database is full. So the control plane deletes ended tasks before, and only those that nothing asks for any more.

use crate::{
    base::{
        error::Result,
        time::{self, Nanos},
    },
    cluster::Cluster,
    ledger::tasks,
    node::Node,
};
use futures_util::future::join_all;
use std::{sync::Arc, time::Duration};

/// With so many tasks on a node, the ended ones are deleted.
const MOST_TASKS: u64 = 500_000;
/// How often nodes are asked for the number of their tasks.
const PERIOD: Duration = Duration::from_secs(60);
/// Tasks that ended within this time are kept, and so are those that ended within this time before the oldest open task began: a node's
/// clock may differ so much from the control plane's.
const KEPT: Nanos = 3_600_000_000_000;

/// Deletes tasks that nodes do not need any more, forever.
pub async fn watch(cluster: Arc<Cluster>) {
    loop {
        tokio::time::sleep(PERIOD).await;
        let nodes = cluster.current();
        let pruned = nodes.iter().map(async |node| {
            if let Err(error) = prune(&cluster, node, MOST_TASKS).await {
                tracing::warn!(node = node.name.as_str(), error = %error.chain(), "ended tasks of a node could not be deleted yet");
            }
        });
        join_all(pruned).await;
    }
}

/// Deletes a node's ended tasks that nothing needs, if it has at least `most` tasks.
async fn prune(cluster: &Cluster, node: &Node, most: u64) -> Result<()> {
    let found = node.count_tasks().await?;
    if found < most {
        return Ok(());
    }
    let now = cluster.clock.wall();
    let oldest = cluster.ledger.read(tasks::oldest_open).await?;
    let before = oldest.map_or(now, |oldest| oldest.min(now)) - KEPT;
    tracing::info!(
        node = node.name.as_str(),
        tasks = found,
        before = time::format(before),
        "ended tasks of a node are deleted"
    );
    node.delete_ended_tasks(&time::format(before)).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::intent::Intent,
        ledger::{intents, tasks::NewTask},
        testing::{ClusterBuilder, ManualClock, Reply, Script},
    };
    use serde_json::json;

    #[tokio::test]
    async fn only_what_nothing_needs_is_deleted_on_a_node() {
        let folder = tempfile::tempdir().unwrap();
        let transport = Script::new(|call| match call.method.as_str() {
            "GET" => Reply::Answer(200, json!({"results": [], "total": 7, "limit": 1, "from": 6, "next": 5})),
            _ => Reply::Answer(200, json!({"taskUid": 8})),
        });
        let clock = ManualClock::new();
        let cluster =
            ClusterBuilder::new(folder.path()).transport(transport.clone()).clock(clock.clone()).build();
        let node = cluster.node("a").unwrap();
        let deletions = || -> Vec<String> {
            let calls = transport.calls();
            let deletions = calls.iter().filter(|call| call.method == "DELETE");
            deletions.map(|call| call.url.query().unwrap().to_owned()).collect()
        };
        prune(&cluster, &node, 8).await.unwrap();
        assert!(deletions().is_empty(), "it has not too many");
        clock.advance(Duration::from_secs(2 * 3600));
        let open = Intent::without_requests();
        let now = cluster.clock.wall();
        let begin = move |connection: &_| intents::begin(connection, &NewTask::default(), &open, now);
        let task = cluster.ledger.call(begin).await.unwrap();
        clock.advance(Duration::from_secs(3 * 3600));
        prune(&cluster, &node, 7).await.unwrap();
        cluster.ledger.call(move |connection| tasks::forget(connection, task.uid)).await.unwrap();
        prune(&cluster, &node, 7).await.unwrap();
        let of = |hour: u8| {
            format!("statuses=succeeded,failed,canceled&beforeFinishedAt=2024-01-01T{hour:02}%3A00%3A00Z")
        };
        // An hour before the open task began; then an hour ago.
        assert_eq!(deletions(), [of(1), of(4)]);
    }
}
