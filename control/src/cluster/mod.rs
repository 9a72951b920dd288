//! The state that the control plane's features share.

pub mod bodies;
mod change;
pub mod creating;
pub mod exports;
pub mod fields;
pub mod gateways;
pub mod instance;
pub mod key_cache;
pub mod late_tasks;
pub mod locks;
pub mod missed;
pub mod moves;
pub mod open_writes;
pub mod sources;
pub mod tracked_tasks;
pub mod write_keys;

use crate::{
    base::{
        config::{ClusterConfig, NodeConfig},
        error::Result,
        outbound::Outbound,
        random::SharedRandom,
        secrets::Secrets,
        supervisor::Supervisor,
        time::{Instant, SharedClock, SystemClock},
        tls::NodeTls,
    },
    cluster::{
        bodies::Bodies, creating::Creating, exports::Exports, fields::Fields, gateways::Gateways,
        instance::Instance, key_cache::KeyCache, late_tasks::LateTasks, locks::Locks, moves::Mover,
        open_writes::OpenWrites, tracked_tasks::TrackedTasks, write_keys::WriteKeys,
    },
    domain::cluster_state::ClusterState,
    ledger::Ledger,
    node::{ClusterKey, Http, Node, Transport},
    publish::Publisher,
};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use uuid::Uuid;

/// What is settled at the start.
#[derive(Clone, Debug)]
pub struct Options {
    /// The uid of the key of gateways' own reads.
    pub read_key: Uuid,
    /// Whether the user runs the cluster with a master key, so that clients must send API keys.
    pub user_master_key: bool,
    /// How long to wait for a commit before a write is recovered.
    pub commit_timeout: Duration,
    /// How long a gateway's callout may still be under way after its write key was deleted.
    pub callout_timeout: Duration,
    /// The HTTP client for URLs that API clients give.
    pub outbound: Outbound,
    /// Where the ledger is: who finds it there at the next start has the claim on its folder that this process has now. `None` where that
    /// cannot be told.
    pub place: Option<String>,
    /// How many tasks there may be.
    pub task_limits: TaskLimits,
}

/// How many tasks there may be before the oldest ended ones are deleted.
#[derive(Clone, Copy, Debug)]
pub struct TaskLimits {
    /// With so many tasks in the ledger, some of them are deleted.
    pub most: u64,
    /// How many.
    pub deleted: u32,
}

impl Default for TaskLimits {
    /// Meilisearch's.
    fn default() -> Self {
        Self { most: 1_000_000, deleted: 100_000 }
    }
}

/// Where the world comes in. A simulation puts its own in each place.
#[derive(Clone, Debug)]
pub struct World {
    /// Carries requests to all nodes.
    pub transport: Arc<dyn Transport>,
    /// The durable storage.
    pub ledger: Ledger,
    /// Where time comes from.
    pub clock: SharedClock,
    /// Where randomness comes from.
    pub random: SharedRandom,
}

/// The shared state of the control plane.
#[derive(Debug)]
pub struct Cluster {
    /// Where time comes from.
    pub clock: SharedClock,
    /// Where randomness comes from.
    pub random: SharedRandom,
    /// This process among the control planes that have served the cluster.
    pub instance: Instance,
    /// What is settled at the start.
    pub options: Options,
    /// The cluster's description. Its nodes and replication are those of the start of a new cluster; the cluster state has the
    /// current ones.
    pub config: ClusterConfig,
    /// Starts background work.
    pub supervisor: Supervisor,
    /// The cluster's secrets.
    pub secrets: Secrets,
    /// The durable storage.
    pub ledger: Ledger,
    /// Locks of mutations.
    pub locks: Locks,
    /// Writes between begin and commit.
    pub open: OpenWrites,
    /// Tasks that nodes have not ended, and that the control plane tracks.
    pub tracked_tasks: TrackedTasks,
    /// A cache of API keys.
    pub keys: KeyCache,
    /// The gateways' write keys.
    pub write_keys: WriteKeys,
    /// How far nodes' tasks have been examined for requests that came late.
    pub late_tasks: LateTasks,
    /// The gateways, with their topologies and leases.
    pub gateways: Gateways,
    /// Limits on the request bodies that are in memory.
    pub bodies: Bodies,
    /// The exports that have not ended.
    pub exports: Exports,
    /// The state of the mover, which completes replicas.
    pub mover: Mover,
    /// Publishes the topology.
    pub publisher: Publisher,
    /// Held while a write creates an index, because concurrent writes to other shards may need the same index.
    pub creating: Creating,
    /// The fields of indexes.
    pub fields: Fields,
    nodes: Mutex<Arc<Vec<Arc<Node>>>>,
    transport: Arc<dyn Transport>,
    /// Nodes that have left, and the first version without them: gateways with an older topology may still send them requests.
    retired: Mutex<Vec<(NodeConfig, u64)>>,
    cluster_state: Mutex<Arc<ClusterState>>,
    /// The first version without the replica that was lost last, and when it was published. Until no gateway reads by an older
    /// one, a search may read the lost replica and miss recent writes.
    lost: Mutex<Option<(u64, Instant)>>,
    /// By index, the version that last changed its published content, and when it was published. Has only the changes that some
    /// gateway may not have yet.
    unconfirmed_changes: Mutex<BTreeMap<String, (u64, Instant)>>,
    /// Held by the one change that is under way. `true` if the ledger may have a change that is not taken up, since whoever made it left.
    changing: tokio::sync::Mutex<bool>,
    ready: AtomicBool,
}

