//! Tracks which nodes have answered this VM.
//!
//! Envoy needs a moment to create a new node's cluster, and may not reach the node at all. The node must not become the only
//! holder of a shard before it has answered every VM.

use crate::callouts::outcome;
use miroir_core::{http::Outcome, node_name::NodeName, topology::Topology};
use proxy_wasm::{hostcalls, types::Status};
use std::{
    cell::RefCell,
    collections::{HashMap, HashSet},
    time::Duration,
};

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Reach {
    /// The version of the newest topology that was checked.
    version: u64,
    /// The Envoy clusters of nodes that have answered.
    reached: HashSet<String>,
    /// Pending health requests by Envoy's token, with the cluster that each was sent to.
    asked: HashMap<u32, String>,
    /// Nodes of the newest topology that have not answered yet.
    unreached: Vec<NodeName>,
    /// Clusters that Envoy does not have.
    unknown: HashSet<String>,
}

thread_local! {
    static REACH: RefCell<Reach> = RefCell::default();
}

/// Sends a health request, from the active context, to each node that has not answered yet.
pub fn ask(topology: &Topology) {
    REACH.with_borrow_mut(|reach| {
        if topology.version() < reach.version {
            return;
        }
        if topology.version() > reach.version {
            reach.unknown.clear();
            reach.version = topology.version();
            // The context that sent them receives no more answers.
            reach.asked.clear();
        }
        let nodes = &topology.config().nodes;
        // A node that leaves and comes back must answer again.
        reach.reached.retain(|cluster| nodes.iter().any(|node| node.cluster == *cluster));
        for node in nodes.iter().filter(|node| !reach.reached.contains(&node.cluster)) {
            if reach.asked.values().any(|cluster| *cluster == node.cluster) {
                continue;
            }
            let headers = vec![(":method", "GET"), (":path", "/health"), (":authority", "miroir")];
            match hostcalls::dispatch_http_call(&node.cluster, headers, None, Vec::new(), PATIENCE) {
                Ok(token) => {
                    reach.unknown.remove(&node.cluster);
                    reach.asked.insert(token, node.cluster.clone());
                }
                // Envoy has the cluster; its health checks say that the node is unreachable.
                Err(Status::InternalFailure) => drop(reach.unknown.remove(&node.cluster)),
                // Envoy does not have this cluster yet; the next tick asks again.
                Err(_) => drop(reach.unknown.insert(node.cluster.clone())),
            }
        }
        reach.list(topology);
    });
}

impl Reach {
    fn list(&mut self, topology: &Topology) {
        let nodes = topology.config().nodes.iter();
        let unreached = nodes.filter(|node| !self.reached.contains(&node.cluster));
        self.unreached = unreached.map(|node| node.name.clone()).collect();
    }
}

/// Handles a node's answer. Returns `None` if the token belongs to something else, or else whether all nodes have now answered.
pub fn digest(topology: &Topology, token: u32, headers: usize, body_size: usize) -> Option<bool> {
    let cluster = REACH.with_borrow_mut(|reach| reach.asked.remove(&token))?;
    let is_there = matches!(outcome(headers, body_size), Outcome::Answered(answer) if answer.status == 200);
    Some(REACH.with_borrow_mut(|reach| {
        if is_there {
            reach.reached.insert(cluster);
        }
        if topology.version() == reach.version {
            reach.list(topology);
        }
        is_there && reach.unreached.is_empty()
    }))
}

/// The nodes of the newest topology that have not answered yet, and the nodes of `topology` whose cluster Envoy does not have.
pub fn unreached(topology: &Topology) -> (Vec<NodeName>, Vec<NodeName>) {
    REACH.with_borrow(|reach| {
        let nodes = topology.config().nodes.iter();
        let unknown = nodes.filter(|node| reach.unknown.contains(&node.cluster));
        (reach.unreached.clone(), unknown.map(|node| node.name.clone()).collect())
    })
}
