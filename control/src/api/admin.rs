//! What the CLI asks: the cluster's state, under the admin token.

use super::{Shared, internal::require};
use crate::{error::Result, view::ReplicaState};
use axum::{Json, http::HeaderMap};
use serde::{Deserialize, Serialize};

/// Carries the admin token.
pub const TOKEN_HEADER: &str = "x-miroir-token";

/// The cluster at a glance.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Clients can be served.
    pub ready: bool,
    /// The topology's version.
    pub topology_version: u64,
    /// Number of shards.
    pub shards: usize,
    /// Replicas a shard.
    pub replication: usize,
    /// Indexes in the catalogue.
    pub indexes: usize,
    /// Shards without any active replica on a node that answers.
    pub shards_missing: usize,
    /// Stale replicas.
    pub replicas_stale: usize,
    /// Writes between begin and commit.
    pub open_writes: usize,
    /// Mutations that wait for locks.
    pub waiting: usize,
    /// Tasks that nodes have not ended.
    pub unsettled_tasks: usize,
    /// Nodes.
    pub nodes: Vec<NodeStatus>,
}

/// A node at a glance.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub url: String,
    /// It answers.
    pub up: bool,
    /// Since how many seconds.
    pub since_seconds: u64,
    /// Its version.
    pub version: Option<String>,
    /// It missed an operation on indexes, and has not caught up.
    pub behind: bool,
    /// Replicas read and written.
    pub active: usize,
    /// Replicas to be repaired.
    pub stale: usize,
    /// What went wrong last.
    pub error: Option<String>,
}

/// A shard's replicas.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardStatus {
    /// Its number.
    pub shard: u16,
    /// Nodes that are read and written.
    pub active: Vec<String>,
    /// Nodes to be repaired.
    pub stale: Vec<String>,
}

/// `GET /_miroir/status`.
///
/// # Errors
/// The token is not right.
pub async fn status(cluster: Shared, headers: HeaderMap) -> Result<Json<Status>> {
    require(&headers, TOKEN_HEADER, &cluster.secrets.admin_token)?;
    let view = cluster.view();
    let replicas = || view.replicas.iter().flatten();
    let all = cluster.nodes();
    let nodes = all.iter().map(|node| {
        let health = node.health();
        let of_node = |active: bool| replicas().filter(|r| r.node == node.name && r.is_active() == active).count();
        NodeStatus {
            name: node.name.clone(),
            url: node.url.to_string(),
            up: health.up,
            since_seconds: health.since.elapsed().as_secs(),
            version: health.version,
            behind: view.behind.contains(&node.name),
            active: of_node(true),
            stale: of_node(false),
            error: health.error,
        }
    });
    let is_missing =
        |shard| !view.active(shard).any(|name| cluster.node(name).is_some_and(|node| node.is_up()));
    Ok(Json(Status {
        ready: cluster.is_ready(),
        topology_version: view.version,
        shards: view.replicas.len(),
        replication: view.replication,
        indexes: view.indexes.len(),
        shards_missing: view.shards().filter(|shard| is_missing(*shard)).count(),
        replicas_stale: replicas().filter(|replica| replica.state == ReplicaState::Stale).count(),
        open_writes: cluster.open.count(),
        waiting: cluster.locks.counts().1,
        unsettled_tasks: cluster.settler.count(),
        nodes: nodes.collect(),
    }))
}

/// `GET /_miroir/shards`.
///
/// # Errors
/// The token is not right.
pub async fn shards(cluster: Shared, headers: HeaderMap) -> Result<Json<Vec<ShardStatus>>> {
    require(&headers, TOKEN_HEADER, &cluster.secrets.admin_token)?;
    let view = cluster.view();
    let names = |replicas: &[crate::view::Replica], active: bool| {
        let found = replicas.iter().filter(|replica| replica.is_active() == active);
        found.map(|replica| replica.node.clone()).collect()
    };
    let shards = view.shards().zip(&view.replicas).map(|(shard, replicas)| ShardStatus {
        shard: shard.0,
        active: names(replicas, true),
        stale: names(replicas, false),
    });
    Ok(Json(shards.collect()))
}
