//! Routes for the CLI: the state of the cluster. They need the admin token.

use super::{Shared, internal::require};
use crate::{
    base::error::Result,
    cluster::{
        Cluster,
        gateways::{Trouble, VmStatus},
        moves::progress::Moved,
    },
    domain::cluster_state::{ClusterState, Replica, ReplicaState},
    publish::{
        Snapshot,
        folder::{Folder, FolderStatus},
        subscribers::Subscriber,
    },
};
use axum::{
    Json,
    http::{HeaderMap, HeaderName, HeaderValue, header::AUTHORIZATION},
};
use miroir_core::{node_name::NodeName, shard::Shard};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// The header that carries the admin token.
pub const TOKEN_HEADER: &str = "x-miroir-token";

/// Checks the admin token, which is in its own header, or a bearer token, which Prometheus can send.
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

/// The status of the cluster.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// Whether clients can be served.
    pub ready: bool,
    /// The topology's version.
    pub topology_version: u64,
    /// Number of shards.
    pub shards: usize,
    /// The number of replicas per shard.
    pub replication: usize,
    /// The number of indexes in the catalogue.
    pub indexes: usize,
    /// The number of shards without an active replica on a reachable node.
    pub shards_missing: usize,
    /// The number of replicas that are stale, as a whole or in an index.
    pub replicas_stale: usize,
    /// The number of replicas that are stale in an index, and read for others; by index.
    #[serde(default)]
    pub stale_in_indexes: BTreeMap<String, usize>,
    /// Whether replicas are on other nodes than desired, or on their way.
    pub moving: bool,
    /// The number of replicas that must be created or repaired.
    pub replicas_missing: usize,
    /// The number of copies that will be deleted.
    pub replicas_surplus: usize,
    /// What the mover has copied since the control plane started.
    pub moved: Moved,
    /// The VMs of gateways' workers, and the topologies that they use.
    pub gateways: Vec<VmStatus>,
    /// The subscribers to the topology, except the Envoys that watch files.
    #[serde(default)]
    pub subscribers: Vec<Subscriber>,
    /// The folder that Envoys watch, if there is one.
    #[serde(default)]
    pub folder: Option<FolderStatus>,
    /// Problems of gateways with the published topology.
    #[serde(default)]
    pub troubles: Vec<Trouble>,
    /// The number of writes that have begun and are not decided.
    pub open_writes: usize,
    /// The number of mutations that wait for locks.
    pub waiting: usize,
    /// Tasks that nodes have not ended, and that the control plane tracks.
    pub unsettled_tasks: usize,
    /// How often each part of the background work has panicked, or has ended although it must not.
    #[serde(default)]
    pub work_failures: BTreeMap<String, u64>,
    /// Whether the ledger could not store the last change.
    #[serde(default)]
    pub ledger_failing: bool,
    /// How many calls the ledger's database has failed, since the start.
    #[serde(default)]
    pub ledger_failures: u64,
    /// Nodes.
    pub nodes: Vec<NodeStatus>,
}

/// The status of a node.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeStatus {
    /// The node's name.
    pub name: NodeName,
    /// The URL of the node.
    pub url: String,
    /// Whether the node is reachable.
    pub up: bool,
    /// For how many seconds it has been reachable or unreachable.
    pub since_seconds: u64,
    /// The version of Meilisearch on it.
    pub version: Option<String>,
    /// Whether it missed an operation on indexes, and has not caught up.
    pub behind: bool,
    /// The number of active replicas that miss nothing: these are read and written.
    pub active: usize,
    /// The number of replicas that are stale, as a whole or in an index: these are to be repaired.
    pub stale: usize,
    /// The number of replicas that are stale in an index, and read for others; by index.
    #[serde(default)]
    pub stale_in_indexes: BTreeMap<String, usize>,
    /// The number of old copies, which will be deleted.
    pub old: usize,
    /// Its share of the replicas, relative to other nodes.
    pub weight: u32,
    /// The node's zone.
    pub zone: Option<String>,
    /// Whether its replicas are being moved to other nodes.
    pub draining: bool,
    /// Whether it leaves the cluster once it holds no replica.
    pub leaving: bool,
    /// The latest error.
    pub error: Option<String>,
    /// Why it is still behind.
    #[serde(default)]
    pub trouble: Option<String>,
}

/// The replicas of a shard.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ShardStatus {
    /// The shard's number.
    pub shard: u16,
    /// Nodes with an active replica that misses nothing: these are read and written.
    pub active: Vec<NodeName>,
    /// Nodes with a replica that is stale, as a whole or in an index, and is to be repaired.
    pub stale: Vec<NodeName>,
    /// Nodes with an old copy, which will be deleted.
    pub old: Vec<NodeName>,
}

/// `GET /_miroir/status`.
///
/// # Errors
/// The token is wrong.
pub async fn status(cluster: Shared, headers: HeaderMap) -> Result<Json<Status>> {
    require(&headers, TOKEN_HEADER, &cluster.secrets.admin_token)?;
    Ok(Json(Status::of(&cluster)))
}

