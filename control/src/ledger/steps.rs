//! Changes under way that have no task: stored before the first node gets them, deleted once all nodes have them.

use super::{cached::Cached, cell::Cell};
use crate::{base::error::Result, domain::intent::Step};
use rusqlite::{Connection, params};

/// Stores a step, and returns its identifier.
///
/// # Errors
/// The database failed.
pub fn begin(connection: &Connection, step: &Step) -> Result<i64> {
    connection.execute_cached("INSERT INTO steps (body) VALUES (?1)", [serde_json::to_string(step)?])?;
    Ok(connection.last_insert_rowid())
}

/// Deletes a step that is done, or that no node has taken.
///
/// # Errors
/// The database failed.
pub fn end(connection: &Connection, id: i64) -> Result<()> {
    connection.execute_cached("DELETE FROM steps WHERE id = ?1", params![id])?;
    Ok(())
}

/// The steps that a crash interrupted, oldest first.
///
/// # Errors
/// The database failed, or a row cannot be read.
pub fn all(connection: &Connection) -> Result<Vec<(i64, Step)>> {
    let mut statement = connection.prepare_cached("SELECT id, body FROM steps ORDER BY id")?;
    let rows = statement.query_and_then([], |row| {
        let (id, body): (i64, String) = (row.get(0)?, row.get(1)?);
        Ok((id, Cell { table: "steps", row: &id, column: "body" }.json(&body)?))
    })?;
    rows.collect()
}
