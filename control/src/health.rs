//! Watches nodes, and brings back those that were away.

use crate::cluster::Cluster;
use futures_util::future::join_all;
use std::{sync::Arc, time::Duration};

/// Checks every node each second, for ever; a node that comes back gets its epoch keys at once.
pub async fn watch(cluster: Arc<Cluster>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let nodes = cluster.nodes();
        let before: Vec<bool> = nodes.iter().map(|node| node.is_up()).collect();
        let came = check(&cluster).await;
        for (node, was_up) in nodes.iter().zip(before) {
            if was_up && !node.is_up() {
                tracing::warn!(node = node.name, error = node.health().error, "a node is away");
            }
        }
        for name in came {
            tracing::info!(node = name, "a node is back");
            // The rest of what it missed is repair's.
            if let Some(node) = cluster.node(&name)
                && let Err(error) = cluster.epochs.catch_up(&cluster, &node).await
            {
                tracing::warn!(node = name, %error, "a node could not get its epoch keys yet");
            }
        }
    }
}

/// Checks every node once, and returns the names of those that have come.
pub async fn check(cluster: &Cluster) -> Vec<String> {
    let nodes = cluster.nodes();
    let checks = nodes.iter().map(async |node| node.check().await.then(|| node.name.clone()));
    join_all(checks).await.into_iter().flatten().collect()
}
