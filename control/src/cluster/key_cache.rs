//! API keys that were asked for lately.

use crate::{
    base::time::{Instant, SharedClock},
    domain::api_key::Key,
};
use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::Semaphore;

/// How long a key may be used after it was deleted.
const CACHED: Duration = Duration::from_secs(3);

/// Keys that are remembered at once.
const REMEMBERED: usize = 10_000;

/// Keys that nodes are asked for at once.
const LOOK_UPS: usize = 4;

/// When a key was asked for, and what it is.
pub(crate) type Asked = (Instant, Option<Arc<Key>>);

/// Keys that were asked for a moment ago; `None` for those that do not exist.
#[derive(Debug)]
pub struct KeyCache {
    clock: SharedClock,
    pub(crate) keys: Mutex<HashMap<String, Asked>>,
    /// How often keys have changed: what was asked for before is not kept after it.
    pub(crate) changes: AtomicU64,
    /// Keys that do not exist cost their senders nothing: they must not cost nodes much.
    pub(crate) look_ups: Semaphore,
}

impl KeyCache {
    /// None yet.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        Self {
            clock,
            keys: Mutex::default(),
            changes: AtomicU64::default(),
            look_ups: Semaphore::new(LOOK_UPS),
        }
    }

    pub(crate) fn get(&self, token: &str) -> Option<Option<Arc<Key>>> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.get(token).filter(|(asked, _)| self.clock.since(*asked) < CACHED).map(|(_, key)| key.clone())
    }

    pub(crate) fn put(&self, token: &str, key: Option<Arc<Key>>, changes: u64) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if self.changes.load(Ordering::Acquire) != changes {
            return;
        }
        if keys.len() >= REMEMBERED {
            keys.retain(|_, (asked, key)| key.is_some() && self.clock.since(*asked) < CACHED);
        }
        if keys.len() < REMEMBERED {
            keys.insert(token.to_owned(), (self.clock.monotonic(), key));
        }
    }

    /// Forgets everything: keys have changed.
    pub fn clear(&self) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        self.changes.fetch_add(1, Ordering::AcqRel);
        keys.clear();
    }
}
