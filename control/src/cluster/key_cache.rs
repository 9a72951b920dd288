//! A cache of API keys.

use crate::{
    base::time::{Instant, SharedClock},
    domain::api_key::Key,
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::Semaphore;

/// How long a key is cached: a deleted key may be accepted for this long.
const CACHED: Duration = Duration::from_secs(3);

/// Maximum number of cached keys.
const REMEMBERED: usize = 10_000;

/// Maximum number of concurrent look-ups of keys on nodes.
const LOOK_UPS: usize = 4;

/// When a key was looked up, and the key; `None` if it does not exist.
pub(crate) type Asked = (Instant, Option<Arc<Key>>);

/// Recently used API keys, including keys that do not exist.
#[derive(Debug)]
pub struct KeyCache {
    clock: SharedClock,
    pub(crate) keys: Mutex<BTreeMap<String, Asked>>,
    /// How often keys have changed. A look-up that started before the last change is not cached.
    pub(crate) changes: AtomicU64,
    /// Limits concurrent look-ups: anyone can send keys that do not exist, so these must not put load on nodes.
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

    /// Empties the cache, because keys have changed.
    pub fn clear(&self) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        self.changes.fetch_add(1, Ordering::AcqRel);
        keys.clear();
    }
}
