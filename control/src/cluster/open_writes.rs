//! Writes between begin and commit.

use crate::{
    base::time::{Instant, SharedClock},
    cluster::locks::LockGuard,
    ledger::tasks::Task,
};
use miroir_core::{error::ApiError, protocol::WriteOperation, shard::Shard};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::watch;
use uuid::Uuid;

/// How long it is remembered that a write was refused, in case its gateway has not heard it and asks again.
const REMEMBERED: Duration = Duration::from_secs(600);

/// What the client is told of its write: the task's summary, or why there is none.
pub type Decision = Result<Value, ApiError>;

/// A decision that may be yet to come.
pub type Awaited = watch::Receiver<Option<Decision>>;

/// A write between begin and commit.
#[derive(Debug)]
pub struct OpenWrite {
    /// The task as the ledger has it.
    pub task: Task,
    /// Whose epoch key it goes under.
    pub gateway: String,
    /// The key; absent where a restart found the write, which has fenced all keys of before.
    pub key: Option<Uuid>,
    /// Index uid.
    pub index: String,
    /// What is done.
    pub operation: WriteOperation,
    /// The writers that the gateway was told.
    pub writers: BTreeMap<Shard, Vec<String>>,
    /// Shards of which the commit is to tell the ids.
    pub record: Vec<Shard>,
    /// Released when it is known what nodes took.
    pub guard: LockGuard,
    /// When the gateway was told.
    pub since: Instant,
    /// The name of this begin, which the commit says.
    pub begun: String,
    /// For all commits of it that wait.
    pub decision: watch::Sender<Option<Decision>>,
}

/// All of them.
#[derive(Debug)]
pub struct OpenWrites {
    clock: SharedClock,
    writes: Mutex<HashMap<u32, OpenWrite>>,
    /// By the name of their begin: those that nobody has decided, and those that were refused.
    decisions: Mutex<HashMap<String, (Instant, Awaited)>>,
}

impl OpenWrites {
    /// None yet.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, writes: Mutex::default(), decisions: Mutex::default() }
    }

    /// Adds one.
    pub fn insert(&self, write: OpenWrite) {
        let mut decisions = self.decisions.lock().unwrap_or_else(PoisonError::into_inner);
        decisions.insert(write.begun.clone(), (self.clock.monotonic(), write.decision.subscribe()));
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        writes.insert(write.task.uid, write);
    }

    /// Takes one: whoever has it decides what became of it. `begun` names its begin; a filter of before says none.
    #[must_use]
    pub fn take(&self, uid: u32, begun: Option<&str>) -> Option<OpenWrite> {
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it = writes.get(&uid).is_some_and(|write| begun.is_none_or(|begun| write.begun == begun));
        is_it.then(|| writes.remove(&uid)).flatten()
    }

    /// Where it will be heard what has been decided of one that somebody else has taken.
    #[must_use]
    pub fn decision(&self, begun: &str) -> Option<Awaited> {
        let decisions = self.decisions.lock().unwrap_or_else(PoisonError::into_inner);
        decisions.get(begun).map(|(_, decision)| decision.clone())
    }

    /// Takes those whose commit is overdue.
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
        writes.extract_if(|_, write| self.clock.since(write.since) > age).map(|(_, write)| write).collect()
    }

    /// Whether a write under this key is among them.
    #[must_use]
    pub fn uses(&self, key: Uuid) -> bool {
        let writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        writes.values().any(|write| write.key == Some(key))
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}
