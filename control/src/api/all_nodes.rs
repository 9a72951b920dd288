//! Changes that nodes make at once, without a task. They are made on all nodes, or on none.

use super::{Sent, Shared, pass_on};
use crate::{
    base::error::{Error, Result},
    cluster::Cluster,
    domain::intent::KeptChange,
    node::TIMEOUT,
    sync::{features, instance_change, instance_settings},
};
use axum::{extract::Path, response::Response};
use std::{sync::Arc, time::Duration};

/// How often to check whether gateways have got a new topology.
const MOMENT: Duration = Duration::from_millis(20);

/// `PATCH /experimental-features`.
///
/// # Errors
/// A node's error.
pub async fn features(cluster: Shared, sent: Sent) -> Result<Response> {
    let answer = everywhere(&cluster, sent, KeptChange::Nothing).await?;
    features::learn(&cluster.0).await?;
    Ok(answer)
}

/// `PATCH /network`.
///
/// # Errors
/// A node's error.
pub async fn network(cluster: Shared, sent: Sent) -> Result<Response> {
    let answer = everywhere(&cluster, sent, KeptChange::Network).await?;
    instance_settings::learn_name(&cluster).await?;
    Ok(answer)
}

/// `PATCH /chats/{workspace}/settings`.
///
/// # Errors
/// A node's error.
pub async fn workspace(cluster: Shared, Path(uid): Path<String>, sent: Sent) -> Result<Response> {
    everywhere(&cluster, sent, KeptChange::Workspace(uid)).await
}

/// `DELETE /chats/{workspace}/settings`.
///
/// # Errors
/// A node's error.
pub async fn reset_workspace(cluster: Shared, Path(uid): Path<String>, sent: Sent) -> Result<Response> {
    everywhere(&cluster, sent, KeptChange::Workspace(uid)).await
}

/// `DELETE /chats/{workspace}`.
///
/// # Errors
/// A node's error.
pub async fn delete_workspace(cluster: Shared, Path(uid): Path<String>, sent: Sent) -> Result<Response> {
    everywhere(&cluster, sent, KeptChange::NoWorkspace(uid)).await
}

/// Sends a change to all nodes, and waits until no gateway reads from a node that has missed it.
pub(super) async fn everywhere(cluster: &Shared, sent: Sent, kept: KeptChange) -> Result<Response> {
    let (cluster, supervisor) = (cluster.0.clone(), cluster.supervisor.clone());
    sent.grant()?;
    // In a task of its own: if the client disconnects, the operation must still reach all nodes.
    let work = async move { send(&cluster, sent, kept).await };
    supervisor.detach("broadcast", work).await?
}

async fn send(cluster: &Arc<Cluster>, sent: Sent, kept: KeptChange) -> Result<Response> {
    let answer = instance_change::send(cluster, &sent.request, kept).await?;
    if !answer.is_success() {
        return Ok(pass_on(&answer));
    }
    // Gateways may still read from a node that has missed the change. For example, a deleted key would still be valid there. So
    // the answer waits until they do not.
    let is_read_nowhere_else = async {
        while !cluster.no_gateway_reads_stale().await? {
            tokio::time::sleep(MOMENT).await;
        }
        Ok::<_, Error>(())
    };
    match tokio::time::timeout(TIMEOUT, is_read_nowhere_else).await {
        Ok(done) => done?,
        Err(_) => tracing::warn!("some gateways may still read from nodes that have missed a change"),
    }
    Ok(pass_on(&answer))
}
