//! Old copies are written until no gateway reads them, and then deleted.

use super::{Mover, copy::untagged, hand_over::scope};
use crate::{
    base::{
        error::{Error, Result},
        log,
    },
    cluster::Cluster,
    domain::cluster_state::{ClusterState, ReplicaState},
    fencing::late_tasks,
    node::{Node, Request},
};
use miroir_core::{
    documents::PrimaryKey,
    node_name::NodeName,
    path::ApiPath,
    shard::{Shard, tag_filter},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tracing::Instrument;

/// How long to wait for the locks: later writers queue behind this request.
const LOCK_PATIENCE: Duration = Duration::from_millis(200);
/// How long a node may take to queue a deletion.
const PATIENCE: Duration = Duration::from_secs(30);

/// Starts the work that is due: takes old copies out of the write set, and deletes them.
pub fn spawn_due_work(cluster: &Arc<Cluster>) {
    let cluster_state = cluster.cluster_state();
    if !unread(cluster, &cluster_state).is_empty() {
        Mover::alone(cluster, "old copies".to_owned(), |cluster| async move {
            report("old copies", remove_from_write_set(&cluster).await);
        });
    }
    for (name, mut shards) in removing(&cluster_state) {
        // A replica that is still being copied must not be emptied: it would get the rest of the copy afterwards.
        shards.retain(|shard| !cluster.mover.progress.is_copying(*shard, &name));
        if shards.is_empty() {
            continue;
        }
        let Some(node) = cluster.node(&name).filter(|node| node.is_up()) else { continue };
        let span = log::move_span(&name);
        Mover::alone(cluster, format!("empty {name}"), |cluster| {
            let emptying = async move { report(&node.name, delete(&cluster, &node, &shards).await) };
            emptying.instrument(span)
        });
    }
}

fn report(what: &str, result: Result<()>) {
    if let Err(error) = result {
        tracing::warn!(error = %error.chain(), "{what}: not done yet, will be tried again");
    }
}

/// The old copies that no gateway reads any more.
fn unread(cluster: &Cluster, cluster_state: &ClusterState) -> Vec<(Shard, NodeName)> {
    let mut unread = Vec::new();
    for shard in cluster_state.shards() {
        for replica in cluster_state.of(shard) {
            if let ReplicaState::Leaving { since, .. } = replica.state
                && cluster.gateways.confirmed(since)
            {
                unread.push((shard, replica.node.clone()));
            }
        }
    }
    unread
}

/// Takes old copies out of the write set, under locks, so that no write to them is running.
async fn remove_from_write_set(cluster: &Cluster) -> Result<()> {
    let copies = unread(cluster, &cluster.cluster_state());
    let shards: Vec<Shard> = copies.iter().map(|(shard, _)| *shard).collect();
    let lock = cluster.locks.lock(scope(&shards));
    let Ok(_guard) = tokio::time::timeout(LOCK_PATIENCE, lock).await else {
        // Some shards may be free: try each one alone.
        for (shard, node) in &copies {
            let lock = cluster.locks.lock(scope(&[*shard]));
            if let Ok(_guard) = tokio::time::timeout(LOCK_PATIENCE, lock).await {
                cluster.change(|cluster_state| cluster_state.remove(*shard, node)).await?;
            }
        }
        return Ok(());
    };
    cluster
        .change(|cluster_state| copies.iter().for_each(|(shard, node)| cluster_state.remove(*shard, node)))
        .await
}

/// The replicas whose documents must be deleted, by node.
fn removing(cluster_state: &ClusterState) -> BTreeMap<NodeName, Vec<Shard>> {
    let mut removing: BTreeMap<NodeName, Vec<Shard>> = BTreeMap::new();
    for shard in cluster_state.shards() {
        for replica in
            cluster_state.of(shard).iter().filter(|replica| replica.state == ReplicaState::Removing)
        {
            removing.entry(replica.node.clone()).or_default().push(shard);
        }
    }
    removing
}

/// Deletes a node's documents of some shards, in all indexes.
async fn delete(cluster: &Cluster, node: &Node, shards: &[Shard]) -> Result<()> {
    // A write that arrived after the deletion would stay on the node.
    cluster.write_keys.fence_late(cluster, node).await?;
    let filter = tag_filter(shards);
    let cluster_state = cluster.cluster_state();
    let indexes: Vec<&String> = cluster_state.indexes.keys().collect();
    let mut tasks = Vec::new();
    let mut send = async |path: ApiPath, body: Value| {
        let request = Request::own("POST", path, Some(&body));
        let answer = late_tasks::send_marked(cluster, node, shards, request.clone(), PATIENCE).await?;
        match answer.task_uid().filter(|_| answer.is_success()) {
            Some(task) => tasks.push(task.into()),
            // The index was deleted meanwhile, or the node has missed its creation.
            None if answer.status == 404 => {}
            None => return Err(node.unexpected(&request, &answer)),
        }
        Ok(())
    };
    for index in &indexes {
        send(ApiPath::of_index(index, &["documents", "delete"]), json!({ "filter": filter })).await?;
        let Some(key) = cluster_state.indexes.get(*index).and_then(|known| known.primary_key.as_ref()) else {
            continue;
        };
        match untagged(cluster, node, index, shards, &PrimaryKey::new(key)).await {
            Ok(ids) if ids.is_empty() => {}
            Ok(ids) => send(ApiPath::of_index(index, &["documents", "delete-batch"]), json!(ids)).await?,
            Err(Error::Unexpected { status: 404, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    for task in tasks {
        node.wait_for_task(task).await?;
    }
    for index in &indexes {
        match node.count_documents(index, &filter).await {
            Ok(Some(0)) => {}
            Ok(left) => {
                let left = left.map_or_else(|| "an unknown number of".to_owned(), |left| left.to_string());
                return Err(Error::Other(format!("`{index}` on `{}` still has {left} documents", node.name)));
            }
            Err(Error::Unexpected { status: 404, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    tracing::info!(node = node.name.as_str(), replicas = shards.len(), "old copies were deleted");
    cluster
        .change(|cluster_state| shards.iter().for_each(|shard| cluster_state.removed(*shard, &node.name)))
        .await
}
