//! A node's copy of a shard, and what it is good for.

/// A node's copy of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The node's name.
    pub node: String,
    /// What it is good for.
    pub state: ReplicaState,
}

/// What a replica is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaState {
    /// Read and written.
    Active,
    /// Neither: it missed a write, or is to be made. The mover makes it active.
    Stale,
    /// An old copy, which gateways with a topology older than `since` may still read.
    Leaving {
        /// The first version in which it is not read.
        since: u64,
        /// It is still written; else it has missed something.
        written: bool,
    },
    /// Neither read nor written: its documents are being deleted.
    Removing,
}

impl Replica {
    /// A replica that is read and written.
    #[must_use]
    pub fn active(node: impl Into<String>) -> Self {
        Self { node: node.into(), state: ReplicaState::Active }
    }

    /// A replica that is to be made or mended.
    #[must_use]
    pub fn stale(node: impl Into<String>) -> Self {
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
