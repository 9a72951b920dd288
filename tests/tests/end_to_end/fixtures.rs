//! What checks share. Envoy needs seconds of processor time to compile the filter. With an Envoy for each check, this would be
//! most of the time of `make test`.
//!
//! A [`Sandbox`] or a [`Compared`] is shared by checks each of which has indexes of its own, leaves every process running, and finds
//! no index of another. What other checks share is beside them.

use miroir_tests::{
    Node, Options, Sandbox,
    trials::{Fixture, Group, name_of},
};

/// A fixture that has a cluster.
pub trait HasCluster: Fixture {
    fn cluster(&self) -> &Sandbox;
}

/// Checks of the cluster that a fixture has.
pub trait ClusterChecks {
    fn of_cluster<F: Fn(&Sandbox) + Send + 'static>(self, seconds: u32, check: F) -> Self;
}

impl<T: HasCluster> ClusterChecks for Group<'_, T> {
    fn of_cluster<F: Fn(&Sandbox) + Send + 'static>(self, seconds: u32, check: F) -> Self {
        self.named(name_of(&check), seconds, move |fixture: &T| check(fixture.cluster()))
    }
}

/// A cluster, and one node to compare it with.
pub struct Compared {
    pub cluster: Sandbox,
    pub node: Node,
}

impl Compared {
    pub fn start() -> Self {
        Self { cluster: Sandbox::start(Options::default()), node: Node::start() }
    }
}

impl Fixture for Compared {
    fn clean(&self) {
        self.cluster.client.delete_indexes();
        self.node.client.delete_indexes();
    }

    fn logs(&self) -> String {
        self.cluster.logs()
    }
}

impl HasCluster for Compared {
    fn cluster(&self) -> &Sandbox {
        &self.cluster
    }
}

/// Checks that compare a cluster with one node.
pub trait Comparisons {
    fn comparison<F: Fn(&Sandbox, &Node) + Send + 'static>(self, seconds: u32, check: F) -> Self;
}

impl Comparisons for Group<'_, Compared> {
    fn comparison<F: Fn(&Sandbox, &Node) + Send + 'static>(self, seconds: u32, check: F) -> Self {
        self.named(name_of(&check), seconds, move |both: &Compared| check(&both.cluster, &both.node))
    }
}

/// A cluster whose indexes stay from check to check.
pub struct Library(Sandbox);

impl Library {
    /// With 400 books: see [`Sandbox::library`].
    pub fn start(nodes: u16, replication: u16, gateways: u16) -> Self {
        Self(Sandbox::library(nodes, replication, gateways))
    }
}

impl Fixture for Library {
    fn logs(&self) -> String {
        self.0.logs()
    }
}

impl HasCluster for Library {
    fn cluster(&self) -> &Sandbox {
        &self.0
    }
}
