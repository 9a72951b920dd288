//! Which topologies a VM still uses.
//!
//! Replicas that older topologies name are deleted only when no VM uses these any more. An operation uses the topology that it was
//! planned with until it ends, so it has a [`Hold`] of it. A request whose body still comes in has none, however long that takes:
//! it is planned with the newest topology once its body is whole.

use super::Topology;
use std::{
    ops::Deref,
    rc::{Rc, Weak},
    sync::Arc,
};

/// Keeps a topology in use.
#[derive(Clone, Debug)]
pub struct Hold(Rc<Held>);

/// Counted apart from the topology itself, which contexts keep that only collect a body.
#[derive(Debug)]
struct Held {
    topology: Arc<Topology>,
}

impl Hold {
    /// Of a topology that no control plane has published: nobody asks who uses it.
    #[must_use]
    pub fn unpublished(topology: Arc<Topology>) -> Self {
        Self(Rc::new(Held { topology }))
    }

    /// The topology.
    #[must_use]
    pub fn topology(&self) -> &Arc<Topology> {
        &self.0.topology
    }
}

impl Deref for Hold {
    type Target = Topology;

    fn deref(&self) -> &Topology {
        &self.0.topology
    }
}

/// The topologies of one VM, which may serve several clusters: each cluster has a control plane of its own.
#[derive(Debug, Default)]
pub struct Topologies {
    /// The newest of each cluster: what is begun now is planned with it.
    in_force: Vec<Hold>,
    /// All that may be held.
    all: Vec<Weak<Held>>,
}

impl Topologies {
    /// A configuration has come: it is in force from now on.
    pub fn put_in_force(&mut self, topology: Arc<Topology>) {
        if topology.config().control.is_none() {
            return;
        }
        let hold = Hold(Rc::new(Held { topology }));
        self.in_force.retain(|other| !same_cluster(other, &hold));
        self.all.retain(|held| held.strong_count() > 0);
        self.all.push(Rc::downgrade(&hold.0));
        self.in_force.push(hold);
    }

    /// The newest topology of the same cluster; `None` where no control plane publishes it.
    #[must_use]
    pub fn newest(&self, topology: &Topology) -> Option<Hold> {
        self.in_force.iter().find(|newest| same_cluster(newest, topology)).cloned()
    }

    /// The version of the oldest topology of the same cluster that something uses; the newest one is always in use.
    #[must_use]
    pub fn oldest(&self, topology: &Topology) -> u64 {
        let held =
            self.all.iter().filter_map(Weak::upgrade).filter(|held| same_cluster(&held.topology, topology));
        held.map(|held| held.topology.version()).min().unwrap_or_else(|| topology.version())
    }
}

/// A control plane keeps its secret or its Envoy cluster when the other one is changed. Without one, nothing tells clusters apart.
fn same_cluster(one: &Topology, other: &Topology) -> bool {
    match (&one.config().control, &other.config().control) {
        (Some(one), Some(other)) => one.secret == other.secret || one.cluster == other.cluster,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::{ControlConfig, TopologyConfig};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn topology(version: u64, secret: &str) -> Arc<Topology> {
        let control = ControlConfig { cluster: format!("control of {secret}"), secret: secret.to_owned() };
        let config = TopologyConfig { version, control: Some(control), ..TopologyConfig::of(&["a"], [[0]]) };
        Arc::new(Topology::validate(config).unwrap())
    }

    #[test]
    fn only_what_is_under_way_keeps_a_topology_in_use() {
        let mut topologies = Topologies::default();
        let first = topology(1, "s");
        topologies.put_in_force(Arc::clone(&first));
        let read = topologies.newest(&first).unwrap();
        topologies.put_in_force(topology(2, "s"));
        // Something that collects a body still has the first one, and does not hold it.
        assert_eq!(topologies.newest(&first).unwrap().version(), 2);
        assert_eq!(topologies.oldest(&first), 1);
        let again = read.clone();
        drop(read);
        assert_eq!(topologies.oldest(&first), 1);
        drop(again);
        assert_eq!(topologies.oldest(&first), 2);
    }

    #[test]
    fn clusters_that_share_a_vm_do_not_share_topologies() {
        let mut topologies = Topologies::default();
        let (one, other) = (topology(7, "one"), topology(3, "other"));
        topologies.put_in_force(Arc::clone(&one));
        topologies.put_in_force(Arc::clone(&other));
        assert_eq!((topologies.oldest(&one), topologies.oldest(&other)), (7, 3));
        assert_eq!(topologies.newest(&one).unwrap().version(), 7);
        assert!(topologies.newest(&topology(1, "third")).is_none());
        // A configuration of before that is put in force again is in force.
        topologies.put_in_force(topology(5, "one"));
        assert_eq!(topologies.newest(&one).unwrap().version(), 5);
        assert_eq!(topologies.oldest(&one), 5);
    }
}
