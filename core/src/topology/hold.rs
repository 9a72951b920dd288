//! Tracks which topologies a VM still uses.
//!
//! Replicas that older topologies name may be deleted only when no VM uses these topologies any more. An operation uses the
//! topology that it was planned with until it ends, so it keeps a [`Hold`] on that topology. A request whose body is still
//! arriving has no hold, however long that takes: it is planned with the newest topology once its body is complete.

use super::Topology;
use std::{
    ops::Deref,
    rc::{Rc, Weak},
    sync::Arc,
};

/// Keeps a topology in use.
#[derive(Clone, Debug)]
pub struct Hold(Rc<Held>);

/// Counted separately from the topology itself, because contexts that only collect a body keep the topology too.
#[derive(Debug)]
struct Held {
    topology: Arc<Topology>,
}

impl Hold {
    /// A hold on a topology that no control plane has published: nobody needs to know whether it is in use.
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

/// The topologies of one VM. A VM may serve several clusters, each with its own control plane.
#[derive(Debug, Default)]
pub struct Topologies {
    /// The newest topology of each cluster; new operations are planned with it.
    in_force: Vec<Hold>,
    /// All topologies that may still be held.
    all: Vec<Weak<Held>>,
}

impl Topologies {
    /// Puts a newly received configuration in force.
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

    /// The newest topology of the same cluster; `None` if no control plane publishes it.
    #[must_use]
    pub fn newest(&self, topology: &Topology) -> Option<Hold> {
        self.in_force.iter().find(|newest| same_cluster(newest, topology)).cloned()
    }

    /// The version of the oldest topology of the same cluster that is in use; the newest one always is.
    #[must_use]
    pub fn oldest(&self, topology: &Topology) -> u64 {
        let held =
            self.all.iter().filter_map(Weak::upgrade).filter(|held| same_cluster(&held.topology, topology));
        held.map(|held| held.topology.version()).min().unwrap_or_else(|| topology.version())
    }
}

/// Two topologies belong to the same cluster if they share the secret or the Envoy cluster of the control plane: only one of
/// the two changes at a time. Without a control plane, clusters cannot be told apart.
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
        // A request that collects a body still has the first topology, but does not hold it.
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
        // An earlier configuration that is put in force again counts as the newest.
        topologies.put_in_force(topology(5, "one"));
        assert_eq!(topologies.newest(&one).unwrap().version(), 5);
        assert_eq!(topologies.oldest(&one), 5);
    }
}
