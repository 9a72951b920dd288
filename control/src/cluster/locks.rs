//! Locks by index and shard, granted in the order of arrival.
//!
//! A mutation takes all its locks at once, so there are no deadlocks. It waits for every earlier mutation that it conflicts
//! with, whether that one has its locks or still waits, so none is overtaken. Mutations of disjoint shards run concurrently.

use miroir_core::shard::Shard;
use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::oneshot;

/// What a mutation locks: the given shards of the given indexes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Index uids; `None` for all indexes.
    pub indexes: Option<BTreeSet<String>>,
    /// Shards; `None` for all shards.
    pub shards: Option<BTreeSet<Shard>>,
}

impl Scope {
    /// Some shards of an index.
    #[must_use]
    pub fn shards(index: &str, shards: &[Shard]) -> Self {
        Self {
            indexes: Some(BTreeSet::from([index.to_owned()])),
            shards: Some(shards.iter().copied().collect()),
        }
    }

    /// All shards of these indexes.
    pub fn indexes<'a>(indexes: impl IntoIterator<Item = &'a str>) -> Self {
        Self { indexes: Some(indexes.into_iter().map(ToOwned::to_owned).collect()), shards: None }
    }

    /// One shard of all indexes.
    #[must_use]
    pub fn shard(shard: Shard) -> Self {
        Self { indexes: None, shards: Some(BTreeSet::from([shard])) }
    }

    /// All shards of all indexes.
    #[must_use]
    pub fn everything() -> Self {
        Self { indexes: None, shards: None }
    }

    fn conflicts(&self, other: &Self) -> bool {
        fn meet<T: Ord>(left: &Option<BTreeSet<T>>, right: &Option<BTreeSet<T>>) -> bool {
            match (left, right) {
                (Some(left), Some(right)) => !left.is_disjoint(right),
                _ => true,
            }
        }
        meet(&self.indexes, &other.indexes) && meet(&self.shards, &other.shards)
    }
}

#[derive(Debug)]
struct Entry {
    ticket: u64,
    scope: Scope,
    /// Present while the entry waits.
    granted: Option<oneshot::Sender<()>>,
}

#[derive(Debug, Default)]
struct Queue {
    next: u64,
    entries: VecDeque<Entry>,
}

/// All locks of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Locks {
    queue: Arc<Mutex<Queue>>,
}

/// Holds the locks, or a place in the queue, until it is dropped.
#[derive(Debug)]
pub struct LockGuard {
    locks: Locks,
    ticket: u64,
}

impl Locks {
    /// Takes all the locks of a scope. Dropping the future gives up its place in the queue.
    pub async fn lock(&self, scope: Scope) -> LockGuard {
        let (sender, receiver) = oneshot::channel();
        let guard = {
            let mut queue = self.queue();
            let ticket = queue.next;
            queue.next += 1;
            queue.entries.push_back(Entry { ticket, scope, granted: Some(sender) });
            grant(&mut queue);
            LockGuard { locks: self.clone(), ticket }
        };
        // This cannot fail: the sender stays in the queue as long as the guard exists.
        let _ = receiver.await;
        guard
    }

