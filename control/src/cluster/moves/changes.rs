//! How often each replica has changed: whoever works on one for long can tell whether it is still what it was.

use miroir_core::{node_name::NodeName, shard::Shard};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// Counts the changes of each replica's state since the start. A state alone does not tell: a replica that missed a write while it was
/// copied from, and is complete again at the end, has given a copy without that write.
#[derive(Debug, Default)]
pub struct ReplicaChanges(Mutex<BTreeMap<(Shard, NodeName), u64>>);

impl ReplicaChanges {
    /// How often this replica has changed.
    #[must_use]
    pub fn count(&self, shard: Shard, node: &NodeName) -> u64 {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.get(&(shard, node.clone())).copied().unwrap_or(0)
    }

    /// Notes that it changes. It must be noted before anybody sees the new state.
    pub(crate) fn changes(&self, shard: Shard, node: &NodeName) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((shard, node.clone())).or_default() += 1;
    }
}
