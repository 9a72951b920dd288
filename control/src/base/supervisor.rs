//! Background work. Every loop and every detached job of the control plane is started here, so that none ends unnoticed: what panics or
//! ends is logged by its name and counted, and a loop is started again.

use crate::base::{
    error::{Error, Result},
    time::SharedClock,
};
use futures_util::FutureExt;
use std::{
    any::Any,
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::task::AbortHandle;
use tracing::Instrument;

/// The pause before a loop is started again. It doubles with each start, up to [`LONGEST`].
const FIRST: Duration = Duration::from_millis(200);
/// The longest pause. A loop that ran for longer than this begins with the shortest pause again.
const LONGEST: Duration = Duration::from_secs(30);

/// Starts background work, and counts what became of it.
#[derive(Clone, Debug)]
pub struct Supervisor {
    clock: SharedClock,
    failures: Arc<Mutex<BTreeMap<&'static str, u64>>>,
}

impl Supervisor {
    /// A supervisor of nothing yet.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, failures: Arc::default() }
    }

    /// Keeps a loop running for as long as the process lives. If it ends or panics, it is started again after a pause.
    pub fn keep<F>(&self, name: &'static str, start: impl Fn() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send,
    {
        self.register(name);
        let this = self.clone();
        tokio::spawn(async move {
            let mut pause = FIRST;
            loop {
                let begun = this.clock.monotonic();
                if this.catch(name, start()).await.is_ok() {
                    this.count(name);
                }
                if this.clock.since(begun) > LONGEST {
                    pause = FIRST;
                }
                tracing::error!(
                    work = name,
                    ?pause,
                    "a background loop has ended, and is started again after a pause"
                );
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST);
            }
        });
    }

    /// Starts a job that ends by itself, and that nobody waits for. What must be released, or tried again, if it panics, is up to its
    /// guards.
    pub fn spawn(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) -> AbortHandle {
        self.register(name);
        let this = self.clone();
        let caught = async move { drop(this.catch(name, work).await) };
        tokio::spawn(caught.in_current_span()).abort_handle()
    }

    /// Starts a job that is waited for, and that goes on if the caller is dropped, as when a client disconnects.
    ///
    /// # Errors
    /// It panicked.
    pub async fn detach<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T> {
        self.register(name);
        let this = self.clone();
        let caught = async move { this.catch(name, work).await };
        // A task that is not joined was aborted: the process ends.
        tokio::spawn(caught.in_current_span()).await.map_err(|_| Error::Panicked { name })?
    }

    /// Does some work as a part of the caller's, so that its panic is an error to the caller.
    ///
    /// # Errors
    /// It panicked.
    pub async fn catch<T>(&self, name: &'static str, work: impl Future<Output = T>) -> Result<T> {
        AssertUnwindSafe(work).catch_unwind().await.map_err(|panic| {
            self.count(name);
            tracing::error!(work = name, panic = text(&*panic), "background work has panicked");
            Error::Panicked { name }
        })
    }

    /// How often each loop or job has panicked, or has ended although it must not.
    #[must_use]
    pub fn failures(&self) -> BTreeMap<String, u64> {
        self.lock().iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    /// Makes the work known, so that its metric is there before its first failure.
    fn register(&self, name: &'static str) {
        self.lock().entry(name).or_default();
    }

    fn count(&self, name: &'static str) {
        *self.lock().entry(name).or_default() += 1;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, u64>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a panic says.
fn text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::{Instant, SystemClock};
    use std::sync::atomic::{AtomicU32, Ordering};

    fn supervisor() -> Supervisor {
        Supervisor::new(Arc::new(SystemClock))
    }

    fn failures(supervisor: &Supervisor, name: &str) -> Option<u64> {
        supervisor.failures().get(name).copied()
    }

    /// A loop that ends in this way, again and again; the number of its starts.
    fn kept(supervisor: &Supervisor, end: fn()) -> Arc<AtomicU32> {
        let starts = Arc::new(AtomicU32::new(0));
        let counted = starts.clone();
        supervisor.keep("a loop", move || {
            let counted = counted.clone();
            async move {
                counted.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_millis(1)).await;
                end();
            }
        });
        starts
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_panics_or_ends_is_started_again_less_and_less_often() {
        for end in [|| panic!("on purpose"), || {}] {
            let supervisor = supervisor();
            let starts = kept(&supervisor, end);
            assert_eq!(failures(&supervisor, "a loop"), Some(0), "it is known before it fails");
            tokio::time::sleep(Duration::from_secs(1)).await;
            // At 0, 0.2 and 0.6 s.
            assert_eq!(starts.load(Ordering::Relaxed), 3);
            assert_eq!(failures(&supervisor, "a loop"), Some(3));
            tokio::time::sleep(Duration::from_secs(3600)).await;
            let before = starts.load(Ordering::Relaxed);
            tokio::time::sleep(LONGEST * 10).await;
            assert!((9..=11).contains(&(starts.load(Ordering::Relaxed) - before)), "the pause has a bound");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_loop_that_ran_for_long_is_started_again_at_once() {
        let supervisor = supervisor();
        let begun = Instant::now();
        let starts = Arc::new(Mutex::new(Vec::new()));
        let noted = starts.clone();
        supervisor.keep("a loop", move || {
            noted.lock().unwrap().push(begun.elapsed());
            tokio::time::sleep(LONGEST * 2)
        });
        tokio::time::sleep(LONGEST * 7).await;
        let starts = starts.lock().unwrap().clone();
        assert_eq!(starts.len(), 4);
        assert!(starts.windows(2).all(|two| two[1] - two[0] < LONGEST * 2 + FIRST * 2), "{starts:?}");
    }

    #[tokio::test]
    async fn a_job_that_panics_is_counted_and_told() {
        let supervisor = supervisor();
        let job = supervisor.spawn("a job", async { panic!("on purpose") });
        while !job.is_finished() {
            tokio::task::yield_now().await;
        }
        assert_eq!(failures(&supervisor, "a job"), Some(1));
        let waited: Result<u8> = supervisor.detach("another", async { panic!("{} purpose", "on") }).await;
        assert!(matches!(waited, Err(Error::Panicked { name: "another" })), "{waited:?}");
        assert_eq!(failures(&supervisor, "another"), Some(1));
        assert_eq!(supervisor.detach("a third", async { 7 }).await.unwrap(), 7);
        assert_eq!(failures(&supervisor, "a third"), Some(0));
    }

    #[tokio::test]
    async fn a_job_goes_on_without_its_caller() {
        let supervisor = supervisor();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let work = async move {
            tokio::task::yield_now().await;
            sender.send(7).unwrap();
        };
        let waiting = supervisor.detach("a job", work);
        assert!(waiting.now_or_never().is_none());
        assert_eq!(receiver.await.unwrap(), 7);
    }
}
