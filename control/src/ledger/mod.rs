//! The ledger: everything that must survive a crash, in one SQLite file (WAL, `synchronous = FULL`).
//!
//! Calls are run by a [`Storage`]. That of production is [`GroupCommit`].

mod cached;
pub mod catalogue;
mod cell;
pub mod crash_points;
pub mod departed;
pub mod fields;
mod file;
mod group_commit;
pub mod instances;
pub mod intents;
pub mod late_tasks;
pub mod leases;
pub mod schema;
pub mod settings;
pub mod stale;
pub mod steps;
pub mod task_list;
mod task_plan;
pub mod tasks;
pub mod webhooks;
pub mod write_keys;

use crate::base::{
    error::{Error, Result},
    time::Nanos,
};
use cell::Cell;
use crash_points::CrashPoints;
pub use group_commit::GroupCommit;
use rusqlite::{Connection, ErrorCode};
use serde::de::DeserializeOwned;
use std::{
    fmt::{Debug, Display},
    path::Path,
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::sync::oneshot;

/// File name in the data folder.
pub const FILE: &str = "ledger.sqlite";
/// What a call is to be told once its transaction has ended: whether that was committed.
pub type Finish = Box<dyn FnOnce(bool) + Send>;

/// A call. It says whether what it wrote is to be kept, and whom to tell once that is on disk.
pub type Job = Box<dyn FnOnce(&Connection) -> (bool, Finish) + Send>;

/// Runs calls on the ledger's connection. A simulation has one that runs them at once, and can die before or after a commit.
pub trait Storage: Debug + Send + Sync {
    /// Takes a call: runs it in a transaction, and finishes it once that has ended. Calls take effect in the order in which they come.
    ///
    /// # Errors
    /// The storage is closed.
    fn submit(&self, job: Job) -> Result<()>;

    /// Takes a call that only reads: it sees all that was committed before, and is held up by no call that writes.
    ///
    /// # Errors
    /// The storage is closed.
    fn submit_read(&self, job: Job) -> Result<()> {
        self.submit(job)
    }

    /// Whether the last transaction could not be committed because the disk is full.
    fn has_no_space(&self) -> bool {
        false
    }
}

/// A handle on the ledger.
#[derive(Clone, Debug)]
pub struct Ledger {
    storage: Arc<dyn Storage>,
    health: Arc<Health>,
}

/// How often an operation of the ledger has failed, and whether it works.
#[derive(Debug, Default)]
struct Health {
    failures: AtomicU64,
    is_failing: AtomicBool,
    /// Whether a call has found the disk full since the last one that could write. SQLite may roll back all calls of a transaction then.
    is_full: AtomicBool,
}

/// The number of connections for calls that only read.
const READERS: usize = 2;

impl Ledger {
    /// Opens the ledger in a folder, or creates it. One of an older schema is brought to that of this build.
    ///
    /// # Errors
    /// The database cannot be opened or used: then nothing in it has changed.
    pub fn open(data: &Path) -> Result<Self> {
        let path = data.join(FILE);
        let connection = file::open(&path)?;
        let readers = (0..READERS).map(|_| file::open_for_reads(&path)).collect::<Result<_>>()?;
        let group = GroupCommit::start(connection, readers, CrashPoints::of_environment(data));
        Ok(Self::on(Arc::new(group.map_err(Error::file(data))?)))
    }

    /// A ledger on a storage whose database has the schema of this build.
    #[must_use]
    pub fn on(storage: Arc<dyn Storage>) -> Self {
        Self { storage, health: Arc::default() }
    }

    /// Runs `call` on the ledger's connection, and returns once what it wrote is on disk.
    ///
    /// # Errors
    /// The error of `call`; or the commit failed, and nothing was written.
    pub async fn call<T, F>(&self, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let (job, answer) = self.job(call);
        self.storage.submit(job)?;
        // Nobody answers where the transaction could not go on.
        let Done { result, wrote, committed } = answer.await.unwrap_or_default();
        let result = if committed || result.is_err() { result } else { Err(Error::Uncommitted) };
        self.note(&result, wrote);
        match result {
            Err(Error::Uncommitted) if self.is_full() => Err(Error::LedgerFull),
            result => result,
        }
    }

    /// Runs `call`, which only reads, beside the calls that write. It sees what all calls have written that have returned.
    ///
    /// # Errors
    /// The error of `call`.
    pub async fn read<T, F>(&self, call: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let (job, answer) = self.job(call);
        self.storage.submit_read(job)?;
        answer.await.unwrap_or_default().result
    }

    /// A call as a storage takes it, and where it says what became of it.
    fn job<T, F>(&self, call: F) -> (Job, oneshot::Receiver<Done<T>>)
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let health = self.health.clone();
        let job: Job = Box::new(move |connection| {
            let before = connection.total_changes();
            let result = call(connection);
            let wrote = connection.total_changes() != before;
            if matches!(&result, Err(Error::Ledger(error)) if error.sqlite_error_code() == Some(ErrorCode::DiskFull))
            {
                health.is_full.store(true, Ordering::Relaxed);
            }
            let keep = result.is_ok();
            let finish: Finish = Box::new(move |committed| {
                // Sending fails only if the caller was cancelled; what was written stays.
                let _ = reply.send(Done { result, wrote, committed });
            });
            (keep, finish)
        });
        (job, answer)
    }

    /// Keeps what the call says of the ledger's health.
    fn note<T>(&self, result: &Result<T>, wrote: bool) {
        match result {
            Err(error @ (Error::Ledger(_) | Error::Uncommitted)) => {
                self.health.failures.fetch_add(1, Ordering::Relaxed);
                let is_of_disk = |error: &rusqlite::Error| {
                    use ErrorCode::{
                        CannotOpen, DatabaseCorrupt, DiskFull, NotADatabase, ReadOnly, SystemIoFailure,
                    };
                    error.sqlite_error_code().is_some_and(|code| {
                        [CannotOpen, DatabaseCorrupt, DiskFull, NotADatabase, ReadOnly, SystemIoFailure]
                            .contains(&code)
                    })
                };
                if !matches!(error, Error::Ledger(cause) if !is_of_disk(cause)) {
                    self.health.is_failing.store(true, Ordering::Relaxed);
                }
            }
            // A transaction that writes nothing can be committed on a full disk.
            Ok(_) if wrote => {
                self.health.is_failing.store(false, Ordering::Relaxed);
                self.health.is_full.store(false, Ordering::Relaxed);
            }
            Ok(_) | Err(_) => {}
        }
    }

    fn is_full(&self) -> bool {
        self.storage.has_no_space() || self.health.is_full.load(Ordering::Relaxed)
    }

    /// Whether the last call that wrote could not be committed: writes are refused then.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.health.is_failing.load(Ordering::Relaxed)
    }

    /// How many calls the database has failed, since the start.
    #[must_use]
    pub fn failures(&self) -> u64 {
        self.health.failures.load(Ordering::Relaxed)
    }

    /// Writes something of no meaning, to learn whether a ledger that was failing works again.
    ///
    /// # Errors
    /// It does not.
    pub async fn probe(&self, now: Nanos) -> Result<()> {
        self.call(move |connection| set_meta(connection, "probe", &now.to_string())).await
    }
}

