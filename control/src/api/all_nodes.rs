//! Changes that nodes make at once, without a task. They are made on all nodes, or on none.

use super::{Sent, Shared, pass_on};
use crate::{
    base::error::{Error, Result},
    cluster::{Cluster, locks::Scope},
    indexes::creation,
    node::{Authority, NodeAnswer, TIMEOUT},
    sync::{
        features,
        instance_settings::{self, InstanceChange},
    },
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
    let answer = everywhere(&cluster, sent, |_| None).await?;
    features::learn(&cluster.0).await?;
    Ok(answer)
}

/// `PATCH /network`.
///
/// # Errors
/// A node's error.
pub async fn network(cluster: Shared, sent: Sent) -> Result<Response> {
    let answer = everywhere(&cluster, sent, |answer| Some(InstanceChange::Network(answer.json()))).await?;
    instance_settings::learn_name(&cluster).await?;
    Ok(answer)
}

/// `PATCH /chats/{workspace}/settings`.
///
/// # Errors
/// A node's error.
pub async fn workspace(cluster: Shared, Path(uid): Path<String>, sent: Sent) -> Result<Response> {
    let body = sent.json();
    everywhere(&cluster, sent, |_| Some(InstanceChange::Workspace(uid, body))).await
}

/// `DELETE /chats/{workspace}/settings`.
///
/// # Errors
/// A node's error.
pub async fn reset_workspace(cluster: Shared, Path(uid): Path<String>, sent: Sent) -> Result<Response> {
    everywhere(&cluster, sent, |_| Some(InstanceChange::Workspace(uid, None))).await
}

/// `DELETE /chats/{workspace}`.
///
/// # Errors
/// A node's error.
pub async fn delete_workspace(cluster: Shared, Path(uid): Path<String>, sent: Sent) -> Result<Response> {
    everywhere(&cluster, sent, |_| Some(InstanceChange::NoWorkspace(uid))).await
}

/// Sends a change to all nodes. The first node judges the client's request; if it accepts the request, the other nodes get it
/// under the master key. A node that misses it is marked as behind.
pub(super) async fn everywhere(
    cluster: &Shared,
    sent: Sent,
    changed: impl FnOnce(&NodeAnswer) -> Option<InstanceChange> + Send + 'static,
) -> Result<Response> {
    let cluster = cluster.0.clone();
    sent.grant()?;
    // In a task of its own: if the client disconnects, the operation must still reach all nodes.
    let work = async move { send(&cluster, sent, changed).await };
    tokio::spawn(work).await.map_err(|error| Error::Other(error.to_string()))?
}

async fn send(
    cluster: &Arc<Cluster>,
    sent: Sent,
    changed: impl FnOnce(&NodeAnswer) -> Option<InstanceChange>,
) -> Result<Response> {
    let _guard = cluster.locks.lock(Scope::indexes([])).await;
    let mut missed = Vec::new();
    let mut first: Option<NodeAnswer> = None;
    for node in cluster.current() {
        let mut request = sent.request.clone();
        if first.is_some() {
            request.authority = Authority::Master;
        }
        match node.send(&request).await {
            Ok(answer) if first.is_none() && !answer.is_success() => return Ok(pass_on(&answer)),
            // 404 and 409 mean that the node already is as the request wants it.
            Ok(answer) if answer.is_success() || [404, 409].contains(&answer.status) => {
                first.get_or_insert(answer);
            }
            Ok(answer) => {
                let error = node.unexpected(&request, &answer);
                tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a node misses a change");
                missed.push(node.name.clone());
            }
            Err(error) => {
                tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a node may miss a change");
                missed.push(node.name.clone());
            }
        }
    }
    cluster.keys.clear();
    if let Some(changed) = first.as_ref().and_then(changed) {
        cluster.ledger.call(move |connection| instance_settings::store(connection, changed)).await?;
    }
    creation::mark_behind(cluster, &missed).await?;
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
    first.map(|answer| pass_on(&answer)).ok_or(Error::NoNode)
}
