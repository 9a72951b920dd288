//! What unit tests are built of: a cluster, a publisher, nodes behind a scripted transport, a clock that stands still.

mod transport;

pub use transport::{Reply, Script};

use crate::{
    base::{
        config::{CONTROL_CLUSTER, ClusterFile, NodeConfig, NodeFile},
        outbound::{Outbound, Policy},
        random::SystemRandom,
        secrets::Secrets,
        time::{Clock, Instant, Nanos, SharedClock, SystemClock},
        tls::NodeTls,
    },
    cluster::{Cluster, Options, TaskLimits, World},
    domain::{
        cluster_state::{ClusterState, Member, Replica},
        task::{TaskKind, TaskStatus},
    },
    ledger::{Ledger, tasks::Task},
    node::{Node, Transport},
    publish::{Publisher, subscribers::Subscribers},
};
use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};
use uuid::Uuid;

/// A client's task that has just been enqueued; tests set what matters to them with `..task(…)`.
pub fn task(uid: u32, index: &str, kind: TaskKind) -> Task {
    Task {
        uid,
        index: Some(index.to_owned()),
        kind,
        status: TaskStatus::Enqueued,
        details: None,
        error: None,
        canceled_by: None,
        custom_metadata: None,
        enqueued_at: 0,
        started_at: None,
        finished_at: None,
    }
}

/// A publisher without a folder; tests set what matters to them with `..publisher()`.
pub fn publisher() -> Publisher {
    Publisher {
        folder: None,
        wasm: "/filter.wasm".into(),
        control: "127.0.0.1:9".into(),
        control_cluster: CONTROL_CLUSTER.into(),
        tls: NodeTls::default().upstream(),
        control_tls: None,
        secret: "gateways".into(),
        read_key: None,
        internal_key: "k".into(),
        snapshots: tokio::sync::watch::Sender::default(),
        subscribers: Subscribers::default(),
    }
}

/// A node of a cluster's description.
pub fn node_config(name: &str, url: &str) -> NodeConfig {
    NodeFile::new(name, url).validate("node").unwrap()
}

/// A node that is asked through a transport.
pub fn node(name: &str, transport: Arc<dyn Transport>) -> Node {
    Node::new(node_config(name, "http://node:7700"), transport, "master".into(), Arc::new(SystemClock))
}

/// Makes the state of a control plane, with a ledger in a folder. Each node has an active replica of every shard.
pub struct ClusterBuilder<'a> {
    data: &'a Path,
    nodes: Vec<String>,
    transport: Arc<dyn Transport>,
    clock: SharedClock,
}

impl<'a> ClusterBuilder<'a> {
    /// Two nodes `a` and `b` that nobody reaches, and the clocks of the operating system.
    pub fn new(data: &'a Path) -> Self {
        Self {
            data,
            nodes: vec!["a=http://127.0.0.1:1".into(), "b=http://127.0.0.1:2".into()],
            transport: Script::new(|_| Reply::NoConnection),
            clock: Arc::new(SystemClock),
        }
    }

    /// The nodes are these, each as `name=url`.
    pub fn nodes(self, nodes: impl IntoIterator<Item = String>) -> Self {
        Self { nodes: nodes.into_iter().collect(), ..self }
    }

    /// Requests to nodes go by this.
    pub fn transport(self, transport: Arc<dyn Transport>) -> Self {
        Self { transport, ..self }
    }

    /// Time is what this says.
    pub fn clock(self, clock: SharedClock) -> Self {
        Self { clock, ..self }
    }

    /// The state, as before a start.
    pub fn build(self) -> Cluster {
        let options = Options {
            place: None,
            task_limits: TaskLimits::default(),
            read_key: Uuid::nil(),
            user_master_key: true,
            commit_timeout: Duration::from_secs(1),
            callout_timeout: Duration::from_secs(1),
            outbound: Outbound::new(Policy::new(&[])).unwrap(),
        };
        let config = ClusterFile::from_flags(&self.nodes).unwrap().validate().unwrap();
        let everywhere: Vec<Replica> = config.nodes.iter().map(|node| Replica::active(&node.name)).collect();
        let member = |config: &NodeConfig| Member {
            config: config.clone(),
            since: 1,
            draining: false,
            leaving: false,
        };
        let cluster_state = ClusterState {
            version: 1,
            nodes: config.nodes.iter().map(member).collect(),
            replication: config.nodes.len(),
            desired: vec![
                config.nodes.iter().map(|node| node.name.clone()).collect();
                usize::from(config.shards)
            ],
            replicas: vec![everywhere; usize::from(config.shards)],
            ..ClusterState::default()
        };
        Cluster::new(
            options,
            World {
                transport: self.transport,
                ledger: Ledger::open(self.data).unwrap(),
                clock: self.clock,
                random: Arc::new(SystemRandom),
            },
            config,
            Secrets::load(self.data).unwrap(),
            publisher(),
            cluster_state,
            None,
        )
    }
}

/// A clock that moves when it is told to.
#[derive(Debug)]
pub struct ManualClock {
    begun: Instant,
    passed: Mutex<Duration>,
}

impl ManualClock {
    /// A clock that stands still.
    pub fn new() -> Arc<Self> {
        Arc::new(Self { begun: Instant::now(), passed: Mutex::default() })
    }

    /// So much time passes.
    pub fn advance(&self, time: Duration) {
        *self.passed.lock().unwrap() += time;
    }
}

impl Clock for ManualClock {
    /// From the start of 2024 on.
    fn wall(&self) -> Nanos {
        const START: Nanos = 1_704_067_200_000_000_000;
        START + Nanos::try_from(self.passed.lock().unwrap().as_nanos()).unwrap()
    }

    fn monotonic(&self) -> Instant {
        self.begun + *self.passed.lock().unwrap()
    }
}
