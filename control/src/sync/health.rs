//! Watches the health of nodes, and detects nodes that have come back or have lost their disk.

use crate::{
    base::error::Result,
    cluster::{Cluster, locks::Scope},
    fencing::{late_tasks, lost_disk},
    node::{Node, Probed},
    sync::features,
};
use futures_util::future::join_all;
use miroir_core::node_name::NodeName;
use std::{sync::Arc, time::Duration};

/// How often nodes that answer are checked.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long a node may take to list its indexes.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long an index may be in the catalogue without being on the node.
const MOMENT: Duration = Duration::from_millis(200);
/// How long to wait for the locks.
const LOCK_PATIENCE: Duration = Duration::from_millis(300);

/// Checks every node each second, and those that are away ten times a second, forever. A node that comes back gets its write
/// keys before it counts as up.
pub async fn watch(cluster: Arc<Cluster>) {
    loop {
        let mut came = wait(&cluster).await;
        let nodes = cluster.nodes();
        let before: Vec<bool> = nodes.iter().map(|node| node.is_up()).collect();
        came.extend(check(&cluster).await);
        for (node, was_up) in nodes.iter().zip(before) {
            if was_up && !node.is_up() {
                tracing::warn!(
                    node = node.name.as_str(),
                    error = node.health().error,
                    "a node is unreachable"
                );
            }
        }
        if !came.is_empty() {
            let learnt = tokio::time::timeout(PATIENCE, features::learn(&cluster)).await;
            if let Ok(Err(error)) = learnt {
                tracing::warn!(error = %error.chain(), "no node could be asked for its experimental features");
            }
        }
        for name in came {
            tracing::info!(node = name.as_str(), "a node is back");
            // The mover brings it up to date with everything else.
            if let Some(node) = cluster.node(&name)
                && let Err(error) = cluster.write_keys.delete_fenced(&cluster, &node).await
            {
                tracing::warn!(node = name.as_str(), error = %error.chain(), "write keys could not be deleted on a node yet");
            }
        }
        give_lacking(&cluster, &nodes).await;
        // Where another change is under way that waits for the ledger, the next round takes it up.
        let taken_up = tokio::time::timeout(PATIENCE, cluster.take_up_abandoned()).await;
        if let Ok(Err(error)) = taken_up {
            tracing::warn!(error = %error.chain(), "a change that the ledger has could not be taken up yet");
        }
        // A node that has just missed a check is checked again first: what it may lack can wait.
        let whole = nodes.iter().filter(|node| {
            let health = node.health();
            health.up && health.error.is_none() && !cluster.cluster_state().behind.contains(&node.name)
        });
        let noticed = whole.map(async |node| {
            // A node that hangs must not delay the checks of the others.
            let told = tokio::time::timeout(PATIENCE, notice_loss(&cluster, node)).await;
            if let Ok(Err(error)) = told {
                tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a node did not list its indexes");
            }
        });
        join_all(noticed).await;
    }
}

/// Waits for a second, or until a node is back. Returns its name: what it missed is to be mended at once.
async fn wait(cluster: &Cluster) -> Vec<NodeName> {
    let begun = cluster.clock.monotonic();
    while cluster.clock.since(begun) < INTERVAL {
        tokio::time::sleep(INTERVAL / 10).await;
        let nodes = cluster.nodes();
        let away = nodes.iter().filter(|node| !node.is_up());
        let checks = away.map(async |node| {
            // A node that hangs must not delay the checks of the others.
            let probed = tokio::time::timeout(INTERVAL / 10, node.probe()).await.ok()?;
            learn(cluster, node, probed).await.then(|| node.name.clone())
        });
        let came: Vec<NodeName> = join_all(checks).await.into_iter().flatten().collect();
        if !came.is_empty() {
            return came;
        }
    }
    Vec::new()
}

/// Creates the write keys that nodes lack. A node that is behind gets all of them when it catches up.
async fn give_lacking(cluster: &Cluster, nodes: &[Arc<Node>]) {
    let behind = &cluster.cluster_state().behind;
    let answering = nodes.iter().filter(|node| node.answers() && !behind.contains(&node.name));
    let given = answering.map(async |node| {
        if let Err(error) = cluster.write_keys.give_lacking(cluster, node).await {
            tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a node lacks write keys");
        }
    });
    join_all(given).await;
}

