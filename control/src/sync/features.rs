//! Nodes' experimental features.

use crate::{
    base::error::{Error, Result},
    cluster::Cluster,
    node::{Node, Request},
};
use serde_json::{Value, json};

/// The route.
pub const PATH: &str = "/experimental-features";

/// Whether nodes have an experimental feature on; `None` where they do not know it.
///
/// # Errors
/// No node answered, or one did not tell its features.
pub async fn is_on(cluster: &Cluster, feature: &str) -> Result<Option<bool>> {
    let answer = cluster.ask_any(&Request::own("GET", PATH, None)).await?;
    let features = answer.json();
    if !answer.is_success() || !features.is_object() {
        let status = answer.status;
        return Err(Error::Other(format!(
            "a node answered {status} when asked for its features: {features}"
        )));
    }
    Ok(features.get(feature).and_then(Value::as_bool))
}

/// What a node tells on a route of an experimental feature, which it has on afterwards; `None` where it has no such route.
///
/// # Errors
/// It did not answer, or refused.
pub async fn told(
    node: &Node,
    feature: &str,
    method: &str,
    path: &'static str,
    body: Option<&Value>,
) -> Result<Option<Value>> {
    match node.ask("GET", PATH, None).await?.get(feature) {
        None => return Ok(None),
        Some(Value::Bool(true)) => {}
        Some(_) => drop(node.ask("PATCH", PATH, Some(&json!({ feature: true }))).await?),
    }
    match node.ask(method, path, body).await {
        Err(Error::Unexpected { status: 404, .. }) => Ok(None),
        told => told.map(Some),
    }
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
