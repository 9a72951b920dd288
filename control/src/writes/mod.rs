//! Writes of documents: *begin*, *commit*, and the recovery of those that have no commit.

pub mod begin;
pub mod commit;
pub mod doubts;
pub mod recovery;
pub mod refusal;

use crate::{ledger::tasks::Task, locks::LockGuard};
use miroir_core::{protocol::WriteOperation, shard::Shard};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};
use uuid::Uuid;

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
}

/// All of them.
#[derive(Debug, Default)]
pub struct OpenWrites {
    writes: Mutex<HashMap<u32, OpenWrite>>,
}

impl OpenWrites {
    /// Adds one.
    pub fn insert(&self, write: OpenWrite) {
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        writes.insert(write.task.uid, write);
    }

    /// Takes one: whoever has it decides what became of it.
    #[must_use]
    pub fn take(&self, uid: u32) -> Option<OpenWrite> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner).remove(&uid)
    }

    /// Takes those whose commit is overdue.
    #[must_use]
    pub fn take_older(&self, age: Duration) -> Vec<OpenWrite> {
        let mut writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        writes.extract_if(|_, write| write.since.elapsed() > age).map(|(_, write)| write).collect()
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

/// The `customMetadata` under which nodes keep a write.
#[must_use]
pub fn metadata(uid: u32) -> String {
    format!("miroir:{uid}")
}
