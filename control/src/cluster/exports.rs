//! Running exports.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::task::AbortHandle;

/// The exports that have not ended.
#[derive(Debug, Default)]
pub struct Exports {
    running: Mutex<BTreeMap<u32, AbortHandle>>,
    /// Held by the running export: exports run one at a time, as on a single Meilisearch.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

impl Exports {
    pub(crate) fn running(&self) -> MutexGuard<'_, BTreeMap<u32, AbortHandle>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stops the exports among these tasks, and returns their uids.
    pub fn stop(&self, uids: &[u32]) -> Vec<u32> {
        let mut running = self.running();
        let stopped = uids.iter().filter_map(|uid| Some((*uid, running.remove(uid)?)));
        stopped.inspect(|(_, job)| job.abort()).map(|(uid, _)| uid).collect()
    }
}
