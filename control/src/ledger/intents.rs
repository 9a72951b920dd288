//! Intents of mutations under way: open between begin and commit, sent from the commit until the task has ended.

use super::{
    cached::Cached,
    cell::Cell,
    tasks::{self, Ending, NewTask, Task},
};
use crate::{
    base::{error::Result, time::Nanos},
    domain::intent::{Intent, NodeTask},
};
use miroir_core::node_name::NodeName;
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeSet;

/// Enqueues a task, with an open intent.
///
/// # Errors
/// The database failed.
pub fn begin(connection: &Connection, new: &NewTask, intent: &Intent, now: Nanos) -> Result<Task> {
    let task = tasks::insert(connection, new, now)?;
    open(connection, task.uid, intent)?;
    Ok(task)
}

/// How an intent is stored that nodes have not been asked for, or not all of it.
const OPEN: &str = "open";
/// How one is stored whose tasks nodes have.
const SENT: &str = "sent";

/// Stores an open intent.
///
/// # Errors
/// The database failed.
pub fn open(connection: &Connection, uid: u32, intent: &Intent) -> Result<()> {
    connection
        .prepare_cached("INSERT INTO intents (uid, state, body) VALUES (?1, ?2, ?3)")?
        .execute(params![uid, OPEN, serde_json::to_string(intent)?])?;
    Ok(())
}

/// Marks an intent as sent, and stores the nodes' tasks for it.
///
/// # Errors
/// The database failed.
pub fn sent(connection: &Connection, uid: u32, tasks: &[NodeTask]) -> Result<()> {
    connection.prepare_cached("UPDATE intents SET state = ?2 WHERE uid = ?1")?.execute(params![uid, SENT])?;
    add_node_tasks(connection, uid, tasks)
}

/// How the step is stored whose end decides the client's task.
const MAIN: &str = "main";
/// How one is stored that only has to be over.
const EXTRA: &str = "extra";

/// Adds nodes' tasks to a client's task.
///
/// # Errors
/// The database failed.
pub fn add_node_tasks(connection: &Connection, uid: u32, tasks: &[NodeTask]) -> Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT OR REPLACE INTO node_tasks (uid, node, node_task, step, shards, state)
         VALUES (?1, ?2, ?3, ?4, ?5, 'enqueued')",
    )?;
    for task in tasks {
        let step = if task.main { MAIN } else { EXTRA };
        statement.execute(params![
            uid,
            task.node.as_str(),
            task.node_task,
            step,
            serde_json::to_string(&task.shards)?
        ])?;
    }
    Ok(())
}

/// The nodes' tasks for a client's task.
///
/// # Errors
/// The database failed, or a row cannot be read.
pub fn all_node_tasks(connection: &Connection, uid: u32) -> Result<Vec<NodeTask>> {
    let mut statement =
        connection.prepare_cached("SELECT node, node_task, step, shards FROM node_tasks WHERE uid = ?1")?;
    let rows = statement.query_and_then([uid], |row| {
        let (node, node_task): (String, u32) = (row.get(0)?, row.get(1)?);
        let (step, shards): (String, String) = (row.get(2)?, row.get(3)?);
        let key = format!("{uid}, {node}, {node_task}");
        let cell = |column| Cell { table: "node_tasks", row: &key, column };
        let main = cell("step").parse(&step, |step| match step {
            MAIN => Ok(true),
            EXTRA => Ok(false),
            _ => Err("no step of a task"),
        })?;
        Ok(NodeTask { node: node.into(), node_task, main, shards: cell("shards").json(&shards)? })
    })?;
    rows.collect()
}

/// How a node's task is stored that the node may have carried out twice.
const INTERRUPTED: &str = "interrupted";

