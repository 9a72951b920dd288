//! Locks of indexes that are being created.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

/// A lock for each index that is being created.
#[derive(Debug, Default)]
pub struct Creating {
    indexes: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Creating {
    /// Waits for the index's turn.
    pub async fn lock(&self, index: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut indexes = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
            // Nobody else has it, or waits for it: it is of no use any more.
            indexes.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(indexes.entry(index.to_owned()).or_default())
        };
        lock.lock_owned().await
    }
}
