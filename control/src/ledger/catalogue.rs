//! The topology's truth: nodes, placement, indexes, nodes that are behind.

use super::{cell::Cell, fields, meta, meta_as, meta_json, set_meta, settings::settings, stale};
use crate::{
    base::error::Result,
    domain::cluster_state::{ClusterState, Index, Replica, ReplicaState},
};
use rusqlite::{Connection, params};
use std::collections::{BTreeMap, BTreeSet};

/// Loads the cluster state that was stored last; `None` in a new ledger. What has never been other than at first is not stored.
///
/// # Errors
/// The database failed, or a row cannot be read: the error names it.
pub fn load(connection: &Connection) -> Result<Option<ClusterState>> {
    let Some(version) = meta_as(connection, "version")? else {
        return Ok(None);
    };
    let behind = connection
        .prepare("SELECT node FROM behind")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<BTreeSet<_>>>()?;
    Ok(Some(ClusterState {
        version,
        nodes: meta_json(connection, "nodes")?.unwrap_or_default(),
        replication: meta_as(connection, "replication")?.unwrap_or(1),
        replicas: replicas(connection)?,
        stale: stale::load(connection)?,
        stale_by_index: meta_as(connection, "stale_by_index")?.unwrap_or(false),
        desired: meta_json(connection, "desired")?.unwrap_or_default(),
        floor: meta_as(connection, "floor")?.unwrap_or(0),
        indexes: indexes(connection)?,
        behind,
        changing: BTreeMap::new(),
        rules: meta_json(connection, "rules")?.unwrap_or_default(),
        server_name: meta(connection, "server_name")?.filter(|name| !name.is_empty()),
        legacy_search: meta_as(connection, "legacy_search")?.unwrap_or(false),
    }))
}

/// For each shard, its replicas, best first.
fn replicas(connection: &Connection) -> Result<Vec<Vec<Replica>>> {
    let shards: usize = meta_as(connection, "shards")?.unwrap_or(0);
    let mut replicas = vec![Vec::new(); shards];
    let mut statement =
        connection.prepare("SELECT shard, node, state FROM placement ORDER BY shard, position")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (shard, node, state): (usize, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let key = format!("{shard}, {node}");
        let cell = |column| Cell { table: "placement", row: &key, column };
        let of_shard = replicas.get_mut(shard);
        let of_shard =
            of_shard.ok_or_else(|| cell("shard").unreadable(format!("there are {shards} shards")))?;
        of_shard.push(Replica { state: cell("state").parse(&state, read_state)?, node });
    }
    Ok(replicas)
}

/// The indexes, with what gateways need of their settings.
fn indexes(connection: &Connection) -> Result<BTreeMap<String, Index>> {
    let mut indexes = connection
        .prepare("SELECT uid, primary_key, created_at, updated_at FROM indexes")?
        .query_map([], |row| {
            let (created_at, updated_at) = (row.get(2)?, row.get(3)?);
            let index = Index { primary_key: row.get(1)?, created_at, updated_at, ..Index::default() };
            Ok((row.get(0)?, index))
        })?
        .collect::<rusqlite::Result<BTreeMap<String, Index>>>()?;
    for (uid, index) in &mut indexes {
        index.settings = Index::published(settings(connection, uid)?);
    }
    Ok(indexes)
}

fn read_state(text: &str) -> std::result::Result<ReplicaState, String> {
    let leaving = |since: &str, written| match since.parse() {
        Ok(since) => Ok(ReplicaState::Leaving { since, written }),
        Err(error) => Err(format!("not a version: {error}")),
    };
    match text.split_once(':') {
        None if text == "active" => Ok(ReplicaState::Active),
        None if text == "stale" => Ok(ReplicaState::Stale),
        None if text == "removing" => Ok(ReplicaState::Removing),
        Some(("leaving", since)) => leaving(since, true),
        Some(("missed", since)) => leaving(since, false),
        _ => Err("not a replica's state".to_owned()),
    }
}