/// Notes that a node stopped before it ended a task, which it may have carried out twice.
///
/// # Errors
/// The database failed.
pub fn interrupt(connection: &Connection, uid: u32, node: &NodeName, node_task: u32) -> Result<()> {
    connection
        .prepare_cached("UPDATE node_tasks SET state = ?4 WHERE uid = ?1 AND node = ?2 AND node_task = ?3")?
        .execute(params![uid, node.as_str(), node_task, INTERRUPTED])?;
    Ok(())
}

/// The nodes that stopped while they processed a task.
///
/// # Errors
/// The database failed.
fn interrupted(connection: &Connection, uid: u32) -> Result<BTreeSet<NodeName>> {
    let mut statement =
        connection.prepare_cached("SELECT node FROM node_tasks WHERE uid = ?1 AND state = ?2")?;
    let nodes = statement.query_map(params![uid, INTERRUPTED], |row| row.get::<_, String>(0))?;
    let nodes = nodes.map(|node| node.map(NodeName::from));
    Ok(nodes.collect::<rusqlite::Result<_>>()?)
}

/// The newest task of a node that belongs to a client's task before this one.
///
/// # Errors
/// The database failed.
pub fn newest_before(connection: &Connection, uid: u32, node: &NodeName) -> Result<Option<u32>> {
    let newest = "SELECT max(node_task) FROM node_tasks WHERE node = ?2 AND uid < ?1";
    Ok(connection.query_row_cached(newest, params![uid, node.as_str()], |row| row.get(0))?)
}

/// Whether an intent is open: it is not decided yet what becomes of it. `begun` is the identifier of its begin, if the intent
/// has one.
///
/// # Errors
/// The database failed, or the row cannot be read.
pub fn is_open(connection: &Connection, uid: u32, begun: Option<&str>) -> Result<bool> {
    let mut statement =
        connection.prepare_cached("SELECT body FROM intents WHERE uid = ?1 AND state = ?2")?;
    let body: Option<String> = statement.query_row(params![uid, OPEN], |row| row.get(0)).optional()?;
    let Some(body) = body else { return Ok(false) };
    let intent = Cell { table: "intents", row: &uid, column: "body" }.json(&body)?;
    Ok(match (intent, begun) {
        (Intent::Write { begun: own, .. }, Some(begun)) => own.is_empty() || own == begun,
        _ => true,
    })
}

/// The intent of a task that has not ended.
///
/// # Errors
/// The database failed, or the row cannot be read.
pub fn get(connection: &Connection, uid: u32) -> Result<Option<Intent>> {
    let body: Option<String> = connection
        .prepare_cached("SELECT body FROM intents WHERE uid = ?1")?
        .query_row([uid], |row| row.get(0))
        .optional()?;
    body.map(|body| Cell { table: "intents", row: &uid, column: "body" }.json(&body)).transpose()
}

/// Stores how a task ends whose outcome is applied with this transaction: from then on it is neither judged nor applied again.
///
/// # Errors
/// The database failed.
pub fn applied(connection: &Connection, uid: u32, ending: &Ending) -> Result<()> {
    connection
        .prepare_cached("UPDATE intents SET ending = ?2 WHERE uid = ?1")?
        .execute(params![uid, serde_json::to_string(ending)?])?;
    Ok(())
}

/// Lets the intents before `by` follow the indexes that `by` has renamed or swapped.
///
/// # Errors
/// The database failed.
pub fn follow(connection: &Connection, by: u32, moves: &[(String, String, bool)]) -> Result<()> {
    let earlier = if moves.is_empty() { Vec::new() } else { all(connection)? };
    for mut found in earlier.into_iter().filter(|found| found.uid < by && found.ending.is_none()) {
        if let Intent::Broadcast { effect, .. } = &mut found.intent
            && effect.follow(moves)
        {
            connection.execute_cached(
                "UPDATE intents SET body = ?2 WHERE uid = ?1",
                params![found.uid, serde_json::to_string(&found.intent)?],
            )?;
        }
    }
    Ok(())
}

