//! A node that has lost its disk, or has another one.

use crate::{base::error::Result, cluster::Cluster, node::Node};

/// Marks a node as behind that has lost its disk, or has another one: none of its replicas is trusted where another one stands in, or can
/// take its place.
///
/// # Errors
/// The ledger failed.
pub async fn note_loss(cluster: &Cluster, node: &Node) -> Result<()> {
    if !cluster.cluster_state().behind.contains(&node.name) {
        tracing::warn!(node = node.name.as_str(), "a node has lost its disk: it gets everything again");
    }
    cluster.tracked_tasks.forgotten_by(&node.name);
    cluster.change(|cluster_state| cluster_state.lose_disk(&node.name)).await
}
