//! Checks nodes before an operation, by asking the nodes themselves.

use super::Operation;
use crate::{
    base::error::{Error, Result},
    cluster::Cluster,
    domain::cluster_state::ClusterState,
    node::{FOREIGN, Node, Request},
    sync::unknown_keys,
};
use futures_util::future::join_all;
use std::time::Duration;

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Checks the nodes that an operation adds, and the node that it declares lost.
///
/// # Errors
/// Everything that is wrong, and what to do about it.
pub async fn check(
    cluster: &Cluster,
    before: &ClusterState,
    after: &ClusterState,
    operation: &Operation,
) -> Result<()> {
    let mut errors = Vec::new();
    if let Operation::LostNode { name, force: false } = operation
        && let Some(node) = cluster.node(name)
        && healthy(&node).await
    {
        errors.push(format!(
            "node `{name}` answers: move its replicas away with `miroir node drain {name}`; or, if its data is lost, \
             use --force"
        ));
    }
    let new = after.nodes.iter().filter(|member| before.member(&member.config.name).is_none());
    let outside_nodes: Vec<Node> = new.map(|member| cluster.outside_node(member.config.clone())).collect();
    let version = cluster.current().iter().find_map(|node| node.health().version);
    let checks = outside_nodes.iter().map(|node| is_fit(node, version.as_deref()));
    errors.extend(join_all(checks).await.into_iter().flatten());
    if !outside_nodes.is_empty() {
        errors.extend(unknown_keys(cluster).await?);
    }
    if errors.is_empty() { Ok(()) } else { Err(Error::Refused(errors)) }
}

async fn healthy(node: &Node) -> bool {
    let request =
        Request { authority: crate::node::Authority::Nobody, ..Request::own("GET", "/health", None) };
    node.send_within(&request, PATIENCE).await.is_ok_and(|answer| answer.status == 200)
}

/// The reason why a node cannot join; `None` if it can.
async fn is_fit(node: &Node, version: Option<&str>) -> Option<String> {
    let (name, url) = (&node.name, &node.url);
    if !healthy(node).await {
        return Some(format!("node `{name}` does not answer at {url}: start it, or correct the URL"));
    }
    let own = match node.version().await {
        Ok(own) => own,
        Err(Error::Unexpected { status: 401 | 403, .. }) => {
            return Some(format!(
                "node `{name}` has another master key: start it with the cluster's master key (MEILI_MASTER_KEY)"
            ));
        }
        Err(error) => return Some(format!("node `{name}`: {}", error.chain())),
    };
    if version.is_some_and(|version| version != own) {
        return Some(format!(
            "node `{name}` runs Meilisearch {own}, the cluster {}: start it with the cluster's version",
            version.unwrap_or_default()
        ));
    }
    match node.belongs_to_another().await {
        Ok(false) => {}
        Ok(true) => return Some(format!("node `{name}` at {url}: {FOREIGN}")),
        Err(error) => return Some(format!("node `{name}`: {}", error.chain())),
    }
    match node.index_uids().await {
        Ok(indexes) if indexes.is_empty() => None,
        Ok(indexes) => {
            let indexes: Vec<String> = indexes.into_iter().take(5).collect();
            Some(format!(
                "node `{name}` has data of its own (indexes {}): start it with an empty data folder, or delete them",
                indexes.join(", ")
            ))
        }
        Err(error) => Some(format!("node `{name}`: {}", error.chain())),
    }
}