/// What became of a call.
struct Done<T> {
    result: Result<T>,
    /// Whether it changed any row.
    wrote: bool,
    committed: bool,
}

impl<T> Default for Done<T> {
    /// Of a call that was dropped, because its transaction could not go on.
    fn default() -> Self {
        Self { result: Err(Error::Uncommitted), wrote: false, committed: false }
    }
}

/// Reads a value of the `meta` table.
///
/// # Errors
/// The database failed.
pub fn meta(connection: &Connection, key: &str) -> Result<Option<String>> {
    use rusqlite::OptionalExtension;
    Ok(connection
        .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([key], |row| row.get(0))
        .optional()?)
}

/// Where a value of the `meta` table is.
fn meta_cell<'a>(key: &'a &str) -> Cell<'a> {
    Cell { table: "meta", row: key, column: "value" }
}

/// Reads a value of the `meta` table and parses it.
///
/// # Errors
/// The database failed, or the stored text cannot be parsed: the error names the key and the text.
pub fn meta_as<T>(connection: &Connection, key: &str) -> Result<Option<T>>
where
    T: FromStr<Err: Display>,
{
    meta(connection, key)?.map(|text| meta_cell(&key).parse(&text, str::parse)).transpose()
}

/// Reads a value of the `meta` table that is JSON.
///
/// # Errors
/// The database failed, or what is stored there is of another form: the error names it.
pub fn meta_json<T: DeserializeOwned>(connection: &Connection, key: &str) -> Result<Option<T>> {
    meta(connection, key)?.map(|text| meta_cell(&key).json(&text)).transpose()
}

/// Writes a value of the `meta` table.
///
/// # Errors
/// The database failed.
pub fn set_meta(connection: &Connection, key: &str, value: &str) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = ?2",
        )?
        .execute([key, value])?;
    Ok(())
}

#[cfg(test)]
mod tests;
