//! How fast documents are copied.

use std::{sync::Mutex, sync::PoisonError, time::Duration};
use tokio::time::Instant;

/// So many documents a second, over all copies.
#[derive(Debug)]
pub struct Throttle {
    /// 0 for no limit.
    per_second: u64,
    /// When the next documents may be copied.
    next: Mutex<Instant>,
}

impl Throttle {
    /// A limit; 0 for none.
    #[must_use]
    pub fn new(per_second: u64) -> Self {
        Self { per_second, next: Mutex::new(Instant::now()) }
    }

    /// Waits until so many documents more may be copied.
    pub async fn take(&self, documents: usize) {
        if self.per_second == 0 {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a page")]
        let cost = Duration::from_secs_f64(documents as f64 / self.per_second as f64);
        let at = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let at = (*next).max(Instant::now());
            *next = at + cost;
            at
        };
        tokio::time::sleep_until(at).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_limit_holds_over_all_who_copy() {
        let throttle = Throttle::new(1000);
        let begun = Instant::now();
        for _ in 0..2 {
            futures_util::future::join(throttle.take(50), throttle.take(50)).await;
        }
        // The last one waits for the three before it.
        assert!(begun.elapsed() >= Duration::from_millis(149), "{:?}", begun.elapsed());
        let begun = Instant::now();
        Throttle::new(0).take(1_000_000).await;
        assert!(begun.elapsed() < Duration::from_millis(100));
    }
}
