//! What trials say: kept while they run, and shown where they fail.
//!
//! The test harness of the standard library redirects what a test prints, by functions that are the library's own. Here trials say
//! what they have to say by [`tell!`](crate::tell), and a panic hook says where and why something has panicked.
//!
//! Threads that a trial starts speak for it too: on Linux a thread has the name of the one that started it.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt::Arguments,
    panic,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Instant,
};

/// What trials that are under way have said, by number.
static SAID: Mutex<BTreeMap<u32, String>> = Mutex::new(BTreeMap::new());
static IS_CAPTURED: AtomicBool = AtomicBool::new(false);

thread_local! {
    static TRIAL: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Says something for the trial that is under way: it is shown where that trial fails, and at once with `--nocapture` or outside of
/// trials.
#[macro_export]
macro_rules! tell {
    ($($text:tt)*) => { $crate::trials::tell(format_args!($($text)*)) };
}

/// What [`tell!`](crate::tell) does.
pub fn tell(text: Arguments<'_>) {
    if let Some(trial) = trial()
        && IS_CAPTURED.load(Ordering::Relaxed)
        && let Some(said) = SAID.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&trial)
    {
        said.push_str(&format!("{text}\n"));
        return;
    }
    eprintln!("{text}");
}

/// From now on what trials say is kept, or is shown at once.
pub(super) fn capture(is_captured: bool) {
    IS_CAPTURED.store(is_captured, Ordering::Relaxed);
    if is_captured {
        panic::set_hook(Box::new(|panic| tell(format_args!("{panic}"))));
    }
}

/// A trial that is under way in this thread.
pub(super) struct Output {
    name: String,
    trial: u32,
    begun: Instant,
}

impl Output {
    pub(super) fn begin(name: String) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let trial = NEXT.fetch_add(1, Ordering::Relaxed);
        TRIAL.set(Some(trial));
        name_thread(trial);
        SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(trial, String::new());
        Self { name, trial, begun: Instant::now() }
    }

    /// What it has said.
    pub(super) fn end(self) -> String {
        tell(format_args!("{} took {:.1} s", self.name, self.begun.elapsed().as_secs_f32()));
        TRIAL.set(None);
        SAID.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.trial).unwrap_or_default()
    }
}

/// The trial of this thread, or of the thread that started it.
fn trial() -> Option<u32> {
    TRIAL.get().or_else(trial_of_name)
}

/// How threads of trials are called, before the trial's number.
#[cfg(target_os = "linux")]
const PREFIX: &str = "trial-";

#[cfg(target_os = "linux")]
fn name_thread(trial: u32) {
    let name = std::ffi::CString::new(format!("{PREFIX}{trial}"));
    // A thread without that name speaks for itself only.
    let _ = name.map(|name| nix::sys::prctl::set_name(&name));
}

#[cfg(target_os = "linux")]
fn trial_of_name() -> Option<u32> {
    nix::sys::prctl::get_name().ok()?.to_str().ok()?.strip_prefix(PREFIX)?.parse().ok()
}

#[cfg(not(target_os = "linux"))]
fn name_thread(_: u32) {}

#[cfg(not(target_os = "linux"))]
fn trial_of_name() -> Option<u32> {
    None
}