fn write_state(state: ReplicaState) -> String {
    match state {
        ReplicaState::Active => "active".to_owned(),
        ReplicaState::Stale => "stale".to_owned(),
        ReplicaState::Leaving { since, written: true } => format!("leaving:{since}"),
        ReplicaState::Leaving { since, written: false } => format!("missed:{since}"),
        ReplicaState::Removing => "removing".to_owned(),
    }
}

/// Stores the differences between two cluster states.
///
/// # Errors
/// The database failed.
pub fn store(connection: &Connection, old: &ClusterState, new: &ClusterState) -> Result<()> {
    set_meta(connection, "version", &new.version.to_string())?;
    set_meta(connection, "replication", &new.replication.to_string())?;
    set_meta(connection, "floor", &new.floor.to_string())?;
    set_meta(connection, "legacy_search", &new.legacy_search.to_string())?;
    set_meta(connection, "stale_by_index", &new.stale_by_index.to_string())?;
    if old.nodes != new.nodes {
        set_meta(connection, "nodes", &serde_json::to_string(&new.nodes)?)?;
    }
    if old.server_name != new.server_name {
        set_meta(connection, "server_name", new.server_name.as_deref().unwrap_or_default())?;
    }
    if old.rules != new.rules {
        set_meta(connection, "rules", &serde_json::to_string(&new.rules)?)?;
    }
    if old.desired != new.desired {
        set_meta(connection, "desired", &serde_json::to_string(&new.desired)?)?;
    }
    if old.replicas != new.replicas {
        set_meta(connection, "shards", &new.replicas.len().to_string())?;
        connection.execute("DELETE FROM placement", [])?;
        let mut insert = connection
            .prepare_cached("INSERT INTO placement (shard, position, node, state) VALUES (?1, ?2, ?3, ?4)")?;
        for (shard, replicas) in new.replicas.iter().enumerate() {
            for (position, replica) in replicas.iter().enumerate() {
                insert.execute(params![shard, position, replica.node, write_state(replica.state)])?;
            }
        }
    }
    if old.stale != new.stale {
        stale::store(connection, &old.stale, &new.stale)?;
    }
    for uid in old.indexes.keys().filter(|uid| !new.indexes.contains_key(*uid)) {
        connection.execute("DELETE FROM indexes WHERE uid = ?1", [uid])?;
        connection.execute("DELETE FROM settings WHERE index_uid = ?1", [uid])?;
        fields::forget(connection, uid)?;
    }
    for (uid, index) in new.indexes.iter().filter(|(uid, index)| old.indexes.get(*uid) != Some(index)) {
        connection.execute(
            "INSERT OR REPLACE INTO indexes (uid, primary_key, created_at, updated_at) VALUES (?1, ?2, ?3, ?4)",
            params![uid, index.primary_key, index.created_at, index.updated_at],
        )?;
    }
    if old.behind != new.behind {
        connection.execute("DELETE FROM behind", [])?;
        for node in &new.behind {
            connection.execute("INSERT INTO behind (node) VALUES (?1)", [node])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Ledger, intents, tasks, webhooks, write_keys::write_keys};

    #[tokio::test]
    async fn what_cannot_be_read_is_an_error_that_names_it() {
        for (name, damage) in [
            (
                "`value` of row `version` in table `meta`",
                "INSERT OR REPLACE INTO meta VALUES ('version', 'x')",
            ),
            (
                "`value` of row `shards` in table `meta`",
                "INSERT OR REPLACE INTO meta VALUES ('shards', '-1')",
            ),
            (
                "`value` of row `replication` in table `meta`",
                "INSERT OR REPLACE INTO meta VALUES ('replication', '')",
            ),
            ("`value` of row `floor` in table `meta`", "INSERT OR REPLACE INTO meta VALUES ('floor', '1.5')"),
            (
                "`value` of row `legacy_search` in table `meta`",
                "INSERT OR REPLACE INTO meta VALUES ('legacy_search', '1')",
            ),
            (
                "`value` of row `next_task` in table `meta`",
                "INSERT OR REPLACE INTO meta VALUES ('next_task', 'x')",
            ),
            (
                "`state` of row `0, a` in table `placement`",
                "INSERT INTO placement VALUES (0, 0, 'a', 'leaving:')",
            ),
            (
                "`state` of row `0, a` in table `placement`",
                "INSERT INTO placement VALUES (0, 0, 'a', 'whole')",
            ),
            (
                "`shard` of row `1, a` in table `placement`",
                "INSERT INTO placement VALUES (1, 0, 'a', 'active')",
            ),
            (
                "`missed` of row `i, a, 0` in table `stale`",
                "INSERT INTO stale VALUES ('i', 'a', 0, 'nothing')",
            ),
            ("`value` of row `nodes` in table `meta`", "INSERT OR REPLACE INTO meta VALUES ('nodes', '{}')"),
            (
                "`value` of row `desired` in table `meta`",
                "INSERT OR REPLACE INTO meta VALUES ('desired', '')",
            ),
            ("`value` of row `rules` in table `meta`", "INSERT OR REPLACE INTO meta VALUES ('rules', '[1]')"),
            ("`key_uid` of row `x` in table `epochs`", "INSERT INTO epochs VALUES ('x', 'g', 'fenced')"),
            (
                "`state` of row `00000000-0000-4000-8000-000000000000` in table `epochs`",
                "INSERT INTO epochs VALUES ('00000000-0000-4000-8000-000000000000', 'g', 'gone')",
            ),
            ("`body` of row `i` in table `settings`", "INSERT INTO settings VALUES ('i', '[')"),
            ("`uuid` of row `x` in table `webhooks`", "INSERT INTO webhooks VALUES ('x', 'http://a', '{}')"),
            (
                "`headers` of row `00000000-0000-4000-8000-000000000000` in table `webhooks`",
                "INSERT INTO webhooks VALUES ('00000000-0000-4000-8000-000000000000', 'http://a', '')",
            ),
            (
                "`shards` of row `0, a, 7` in table `node_tasks`",
                "INSERT INTO node_tasks VALUES (0, 'a', 7, 'main', '3', 'sent')",
            ),
            (
                "`step` of row `0, a, 7` in table `node_tasks`",
                "INSERT INTO node_tasks VALUES (0, 'a', 7, 'x', '[]', 'sent')",
            ),
            ("`state` of row `0` in table `intents`", "INSERT INTO intents VALUES (0, 'x', '{}')"),
            (
                "`details` of row `9` in table `tasks`",
                "INSERT INTO tasks (uid, type, status, details, enqueued_at) VALUES (9, 'export', 'failed', '{', 0)",
            ),
            (
                "`error` of row `9` in table `tasks`",
                "INSERT INTO tasks (uid, type, status, error, enqueued_at) VALUES (9, 'export', 'failed', '{', 0)",
            ),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let ledger = Ledger::open(folder.path()).unwrap();
            let cluster_state = ClusterState { replicas: vec![Vec::new()], ..ClusterState::default() };
            ledger
                .call(move |connection| store(connection, &ClusterState::default(), &cluster_state))
                .await
                .unwrap();
            let read = |connection: &Connection| {
                load(connection)?;
                write_keys(connection)?;
                settings(connection, "i")?;
                webhooks::all(connection)?;
                intents::all(connection)?;
                intents::all_node_tasks(connection, 0)?;
                tasks::get(connection, 9)?;
                tasks::insert(connection, &tasks::NewTask::default(), 1)?;
                Ok(())
            };
            ledger.call(read).await.unwrap();
            ledger.call(move |connection| Ok(connection.execute_batch(damage)?)).await.unwrap();
            let error = ledger.call(read).await.unwrap_err().to_string();
            assert!(error.starts_with(&format!("the ledger cannot be read: {name}: ")), "{damage}: {error}");
        }
    }
}
