//! Limits on the documents that are copied per second, and on the shards that are copied at the same time. Both can be changed
//! while copies run.

use crate::base::time::{Instant, SharedClock};
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, watch};

/// Limits the documents copied per second, over all copies.
#[derive(Debug)]
pub struct Throttle {
    clock: SharedClock,
    /// 0 for no limit.
    per_second: watch::Sender<u64>,
    debt: tokio::sync::Mutex<Debt>,
}

/// The documents that were copied and not yet waited for.
#[derive(Debug)]
struct Debt {
    documents: f64,
    since: Instant,
}

impl Throttle {
    /// A throttle with this limit; 0 for no limit.
    #[must_use]
    pub fn new(per_second: u64, clock: SharedClock) -> Self {
        let debt = Debt { documents: 0.0, since: clock.monotonic() };
        Self { clock, per_second: watch::Sender::new(per_second), debt: tokio::sync::Mutex::new(debt) }
    }

    /// Changes the limit, also for copies that are waiting.
    pub fn set(&self, per_second: u64) {
        self.per_second.send_replace(per_second);
    }

    /// Waits until `documents` more may be copied.
    #[expect(clippy::cast_precision_loss, reason = "documents of a page, or of a second")]
    pub async fn take(&self, documents: usize) {
        let mut limit = self.per_second.subscribe();
        let mut debt = self.debt.lock().await;
        loop {
            let per_second = *limit.borrow_and_update() as f64;
            let now = self.clock.monotonic();
            debt.documents -= (now - debt.since).as_secs_f64() * per_second;
            debt.since = now;
            if per_second == 0.0 || debt.documents <= 0.0 {
                debt.documents = documents as f64;
                return;
            }
            let left = Duration::from_secs_f64(debt.documents / per_second);
            // Compute again when the time is over or the limit has changed.
            let _ = tokio::time::timeout(left, limit.changed()).await;
        }
    }
}

/// Limits the shards that are copied at the same time.
#[derive(Debug)]
pub struct Slots {
    slots: Mutex<Taken>,
    freed: Notify,
}

#[derive(Debug)]
struct Taken {
    limit: usize,
    used: usize,
}

/// Some taken slots. Dropping this frees them.
#[derive(Debug)]
pub struct Slot<'a> {
    slots: &'a Slots,
    count: usize,
}

impl Slots {
    /// Slots with this limit, at least 1.
    #[must_use]
    pub fn new(limit: u16) -> Self {
        let slots = Mutex::new(Taken { limit: usize::from(limit), used: 0 });
        Self { slots, freed: Notify::new() }
    }

    /// Changes the limit. Slots that are taken stay so until they are dropped.
    pub fn set(&self, limit: u16) {
        self.lock().limit = usize::from(limit);
        self.freed.notify_waiters();
    }

    /// The limit.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.lock().limit
    }

    /// Waits for `count` slots. If that is more than the limit, waits until no slot is taken.
    pub async fn take(&self, count: usize) -> Slot<'_> {
        loop {
            let freed = self.freed.notified();
            {
                let mut taken = self.lock();
                if taken.used == 0 || taken.used + count <= taken.limit {
                    taken.used += count;
                    return Slot { slots: self, count };
                }
            }
            freed.await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        self.slots.lock().used -= self.count;
        self.slots.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::SystemClock;
    use std::sync::Arc;

    fn throttle(per_second: u64) -> Throttle {
        Throttle::new(per_second, Arc::new(SystemClock))
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_holds_over_all_who_copy() {
        let throttle = throttle(1000);
        let begun = Instant::now();
        for _ in 0..2 {
            futures_util::future::join(throttle.take(50), throttle.take(50)).await;
        }
        // The last one waits for the three before it.
        assert!(begun.elapsed() >= Duration::from_millis(149), "{:?}", begun.elapsed());
        let begun = Instant::now();
        self::throttle(0).take(1_000_000).await;
        assert!(begun.elapsed() < Duration::from_millis(100));
    }

    #[tokio::test(start_paused = true)]
    async fn another_limit_holds_for_those_that_wait() {
        let throttle = throttle(1);
        throttle.take(1000).await;
        let begun = Instant::now();
        let faster = async {
            tokio::time::sleep(Duration::from_millis(20)).await;
            throttle.set(10_000);
        };
        futures_util::future::join(throttle.take(1), faster).await;
        assert!(begun.elapsed() >= Duration::from_millis(100), "{:?}", begun.elapsed());
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn slots_are_taken_and_freed_and_their_number_may_change() {
        let slots = Slots::new(4);
        let (three, one) = (slots.take(3).await, slots.take(1).await);
        let wait = async |count| tokio::time::timeout(Duration::from_millis(20), slots.take(count)).await;
        assert!(wait(1).await.is_err());
        slots.set(5);
        drop(wait(1).await.unwrap());
        slots.set(2);
        drop(one);
        assert!(wait(1).await.is_err(), "three are out yet");
        drop(three);
        let many = wait(7).await.unwrap();
        assert!(wait(1).await.is_err());
        let (freed, _) = futures_util::future::join(slots.take(2), async { drop(many) }).await;
        drop(freed);
    }
}