    /// Waits until all mutations have ended that hold or wait for locks of this scope now. It does not block others.
    pub async fn drained(&self, scope: &Scope) {
        let conflicting: BTreeSet<u64> = {
            let queue = self.queue();
            let entries = queue.entries.iter().filter(|entry| entry.scope.conflicts(scope));
            entries.map(|entry| entry.ticket).collect()
        };
        while self.queue().entries.iter().any(|entry| conflicting.contains(&entry.ticket)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// This index, and the indexes that are locked together with all of it: they may be swapped, or one is renamed to another.
    #[must_use]
    pub fn with(&self, index: &str) -> BTreeSet<String> {
        let queue = self.queue();
        let held =
            queue.entries.iter().filter(|entry| entry.granted.is_none() && entry.scope.shards.is_none());
        let indexes = held.filter_map(|entry| entry.scope.indexes.as_ref());
        let with = indexes.filter(|indexes| indexes.contains(index)).flatten().cloned();
        with.chain([index.to_owned()]).collect()
    }

    /// The number of mutations that hold locks, and of those that wait.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let queue = self.queue();
        let waiting = queue.entries.iter().filter(|entry| entry.granted.is_some()).count();
        (queue.entries.len() - waiting, waiting)
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Grants the locks of every waiting entry that conflicts with no entry before it.
fn grant(queue: &mut Queue) {
    for position in 0..queue.entries.len() {
        let Some(entry) = queue.entries.get(position) else { break };
        if entry.granted.is_none() {
            continue;
        }
        let blocked =
            queue.entries.iter().take(position).any(|earlier| earlier.scope.conflicts(&entry.scope));
        if !blocked && let Some(entry) = queue.entries.get_mut(position) {
            let _ = entry.granted.take().map(|sender| sender.send(()));
        }
    }
}

impl Drop for LockGuard {
    fn drop(&mut self) {
        let mut queue = self.locks.queue();
        queue.entries.retain(|entry| entry.ticket != self.ticket);
        grant(&mut queue);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    fn shards(index: &str, shards: &[u16]) -> Scope {
        Scope::shards(index, &shards.iter().copied().map(Shard).collect::<Vec<_>>())
    }

    #[tokio::test]
    async fn disjoint_shards_go_side_by_side_and_others_wait_their_turn() {
        let locks = Locks::default();
        let first = locks.lock(shards("a", &[1, 2])).now_or_never().expect("free");
        let _other_shard = locks.lock(shards("a", &[3])).now_or_never().expect("disjoint");
        let _other_index = locks.lock(shards("b", &[1])).now_or_never().expect("disjoint");
        let mut second = Box::pin(locks.lock(shards("a", &[2, 4])));
        assert!(second.as_mut().now_or_never().is_none());
        // Shard 4 is free, but the third must not overtake the second, which waits for it too.
        let mut third = Box::pin(locks.lock(shards("a", &[4])));
        assert!(third.as_mut().now_or_never().is_none());
        assert_eq!(locks.counts(), (3, 2));
        drop(first);
        let second = second.now_or_never().expect("its turn");
        assert!(third.as_mut().now_or_never().is_none());
        drop(second);
        third.now_or_never().expect("its turn");
    }

    #[tokio::test]
    async fn an_index_operation_drains_and_blocks_the_index() {
        let locks = Locks::default();
        let write = locks.lock(shards("a", &[1])).await;
        let mut operation = Box::pin(locks.lock(Scope::indexes(["a"])));
        assert!(operation.as_mut().now_or_never().is_none());
        let mut later = Box::pin(locks.lock(shards("a", &[9])));
        assert!(later.as_mut().now_or_never().is_none());
        drop(write);
        let operation = operation.now_or_never().expect("drained");
        assert!(later.as_mut().now_or_never().is_none());
        drop(operation);
        later.now_or_never().expect("free");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_the_drain_holds_up_nobody() {
        let locks = Locks::default();
        let held = locks.lock(shards("a", &[1])).await;
        let scope = Scope::shard(Shard(1));
        let mut drained = Box::pin(locks.drained(&scope));
        assert!(drained.as_mut().now_or_never().is_none());
        let later = locks.lock(shards("b", &[1])).now_or_never().expect("free");
        drop(held);
        tokio::time::timeout(Duration::from_secs(5), drained)
            .await
            .expect("what came later is not waited for");
        drop(later);
    }

    #[tokio::test]
    async fn who_leaves_the_queue_blocks_nobody() {
        let locks = Locks::default();
        let held = locks.lock(Scope::shard(Shard(1))).await;
        let mut gone = Box::pin(locks.lock(Scope::everything()));
        assert!(gone.as_mut().now_or_never().is_none());
        drop(gone);
        locks.lock(shards("a", &[2])).now_or_never().expect("nobody waits any more");
        drop(held);
        assert_eq!(locks.counts(), (0, 0));
    }
}
