//! The schema of the ledger, by version. SQLite keeps the version in the file, as `user_version`.
//!
//! A change of the schema is one more file in `migrations/` and one more entry in `MIGRATIONS`; what a release has written is not
//! changed any more. Each migration runs in one transaction with its version, so a crash leaves one version or the next.

use crate::base::error::Result;
use rusqlite::Connection;

/// What makes each version out of the one before, the first out of an empty file.
const MIGRATIONS: [&str; 5] = [
    include_str!("migrations/1_tables.sql"),
    include_str!("migrations/2_endings.sql"),
    include_str!("migrations/3_task_lists.sql"),
    include_str!("migrations/4_late_tasks.sql"),
    include_str!("migrations/5_stale_in_indexes.sql"),
];

/// Tables that every ledger has had: a database without them belongs to another program.
const TABLES: [&str; 4] = ["meta", "tasks", "intents", "placement"];

/// What a database is to this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schema {
    /// A ledger of this version, which may be older than [`VERSION`]. An empty file has version 0, and so has a ledger of before
    /// there were versions.
    Version(usize),
    /// A ledger that a newer build has written.
    Newer(i64),
    /// A database of another program.
    Foreign,
}

/// The version that this build reads and writes.
pub const VERSION: usize = MIGRATIONS.len();

/// Looks which schema a database has, and changes nothing.
///
/// # Errors
/// The database cannot be read.
pub fn find(connection: &Connection) -> rusqlite::Result<Schema> {
    let version: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let tables = connection
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table'")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<String>>>()?;
    let is_empty = version == 0 && tables.is_empty();
    if !is_empty && TABLES.iter().any(|name| !tables.iter().any(|table| table == name)) {
        return Ok(Schema::Foreign);
    }
    Ok(match usize::try_from(version) {
        Ok(known @ ..=VERSION) => Schema::Version(known),
        _ => Schema::Newer(version),
    })
}

/// Brings a ledger from this version to [`VERSION`].
///
/// # Errors
/// The database failed: the ledger has the version that the last migration that succeeded gave it.
pub fn migrate(connection: &Connection, from: usize) -> Result<()> {
    for (version, migration) in (1..).zip(MIGRATIONS).skip(from) {
        let done = connection.execute_batch(&format!(
            "BEGIN IMMEDIATE; {migration}\n; PRAGMA user_version = {version}; COMMIT"
        ));
        if let Err(error) = done {
            // Where it has not begun, nothing is to be undone.
            let _ = connection.execute_batch("ROLLBACK");
            return Err(error.into());
        }
        tracing::info!(version, "the ledger has this schema version now");
    }
    Ok(())
}
