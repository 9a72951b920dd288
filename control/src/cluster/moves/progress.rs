//! What the mover does and has done.

use crate::base::error::Error;
use miroir_core::{node_name::NodeName, shard::Shard};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The cost of a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Documents written to the target.
    pub documents: u64,
    /// Documents deleted from the target.
    pub deleted: u64,
    /// Bytes of documents read and written.
    pub bytes: u64,
}

impl std::ops::AddAssign for Cost {
    fn add_assign(&mut self, more: Self) {
        self.documents += more.documents;
        self.deleted += more.deleted;
        self.bytes += more.bytes;
    }
}

/// The mover's progress since the control plane started, as the status shows it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Moved {
    /// Replicas that were completed.
    pub replicas: u64,
    /// Documents written to them.
    pub documents: u64,
    /// Documents deleted from them.
    pub deleted: u64,
    /// Bytes of documents read and written.
    pub bytes: u64,
    /// Hand-overs: each one completes some replicas.
    pub hand_overs: u64,
    /// The longest wait of writers for a hand-over, in milliseconds.
    pub longest_pause_ms: u64,
    /// The total wait of writers for hand-overs, in milliseconds.
    pub pauses_ms: u64,
    /// The running copies.
    pub copies: Vec<Copying>,
    /// The last error, by node.
    pub errors: BTreeMap<NodeName, String>,
}

/// A running copy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Copying {
    /// The node that is copied from.
    pub source: NodeName,
    /// The node that is copied to.
    pub target: NodeName,
    /// The copied shards.
    pub shards: Vec<Shard>,
}

/// The mover's progress.
#[derive(Debug, Default)]
pub struct Progress {
    moved: Mutex<Moved>,
}

/// A running copy. While this exists, the copy is shown, and the mover does not delete what it writes.
#[derive(Debug)]
pub struct Shown<'a> {
    progress: &'a Progress,
    copying: Copying,
}

impl Progress {
    /// The progress as the status shows it.
    #[must_use]
    pub fn moved(&self) -> Moved {
        self.lock().clone()
    }

    /// Notes the start of a copy.
    #[must_use]
    pub fn started(&self, source: &str, target: &str, shards: &[Shard]) -> Shown<'_> {
        let copying = Copying { source: source.into(), target: target.into(), shards: shards.to_vec() };
        self.lock().copies.push(copying.clone());
        Shown { progress: self, copying }
    }

    /// Whether a copy may still write to this replica.
    #[must_use]
    pub fn is_copying(&self, shard: Shard, target: &str) -> bool {
        self.lock().copies.iter().any(|copy| copy.target == target && copy.shards.contains(&shard))
    }

    /// Adds the cost of a part of a copy.
    pub fn copied(&self, cost: Cost) {
        let mut moved = self.lock();
        moved.documents += cost.documents;
        moved.deleted += cost.deleted;
        moved.bytes += cost.bytes;
    }

    /// Counts a hand-over.
    pub fn handed_over(&self, replicas: usize, pause: Duration) {
        let pause = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
        let mut moved = self.lock();
        moved.replicas += replicas as u64;
        moved.hand_overs += 1;
        moved.longest_pause_ms = moved.longest_pause_ms.max(pause);
        moved.pauses_ms += pause;
    }

    /// Notes an error of a node.
    pub fn failed(&self, node: &str, error: &Error) {
        self.lock().errors.insert(node.into(), error.chain().to_string());
    }

    fn lock(&self) -> MutexGuard<'_, Moved> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        let mut moved = self.progress.lock();
        if let Some(position) = moved.copies.iter().position(|copying| *copying == self.copying) {
            moved.copies.remove(position);
        }
    }
}
