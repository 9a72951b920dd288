//! Opening the ledger's file. A file that this build cannot use is left as it is.

use super::schema::{self, Schema, VERSION};
use crate::base::{
    error::{Error, Result},
    files,
};
use rusqlite::{Connection, ErrorCode};
use std::{fs::File, os::unix::fs::OpenOptionsExt, path::Path, time::Duration};

/// What to do about a file that cannot be used.
const WAY_OUT: &str = "move it away, with the files -wal and -shm beside it, and make a new ledger from the nodes with `miroir recover`. \
                       An older copy of the ledger must not be used: what was written since would be lost";

/// Opens a ledger, or makes one, with the schema of this build.
///
/// # Errors
/// The file cannot be opened; or it is damaged, of a newer version, or of another program: the error says what to do.
pub fn open(path: &Path) -> Result<Connection> {
    make_private(path)?;
    let unusable = |problem: String| Error::UnusableLedger { path: path.display().to_string(), problem };
    let damaged = |error: rusqlite::Error| match error.sqlite_error_code() {
        Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => {
            unusable(format!("the file is damaged, or is no ledger: {error}. It is left as it is: {WAY_OUT}"))
        }
        _ => error.into(),
    };
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    let from = match schema::find(&connection).map_err(damaged)? {
        Schema::Version(version) => version,
        Schema::Newer(version) => {
            return Err(unusable(format!(
                "the ledger has schema version {version}, and this build knows versions up to {VERSION}. It is left as it is: start a \
                 newer build of miroir, or restore the copy that was made before the upgrade"
            )));
        }
        Schema::Unlike(0) => {
            return Err(unusable(format!(
                "the file names no schema version, and its tables are those of no version that this build knows. It is left as it is: start \
                 a newer build of miroir, or {WAY_OUT}"
            )));
        }
        Schema::Unlike(version) => {
            return Err(unusable(format!(
                "the file names schema version {version}, and lacks tables of it. It is left as it is: {WAY_OUT}"
            )));
        }
        Schema::Foreign => {
            return Err(unusable(format!(
                "the file is a database of another program, and no ledger. It is left as it is: {WAY_OUT}"
            )));
        }
    };
    if let Some(damage) = damage(&connection).map_err(damaged)? {
        return Err(unusable(format!("the file is damaged: {damage}. It is left as it is: {WAY_OUT}")));
    }
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    schema::migrate(&connection, from)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

/// Opens a ledger that [`open`] has opened before, for reads only.
///
/// # Errors
/// The file cannot be opened.
pub fn open_for_reads(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    connection.busy_timeout(Duration::from_secs(5))?;
    connection.pragma_update(None, "query_only", true)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(connection)
}

/// How many prepared statements a connection keeps.
const STATEMENTS: usize = 128;

/// Tables that grow with the history of a cluster: to check them takes seconds. What is damaged in them is an error where it is read.
const LARGE: [&str; 3] = ["tasks", "node_tasks", "fields"];

/// What is wrong with the tables that say what the cluster is; `None` where nothing is.
fn damage(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let tables = connection
        .prepare("SELECT name FROM sqlite_master WHERE type = 'table'")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<Vec<String>>>()?;
    for table in tables.iter().filter(|table| !LARGE.contains(&table.as_str())) {
        let found: String =
            connection
                .query_row("SELECT quick_check FROM pragma_quick_check(?1)", [table], |row| row.get(0))?;
        if found != "ok" {
            return Ok(Some(format!("table `{table}`: {found}")));
        }
    }
    Ok(None)
}

/// Creates the database if it does not exist, and makes it and its log readable by their owner only, because task details and
/// webhooks contain secrets. SQLite creates the log and its index with the mode of the database.
fn make_private(path: &Path) -> Result<()> {
    let file = File::options().append(true).create(true).mode(files::PRIVATE).open(path);
    file.map_err(Error::file(path))?;
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        files::make_private(Path::new(&name))?;
    }
    Ok(())
}
