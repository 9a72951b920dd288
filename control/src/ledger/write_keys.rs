//! Epoch keys: those in use, and those that are to be deleted on every node.

use super::parsed;
use crate::base::error::Result;
use rusqlite::{Connection, params};
use uuid::Uuid;

/// An epoch key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Epoch {
    /// The API key's uid.
    pub key: Uuid,
    /// Whose it is.
    pub gateway: String,
    /// To be deleted on every node.
    pub fenced: bool,
}

/// All epochs.
///
/// # Errors
/// The database failed.
pub fn epochs(connection: &Connection) -> Result<Vec<Epoch>> {
    let mut statement = connection.prepare("SELECT key_uid, gateway, state FROM epochs")?;
    let rows = statement.query_map([], |row| {
        Ok(Epoch {
            key: parsed(row, 0, Uuid::parse_str)?,
            gateway: row.get(1)?,
            fenced: row.get::<_, String>(2)? == "fenced",
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Stores an epoch.
///
/// # Errors
/// The database failed.
pub fn store_epoch(connection: &Connection, epoch: &Epoch) -> Result<()> {
    connection.execute(
        "INSERT OR REPLACE INTO epochs (key_uid, gateway, state) VALUES (?1, ?2, ?3)",
        params![
            epoch.key.hyphenated().to_string(),
            epoch.gateway,
            if epoch.fenced { "fenced" } else { "live" }
        ],
    )?;
    Ok(())
}

/// Marks an epoch's key as one to be deleted on every node.
///
/// # Errors
/// The database failed.
pub fn fence_epoch(connection: &Connection, key: Uuid) -> Result<()> {
    let key = key.hyphenated().to_string();
    connection.execute("UPDATE epochs SET state = 'fenced' WHERE key_uid = ?1", [key])?;
    Ok(())
}

/// Forgets an epoch, whose key no node has any more.
///
/// # Errors
/// The database failed.
pub fn forget_epoch(connection: &Connection, key: Uuid) -> Result<()> {
    connection.execute("DELETE FROM epochs WHERE key_uid = ?1", [key.hyphenated().to_string()])?;
    Ok(())
}
