//! Limits on the request bodies that are in memory.

use std::sync::Arc;
use tokio::sync::Semaphore;

/// Limits on the request bodies that are in memory at the same time.
#[derive(Debug)]
pub struct Bodies {
    pub(crate) largest: u64,
    pub(crate) room: Arc<Semaphore>,
}
