//! What the CLI asks: the cluster's state, under the admin token.

use super::{Shared, internal::require};
use crate::{
    base::error::Result,
    cluster::{
        Cluster,
        gateways::{Trouble, VmStatus},
        moves::progress::Moved,
    },
    domain::cluster_state::{Replica, ReplicaState, View},
    publish::{
        Snapshot,
        envoys::Subscriber,
        folder::{Folder, FolderStatus},
    },
};
use axum::{
    Json,
    http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION},
};
use miroir_core::shard::Shard;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Carries the admin token.
pub const TOKEN_HEADER: &str = "x-miroir-token";

/// Checks the admin token: in its own header, or as a bearer, which Prometheus can send.
///
/// # Errors
/// 403.
pub fn require_token(cluster: &Cluster, headers: &HeaderMap) -> Result<()> {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let mut headers = headers.clone();
    if let Some(token) = bearer.and_then(|token| HeaderValue::from_str(token).ok()) {
        headers.entry(HeaderName::from_static(TOKEN_HEADER)).or_insert(token);
    }
    require(&headers, TOKEN_HEADER, &cluster.secrets.admin_token)
}

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
    /// Replicas are, or are about to be, on other nodes than they are to be.
    pub moving: bool,
    /// Replicas that are to be made, or made whole.
    pub replicas_missing: usize,
    /// Copies that are to go.
    pub replicas_surplus: usize,
    /// What the mover has done since the control plane started.
    pub moved: Moved,
    /// Workers' VMs of gateways, and the topologies that they use.
    pub gateways: Vec<VmStatus>,
    /// Who is told of what is published, but for those that watch files.
    #[serde(default)]
    pub subscribers: Vec<Subscriber>,
    /// The folder that Envoys watch, where there is one.
    #[serde(default)]
    pub folder: Option<FolderStatus>,
    /// What is wrong between gateways and what is published.
    #[serde(default)]
    pub troubles: Vec<Trouble>,
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
    /// Old copies, which are to go.
    pub old: usize,
    /// Its share, relative to other nodes'.
    pub weight: u32,
    /// Its zone.
    pub zone: Option<String>,
    /// It gives its replicas away.
    pub draining: bool,
    /// It leaves the cluster once it has none.
    pub leaving: bool,
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
    /// Nodes with an old copy, which is to go.
    pub old: Vec<String>,
}

/// `GET /_miroir/status`.
///
/// # Errors
/// The token is not right.
pub async fn status(cluster: Shared, headers: HeaderMap) -> Result<Json<Status>> {
    require(&headers, TOKEN_HEADER, &cluster.secrets.admin_token)?;
    Ok(Json(Status::of(&cluster)))
}

impl Status {
    /// What a cluster is like now.
    #[must_use]
    pub fn of(cluster: &Cluster) -> Self {
        let view = cluster.view();
        let replicas = || view.replicas.iter().flatten();
        let all = cluster.nodes();
        let nodes = all.iter().map(|node| {
            let health = node.health();
            let of_node = |is: &dyn Fn(ReplicaState) -> bool| {
                replicas().filter(|replica| replica.node == node.name && is(replica.state)).count()
            };
            let member = view.member(&node.name);
            NodeStatus {
                name: node.name.clone(),
                url: node.url.to_string(),
                up: health.up,
                since_seconds: cluster.clock.since(health.since).as_secs(),
                version: health.version,
                behind: view.behind.contains(&node.name),
                active: of_node(&|state| state == ReplicaState::Active),
                stale: of_node(&|state| state == ReplicaState::Stale),
                old: of_node(&is_old),
                weight: member.map_or(1, |member| member.config.weight),
                zone: member.and_then(|member| member.config.zone.clone()),
                draining: member.is_some_and(|member| member.draining),
                leaving: member.is_some_and(|member| member.leaving),
                error: health.error,
            }
        });
        let is_missing =
            |shard| !view.active(shard).any(|name| cluster.node(name).is_some_and(|node| node.is_up()));
        Status {
            ready: cluster.is_ready(),
            topology_version: view.version,
            shards: view.replicas.len(),
            replication: view.replication,
            indexes: view.indexes.len(),
            shards_missing: view.shards().filter(|shard| is_missing(*shard)).count(),
            replicas_stale: replicas().filter(|replica| replica.state == ReplicaState::Stale).count(),
            moving: view.is_moving(),
            replicas_missing: missing(&view),
            replicas_surplus: surplus(&view),
            moved: cluster.mover.progress.moved(),
            gateways: cluster.gateways.status(),
            subscribers: cluster.publisher.subscribers.list(),
            folder: cluster.publisher.folder.as_ref().map(Folder::status),
            troubles: troubles(cluster),
            open_writes: cluster.open.count(),
            waiting: cluster.locks.counts().1,
            unsettled_tasks: cluster.settler.count(),
            nodes: nodes.collect(),
        }
    }
}

fn troubles(cluster: &Cluster) -> Vec<Trouble> {
    // Nothing is published before clients can be served.
    let snapshot = cluster.publisher.snapshots.borrow().clone();
    let troubles =
        |it: Arc<Snapshot>| cluster.gateways.troubles(it.topology.version, cluster.clock.since(it.at));
    snapshot.map(troubles).unwrap_or_default()
}

fn is_old(state: ReplicaState) -> bool {
    matches!(state, ReplicaState::Leaving { .. } | ReplicaState::Removing)
}

/// Replicas that are to be, and are not active.
fn missing(view: &View) -> usize {
    let of_shard = |(shard, wanted): (Shard, &Vec<String>)| {
        wanted.iter().filter(|name| view.active(shard).all(|node| node != name.as_str())).count()
    };
    view.shards().zip(&view.desired).map(of_shard).sum()
}

/// Replicas that are not to be.
fn surplus(view: &View) -> usize {
    let of_shard = |(shard, wanted): (Shard, &Vec<String>)| {
        view.of(shard).iter().filter(|replica| !wanted.contains(&replica.node)).count()
    };
    view.shards().zip(&view.desired).map(of_shard).sum()
}

/// `GET /_miroir/shards`.
///
/// # Errors
/// The token is not right.
pub async fn shards(cluster: Shared, headers: HeaderMap) -> Result<Json<Vec<ShardStatus>>> {
    require(&headers, TOKEN_HEADER, &cluster.secrets.admin_token)?;
    let view = cluster.view();
    let names = |replicas: &[Replica], is: &dyn Fn(ReplicaState) -> bool| {
        let found = replicas.iter().filter(|replica| is(replica.state));
        found.map(|replica| replica.node.clone()).collect()
    };
    let shards = view.shards().zip(&view.replicas).map(|(shard, replicas)| ShardStatus {
        shard: shard.0,
        active: names(replicas, &|state| state == ReplicaState::Active),
        stale: names(replicas, &|state| state == ReplicaState::Stale),
        old: names(replicas, &is_old),
    });
    Ok(Json(shards.collect()))
}
