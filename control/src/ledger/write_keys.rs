//! Write keys: those in use, and those that are to be deleted on every node.

use super::{cached::Cached, cell::Cell};
use crate::{base::error::Result, domain::key_holder::WriteKeyHolder};
use rusqlite::{Connection, params};
use uuid::Uuid;

/// A write key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteKey {
    /// The API key's uid.
    pub key: Uuid,
    /// Who writes with it; `None` if that is not known: the key can only be fenced.
    pub holder: Option<WriteKeyHolder>,
    /// Whether it is fenced: it must be deleted on every node.
    pub fenced: bool,
}

/// How a key that is in use is stored.
const LIVE: &str = "live";
/// How one is stored that is to be deleted on every node.
const FENCED: &str = "fenced";

/// All write keys.
///
/// # Errors
/// The database failed, or a row cannot be read.
pub fn write_keys(connection: &Connection) -> Result<Vec<WriteKey>> {
    let mut statement = connection.prepare_cached("SELECT key_uid, gateway, state FROM epochs")?;
    let rows = statement.query_and_then([], |row| {
        let (key, holder, state): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let cell = |column| Cell { table: "epochs", row: &key, column };
        let fenced = cell("state").parse(&state, |state| match state {
            FENCED => Ok(true),
            LIVE => Ok(false),
            _ => Err("no state of a key"),
        })?;
        Ok(WriteKey {
            key: cell("key_uid").parse(&key, Uuid::parse_str)?,
            holder: WriteKeyHolder::read(&holder),
            fenced,
        })
    })?;
    rows.collect()
}

/// Stores a write key.
///
/// # Errors
/// The database failed.
pub fn store_write_key(connection: &Connection, write_key: &WriteKey) -> Result<()> {
    connection.execute_cached(
        "INSERT OR REPLACE INTO epochs (key_uid, gateway, state) VALUES (?1, ?2, ?3)",
        params![
            write_key.key.hyphenated().to_string(),
            write_key.holder.as_ref().map_or_else(String::new, ToString::to_string),
            if write_key.fenced { FENCED } else { LIVE }
        ],
    )?;
    Ok(())
}

/// Marks a write key as fenced: it must be deleted on every node.
///
/// # Errors
/// The database failed.
pub fn fence_write_key(connection: &Connection, key: Uuid) -> Result<()> {
    let key = key.hyphenated().to_string();
    connection.execute_cached("UPDATE epochs SET state = ?2 WHERE key_uid = ?1", [key.as_str(), FENCED])?;
    Ok(())
}

/// Forgets a write key that no node has any more.
///
/// # Errors
/// The database failed.
pub fn forget_write_key(connection: &Connection, key: Uuid) -> Result<()> {
    connection.execute_cached("DELETE FROM epochs WHERE key_uid = ?1", [key.hyphenated().to_string()])?;
    Ok(())
}
