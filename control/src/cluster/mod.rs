//! The state that all parts of the control plane share.

pub mod bodies;
pub mod creating;
pub mod exports;
pub mod fields;
pub mod gateways;
pub mod key_cache;
pub mod locks;
pub mod moves;
pub mod open_writes;
pub mod tracked;
pub mod write_keys;

use crate::{
    base::{
        config::{ClusterConfig, NodeConfig},
        error::{Error, Result},
        outbound::Outbound,
        secrets::Secrets,
        time::{Instant, SharedClock, SystemClock},
        tls::NodeTls,
    },
    cluster::{
        bodies::Bodies, creating::Creating, exports::Exports, fields::Fields, gateways::Gateways,
        key_cache::KeyCache, locks::Locks, moves::Mover, open_writes::OpenWrites, tracked::Settler,
        write_keys::Epochs,
    },
    domain::cluster_state::View,
    ledger::{Ledger, catalogue},
    node::{Http, Node, NodeAnswer, Request, Transport},
    publish::Publisher,
};
use miroir_core::shard::Shard;
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// What flags say.
#[derive(Clone, Debug)]
pub struct Options {
    /// The user runs the cluster with a master key, and clients send keys.
    pub user_master_key: bool,
    /// A begin without a commit is recovered after this long.
    pub commit_timeout: Duration,
    /// How long a callout of a gateway may still be on its way after its key was deleted.
    pub callout_timeout: Duration,
    /// Calls URLs that clients give.
    pub outbound: Outbound,
}

/// The control plane.
#[derive(Debug)]
pub struct Cluster {
    /// Where time comes from.
    pub clock: SharedClock,
    /// Flags.
    pub options: Options,
    /// The cluster's description. What it says of nodes and replicas is how the cluster began: the view tells what is.
    pub config: ClusterConfig,
    /// Secrets.
    pub secrets: Secrets,
    /// What survives a crash.
    pub ledger: Ledger,
    /// Who may change what.
    pub locks: Locks,
    /// Writes between begin and commit.
    pub open: OpenWrites,
    /// Tasks that nodes have not ended.
    pub settler: Settler,
    /// API keys that were asked for lately.
    pub keys: KeyCache,
    /// Gateways' keys.
    pub epochs: Epochs,
    /// Which topology gateways have.
    pub gateways: Gateways,
    /// Bodies of requests that are being read, or served.
    pub bodies: Bodies,
    /// Exports that have not ended.
    pub exports: Exports,
    /// Makes replicas whole.
    pub mover: Mover,
    /// Writes the topology out.
    pub publisher: Publisher,
    /// Held while an index is created by a write: writes to its other shards may want it too.
    pub creating: Creating,
    /// What fields indexes have.
    pub fields: Fields,
    nodes: Mutex<Arc<Vec<Arc<Node>>>>,
    transport: Arc<dyn Transport>,
    /// Nodes that have left, and since which version: gateways may still ask them.
    retired: Mutex<Vec<(NodeConfig, u64)>>,
    view: Mutex<Arc<View>>,
    /// The first version that leaves out the replica that was lost last, and since when that is published: until no gateway knows
    /// only older ones, what is written is not to be found through all.
    lost: Mutex<Option<(u64, Instant)>>,
    /// The version in which what gateways are told of an index has changed last, and since when it is published: of those that may not
    /// be everywhere yet.
    unseen: Mutex<BTreeMap<String, (u64, Instant)>>,
    changing: tokio::sync::Mutex<()>,
    ready: AtomicBool,
}

impl Cluster {
    /// Puts the parts together. `transport` carries requests to all nodes; `gateways` are the VMs that may have a lease from before.
    #[must_use]
    #[expect(clippy::too_many_arguments, reason = "each is a part of its own")]
    pub fn new(
        options: Options,
        transport: Arc<dyn Transport>,
        config: ClusterConfig,
        secrets: Secrets,
        ledger: Ledger,
        publisher: Publisher,
        view: View,
        gateways: Option<Vec<String>>,
        clock: SharedClock,
    ) -> Self {
        let now = clock.monotonic();
        let cluster = Self {
            nodes: Mutex::default(),
            transport,
            gateways: Gateways::new(config.limits.lease_ms, gateways, clock.clone()),
            bodies: Bodies::new(config.limits.max_payload_bytes, config.limits.max_buffered_bytes),
            mover: Mover::new(config.moves, clock.clone()),
            retired: Mutex::default(),
            options,
            config,
            secrets,
            ledger,
            locks: Locks::default(),
            open: OpenWrites::new(clock.clone()),
            settler: Settler::default(),
            keys: KeyCache::new(clock.clone()),
            epochs: Epochs::default(),
            publisher,
            exports: Exports::default(),
            creating: Creating::default(),
            fields: Fields::default(),
            // What was lost before this start may not be known to all gateways.
            lost: Mutex::new(view.has_stale().then_some((view.version, now))),
            // Nor which indexes had changed.
            unseen: Mutex::new(view.told().map(|name| (name.to_owned(), (view.version, now))).collect()),
            view: Mutex::new(Arc::new(view)),
            changing: tokio::sync::Mutex::default(),
            ready: AtomicBool::new(false),
            clock,
        };
        cluster.follow(&cluster.view());
        cluster
    }

