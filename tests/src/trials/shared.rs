//! What several checks share.

use crate::tell;
use std::{
    fmt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Mutex, PoisonError},
};

/// What checks share: it runs from the first of them to the last, and ends with its value.
pub trait Fixture: Send + 'static {
    /// Makes it ready for the next check: called after each.
    fn clean(&self) {}

    /// What its processes have logged, for a check that has failed.
    fn logs(&self) -> String {
        String::new()
    }
}

/// Nothing is shared.
impl Fixture for () {}

enum State<T> {
    Ended,
    Running(T),
    /// It did not start: the other checks do not wait for that again.
    Failed,
}

/// A fixture that starts when the first check needs it.
pub(super) struct Shared<T> {
    start: Box<dyn Fn() -> T + Send + Sync>,
    state: Mutex<State<T>>,
}

impl<T: Fixture> Shared<T> {
    pub(super) fn new(start: impl Fn() -> T + Send + Sync + 'static) -> Self {
        Self { start: Box::new(start), state: Mutex::new(State::Ended) }
    }

    /// Runs a check. An error says that it has failed; why has been told.
    pub(super) fn run(&self, check: impl Fn(&T)) -> Result<(), ()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(*state, State::Ended) {
            *state = catch_unwind(AssertUnwindSafe(|| (self.start)())).map_or(State::Failed, State::Running);
        }
        let State::Running(fixture) = &*state else {
            tell!("what it shares with other checks did not start");
            return Err(());
        };
        let checked = catch_unwind(AssertUnwindSafe(|| {
            check(fixture);
            fixture.clean();
        }));
        if checked.is_ok() {
            return Ok(());
        }
        tell!("{}", fixture.logs());
        // What the check has left behind is not for the next one to find.
        *state = State::Ended;
        Err(())
    }
}

impl<T> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "tests")]

    use super::{Fixture, Shared};
    use std::sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    };

    /// Counts how many have started and how many have ended.
    struct Counted(Arc<Mutex<(usize, usize)>>);

    impl Counted {
        fn start(counts: &Arc<Mutex<(usize, usize)>>) -> Self {
            counts.lock().unwrap().0 += 1;
            Self(Arc::clone(counts))
        }
    }

    impl Fixture for Counted {}

    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.lock().unwrap().1 += 1;
        }
    }

    #[test]
    fn a_fixture_starts_once_and_ends_behind_a_check_that_fails() {
        let counts = Arc::new(Mutex::new((0, 0)));
        let of = Arc::clone(&counts);
        let shared = Shared::new(move || Counted::start(&of));
        assert_eq!(*counts.lock().unwrap(), (0, 0));
        assert_eq!((shared.run(|_| ()), shared.run(|_| ())), (Ok(()), Ok(())));
        assert_eq!(*counts.lock().unwrap(), (1, 0));
        assert_eq!(shared.run(|_| panic!("as this test wants it")), Err(()));
        assert_eq!(*counts.lock().unwrap(), (1, 1));
        assert_eq!(shared.run(|_| ()), Ok(()));
        drop(shared);
        assert_eq!(*counts.lock().unwrap(), (2, 2));
    }

    #[test]
    fn a_fixture_that_does_not_start_is_tried_once() {
        let tried = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&tried);
        let shared = Shared::<()>::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
            panic!("as this test wants it");
        });
        assert_eq!((shared.run(|()| ()), shared.run(|()| ())), (Err(()), Err(())));
        assert_eq!(tried.load(Ordering::Relaxed), 1);
    }
}
