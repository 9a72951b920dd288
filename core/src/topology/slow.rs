//! Nodes that are slow at the moment, as this worker of a gateway sees it.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

/// Nodes, by position in the topology, that reads avoid where others have what they need.
#[derive(Debug, Default)]
pub(super) struct SlowNodes(Mutex<BTreeSet<u16>>);

impl SlowNodes {
    pub fn get(&self) -> BTreeSet<u16> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set(&self, nodes: BTreeSet<u16>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = nodes;
    }
}

/// They are no part of the configuration.
impl PartialEq for SlowNodes {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// A copy knows none.
impl Clone for SlowNodes {
    fn clone(&self) -> Self {
        Self::default()
    }
}
