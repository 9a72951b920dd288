//! The schema of the ledger, by version. SQLite keeps the version in the file, as `user_version`.
//!
//! A change of the schema is one more file in `migrations/` and one more entry in `MIGRATIONS`; what a release has written is not
//! changed any more. All migrations run in one transaction with the version, so a crash leaves the one version or the other.

use crate::base::error::Result;
use rusqlite::Connection;
use std::collections::BTreeSet;

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
    /// A ledger whose tables are those of no version, or not those of the version that it names.
    Unlike(i64),
    /// A database of another program.
    Foreign,
}

/// The version that this build reads and writes.
pub const VERSION: usize = MIGRATIONS.len();

/// The names of the columns and indexes of a database, which tell its version.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    /// Each with its table.
    columns: BTreeSet<(String, String)>,
    indexes: BTreeSet<String>,
}

impl Shape {
    fn of(connection: &Connection) -> rusqlite::Result<Self> {
        // `lost_and_found` is what SQLite's `.recover` makes of rows whose table it does not know.
        let columns = "SELECT t.name, c.name FROM sqlite_master t, pragma_table_info(t.name) c
                       WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND t.name NOT LIKE 'lost\\_and\\_found%' ESCAPE '\\'";
        let indexes = "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL";
        Ok(Self {
            columns: connection
                .prepare(columns)?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<_>>()?,
            indexes: connection
                .prepare(indexes)?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?,
        })
    }

    /// Those of all versions, version 1 first.
    fn of_versions() -> rusqlite::Result<Vec<Self>> {
        let connection = Connection::open_in_memory()?;
        let migrated = |migration| {
            connection.execute_batch(migration)?;
            Self::of(&connection)
        };
        MIGRATIONS.into_iter().map(migrated).collect()
    }
}

/// Looks which schema a database has, and changes nothing. A ledger that names no version is recognized by its tables: the usual ways to
/// rescue a damaged file, SQLite's `.dump` and `.recover`, lose the version.
///
/// # Errors
/// The database cannot be read.
pub fn find(connection: &Connection) -> rusqlite::Result<Schema> {
    let named: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let found = Shape::of(connection)?;
    if named == 0 && found.columns.is_empty() {
        return Ok(Schema::Version(0));
    }
    if TABLES.iter().any(|name| !found.columns.iter().any(|(table, _)| table == name)) {
        return Ok(Schema::Foreign);
    }
    let version = match usize::try_from(named) {
        Ok(version @ ..=VERSION) => version,
        _ => return Ok(Schema::Newer(named)),
    };
    let known = Shape::of_versions()?;
    let is_there = |shape: &Shape| shape.columns.is_subset(&found.columns);
    Ok(match version.checked_sub(1) {
        // An index that is missing costs time only.
        Some(position) if known.get(position).is_some_and(is_there) => Schema::Version(version),
        Some(_) => Schema::Unlike(named),
        None => match known.iter().rposition(|shape| *shape == found) {
            Some(position) => Schema::Version(position + 1),
            // Before there were versions, some tables of the first one were missing.
            None if known.first().is_some_and(|first| found.columns.is_subset(&first.columns)) => {
                Schema::Version(0)
            }
            None => Schema::Unlike(named),
        },
    })
}

/// Brings a ledger from this version to [`VERSION`].
///
/// # Errors
/// The database failed: the ledger is as it was.
pub fn migrate(connection: &Connection, from: usize) -> Result<()> {
    let named: usize = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    if named == VERSION {
        return Ok(());
    }
    let migrations: String = MIGRATIONS.into_iter().skip(from).flat_map(|sql| [sql, "\n;"]).collect();
    let done = connection
        .execute_batch(&format!("BEGIN IMMEDIATE; {migrations} PRAGMA user_version = {VERSION}; COMMIT"));
    if let Err(error) = done {
        // Where it has not begun, nothing is to be undone.
        let _ = connection.execute_batch("ROLLBACK");
        return Err(error.into());
    }
    if from == 0 {
        tracing::debug!(version = VERSION, "the ledger is new, or from before there were versions");
    } else {
        tracing::info!(from, version = VERSION, "the ledger has the schema of this build now");
    }
    Ok(())
}
