//! What can happen to a cluster: each fault has an end, after which the cluster must mend itself.

use miroir_tests::{Cut, Network, Random, Sandbox};
use std::fmt;

/// A fault.
#[derive(Clone, Debug, PartialEq)]
pub enum Fault {
    /// A process is killed, and started again.
    Killed(String),
    /// A process is stopped, and continues.
    Frozen(String),
    /// A node is killed, and started again without what it had stored.
    DiskLost(String),
    /// A node cannot write anything.
    DiskFull(String),
    /// What one process opens to another does not come through.
    Cut(String, String, Cut),
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Killed(part) => write!(formatter, "{part} is killed"),
            Self::Frozen(part) => write!(formatter, "{part} is frozen"),
            Self::DiskLost(node) => write!(formatter, "{node} is killed and loses its disk"),
            Self::DiskFull(node) => write!(formatter, "{node}'s disk is full"),
            Self::Cut(from, to, how) => write!(formatter, "{from} does not reach {to} ({how:?})"),
        }
    }
}

impl Fault {
    /// What it is called in figures.
    pub fn kind(&self) -> String {
        let kind = |part: &str| part.split('-').next().unwrap_or_default().replace("meili", "node");
        match self {
            Self::Killed(part) => format!("{} killed", kind(part)),
            Self::Frozen(part) => format!("{} frozen", kind(part)),
            Self::DiskLost(_) => "disk lost".to_owned(),
            Self::DiskFull(_) => "disk full".to_owned(),
            Self::Cut(from, to, _) => format!("{} cut from {}", kind(from), kind(to)),
        }
    }

    /// Whether both concern the same process, or the same connections.
    fn excludes(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Cut(from, to, _), Self::Cut(other_from, other_to, _)) => {
                (from, to) == (other_from, other_to)
            }
            (Self::Cut(..), _) | (_, Self::Cut(..)) => false,
            (
                Self::Killed(one) | Self::Frozen(one) | Self::DiskLost(one) | Self::DiskFull(one),
                Self::Killed(other) | Self::Frozen(other) | Self::DiskLost(other) | Self::DiskFull(other),
            ) => one == other,
        }
    }

    pub fn begin(&self, cluster: &Sandbox, network: &Network) {
        match self {
            Self::Killed(part) => cluster.kill(part),
            Self::Frozen(part) => cluster.freeze(part),
            Self::DiskLost(node) => {
                cluster.kill(node);
                cluster.lose_disk(node);
            }
            Self::DiskFull(node) => cluster.fill_disk(node),
            Self::Cut(from, to, how) => network.cut(from, to, *how),
        }
    }

    pub fn end(&self, cluster: &Sandbox, network: &Network) {
        match self {
            Self::Killed(part) | Self::DiskLost(part) => cluster.revive(part),
            Self::Frozen(part) => cluster.thaw(part),
            Self::DiskFull(node) => {
                cluster.empty_disk(node);
                // Its database refuses everything after an error of the disk, until it is opened again. It may have ended by itself.
                if cluster.is_running(node) {
                    cluster.kill(node);
                }
                cluster.revive(node);
            }
            Self::Cut(from, to, _) => network.heal(from, to),
        }
    }
}

/// Which faults may come next.
pub struct Choice<'a> {
    /// The nodes of the cluster.
    pub nodes: &'a [String],
    pub gateways: u16,
    /// Whether a node may lose its disk: every replica is whole, and none moves.
    pub may_lose: bool,
    pub has_disks: bool,
}

impl Choice<'_> {
    /// One to three faults at once, which concern one node at most: two replicas do not survive two. A disk is lost alone, since a write
    /// that a dying gateway has sent to one replica is lost with that replica's disk.
    pub fn draw(&self, random: &mut Random) -> Vec<Fault> {
        let node = random.of(self.nodes).clone();
        let count = *random.of(&[1, 1, 1, 2, 2, 3]);
        let mut faults: Vec<Fault> = Vec::new();
        while faults.len() < count {
            let fault = self.one(&node, random);
            if matches!(fault, Fault::DiskLost(_)) {
                return vec![fault];
            }
            if !faults.iter().any(|other| other.excludes(&fault)) {
                faults.push(fault);
            }
        }
        faults
    }

    fn one(&self, node: &str, random: &mut Random) -> Fault {
        let gateway = format!("gateway-{}", random.below(self.gateways.into()));
        let part = random.of(&[node, node, "control", &gateway]).to_string();
        match random.below(if self.has_disks { 11 } else { 10 }) {
            0..4 => Fault::Killed(part),
            4..6 => Fault::Frozen(part),
            6 if self.may_lose => Fault::DiskLost(node.to_owned()),
            6..10 => {
                let ends = [("control", node), (gateway.as_str(), node), (gateway.as_str(), "control")];
                let (from, to) = *random.of(&ends);
                Fault::Cut(
                    from.to_owned(),
                    to.to_owned(),
                    *random.of(&[Cut::Closed, Cut::Silent, Cut::Silent]),
                )
            }
            _ => Fault::DiskFull(node.to_owned()),
        }
    }
}