    /// All nodes, in the topology's order.
    #[must_use]
    pub fn nodes(&self) -> Arc<Vec<Arc<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A node that is not in the cluster yet: to be asked whether it can be.
    #[must_use]
    pub fn stranger(&self, config: NodeConfig) -> Node {
        Node::new(config, self.transport.clone(), self.secrets.master_key.clone(), self.clock.clone())
    }

    /// The nodes of a description, for whoever has no cluster yet.
    ///
    /// # Errors
    /// The secrets cannot be read or written, or the files for TLS not read.
    pub fn strangers(config: &ClusterConfig, data: &Path, tls: &NodeTls) -> Result<Vec<Node>> {
        let clock: SharedClock = Arc::new(SystemClock);
        let secrets = Secrets::load(data)?;
        let transport: Arc<dyn Transport> = Arc::new(Http::new(tls.client()?));
        let node = |config: &NodeConfig| {
            Node::new(config.clone(), transport.clone(), secrets.master_key.clone(), clock.clone())
        };
        Ok(config.nodes.iter().map(node).collect())
    }

    /// Makes the list of nodes that of a view; nodes that stay keep what is known of them.
    fn follow(&self, view: &View) {
        let known = self.nodes();
        let same = |config: &NodeConfig| {
            known.iter().find(|node| node.name == config.name && node.url == config.url).cloned()
        };
        let nodes = view.nodes.iter().map(|member| {
            same(&member.config).unwrap_or_else(|| Arc::new(self.stranger(member.config.clone())))
        });
        let nodes: Arc<Vec<Arc<Node>>> = Arc::new(nodes.collect());
        let stays = |name: &str| nodes.iter().any(|node| node.name == name);
        let gone = known.iter().filter(|node| !stays(&node.name));
        gone.clone().for_each(|node| self.epochs.forget(&node.name));
        self.retired().extend(gone.map(|node| (node.config(), view.version)));
        *self.nodes.lock().unwrap_or_else(PoisonError::into_inner) = nodes;
    }

    /// What the cluster looks like now.
    #[must_use]
    pub fn view(&self) -> Arc<View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what the cluster looks like: in the ledger, then here, then for the gateways. No change that they are
    /// told of, no version.
    ///
    /// # Errors
    /// The ledger failed: nothing has changed. Or the topology could not be written out: that is only logged, since the
    /// change is made; the next one writes all of it.
    pub async fn change(&self, change: impl FnOnce(&mut View)) -> Result<()> {
        self.try_change(|view| {
            change(view);
            Ok(())
        })
        .await
    }

    /// The same, for a change that may turn out to be wrong: then nothing changes.
    ///
    /// # Errors
    /// What `change` says; or as [`Self::change`].
    pub async fn try_change(&self, change: impl FnOnce(&mut View) -> Result<()>) -> Result<()> {
        let _one = self.changing.lock().await;
        let old = self.view();
        let mut new = View::clone(&old);
        change(&mut new)?;
        if new == *old {
            return Ok(());
        }
        let is_told = !new.is_but_for_dates(&old);
        new.version += u64::from(is_told);
        let new = Arc::new(new);
        let stored = new.clone();
        let gone = old.indexes.keys().filter(|index| !new.indexes.contains_key(*index));
        let gone: Vec<String> = gone.cloned().collect();
        self.ledger.call(move |connection| catalogue::store(connection, &old, &stored)).await?;
        gone.iter().for_each(|index| self.fields.forget(index));
        self.follow(&new);
        let before = self.view();
        if new.has_lost_since(&before) {
            *self.lost() = Some((new.version, self.clock.monotonic()));
        }
        let told = new.told_otherwise(&before);
        self.unseen().extend(told.into_iter().map(|name| (name, (new.version, self.clock.monotonic()))));
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = new;
        if is_told && let Err(error) = self.publish() {
            tracing::error!(error = %error.chain(), "the topology could not be published");
        }
        Ok(())
    }

