//! Webhooks, and the ended tasks that have not been posted to them.

use super::{
    cached::Cached,
    cell::Cell,
    tasks::{self, Task},
};
use crate::base::error::Result;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A webhook: where ended tasks are posted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Webhook {
    /// An absolute URL.
    pub url: String,
    /// Headers of its requests.
    pub headers: BTreeMap<String, String>,
}

/// All webhooks, by uuid.
///
/// # Errors
/// The database failed, or a row cannot be read.
pub fn all(connection: &Connection) -> Result<BTreeMap<Uuid, Webhook>> {
    let mut statement = connection.prepare_cached("SELECT uuid, url, headers FROM webhooks")?;
    let rows = statement.query_and_then([], |row| {
        let (uuid, url, headers): (String, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let cell = |column| Cell { table: "webhooks", row: &uuid, column };
        let webhook = Webhook { url, headers: cell("headers").json(&headers)? };
        Ok((cell("uuid").parse(&uuid, Uuid::parse_str)?, webhook))
    })?;
    rows.collect()
}

/// Stores a webhook.
///
/// # Errors
/// The database failed.
pub fn put(connection: &Connection, uuid: Uuid, webhook: &Webhook) -> Result<()> {
    connection.execute_cached(
        "INSERT OR REPLACE INTO webhooks (uuid, url, headers) VALUES (?1, ?2, ?3)",
        params![uuid.hyphenated().to_string(), webhook.url, serde_json::to_string(&webhook.headers)?],
    )?;
    Ok(())
}

/// Removes a webhook.
///
/// # Errors
/// The database failed.
pub fn remove(connection: &Connection, uuid: Uuid) -> Result<()> {
    connection.execute_cached("DELETE FROM webhooks WHERE uuid = ?1", [uuid.hyphenated().to_string()])?;
    Ok(())
}

/// Notes an ended task for posting, if there is any webhook.
///
/// # Errors
/// The database failed.
pub fn note(connection: &Connection, uid: u32) -> Result<()> {
    connection
        .prepare_cached(
            "INSERT OR IGNORE INTO untold_tasks (uid) SELECT ?1 WHERE EXISTS (SELECT 1 FROM webhooks)",
        )?
        .execute([uid])?;
    Ok(())
}

/// Removes and returns the tasks that have not been posted to webhooks, oldest first.
///
/// # Errors
/// The database failed.
pub fn take_unposted(connection: &Connection) -> Result<Vec<Task>> {
    let first = connection
        .prepare_cached("SELECT 1 FROM untold_tasks LIMIT 1")?
        .query_row([], |_| Ok(()))
        .optional()?;
    if first.is_none() {
        return Ok(Vec::new());
    }
    let mut statement = connection.prepare_cached("DELETE FROM untold_tasks RETURNING uid")?;
    let mut uids = statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<Vec<u32>>>()?;
    uids.sort_unstable();
    let found = uids.into_iter().filter_map(|uid| tasks::get(connection, uid).transpose());
    found.collect()
}
