//! The fields of indexes, in the order in which nodes have registered them.

use super::cached::Cached;
use crate::base::error::Result;
use rusqlite::{Connection, params};

/// The fields of an index.
///
/// # Errors
/// The database failed.
pub fn of(connection: &Connection, index: &str) -> Result<Vec<String>> {
    let mut statement =
        connection.prepare_cached("SELECT name FROM fields WHERE index_uid = ?1 ORDER BY position")?;
    let names = statement.query_map([index], |row| row.get(0))?;
    Ok(names.collect::<rusqlite::Result<_>>()?)
}

/// Adds fields. The first one gets the position `from`.
///
/// # Errors
/// The database failed.
pub fn add(connection: &Connection, index: &str, from: usize, names: &[String]) -> Result<()> {
    let mut insert = connection
        .prepare_cached("INSERT OR IGNORE INTO fields (index_uid, position, name) VALUES (?1, ?2, ?3)")?;
    for (position, name) in (from..).zip(names) {
        insert.execute(params![index, position, name])?;
    }
    Ok(())
}

/// Forgets the fields of an index that was deleted.
///
/// # Errors
/// The database failed.
pub fn forget(connection: &Connection, index: &str) -> Result<()> {
    connection.execute_cached("DELETE FROM fields WHERE index_uid = ?1", [index])?;
    Ok(())
}

/// Moves the fields of an index that was renamed.
///
/// # Errors
/// The database failed.
pub fn rename(connection: &Connection, from: &str, to: &str) -> Result<()> {
    connection.execute_cached("UPDATE fields SET index_uid = ?2 WHERE index_uid = ?1", [from, to])?;
    Ok(())
}