    /// Whether no gateway reads a replica that has missed something, or will: one that slept meanwhile must ask, and is told not
    /// to read by what it knew. Only then may clients hear that something is written.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn is_read_as_written(&self) -> Result<bool> {
        let Some((version, published)) = *self.lost() else { return Ok(true) };
        let is_known = self.gateways.know(version, published);
        if is_known || self.gateways.is_late(published) {
            self.change(|view| view.floor = view.floor.max(version)).await?;
        }
        if !is_known {
            return Ok(false);
        }
        let mut lost = self.lost();
        if lost.is_some_and(|(last, _)| last == version) {
            *lost = None;
        }
        // Another one may have been lost meanwhile.
        Ok(lost.is_none())
    }

    /// Whether whatever a client begins now, at any gateway, goes by the last change of these indexes that gateways are told of. One that
    /// does not take what is published is waited for as long as one that is silent: its answers are old anyway, and
    /// `miroir status` says so.
    #[must_use]
    pub fn is_seen<'a>(&self, mut names: impl Iterator<Item = &'a str>) -> bool {
        let mut unseen = self.unseen();
        names.all(|name| {
            let Some((version, published)) = unseen.get(name).copied() else { return true };
            let is_seen = self.gateways.begin_by(version);
            if !is_seen && self.gateways.is_late(published) {
                tracing::warn!(index = name, version, "a gateway does not have what has been published");
            }
            let is_over = is_seen || self.gateways.is_late(published);
            if is_over {
                unseen.remove(name);
            }
            is_over
        })
    }

    fn unseen(&self) -> MutexGuard<'_, BTreeMap<String, (u64, Instant)>> {
        self.unseen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lost(&self) -> MutexGuard<'_, Option<(u64, Instant)>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the topology out as it is.
    ///
    /// # Errors
    /// It is not valid, or a file cannot be written.
    pub fn publish(&self) -> Result<()> {
        let view = self.view();
        let retired: Vec<NodeConfig> = {
            let mut retired = self.retired();
            // A node that came back under its name has its cluster again.
            retired.retain(|(config, since)| {
                !self.gateways.confirmed(*since)
                    && view.nodes.iter().all(|member| member.config.cluster != config.cluster)
            });
            retired.iter().map(|(config, _)| config.clone()).collect()
        };
        self.publisher.publish(&self.config, &view, &retired, self.clock.monotonic())
    }

    fn retired(&self) -> MutexGuard<'_, Vec<(NodeConfig, u64)>> {
        self.retired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A node by its name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<Arc<Node>> {
        self.nodes().iter().find(|node| node.name == name).cloned()
    }

    /// Nodes that answer and have missed nothing, in the topology's order.
    #[must_use]
    pub fn current(&self) -> Vec<Arc<Node>> {
        let view = self.view();
        self.nodes()
            .iter()
            .filter(|node| node.is_up() && !view.behind.contains(&node.name))
            .cloned()
            .collect()
    }

    /// Nodes that answer and that have active replicas of these shards: each shard once. Those that nobody can tell of are left out.
    #[must_use]
    pub fn sources(&self, shards: impl IntoIterator<Item = Shard>) -> Vec<(Arc<Node>, Vec<Shard>)> {
        let view = self.view();
        let mut sources: BTreeMap<String, (Arc<Node>, Vec<Shard>)> = BTreeMap::new();
        for shard in shards {
            let node = view.active(shard).filter_map(|name| self.node(name)).find(|node| node.is_up());
            if let Some(node) = node {
                sources.entry(node.name.clone()).or_insert_with(|| (node, Vec::new())).1.push(shard);
            }
        }
        sources.into_values().collect()
    }

    /// Asks one current node after the other until one answers.
    ///
    /// # Errors
    /// None did.
    pub async fn ask_any(&self, request: &Request) -> Result<NodeAnswer> {
        let mut failure = Error::NoNode;
        for node in self.current() {
            match node.send(request).await {
                Ok(answer) => return Ok(answer),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    /// Whether clients can be served: said by `/health`.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// From now on, clients can be served.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }
}
