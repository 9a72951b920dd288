//! A node's copy of a shard, and what it is good for.

use miroir_core::node_name::NodeName;

/// A node's copy of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The node's name.
    pub node: NodeName,
    /// What it is good for.
    pub state: ReplicaState,
}

/// Whether a replica is read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaState {
    /// Read and written.
    Active,
    /// Neither read nor written: it missed a write, or does not exist yet. The mover makes it active.
    Stale,
    /// An old copy. Gateways with a topology older than `since` may still read it.
    Leaving {
        /// The first version that does not read it.
        since: u64,
        /// Whether it is still written; otherwise it has missed a write.
        written: bool,
    },
    /// Neither read nor written: its documents are being deleted.
    Removing,
}

impl Replica {
    /// A replica that is read and written.
    #[must_use]
    pub fn active(node: impl Into<NodeName>) -> Self {
        Self { node: node.into(), state: ReplicaState::Active }
    }

    /// A replica that the mover has to create or repair.
    #[must_use]
    pub fn stale(node: impl Into<NodeName>) -> Self {
        Self { node: node.into(), state: ReplicaState::Stale }
    }

    /// Whether it is read and written.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.state == ReplicaState::Active
    }

    /// Whether it is written.
    #[must_use]
    pub fn is_written(&self) -> bool {
        matches!(self.state, ReplicaState::Active | ReplicaState::Leaving { written: true, .. })
    }
}
