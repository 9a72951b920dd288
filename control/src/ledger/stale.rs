//! What active replicas miss of single indexes, and the ids of the documents.

use super::cell::Cell;
use crate::{
    base::error::Result,
    domain::cluster_state::{Missed, StaleInIndexes},
};
use miroir_core::{node_name::NodeName, shard::Shard};
use rusqlite::{Connection, params};
use std::collections::BTreeSet;

/// Documents that a replica missed: the index, the node, the shard, and their ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissedDocuments {
    /// Index uid.
    pub index: String,
    /// The node's name.
    pub node: NodeName,
    /// The shard.
    pub shard: Shard,
    /// The ids.
    pub ids: BTreeSet<String>,
}

/// How it is stored what a replica misses.
const RECORDED: &str = "recorded";
const ANYTHING: &str = "anything";

/// The active replicas that miss something of an index.
///
/// # Errors
/// The database failed, or a row cannot be read.
pub fn load(connection: &Connection) -> Result<StaleInIndexes> {
    let mut stale = StaleInIndexes::default();
    let mut statement = connection.prepare("SELECT index_uid, node, shard, missed FROM stale")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (index, node): (String, String) = (row.get(0)?, row.get(1)?);
        let (shard, missed): (u16, String) = (row.get(2)?, row.get(3)?);
        let key = format!("{index}, {node}, {shard}");
        let missed =
            Cell { table: "stale", row: &key, column: "missed" }.parse(&missed, |text| match text {
                RECORDED => Ok(Missed::Recorded),
                ANYTHING => Ok(Missed::Anything),
                _ => Err("it says neither what is recorded nor that anything is missed"),
            })?;
        stale.insert(&index, &node, Shard(shard), missed);
    }
    Ok(stale)
}

/// Stores the differences between two states. What was recorded is deleted where it is not needed any more.
pub(super) fn store(connection: &Connection, old: &StaleInIndexes, new: &StaleInIndexes) -> Result<()> {
    for (index, node, shard, was) in old.iter() {
        let is = new.get(index, node, shard);
        if is.is_none() {
            connection
                .prepare_cached("DELETE FROM stale WHERE index_uid = ?1 AND node = ?2 AND shard = ?3")?
                .execute(params![index, node.as_str(), shard.0])?;
        }
        if was == Missed::Recorded && is != Some(Missed::Recorded) {
            forget(connection, index, node, shard)?;
        }
    }
    for (index, node, shard, missed) in new.iter() {
        if old.get(index, node, shard) == Some(missed) {
            continue;
        }
        let text = match missed {
            Missed::Recorded => RECORDED,
            Missed::Anything => ANYTHING,
        };
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO stale (index_uid, node, shard, missed) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![index, node.as_str(), shard.0, text])?;
    }
    Ok(())
}

/// Adds documents that a replica missed. Returns the number of documents that it has missed of the index until now.
///
/// # Errors
/// The database failed.
pub fn add(connection: &Connection, documents: &MissedDocuments) -> Result<usize> {
    let MissedDocuments { index, node, shard, ids } = documents;
    let mut insert = connection.prepare_cached(
        "INSERT OR IGNORE INTO missed_documents (index_uid, node, shard, id) VALUES (?1, ?2, ?3, ?4)",
    )?;
    for id in ids {
        insert.execute(params![index, node.as_str(), shard.0, id])?;
    }
    let mut count = connection.prepare_cached(
        "SELECT count(*) FROM missed_documents WHERE index_uid = ?1 AND node = ?2 AND shard = ?3",
    )?;
    Ok(count.query_row(params![index, node.as_str(), shard.0], |row| row.get(0))?)
}

/// Forgets which documents a replica missed.
///
/// # Errors
/// The database failed.
pub fn forget(connection: &Connection, index: &str, node: &NodeName, shard: Shard) -> Result<()> {
    connection
        .prepare_cached("DELETE FROM missed_documents WHERE index_uid = ?1 AND node = ?2 AND shard = ?3")?
        .execute(params![index, node.as_str(), shard.0])?;
    Ok(())
}

/// The ids of the documents that a node's replicas of these shards have missed of an index.
///
/// # Errors
/// The database failed.
pub fn ids(
    connection: &Connection,
    index: &str,
    node: &NodeName,
    shards: &[Shard],
) -> Result<BTreeSet<String>> {
    let mut statement = connection.prepare_cached(
        "SELECT id FROM missed_documents WHERE index_uid = ?1 AND node = ?2 AND shard = ?3",
    )?;
    let mut ids = BTreeSet::new();
    for shard in shards {
        let found = statement.query_map(params![index, node.as_str(), shard.0], |row| row.get(0))?;
        ids.extend(found.collect::<rusqlite::Result<Vec<String>>>()?);
    }
    Ok(ids)
}
