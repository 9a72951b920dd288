//! Locks of indexes that are being created.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

/// A lock for each index that is being created.
#[derive(Debug, Default)]
pub struct Creating {
    indexes: Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Creating {
    /// Takes the index's lock.
    pub async fn lock(&self, index: &str) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = {
            let mut indexes = self.indexes.lock().unwrap_or_else(PoisonError::into_inner);
            // Drop locks that nobody holds or waits for.
            indexes.retain(|_, lock| Arc::strong_count(lock) > 1);
            Arc::clone(indexes.entry(index.to_owned()).or_default())
        };
        lock.lock_owned().await
    }
}
