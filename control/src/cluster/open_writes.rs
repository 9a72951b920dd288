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
    ops::Deref,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
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
#[derive(Clone, Debug)]
pub struct OpenWrites {
    clock: SharedClock,
    writes: Arc<Mutex<BTreeMap<u32, Open>>>,
    /// Decisions by identifier of their begin: those that are pending, and refusals.
    decisions: Arc<Mutex<BTreeMap<String, (Instant, Awaited)>>>,
    /// The keys of writes that are not in `writes` yet.
    beginning: Arc<Mutex<Vec<Uuid>>>,
}

/// A write key for a write that begins. Until this is dropped, the key counts as used.
#[derive(Debug)]
pub struct BeginningKey {
    key: Uuid,
    beginning: Arc<Mutex<Vec<Uuid>>>,
}

impl BeginningKey {
    /// The key's uid.
    #[must_use]
    pub fn uid(&self) -> Uuid {
        self.key
    }
}

impl Drop for BeginningKey {
    fn drop(&mut self) {
        let mut beginning = self.beginning.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(position) = beginning.iter().position(|key| *key == self.key) {
            beginning.swap_remove(position);
        }
    }
}

#[derive(Debug)]
struct Open {
    write: Arc<OpenWrite>,
    /// Whether somebody is deciding it.
    is_taken: bool,
}

/// A write whose outcome its owner decides. If it is dropped without [`Self::decided`], because the ledger failed or by a panic, the
/// write is open again, with its locks: the next commit or the recovery takes it.
#[derive(Debug)]
pub struct UndecidedWrite {
    open: OpenWrites,
    write: Arc<OpenWrite>,
    is_decided: bool,
}

impl UndecidedWrite {
    /// Notes that the write is decided and that the ledger has the decision: its locks are released.
    pub fn decided(mut self) {
        self.is_decided = true;
    }
}

impl Deref for UndecidedWrite {
    type Target = OpenWrite;

    fn deref(&self) -> &OpenWrite {
        &self.write
    }
}

impl Drop for UndecidedWrite {
    fn drop(&mut self) {
        let mut writes = self.open.writes();
        let uid = self.write.task.uid;
        // A write that was taken back may have left its uid to another one.
        if writes.get(&uid).is_some_and(|open| Arc::ptr_eq(&open.write, &self.write)) {
            if self.is_decided {
                writes.remove(&uid);
            } else if let Some(open) = writes.get_mut(&uid) {
                open.is_taken = false;
            }
        }
    }
}