impl Status {
    /// The current status of a cluster.
    #[must_use]
    pub fn of(cluster: &Cluster) -> Self {
        let cluster_state = cluster.cluster_state();
        let replicas = || {
            cluster_state.shards().flat_map(|shard| cluster_state.of(shard).iter().map(move |it| (shard, it)))
        };
        let all = cluster.nodes();
        let moved = cluster.mover.progress.moved();
        let nodes = all.iter().map(|node| {
            let health = node.health();
            let of_node = |is: &dyn Fn(Standing) -> bool| {
                let held = replicas().filter(|(_, replica)| replica.node == node.name);
                held.filter(|(shard, replica)| is(Standing::of(&cluster_state, *shard, replica))).count()
            };
            let member = cluster_state.member(&node.name);
            NodeStatus {
                name: node.name.clone(),
                url: node.url.to_string(),
                up: health.up,
                since_seconds: cluster.clock.since(health.since).as_secs(),
                version: health.version,
                behind: cluster_state.behind.contains(&node.name),
                trouble: moved
                    .errors
                    .get(&node.name)
                    .filter(|_| cluster_state.behind.contains(&node.name))
                    .cloned(),
                active: of_node(&|standing| standing == Standing::Active),
                stale: of_node(&|standing| standing == Standing::Stale),
                stale_in_indexes: stale_in_indexes(&cluster_state, |name| *name == node.name),
                old: of_node(&|standing| standing == Standing::Old),
                weight: member.map_or(1, |member| member.config.weight),
                zone: member.and_then(|member| member.config.zone.clone()),
                draining: member.is_some_and(|member| member.draining),
                leaving: member.is_some_and(|member| member.leaving),
                error: health.error,
            }
        });
        let is_up = |name: &NodeName| cluster.node(name).is_some_and(|node| node.is_up());
        Status {
            ready: cluster.is_ready(),
            topology_version: cluster_state.version,
            shards: cluster_state.replicas.len(),
            replication: cluster_state.replication,
            indexes: cluster_state.indexes.len(),
            shards_missing: cluster_state
                .shards()
                .filter(|shard| !cluster_state.is_readable(*shard, is_up))
                .count(),
            replicas_stale: replicas()
                .filter(|(shard, it)| Standing::of(&cluster_state, *shard, it) == Standing::Stale)
                .count(),
            stale_in_indexes: stale_in_indexes(&cluster_state, |_| true),
            moving: cluster_state.is_moving(),
            replicas_missing: missing(&cluster_state),
            replicas_surplus: surplus(&cluster_state),
            moved: cluster.mover.progress.moved(),
            gateways: cluster.gateways.status(),
            subscribers: cluster.publisher.subscribers.list(),
            folder: cluster.publisher.folder.as_ref().map(Folder::status),
            troubles: troubles(cluster),
            open_writes: cluster.open.undecided(),
            waiting: cluster.locks.counts().1,
            unsettled_tasks: cluster.tracked_tasks.count(),
            work_failures: cluster.supervisor.failures(),
            ledger_failing: cluster.ledger.is_failing(),
            ledger_failures: cluster.ledger.failures(),
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

/// What operators see of a replica.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is active, and has everything.
    Active,
    /// It is stale, as a whole or in an index.
    Stale,
    /// It will be deleted.
    Old,
}

impl Standing {
    fn of(cluster_state: &ClusterState, shard: Shard, replica: &Replica) -> Self {
        match replica.state {
            ReplicaState::Active if !cluster_state.stale.has(&replica.node, shard) => Self::Active,
            ReplicaState::Active | ReplicaState::Stale => Self::Stale,
            ReplicaState::Leaving { .. } | ReplicaState::Removing => Self::Old,
        }
    }
}

/// The number of replicas that are stale in an index, on nodes for which the condition holds; by index.
fn stale_in_indexes(
    cluster_state: &ClusterState,
    is_wanted: impl Fn(&NodeName) -> bool,
) -> BTreeMap<String, usize> {
    let mut stale = BTreeMap::new();
    for (index, ..) in cluster_state.stale.iter().filter(|(_, node, ..)| is_wanted(node)) {
        *stale.entry(index.to_owned()).or_default() += 1;
    }
    stale
}

/// The number of desired replicas that are not active.
fn missing(cluster_state: &ClusterState) -> usize {
    let of_shard = |(shard, wanted): (Shard, &Vec<NodeName>)| {
        wanted.iter().filter(|name| cluster_state.active(shard).all(|node| node != *name)).count()
    };
    cluster_state.shards().zip(&cluster_state.desired).map(of_shard).sum()
}

/// The number of replicas that are not desired.
fn surplus(cluster_state: &ClusterState) -> usize {
    let of_shard = |(shard, wanted): (Shard, &Vec<NodeName>)| {
        cluster_state.of(shard).iter().filter(|replica| !wanted.contains(&replica.node)).count()
    };
    cluster_state.shards().zip(&cluster_state.desired).map(of_shard).sum()
}

/// `GET /_miroir/shards`.
///
/// # Errors
/// The token is wrong.
pub async fn shards(cluster: Shared, headers: HeaderMap) -> Result<Json<Vec<ShardStatus>>> {
    require(&headers, TOKEN_HEADER, &cluster.secrets.admin_token)?;
    let cluster_state = cluster.cluster_state();
    let names = |shard: Shard, wanted: Standing| {
        let replicas = cluster_state.of(shard).iter();
        let found = replicas.filter(|replica| Standing::of(&cluster_state, shard, replica) == wanted);
        found.map(|replica| replica.node.clone()).collect()
    };
    let shards = cluster_state.shards().map(|shard| ShardStatus {
        shard: shard.0,
        active: names(shard, Standing::Active),
        stale: names(shard, Standing::Stale),
        old: names(shard, Standing::Old),
    });
    Ok(Json(shards.collect()))
}
