//! What the ledger knows of nodes' tasks that carry marks, and how far nodes' tasks have been examined.

use super::{cell::Cell, tasks};
use crate::{
    base::{error::Result, json},
    domain::task_mark::{TaskPosition, WriteFate},
};
use miroir_core::{node_name::NodeName, shard::Shard};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeMap;

/// So many uids back it is remembered what nodes have missed. Meilisearch keeps as many tasks.
const REMEMBERED: u32 = 1_000_000;

/// Stores which shards of a write that is decided each node has not taken.
///
/// # Errors
/// The database failed.
pub fn store_missed(
    connection: &Connection,
    uid: u32,
    missed: &BTreeMap<NodeName, Vec<Shard>>,
) -> Result<()> {
    if missed.is_empty() {
        return Ok(());
    }
    let oldest = uid.saturating_sub(REMEMBERED);
    connection.prepare_cached("DELETE FROM missed WHERE uid < ?1")?.execute([oldest])?;
    let mut insert =
        connection.prepare_cached("INSERT OR REPLACE INTO missed (uid, node, shards) VALUES (?1, ?2, ?3)")?;
    for (node, shards) in missed {
        insert.execute(params![uid, node.as_str(), json::text(shards)])?;
    }
    Ok(())
}

/// What becomes of a node's task that carries the mark of the write `uid`.
///
/// # Errors
/// The database failed, or a row cannot be read.
pub fn fate(connection: &Connection, uid: u32, node: &str, node_task: u32) -> Result<WriteFate> {
    let (is_open, is_counted) = connection
        .prepare_cached(
            "SELECT EXISTS (SELECT 1 FROM intents WHERE uid = ?1 AND state = 'open'),
             EXISTS (SELECT 1 FROM node_tasks WHERE uid = ?1 AND node = ?2 AND node_task = ?3)",
        )?
        .query_row(params![uid, node, node_task], |row| Ok((row.get(0)?, row.get(1)?)))?;
    match (is_open, is_counted) {
        (_, true) => return Ok(WriteFate::Counted),
        (true, false) => return Ok(WriteFate::Open),
        (false, false) => {}
    }
    let shards_in = |table, query| -> Result<Option<Vec<Shard>>> {
        let mut statement = connection.prepare_cached(query)?;
        let shards: Option<String> = statement.query_row(params![uid, node], |row| row.get(0)).optional()?;
        let row = format!("{uid}, {node}");
        let cell = Cell { table, row: &row, column: "shards" };
        shards.map(|shards| cell.json(&shards)).transpose()
    };
    // The node may have taken its part before, and now takes it twice.
    let shards = match shards_in("missed", "SELECT shards FROM missed WHERE uid = ?1 AND node = ?2")? {
        None => shards_in(
            "node_tasks",
            "SELECT shards FROM node_tasks WHERE uid = ?1 AND node = ?2 AND step = 'main' LIMIT 1",
        )?,
        missed => missed,
    };
    Ok(match shards {
        Some(shards) => WriteFate::Late(shards),
        None if tasks::is_given(connection, uid)? => WriteFate::Unknown,
        None => WriteFate::NotGiven,
    })
}

/// How far a node's tasks have been examined; `None` where they have not been.
///
/// # Errors
/// The database failed, or the row cannot be read.
pub fn position(connection: &Connection, node: &str) -> Result<Option<TaskPosition>> {
    let mut statement = connection.prepare_cached("SELECT next, anchor FROM examined WHERE node = ?1")?;
    let row: Option<(u32, Option<String>)> =
        statement.query_row([node], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    let Some((next, anchor)) = row else { return Ok(None) };
    let cell = Cell { table: "examined", row: &node, column: "anchor" };
    let anchor = anchor.map(|anchor| cell.json(&anchor)).transpose()?;
    Ok(Some(TaskPosition { next, anchor }))
}

/// Forgets how far the tasks of a node were examined that leaves, or comes: what it has done elsewhere is not the cluster's.
///
/// # Errors
/// The database failed.
pub fn forget_position(connection: &Connection, node: &str) -> Result<()> {
    connection.prepare_cached("DELETE FROM examined WHERE node = ?1")?.execute([node])?;
    Ok(())
}

/// Stores how far a node's tasks have been examined.
///
/// # Errors
/// The database failed.
pub fn store_position(connection: &Connection, node: &str, position: &TaskPosition) -> Result<()> {
    let anchor = position.anchor.as_ref().map(json::text);
    connection
        .prepare_cached("INSERT OR REPLACE INTO examined (node, next, anchor) VALUES (?1, ?2, ?3)")?
        .execute(params![node, position.next, anchor])?;
    Ok(())
}