impl OpenWrites {
    /// None yet.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, writes: Arc::default(), decisions: Arc::default(), beginning: Arc::default() }
    }

    /// Notes that a write begins that will use this key.
    #[must_use]
    pub fn begins(&self, key: Uuid) -> BeginningKey {
        self.beginning.lock().unwrap_or_else(PoisonError::into_inner).push(key);
        BeginningKey { key, beginning: self.beginning.clone() }
    }

    /// Adds a write that waits for its commit.
    pub fn insert(&self, write: OpenWrite) {
        drop(self.insert_taken(write));
    }

    /// Adds a write that the caller decides.
    #[must_use]
    pub fn insert_taken(&self, write: OpenWrite) -> UndecidedWrite {
        let mut decisions = self.decisions.lock().unwrap_or_else(PoisonError::into_inner);
        decisions.insert(write.begun.clone(), (self.clock.monotonic(), write.decision.subscribe()));
        let write = Arc::new(write);
        self.writes().insert(write.task.uid, Open { write: write.clone(), is_taken: true });
        UndecidedWrite { open: self.clone(), write, is_decided: false }
    }

    fn writes(&self) -> MutexGuard<'_, BTreeMap<u32, Open>> {
        self.writes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn taken(&self, open: &mut Open) -> UndecidedWrite {
        open.is_taken = true;
        UndecidedWrite { open: self.clone(), write: open.write.clone(), is_decided: false }
    }

    /// Takes a write. The caller decides its outcome. `begun` is the identifier of its begin; filters of older builds send
    /// none.
    #[must_use]
    pub fn take(&self, uid: u32, begun: Option<&str>) -> Option<UndecidedWrite> {
        let mut writes = self.writes();
        let open = writes.get_mut(&uid)?;
        let is_it = !open.is_taken && begun.is_none_or(|begun| open.write.begun == begun);
        is_it.then(|| self.taken(open))
    }

    /// The receiver of the decision on a write that another caller has taken.
    #[must_use]
    pub fn decision(&self, begun: &str) -> Option<Awaited> {
        let decisions = self.decisions.lock().unwrap_or_else(PoisonError::into_inner);
        decisions.get(begun).map(|(_, decision)| decision.clone())
    }

    /// Takes the writes that began longer than `age` ago.
    #[must_use]
    pub fn take_older(&self, age: Duration) -> Vec<UndecidedWrite> {
        self.decisions.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, (since, decision)| {
            match &*decision.borrow() {
                None => decision.has_changed().is_ok(),
                Some(Ok(_)) => false,
                Some(Err(_)) => self.clock.since(*since) < REMEMBERED,
            }
        });
        let mut writes = self.writes();
        let is_overdue = |open: &&mut Open| !open.is_taken && self.clock.since(open.write.since) > age;
        writes.values_mut().filter(is_overdue).map(|open| self.taken(open)).collect()
    }

    /// Whether a write that begins or waits for its commit uses this key.
    #[must_use]
    pub fn uses(&self, key: Uuid) -> bool {
        self.beginning.lock().unwrap_or_else(PoisonError::into_inner).contains(&key)
            || self.writes().values().any(|open| !open.is_taken && open.write.key == Some(key))
    }

    /// The number of writes that nobody decides yet.
    #[must_use]
    pub fn count(&self) -> usize {
        self.writes().values().filter(|open| !open.is_taken).count()
    }

    /// The number of writes that are not decided, whether somebody is at it or not.
    #[must_use]
    pub fn undecided(&self) -> usize {
        self.writes().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::time::SystemClock,
        cluster::locks::{Locks, Scope},
        domain::task::TaskKind,
        testing,
    };
    use futures_util::FutureExt;

    async fn write(locks: &Locks) -> OpenWrite {
        let task = testing::task(3, "a", TaskKind::DocumentDeletion);
        OpenWrite {
            task,
            gateway: "g".to_owned(),
            key: Some(Uuid::nil()),
            index: "a".to_owned(),
            operation: WriteOperation::DeleteAll,
            writers: BTreeMap::new(),
            record: Vec::new(),
            guard: locks.lock(Scope::everything()).await,
            since: Instant::now(),
            begun: "begun".to_owned(),
            decision: watch::Sender::default(),
        }
    }

    #[tokio::test]
    async fn a_write_that_nobody_decides_is_open_again() {
        let (locks, open) = (Locks::default(), OpenWrites::new(Arc::new(SystemClock)));
        open.insert(write(&locks).await);
        let is_locked = || locks.lock(Scope::everything()).now_or_never().is_none();
        assert_eq!((open.count(), open.uses(Uuid::nil())), (1, true));
        let taken = open.take(3, Some("begun")).unwrap();
        assert!(open.take(3, None).is_none() && open.take_older(Duration::ZERO).is_empty(), "it is taken");
        assert_eq!((open.count(), open.undecided(), open.uses(Uuid::nil())), (0, 1, false));
        let panicked = tokio::spawn(async move {
            let _taken = taken;
            panic!("on purpose")
        });
        assert!(panicked.await.is_err());
        assert!(is_locked(), "later writes must not overtake it");
        assert_eq!((open.count(), open.uses(Uuid::nil())), (1, true));
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut overdue = open.take_older(Duration::ZERO);
        overdue.pop().unwrap().decided();
        assert!(!is_locked() && open.undecided() == 0 && open.take(3, None).is_none());
    }
}
