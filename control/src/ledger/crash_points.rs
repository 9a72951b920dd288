//! Crash points: for tests, the process is killed right before or right after one of the ledger's commits.
//!
//! The environment variable `MIROIR_CRASH_POINTS` turns them on. Then a test puts a file `crash-at` into the data folder, with the number of the
//! commit that is the last, counted from that moment on, and `before` or `after`: `3 before`. Commits that store nothing do not count.

use rusqlite::Connection;
use std::path::{Path, PathBuf};

/// The environment variable, which is read once at the start.
const SWITCH: &str = "MIROIR_CRASH_POINTS";
/// The file's name in the data folder. It is deleted before the process ends.
pub const FILE: &str = "crash-at";

/// Where the process is killed.
#[derive(Debug)]
pub(super) struct CrashPoints {
    file: PathBuf,
    /// How much had been stored at the last commit.
    stored: u64,
}

/// The number of the last commit, counted down, and whether the process ends before it.
fn read(text: &str) -> Option<(u32, bool)> {
    let (number, when) = text.trim().split_once(' ')?;
    Some((number.parse().ok()?, when == "before"))
}

impl CrashPoints {
    /// Those that the environment asks for.
    pub fn of_environment(data: &Path) -> Option<Self> {
        std::env::var_os(SWITCH).map(|_| Self { file: data.join(FILE), stored: 0 })
    }

    /// Commits a transaction, unless it is the last and the process ends before it.
    pub fn commit<T>(&mut self, connection: &Connection, commit: impl FnOnce() -> T) -> T {
        let stored =
            connection.query_row("SELECT total_changes()", [], |row| row.get(0)).unwrap_or(self.stored);
        let stores = stored != std::mem::replace(&mut self.stored, stored);
        let armed = std::fs::read_to_string(&self.file).ok().filter(|_| stores);
        let Some((left, is_before)) = armed.as_deref().and_then(read) else { return commit() };
        if left > 1 {
            let when = if is_before { "before" } else { "after" };
            let _ = std::fs::write(&self.file, format!("{} {when}", left - 1));
            return commit();
        }
        let _ = std::fs::remove_file(&self.file);
        if !is_before {
            commit();
        }
        std::process::abort()
    }
}
