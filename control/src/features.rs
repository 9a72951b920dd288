//! Nodes' experimental features.

use crate::{
    cluster::Cluster,
    error::Result,
    node::{Node, Request},
};
use serde_json::{Value, json};

const PATH: &str = "/experimental-features";

/// Whether nodes have an experimental feature on; `None` where they do not know it.
///
/// # Errors
/// No node answered.
pub async fn is_on(cluster: &Cluster, feature: &str) -> Result<Option<bool>> {
    let features = cluster.ask_any(&Request::own("GET", PATH, None)).await?.json();
    Ok(features.get(feature).and_then(Value::as_bool))
}

/// Whether a node knows an experimental feature, on or off.
///
/// # Errors
/// It did not answer, or refused.
pub async fn knows(node: &Node, feature: &str) -> Result<bool> {
    Ok(node.ask("GET", PATH, None).await?.get(feature).is_some())
}

/// Has a node switch an experimental feature on.
///
/// # Errors
/// It did not answer, or refused.
pub async fn switch_on(node: &Node, feature: &str) -> Result<()> {
    node.ask("PATCH", PATH, Some(&json!({ feature: true }))).await?;
    Ok(())
}

/// Makes a node's those of another.
///
/// # Errors
/// One of them did not answer, or refused.
pub async fn sync(from: &Node, to: &Node) -> Result<()> {
    let wanted = from.ask("GET", PATH, None).await?;
    if to.ask("GET", PATH, None).await? != wanted {
        to.ask("PATCH", PATH, Some(&wanted)).await?;
    }
    Ok(())
}

/// Tells gateways how nodes search: before Meilisearch had another way than that of `legacySearch`, it did not know the name.
///
/// # Errors
/// No node answered, or the ledger failed.
pub async fn learn(cluster: &Cluster) -> Result<()> {
    let legacy_search = is_on(cluster, "legacySearch").await?.unwrap_or(true);
    cluster.change(|view| view.legacy_search = legacy_search).await
}