impl Cluster {
    /// Puts the parts together. `gateways` are the VMs that may have a lease from before.
    #[must_use]
    pub fn new(
        options: Options,
        world: World,
        config: ClusterConfig,
        secrets: Secrets,
        publisher: Publisher,
        cluster_state: ClusterState,
        gateways: Option<Vec<String>>,
    ) -> Self {
        let World { transport, ledger, clock, random } = world;
        let now = clock.monotonic();
        let cluster = Self {
            nodes: Mutex::default(),
            transport,
            gateways: Gateways::new(config.limits.lease_ms, gateways, clock.clone()),
            bodies: Bodies::new(config.limits.max_payload_bytes, config.limits.max_buffered_bytes),
            mover: Mover::new(config.moves, clock.clone()),
            retired: Mutex::default(),
            instance: Instance::new(random.uuid()),
            options,
            config,
            supervisor: Supervisor::new(clock.clone()),
            secrets,
            ledger,
            locks: Locks::default(),
            open: OpenWrites::new(clock.clone()),
            tracked_tasks: TrackedTasks::default(),
            keys: KeyCache::new(clock.clone()),
            write_keys: WriteKeys::default(),
            late_tasks: LateTasks::default(),
            publisher,
            exports: Exports::default(),
            creating: Creating::default(),
            fields: Fields::default(),
            // Some gateways may not know yet of replicas that were lost before this start.
            lost: Mutex::new(cluster_state.has_stale().then_some((cluster_state.version, now))),
            // Neither may they know of indexes that changed.
            unconfirmed_changes: Mutex::new(
                cluster_state
                    .published_names()
                    .map(|name| (name.to_owned(), (cluster_state.version, now)))
                    .collect(),
            ),
            cluster_state: Mutex::new(Arc::new(cluster_state)),
            changing: tokio::sync::Mutex::default(),
            ready: AtomicBool::new(false),
            clock,
            random,
        };
        cluster.follow(&cluster.cluster_state());
        cluster
    }

    /// All nodes, in the topology's order.
    #[must_use]
    pub fn nodes(&self) -> Arc<Vec<Arc<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A client for a node that is not in the cluster, for example to check it before it joins.
    #[must_use]
    pub fn outside_node(&self, config: NodeConfig) -> Node {
        Node::new(config, self.transport.clone(), self.secrets.master_key.clone(), self.clock.clone())
            .of_cluster(ClusterKey { uid: self.options.read_key, text: self.publisher.internal_key.clone() })
    }

    /// Clients for the nodes of a description, for commands that run before there is a cluster.
    ///
    /// # Errors
    /// The secrets cannot be read or written, or the TLS files cannot be read.
    pub fn outside_nodes(config: &ClusterConfig, data: &Path, tls: &NodeTls) -> Result<Vec<Node>> {
        let clock: SharedClock = Arc::new(SystemClock);
        let secrets = Secrets::load(data)?;
        let transport: Arc<dyn Transport> = Arc::new(Http::new(tls.client()?));
        let node = |config: &NodeConfig| {
            Node::new(config.clone(), transport.clone(), secrets.master_key.clone(), clock.clone())
        };
        Ok(config.nodes.iter().map(node).collect())
    }

