//! Mutations on their way: between begin and commit, and from there until they are settled.

use super::{
    parsed,
    tasks::{self, Ending, NewTask, Task},
};
use crate::{base::error::Result, export::Export, sync::search_rules::Change};
use miroir_core::{path::ApiPath, protocol::WriteOperation, shard::Shard};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};

/// What is being done under a uid: enough to finish it after a crash.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Intent {
    /// A gateway sends documents.
    Write {
        /// Whose epoch key it goes under.
        gateway: String,
        /// Index uid.
        index: String,
        /// What is done.
        operation: WriteOperation,
        /// The writers that the gateway was told, by shard.
        writers: Vec<(Shard, Vec<String>)>,
        /// The name of its begin.
        #[serde(default)]
        begun: String,
    },
    /// The control plane itself asks all nodes.
    Broadcast {
        /// In order, for each node.
        requests: Vec<NodeRequest>,
        /// What the catalogue learns when it has succeeded.
        effect: Effect,
    },
    /// The control plane sends documents to another Meilisearch.
    Export {
        /// Which, and where to.
        export: Export,
    },
}

/// A request to a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeRequest {
    /// Upper case.
    pub method: String,
    /// Path and query.
    pub path: ApiPath,
    /// JSON, or nothing.
    pub body: Option<serde_json::Value>,
    /// Whether the client's task is this one; else a step that only has to be over.
    pub main: bool,
}

/// What a mutation does to the catalogue, once it has succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Effect {
    /// Nothing.
    #[default]
    None,
    /// Another primary key, another name.
    UpdateIndex {
        /// Index uid.
        index: String,
        /// The new primary key, where it changes.
        primary_key: Option<String>,
        /// The new name, where it changes.
        rename: Option<String>,
    },
    /// Settings as the client has set them.
    Settings {
        /// Index uid.
        index: String,
        /// The change; `None` resets all.
        change: Option<serde_json::Value>,
        /// It makes the index.
        #[serde(default)]
        creates: bool,
    },
    /// Indexes change places.
    Swap {
        /// Left, right, and whether it is a renaming.
        pairs: Vec<(String, String, bool)>,
    },
    /// Dynamic search rules.
    Rules {
        /// What becomes of them.
        change: Change,
    },
}

impl Effect {
    /// Whether locks are held until it is known how it has ended.
    #[must_use]
    pub fn holds_locks(&self) -> bool {
        matches!(self, Self::UpdateIndex { .. } | Self::Swap { .. })
    }