/// Ends a task and deletes its intent.
///
/// # Errors
/// The database failed.
pub fn end(connection: &Connection, uid: u32, ending: &Ending) -> Result<()> {
    tasks::finish(connection, uid, ending)?;
    close(connection, uid)
}

/// Deletes an intent whose task has ended.
///
/// # Errors
/// The database failed.
pub fn close(connection: &Connection, uid: u32) -> Result<()> {
    connection.prepare_cached("DELETE FROM intents WHERE uid = ?1")?.execute([uid])?;
    connection.prepare_cached("UPDATE node_tasks SET state = 'settled' WHERE uid = ?1")?.execute([uid])?;
    Ok(())
}

/// An intent that was stored before the restart.
#[derive(Clone, Debug)]
pub struct StoredIntent {
    /// The client's task uid.
    pub uid: u32,
    /// Whether it was sent; otherwise it was open.
    pub sent: bool,
    /// The intent.
    pub intent: Intent,
    /// The nodes' tasks for it.
    pub tasks: Vec<NodeTask>,
    /// The nodes that stopped while they processed it.
    pub interrupted: BTreeSet<NodeName>,
    /// How its task ends, if its outcome has been applied.
    pub ending: Option<Ending>,
}

/// All intents, oldest first.
///
/// # Errors
/// The database failed, or a row says neither that it is open nor that it was sent.
pub fn all(connection: &Connection) -> Result<Vec<StoredIntent>> {
    let mut statement =
        connection.prepare_cached("SELECT uid, state, body, ending FROM intents ORDER BY uid")?;
    let rows = statement
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect::<rusqlite::Result<Vec<(u32, String, String, Option<String>)>>>()?;
    let mut found = Vec::new();
    for (uid, state, body, ending) in rows {
        let cell = |column| Cell { table: "intents", row: &uid, column };
        let sent = cell("state").parse(&state, |state| match state {
            SENT => Ok(true),
            OPEN => Ok(false),
            _ => Err("no state of an intent"),
        })?;
        match cell("body").json(&body) {
            Ok(intent) => {
                let tasks = all_node_tasks(connection, uid)?;
                let interrupted = interrupted(connection, uid)?;
                let ending = ending.map(|text| cell("ending").json(&text)).transpose()?;
                found.push(StoredIntent { uid, sent, intent, tasks, interrupted, ending });
            }
            // One row that a newer build wrote must not prevent the start.
            Err(error) => {
                tracing::error!(uid, %error, "an intent is left alone")
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Ledger, tasks};
    use miroir_core::{protocol::WriteOperation, shard::Shard};

    #[tokio::test]
    async fn an_open_intent_is_found_after_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        let intent = Intent::Write {
            gateway: "g".into(),
            index: "movies".into(),
            operation: WriteOperation::DeleteAll,
            writers: vec![(Shard(3), vec!["a".into(), "b".into()])],
            begun: String::new(),
        };
        ledger
            .call(move |connection| {
                let task = tasks::insert(connection, &NewTask::default(), 1)?;
                open(connection, task.uid, &intent)
            })
            .await
            .unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        let found = ledger.call(all).await.unwrap();
        assert_eq!((found.len(), found[0].uid, found[0].sent), (1, 0, false));
        let Intent::Write { writers, .. } = &found[0].intent else { panic!("not a write") };
        assert_eq!(*writers, [(Shard(3), vec!["a".into(), "b".into()])]);
        let task = NodeTask { node: "a".into(), node_task: 7, main: true, shards: vec![Shard(3)] };
        let expected = task.clone();
        ledger.call(move |connection| sent(connection, 0, &[task])).await.unwrap();
        let found = ledger.call(all).await.unwrap();
        assert!(found[0].sent);
        assert_eq!(found[0].tasks, [expected]);
        ledger.call(|connection| close(connection, 0)).await.unwrap();
        assert!(ledger.call(all).await.unwrap().is_empty());
    }
}
