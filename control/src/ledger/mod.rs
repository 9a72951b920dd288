//! The ledger: everything that must survive a crash, in one SQLite file (WAL, `synchronous = FULL`).
//!
//! Calls are run by a [`Storage`]. That of production is [`GroupCommit`].

pub mod catalogue;
mod cell;
pub mod fields;
mod file;
mod group_commit;
pub mod intents;
pub mod leases;
pub mod schema;
pub mod settings;
pub mod stale;
pub mod task_list;
pub mod tasks;
pub mod webhooks;
pub mod write_keys;

use crate::base::error::{Error, Result};
use cell::Cell;
pub use group_commit::GroupCommit;
use rusqlite::Connection;
use serde::de::DeserializeOwned;
use std::{
    fmt::{Debug, Display},
    path::Path,
    str::FromStr,
    sync::Arc,
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
}

/// A handle on the ledger.
#[derive(Clone, Debug)]
pub struct Ledger {
    storage: Arc<dyn Storage>,
}

impl Ledger {
    /// Opens the ledger in a folder, or creates it. One of an older schema is brought to that of this build.
    ///
    /// # Errors
    /// The database cannot be opened or used: then nothing in it has changed.
    pub fn open(data: &Path) -> Result<Self> {
        let connection = file::open(&data.join(FILE))?;
        Ok(Self::on(Arc::new(GroupCommit::start(connection).map_err(Error::file(data))?)))
    }

    /// A ledger on a storage whose database has the schema of this build.
    #[must_use]
    pub fn on(storage: Arc<dyn Storage>) -> Self {
        Self { storage }
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
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let result = call(connection);
            let keep = result.is_ok();
            let finish: Finish = Box::new(move |committed| {
                // Sending fails only if the caller was cancelled; what was written stays.
                let _ = reply.send(if committed || result.is_err() {
                    result
                } else {
                    Err(Error::Other("the ledger could not commit".to_owned()))
                });
            });
            (keep, finish)
        });
        self.storage.submit(job)?;
        answer.await.map_err(|_| Error::LedgerClosed)?
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
mod tests {
    use super::*;
    use std::{fs::Permissions, os::unix::fs::PermissionsExt};

    #[tokio::test]
    async fn nobody_else_reads_the_ledger_whatever_it_was_before() {
        let folder = tempfile::tempdir().unwrap();
        let modes = || {
            let mode = |suffix: &str| {
                let metadata = std::fs::metadata(folder.path().join(format!("{FILE}{suffix}"))).unwrap();
                metadata.permissions().mode() & 0o777
            };
            ["", "-wal", "-shm"].map(mode)
        };
        let ledger = Ledger::open(folder.path()).unwrap();
        ledger.call(|connection| set_meta(connection, "a", "1")).await.unwrap();
        assert_eq!(modes(), [0o600; 3]);
        for suffix in ["", "-wal", "-shm"] {
            let path = folder.path().join(format!("{FILE}{suffix}"));
            std::fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
        }
        // The first ledger is still open, so SQLite keeps the log instead of creating a new one.
        let _second = Ledger::open(folder.path()).unwrap();
        assert_eq!(modes(), [0o600; 3]);
    }

    #[tokio::test]
    async fn a_failed_call_undoes_itself_only() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        let good = ledger.call(|connection| set_meta(connection, "a", "1"));
        let bad = ledger.call(|connection| {
            set_meta(connection, "b", "2")?;
            Err::<(), _>(Error::NoNode)
        });
        let (good, bad) = tokio::join!(good, bad);
        assert!(good.is_ok() && bad.is_err());
        drop(ledger);
        let ledger = Ledger::open(folder.path()).unwrap();
        let read =
            ledger.call(|connection| Ok((meta(connection, "a")?, meta(connection, "b")?))).await.unwrap();
        assert_eq!(read, (Some("1".to_owned()), None));
    }
}
