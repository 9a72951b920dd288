//! Named trials over shared fixtures.
//!
//! A check is a function of a fixture: a cluster, or a cluster and one node to compare it with. Checks of one group share a fixture,
//! which starts with the first of them that is selected, and ends with the last. Each check is a trial of its own, with a name that is
//! its function's path; it can be selected by that name, alone. Where a check fails its fixture is not trusted any more: the next
//! check of the group gets a new one.
//!
//! Checks of one group run one after another. Groups run side by side, those that take longest first: see `schedule`.

mod command_line;
mod output;
mod schedule;
mod shared;

pub use output::tell;
pub use shared::Fixture;

use libtest_mimic::{Arguments, Trial};
use output::Output;
use schedule::Schedule;
use shared::Shared;
use std::{process::ExitCode, sync::Arc};

/// The trials of one test program.
#[derive(Debug)]
pub struct Trials {
    arguments: Arguments,
    /// The command line's filters.
    filters: Vec<String>,
    schedule: Arc<Schedule>,
    trials: Vec<Trial>,
}

impl Trials {
    /// None yet; the command line says which of those that will be added are selected. As many groups run at once as
    /// `--test-threads` or `RUST_TEST_THREADS` says, or as there are processors.
    #[must_use]
    pub fn from_command_line() -> Self {
        let (arguments, filters) = command_line::parse(std::env::args());
        output::capture(!arguments.nocapture);
        let variable = || std::env::var("RUST_TEST_THREADS").ok()?.parse().ok();
        let processors = || std::thread::available_parallelism().map_or(1, Into::into);
        let slots = arguments.test_threads.or_else(variable).unwrap_or_else(processors);
        Self { arguments, filters, schedule: Schedule::new(slots), trials: Vec::new() }
    }

    /// A group of checks that share what `start` makes.
    pub fn sharing<T: Fixture>(&mut self, start: impl Fn() -> T + Send + Sync + 'static) -> Group<'_, T> {
        let number = self.schedule.add_group();
        Group { trials: self, number, shared: Arc::new(Shared::new(start)) }
    }

    /// A check that makes all that it needs. `seconds` is what it takes, about.
    pub fn alone<F: Fn() + Send + 'static>(&mut self, seconds: u32, check: F) -> &mut Self {
        self.sharing(|| ()).named(name_of(&check), seconds, move |()| check());
        self
    }

    /// Runs those that are selected.
    #[must_use]
    pub fn run(self) -> ExitCode {
        let Self { mut arguments, filters, schedule: _, mut trials } = self;
        let is_exact = arguments.exact;
        let fits = |name: &str, filter: &str| if is_exact { name == filter } else { name.contains(filter) };
        trials.retain(|trial| filters.is_empty() || filters.iter().any(|filter| fits(trial.name(), filter)));
        // The schedule says which trials run: each has a thread to wait in.
        arguments.test_threads = Some(trials.len().max(2));
        libtest_mimic::run(&arguments, trials).exit_code()
    }
}

/// Checks that share a fixture. They run in the order in which they are added.
#[derive(Debug)]
pub struct Group<'t, T> {
    trials: &'t mut Trials,
    number: usize,
    shared: Arc<Shared<T>>,
}

impl<T: Fixture> Group<'_, T> {
    /// Adds a check, which is called what its function is. `seconds` is what it takes, about.
    pub fn check<F: Fn(&T) + Send + 'static>(self, seconds: u32, check: F) -> Self {
        self.named(name_of(&check), seconds, check)
    }

    /// Adds a check of another name.
    pub fn named(self, name: impl Into<String>, seconds: u32, check: impl Fn(&T) + Send + 'static) -> Self {
        let turn = self.trials.schedule.add_turn(self.number, seconds);
        let (name, shared) = (name.into(), Arc::clone(&self.shared));
        self.trials.trials.push(Trial::test(name.clone(), move || {
            turn.wait();
            let output = Output::begin(name);
            let result = shared.run(check);
            // The fixture ends with its last check, and only then another group begins.
            drop(shared);
            drop(turn);
            let said = output.end();
            result.map_err(|()| said.into())
        }));
        self
    }
}

/// The path of a function in its program.
#[must_use]
pub fn name_of<F>(function: &F) -> &'static str {
    let path = std::any::type_name_of_val(function);
    path.split_once("::").map_or(path, |(_, path)| path)
}
