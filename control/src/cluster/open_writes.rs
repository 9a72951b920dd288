//! Writes between begin and commit.

use crate::{
    base::time::{Instant, SharedClock},
    cluster::locks::LockGuard,
    ledger::tasks::Task,
};
use miroir_core::{error::ApiError, node_name::NodeName, protocol::WriteOperation, shard::Shard};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::watch;
use uuid::Uuid;

/// How long refusals are kept: a gateway that did not get the answer asks again.
const REMEMBERED: Duration = Duration::from_secs(600);

/// The outcome that the client gets: the task's summary, or the reason why there is no task.
pub type Decision = Result<Value, ApiError>;

/// A decision that may not have been made yet.
pub type Awaited = watch::Receiver<Option<Decision>>;

/// A write between begin and commit.
#[derive(Debug)]
pub struct OpenWrite {
    /// The task as stored in the ledger.
    pub task: Task,
    /// The gateway whose write key the requests use.
    pub gateway: String,
    /// The write key; absent if the write is from before a restart, because the restart has fenced all its keys.
    pub key: Option<Uuid>,
    /// Index uid.
    pub index: String,
    /// What is done.
    pub operation: WriteOperation,
    /// The nodes that the gateway was told to write to, by shard.
    pub writers: BTreeMap<Shard, Vec<NodeName>>,
    /// The shards for which the commit must list the document ids.
    pub record: Vec<Shard>,
    /// The locks, released when it is known what nodes accepted.
    pub guard: LockGuard,
    /// When the gateway got the answer to its begin.
    pub since: Instant,
    /// The random identifier of this begin, which the commit repeats.
    pub begun: String,
    /// Wakes all commits that wait for the decision.
    pub decision: watch::Sender<Option<Decision>>,
}

/// All writes between begin and commit.
#[derive(Debug)]
pub struct OpenWrites {
    clock: SharedClock,
    writes: Mutex<BTreeMap<u32, OpenWrite>>,
    /// Decisions by identifier of their begin: those that are pending, and refusals.
    decisions: Mutex<BTreeMap<String, (Instant, Awaited)>>,
}

impl OpenWrites {
    /// None yet.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, writes: Mutex::default(), decisions: Mutex::default() }
    }

    /// Adds a write.
    pub fn insert(&self, write: OpenWrite) {
        let mut decisions = self.decisions.lock().unwrap_or_else(PoisonError::into_inner);
        decisions.insert(write.begun.clone(), (self.clock.monotonic(), write.decision.subscribe()));
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        writes.insert(write.task.uid, write);
    }

    /// Takes a write. The caller decides its outcome. `begun` is the identifier of its begin; filters of older builds send
    /// none.
    #[must_use]
    pub fn take(&self, uid: u32, begun: Option<&str>) -> Option<OpenWrite> {
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = writes.get(&uid).is_some_and(|write| begun.is_none_or(|begun| write.begun == begun));
        is_it.then(|| writes.remove(&uid)).flatten()
    }

    /// The receiver of the decision on a write that another caller has taken.
    #[must_use]
    pub fn decision(&self, begun: &str) -> Option<Awaited> {
        let decisions = self.decisions.lock().unwrap_or_else(PoisonError::into_inner);
        decisions.get(begun).map(|(_, decision)| decision.clone())
    }

    /// Takes the writes that began longer than `age` ago.
    #[must_use]
    pub fn take_older(&self, age: Duration) -> Vec<OpenWrite> {
        self.decisions.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, (since, decision)| {
            match &*decision.borrow() {
                None => decision.has_changed().is_ok(),
                Some(Ok(_)) => false,
                Some(Err(_)) => self.clock.since(*since) < REMEMBERED,
            }
        });
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        writes
            .extract_if(.., |_, write| self.clock.since(write.since) > age)
            .map(|(_, write)| write)
            .collect()
    }

    /// Whether an open write uses this key.
    #[must_use]
    pub fn uses(&self, key: Uuid) -> bool {
        let writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        writes.values().any(|write| write.key == Some(key))
    }

    /// The number of open writes.
    #[must_use]
    pub fn count(&self) -> usize {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