/// Marks a node as behind if it has lost its disk, whatever was made on it since; or if it lacks indexes of the catalogue and has no
/// task in its queue that creates them.
async fn notice_loss(cluster: &Cluster, node: &Node) -> Result<()> {
    if !node.has_joined().await? {
        return lost_disk::note_loss(cluster, node).await;
    }
    // While an index is being created or deleted, the catalogue and the node may differ for a moment. All later writers wait
    // behind a lock on everything, so it is taken only if the difference stays.
    let first = lacking(cluster, node).await?;
    if first.is_empty() || !node.keeps_its_indexes().await? {
        return Ok(());
    }
    tokio::time::sleep(MOMENT).await;
    let again = lacking(cluster, node).await?;
    if !again.iter().any(|index| first.contains(index)) || !node.keeps_its_indexes().await? {
        return Ok(());
    }
    let lock = cluster.locks.lock(Scope::everything());
    let Ok(_guard) = tokio::time::timeout(LOCK_PATIENCE, lock).await else { return Ok(()) };
    if !node.keeps_its_indexes().await? {
        return Ok(());
    }
    let lacking = lacking(cluster, node).await?;
    if lacking.is_empty() {
        return Ok(());
    }
    match are_gone(cluster, &lacking).await? {
        // Whoever is away may have them.
        None => return Ok(()),
        Some(false) => {
            tracing::warn!(node = node.name.as_str(), ?lacking, "a node lacks indexes that others have");
            return cluster.change(|cluster_state| cluster_state.mark_behind(&node.name)).await;
        }
        Some(true) => {}
    }
    tracing::error!(?lacking, "no node has indexes that are in the catalogue: they are gone");
    cluster
        .change(|cluster_state| lacking.iter().for_each(|index| drop(cluster_state.indexes.remove(index))))
        .await
}

/// Whether no node has any of these indexes; `None` if a node that is away may have some.
async fn are_gone(cluster: &Cluster, indexes: &[String]) -> Result<Option<bool>> {
    let nodes = cluster.nodes();
    for node in nodes.iter().filter(|node| node.is_up()) {
        let there = node.index_uids().await?;
        if indexes.iter().any(|index| there.contains(index)) || !node.keeps_its_indexes().await? {
            return Ok(Some(false));
        }
    }
    Ok(nodes.iter().all(|node| node.is_up()).then_some(true))
}

async fn lacking(cluster: &Cluster, node: &Node) -> Result<Vec<String>> {
    let there = node.index_uids().await?;
    Ok(cluster.cluster_state().indexes.keys().filter(|index| !there.contains(*index)).cloned().collect())
}

/// Checks every node once, and returns the names of those that have become reachable.
pub async fn check(cluster: &Cluster) -> Vec<NodeName> {
    let nodes = cluster.nodes();
    let checks = nodes.iter().map(async |node| {
        let probed = node.probe().await;
        learn(cluster, node, probed).await.then(|| node.name.clone())
    });
    join_all(checks).await.into_iter().flatten().collect()
}

/// Learns what a node answered to the question for its health. Returns `true` if it was away before, and is up now: it has its write keys
/// then.
async fn learn(cluster: &Cluster, node: &Node, probed: Probed) -> bool {
    if !probed.is_answer() || node.is_up() {
        return node.learn(probed);
    }
    examine_disk(cluster, node).await;
    // What the node tells may have ended this instance: then it changes nothing there any more.
    !cluster.instance.is_stopped() && cluster.write_keys.admit(cluster, node, probed).await
}

/// Finds out whether a node that comes back has the disk that it had: otherwise it is behind before it counts as up.
async fn examine_disk(cluster: &Cluster, node: &Node) {
    // If it does not tell in time, the next examination finds out.
    let examined = tokio::time::timeout(PATIENCE, late_tasks::examine(cluster, node)).await;
    if let Ok(Err(error)) = examined {
        tracing::debug!(node = node.name.as_str(), error = %error.chain(), "a node that comes back does not tell of its tasks");
    }
}

#[cfg(test)]
mod tests;
