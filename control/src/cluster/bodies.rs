//! Bodies of requests that are being read, or served.

use std::sync::Arc;
use tokio::sync::Semaphore;

/// The bodies that are held at once.
#[derive(Debug)]
pub struct Bodies {
    pub(crate) largest: u64,
    pub(crate) room: Arc<Semaphore>,
}