    /// Updates the list of nodes to that of a cluster state. Nodes that stay keep their health.
    fn follow(&self, cluster_state: &ClusterState) {
        let known = self.nodes();
        let same = |config: &NodeConfig| {
            known.iter().find(|node| node.name == config.name && node.url == config.url).cloned()
        };
        let nodes = cluster_state.nodes.iter().map(|member| {
            same(&member.config).unwrap_or_else(|| Arc::new(self.outside_node(member.config.clone())))
        });
        let nodes: Arc<Vec<Arc<Node>>> = Arc::new(nodes.collect());
        let stays = |name: &str| nodes.iter().any(|node| node.name == name);
        let gone = known.iter().filter(|node| !stays(&node.name));
        for node in gone.clone() {
            self.write_keys.forget(&node.name);
            self.late_tasks.forget(&node.name);
        }
        self.retired().extend(gone.map(|node| (node.config(), cluster_state.version)));
        *self.nodes.lock().unwrap_or_else(PoisonError::into_inner) = nodes;
    }

    /// The current cluster state.
    #[must_use]
    pub fn cluster_state(&self) -> Arc<ClusterState> {
        self.cluster_state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether no gateway reads, or will read, a replica that has missed a write. A gateway that was suspended must ask before
    /// it reads, and learns that its topology is too old. A write may be reported to clients as done only if this is true.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn no_gateway_reads_stale(&self) -> Result<bool> {
        let Some((version, published)) = *self.lost() else { return Ok(true) };
        let is_known = self.gateways.know(version, published);
        if is_known || self.gateways.is_late(published) {
            self.change(|cluster_state| cluster_state.floor = cluster_state.floor.max(version)).await?;
        }
        if !is_known {
            return Ok(false);
        }
        let mut lost = self.lost();
        if lost.is_some_and(|(last, _)| last == version) {
            *lost = None;
        }
        // Another replica may have been lost in between.
        Ok(lost.is_none())
    }

    /// Whether every request that starts now, at any gateway, uses the last published change of these indexes. A gateway that
    /// does not apply a published topology is waited for no longer than a silent one, that is, for one lease: its answers are
    /// stale anyway, and `miroir status` reports it.
    #[must_use]
    pub fn is_applied_everywhere<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> bool {
        let mut unconfirmed_changes = self.unconfirmed_changes();
        names.all(|name| {
            let Some((version, published)) = unconfirmed_changes.get(name).copied() else { return true };
            let is_applied_everywhere = self.gateways.all_start_with(version);
            if !is_applied_everywhere && self.gateways.is_late(published) {
                tracing::warn!(index = name, version, "a gateway has not applied the published topology");
            }
            let is_over = is_applied_everywhere || self.gateways.is_late(published);
            if is_over {
                unconfirmed_changes.remove(name);
            }
            is_over
        })
    }

    fn unconfirmed_changes(&self) -> MutexGuard<'_, BTreeMap<String, (u64, Instant)>> {
        self.unconfirmed_changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self) -> MutexGuard<'_, Option<(u64, Instant)>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the current topology.
    ///
    /// # Errors
    /// The topology is not valid, or a file cannot be written.
    pub fn publish(&self) -> Result<()> {
        let cluster_state = self.cluster_state();
        let retired: Vec<NodeConfig> = {
            let mut retired = self.retired();
            // A node that joined again has its Envoy cluster as a member.
            retired.retain(|(config, since)| {
                !self.gateways.confirmed(*since)
                    && cluster_state.nodes.iter().all(|member| member.config.cluster != config.cluster)
            });
            retired.iter().map(|(config, _)| config.clone()).collect()
        };
        self.publisher.publish(&self.config, &cluster_state, &retired, self.clock.monotonic())
    }

    fn retired(&self) -> MutexGuard<'_, Vec<(NodeConfig, u64)>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node by its name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<Arc<Node>> {
        self.nodes().iter().find(|node| node.name == name).cloned()
    }

    /// Whether clients can be served; `/health` reports this.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed) && !self.instance.is_stopped()
    }

    /// Notes that clients can be served.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }
}