    /// The indexes that it names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let names: Vec<&str> = match self {
            Self::None | Self::Rules { .. } => Vec::new(),
            Self::Settings { index, .. } => vec![index],
            Self::UpdateIndex { index, rename, .. } => {
                std::iter::once(index.as_str()).chain(rename.as_deref()).collect()
            }
            Self::Swap { pairs } => {
                pairs.iter().flat_map(|(left, right, _)| [left.as_str(), right.as_str()]).collect()
            }
        };
        names.into_iter()
    }

    /// Which indexes' settings go where: from, to, and whether `to` comes back.
    #[must_use]
    pub fn moves(&self) -> Vec<(String, String, bool)> {
        match self {
            Self::UpdateIndex { index, rename: Some(rename), .. } => {
                vec![(index.clone(), rename.clone(), false)]
            }
            Self::Swap { pairs } => {
                pairs.iter().map(|(left, right, rename)| (left.clone(), right.clone(), !rename)).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// A node's task behind a client's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTask {
    /// The node's name.
    pub node: String,
    /// Its own uid.
    pub node_task: u32,
    /// Whether its end decides the client's task.
    pub main: bool,
    /// The shards it writes; empty for all.
    pub shards: Vec<Shard>,
}

/// Enqueues a task, with an open intent.
///
/// # Errors
/// The database failed.
pub fn begin(connection: &Connection, new: &NewTask, intent: &Intent) -> Result<Task> {
    let task = tasks::insert(connection, new)?;
    open(connection, task.uid, intent)?;
    Ok(task)
}

/// Writes an intent as open.
///
/// # Errors
/// The database failed.
pub fn open(connection: &Connection, uid: u32, intent: &Intent) -> Result<()> {
    connection
        .prepare_cached("INSERT INTO intents (uid, state, body) VALUES (?1, 'open', ?2)")?
        .execute(params![uid, serde_json::to_string(intent)?])?;
    Ok(())
}

/// Marks an intent as sent, with what nodes call it.
///
/// # Errors
/// The database failed.
pub fn sent(connection: &Connection, uid: u32, tasks: &[NodeTask]) -> Result<()> {
    connection.prepare_cached("UPDATE intents SET state = 'sent' WHERE uid = ?1")?.execute([uid])?;
    add_node_tasks(connection, uid, tasks)
}

/// Adds what nodes call it.
///
/// # Errors
/// The database failed.
pub fn add_node_tasks(connection: &Connection, uid: u32, tasks: &[NodeTask]) -> Result<()> {
    let mut statement = connection.prepare_cached(
        "INSERT OR REPLACE INTO node_tasks (uid, node, node_task, step, shards, state)
         VALUES (?1, ?2, ?3, ?4, ?5, 'enqueued')",
    )?;
    for task in tasks {
        let step = if task.main { "main" } else { "extra" };
        statement.execute(params![
            uid,
            task.node,
            task.node_task,
            step,
            serde_json::to_string(&task.shards)?
        ])?;
    }
    Ok(())
}

/// What nodes call a task.
///
/// # Errors
/// The database failed.
pub fn all_node_tasks(connection: &Connection, uid: u32) -> Result<Vec<NodeTask>> {
    let mut statement =
        connection.prepare_cached("SELECT node, node_task, step, shards FROM node_tasks WHERE uid = ?1")?;
    let rows = statement.query_map([uid], |row| {
        Ok(NodeTask {
            node: row.get(0)?,
            node_task: row.get(1)?,
            main: row.get::<_, String>(2)? == "main",
            shards: parsed(row, 3, |text| serde_json::from_str(text))?,
        })
    })?;
    Ok(rows.collect::<rusqlite::Result<_>>()?)
}

/// Ends a task, and with it its intent.
///
/// # Errors
/// The database failed.
pub fn end(connection: &Connection, uid: u32, ending: &Ending) -> Result<()> {
    tasks::finish(connection, uid, ending)?;
    close(connection, uid)
}

/// Forgets an intent: its task has ended.
///
/// # Errors
/// The database failed.
pub fn close(connection: &Connection, uid: u32) -> Result<()> {
    connection.prepare_cached("DELETE FROM intents WHERE uid = ?1")?.execute([uid])?;
    connection.prepare_cached("UPDATE node_tasks SET state = 'settled' WHERE uid = ?1")?.execute([uid])?;
    Ok(())
}

/// An intent as a restart finds it.
#[derive(Clone, Debug)]
pub struct Found {
    /// The client's task uid.
    pub uid: u32,
    /// Whether it was sent; else it was open.
    pub sent: bool,
    /// What it is.
    pub intent: Intent,
    /// What nodes call it.
    pub tasks: Vec<NodeTask>,
}

/// All intents, oldest first.
///
/// # Errors
/// The database failed.
pub fn all(connection: &Connection) -> Result<Vec<Found>> {
    let mut statement = connection.prepare("SELECT uid, state, body FROM intents ORDER BY uid")?;
    let rows = statement
        .query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?)))?
        .collect::<rusqlite::Result<Vec<(u32, String, String)>>>()?;
    let mut found = Vec::new();
    for (uid, state, body) in rows {
        match serde_json::from_str(&body) {
            Ok(intent) => {
                let tasks = all_node_tasks(connection, uid)?;
                found.push(Found { uid, sent: state == "sent", intent, tasks });
            }
            // One row that a newer build wrote must not keep everything else from starting.
            Err(error) => {
                tracing::error!(uid, %error, "an intent in the ledger cannot be read: it is left alone")
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Ledger, tasks};

    #[tokio::test]
    async fn an_open_intent_is_found_after_a_crash() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        let intent = Intent::Write {
            gateway: "g".into(),
            index: "movies".into(),
            operation: WriteOperation::DeleteAll,
            writers: vec![(Shard(3), vec!["a".to_owned(), "b".to_owned()])],
            begun: String::new(),
        };
        ledger
            .call(move |connection| {
                let task = tasks::insert(connection, &NewTask::default())?;
                open(connection, task.uid, &intent)
            })
            .await
            .unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        let found = ledger.call(all).await.unwrap();
        assert_eq!((found.len(), found[0].uid, found[0].sent), (1, 0, false));
        let Intent::Write { writers, .. } = &found[0].intent else { panic!("not a write") };
        assert_eq!(*writers, [(Shard(3), vec!["a".to_owned(), "b".to_owned()])]);
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
