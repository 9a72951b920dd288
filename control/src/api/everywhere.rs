//! Changes that nodes make at once, without a task: all of them, or none.

use super::{Sent, Shared, pass_on};
use crate::{
    base::error::{Error, Result},
    cluster::{Cluster, locks::Scope},
    indexes::catalogue,
    node::{Authority, NodeAnswer, TIMEOUT},
    sync::{
        features,
        instance_settings::{self, Changed},
    },
};
use axum::{extract::Path, response::Response};
use std::{sync::Arc, time::Duration};

/// How often it is looked whether gateways have heard of something.
const MOMENT: Duration = Duration::from_millis(20);

/// `PATCH /experimental-features`.
///
/// # Errors
/// A node's refusal.
pub async fn features(cluster: Shared, sent: Sent) -> Result<Response> {
    let answer = everywhere(&cluster, sent, |_| None).await?;
    features::learn(&cluster.0).await?;
    Ok(answer)
}

/// `PATCH /network`.
///
/// # Errors
/// A node's refusal.
pub async fn network(cluster: Shared, sent: Sent) -> Result<Response> {
    let answer = everywhere(&cluster, sent, |answer| Some(Changed::Network(answer.json()))).await?;
    instance_settings::learn_name(&cluster).await?;
    Ok(answer)
}

/// `PATCH /chats/{workspace}/settings`.
///
/// # Errors
/// A node's refusal.
pub async fn workspace(cluster: Shared, Path(uid): Path<String>, sent: Sent) -> Result<Response> {
    let body = sent.json();
    everywhere(&cluster, sent, |_| Some(Changed::Workspace(uid, body))).await
}

/// `DELETE /chats/{workspace}/settings`.
///
/// # Errors
/// A node's refusal.
pub async fn reset_workspace(cluster: Shared, Path(uid): Path<String>, sent: Sent) -> Result<Response> {
    everywhere(&cluster, sent, |_| Some(Changed::Workspace(uid, None))).await
}

/// `DELETE /chats/{workspace}`.
///
/// # Errors
/// A node's refusal.
pub async fn delete_workspace(cluster: Shared, Path(uid): Path<String>, sent: Sent) -> Result<Response> {
    everywhere(&cluster, sent, |_| Some(Changed::NoWorkspace(uid))).await
}

/// The first node judges; what it takes, the others get under the master key. Who misses it is behind.
pub(super) async fn everywhere(
    cluster: &Shared,
    sent: Sent,
    changed: impl FnOnce(&NodeAnswer) -> Option<Changed> + Send + 'static,
) -> Result<Response> {
    let cluster = cluster.0.clone();
    sent.grant()?;
    // A client that leaves must not leave nodes different.
    let work = async move { send(&cluster, sent, changed).await };
    tokio::spawn(work).await.map_err(|error| Error::Other(error.to_string()))?
}

async fn send(
    cluster: &Arc<Cluster>,
    sent: Sent,
    changed: impl FnOnce(&NodeAnswer) -> Option<Changed>,
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
            // 404 and 409: it is as it should be already.
            Ok(answer) if answer.is_success() || [404, 409].contains(&answer.status) => {
                first.get_or_insert(answer);
            }
            Ok(answer) => {
                let error = node.unexpected(&request, &answer);
                tracing::warn!(node = node.name, error = %error.chain(), "a node misses a change");
                missed.push(node.name.clone());
            }
            Err(error) => {
                tracing::warn!(node = node.name, error = %error.chain(), "a node may miss a change");
                missed.push(node.name.clone());
            }
        }
    }
    cluster.keys.clear();
    if let Some(changed) = first.as_ref().and_then(changed) {
        cluster.ledger.call(move |connection| instance_settings::store(connection, changed)).await?;
    }
    catalogue::mark_behind(cluster, &missed).await?;
    // A node that has missed it may still be read: a key that is gone would be good there.
    let is_read_nowhere_else = async {
        while !cluster.is_read_as_written().await? {
            tokio::time::sleep(MOMENT).await;
        }
        Ok::<_, Error>(())
    };
    match tokio::time::timeout(TIMEOUT, is_read_nowhere_else).await {
        Ok(done) => done?,
        Err(_) => tracing::warn!("not all gateways know which nodes have missed a change"),
    }
    first.map(|answer| pass_on(&answer)).ok_or(Error::NoNode)
}
