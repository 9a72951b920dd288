//! Nodes' experimental features.

use crate::{
    base::error::{Error, Result},
    cluster::Cluster,
    node::{Node, SHORT_QUESTION},
    sync::must_have_joined,
};
use serde_json::{Value, json};

/// Whether an experimental feature is enabled on the nodes; `None` if they do not know the feature.
///
/// # Errors
/// No node told its features.
pub async fn is_on(cluster: &Cluster, feature: &str) -> Result<Option<bool>> {
    let mut failure = Error::NoNode;
    for node in cluster.current() {
        match node.features_within(SHORT_QUESTION).await {
            Ok(features) => return Ok(features.get(feature).and_then(Value::as_bool)),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// Enables an experimental feature on a node, and returns the node's answer on a route of it; `None` if the node does not have
/// the feature or the route.
///
/// # Errors
/// The node did not answer, or refused.
pub async fn ask(
    node: &Node,
    feature: &str,
    method: &str,
    path: &'static str,
    body: Option<&Value>,
) -> Result<Option<Value>> {
    match node.features().await?.get(feature) {
        None => return Ok(None),
        Some(Value::Bool(true)) => {}
        Some(_) => node.change_features(&json!({ feature: true })).await?,
    }
    match node.ask(method, path, body).await {
        Err(Error::Unexpected { status: 404, .. }) => Ok(None),
        answer => answer.map(Some),
    }
}

/// Copies the experimental features of one node to another.
///
/// # Errors
/// One of the nodes did not answer, or refused.
pub async fn sync(from: &Node, to: &Node) -> Result<()> {
    let wanted = from.features().await?;
    must_have_joined(from).await?;
    if to.features().await? != wanted {
        to.change_features(&wanted).await?;
    }
    Ok(())
}

/// Tells gateways whether nodes search as `legacySearch` says. Versions of Meilisearch that do not know this feature have only
/// the legacy search.
///
/// # Errors
/// No node answered, or the ledger failed.
pub async fn learn(cluster: &Cluster) -> Result<()> {
    let legacy_search = is_on(cluster, "legacySearch").await?.unwrap_or(true);
    cluster.change(|cluster_state| cluster_state.legacy_search = legacy_search).await
}
