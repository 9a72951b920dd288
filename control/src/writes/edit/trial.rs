//! Nodes try an edit by function before any of them does it.

use super::{Answer, PAUSE, send};
use crate::{
    cluster::Cluster,
    domain::{task::TaskStatus, verdict::not_written},
    node::{Node, TaskInfo},
};
use futures_util::future::join_all;
use miroir_core::{error::ErrorBody, node_name::NodeName, path::ApiPath, shard::Shard, write::Edit};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// How long the replicas of a shard may be out of reach, when all others have tried an edit, before it is given up.
const PATIENCE: Duration = Duration::from_secs(5);

/// Nodes try an edit without changing their documents.
pub struct Trial<'a> {
    cluster: &'a Arc<Cluster>,
    index: &'a str,
    edit: &'a Edit,
    shards_of: &'a BTreeMap<NodeName, Vec<Shard>>,
}

impl<'a> Trial<'a> {
    /// A trial that has not begun. `shards_of` are the shards whose documents each node tries.
    pub const fn new(
        cluster: &'a Arc<Cluster>,
        index: &'a str,
        edit: &'a Edit,
        shards_of: &'a BTreeMap<NodeName, Vec<Shard>>,
    ) -> Self {
        Self { cluster, index, edit, shards_of }
    }

    /// Returns the error of a node that refuses the edit, or the error that tells of which shards no replica could try it.
    pub async fn run(&self, writers: &BTreeMap<Shard, Vec<NodeName>>) -> Option<ErrorBody> {
        // An index without a primary key has no documents.
        let key = self.cluster.cluster_state().indexes.get(self.index)?.primary_key.clone()?;
        let mut tried: BTreeSet<NodeName> = BTreeSet::new();
        let mut since = None;
        loop {
            let nodes = self.shards_of.iter().filter(|(name, _)| !tried.contains(*name));
            let results = nodes.map(async |(name, shards)| (name.clone(), self.on(name, shards, &key).await));
            for (name, result) in join_all(results).await {
                match result {
                    Tried::Passed => drop(tried.insert(name)),
                    Tried::Refused(error) => return Some(error),
                    Tried::No => {}
                }
            }
            let is_untried = |writers: &Vec<NodeName>| !writers.iter().any(|node| tried.contains(node));
            let untried: BTreeSet<Shard> =
                writers.iter().filter(|(_, writers)| is_untried(writers)).map(|(shard, _)| *shard).collect();
            if untried.is_empty() {
                return None;
            }
            let now = self.cluster.clock.monotonic();
            if self.cluster.clock.since(*since.get_or_insert(now)) > PATIENCE {
                return Some(
                    not_written(
                        &untried,
                        "no replica of them answers, and an edit is done in all documents or in none",
                    )
                    .body,
                );
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn on(&self, name: &NodeName, shards: &[Shard], key: &str) -> Tried {
        let cluster = self.cluster;
        let Some(node) = cluster.node(name) else { return Tried::No };
        let body = self.edit.trial(&cluster.random.name(), shards, key);
        let path = ApiPath::of_index(self.index, &["documents", "edit"]);
        let task = match send(cluster, &node, path, body).await {
            Answer::Queued(task) => task,
            Answer::Refused(error) => return Tried::Refused(error),
            Answer::NotNow(error) | Answer::Unknown(error) => {
                tracing::warn!(node = name.as_str(), error = %error.chain(), "a node could not try an edit");
                return Tried::No;
            }
        };
        match ended(&node, task).await {
            Some(task) if task.status() == Some(TaskStatus::Succeeded) => Tried::Passed,
            // Other errors are the node's own failures, and no refusal.
            Some(task) => match task.error().filter(|error| error.kind == "invalid_request") {
                Some(error) => Tried::Refused(error),
                None => Tried::No,
            },
            None => Tried::No,
        }
    }
}

/// What came of a trial on a node.
enum Tried {
    /// The node would do the edit.
    Passed,
    /// The node refuses the edit.
    Refused(ErrorBody),
    /// The node could not try it.
    No,
}

/// Waits until a node's task has ended; `None` if the node becomes unreachable.
async fn ended(node: &Node, uid: u32) -> Option<TaskInfo> {
    let mut pause = Duration::from_millis(10);
    loop {
        match node.task(uid).await {
            Ok(task) if task.is_over() => return Some(task),
            Ok(task) if task.status().is_none() => return None,
            Ok(_) => {}
            Err(error) if !node.is_up() => {
                tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a node became unreachable while it tried an edit");
                return None;
            }
            // A busy node may answer late: ask again.
            Err(_) => {}
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(Duration::from_millis(300));
    }
}
