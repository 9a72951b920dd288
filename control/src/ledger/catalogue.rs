//! The topology's truth: nodes, placement, indexes, nodes that are behind.

use super::{
    cached::Cached, cell::Cell, fields, late_tasks, meta, meta_as, meta_cell, meta_json, set_meta,
    settings::settings, stale,
};
use crate::{
    base::error::Result,
    domain::cluster_state::{ClusterState, Index, Replica, ReplicaState},
};
use miroir_core::node_name::NodeName;
use rusqlite::{Connection, params};
use std::collections::{BTreeMap, BTreeSet};

/// The values of the `meta` table that every stored cluster state has. The others are later additions: a ledger without them means
/// their defaults.
const REQUIRED: [&str; 6] = ["version", "nodes", "replication", "shards", "desired", "floor"];

/// Loads the cluster state that was stored last; `None` in a new ledger.
///
/// # Errors
/// The database failed, or a row cannot be read: the error names it.
pub fn load(connection: &Connection) -> Result<Option<ClusterState>> {
    let stored = REQUIRED.iter().map(|key| meta(connection, key)).collect::<Result<Vec<_>>>()?;
    if stored.iter().all(Option::is_none) {
        return Ok(None);
    }
    let behind = connection
        .prepare_cached("SELECT node FROM behind")?
        .query_map([], |row| Ok(NodeName::from(row.get::<_, String>(0)?)))?
        .collect::<rusqlite::Result<BTreeSet<_>>>()?;
    let replicas = replicas(connection)?;
    let desired: Vec<Vec<NodeName>> = required("desired", meta_json(connection, "desired")?)?;
    if desired.len() != replicas.len() {
        return Err(meta_cell(&"desired").unreadable(format!(
            "it has {} of {} shards",
            desired.len(),
            replicas.len()
        )));
    }
    Ok(Some(ClusterState {
        version: required("version", meta_as(connection, "version")?)?,
        nodes: required("nodes", meta_json(connection, "nodes")?)?,
        replication: required("replication", meta_as(connection, "replication")?)?,
        replicas,
        stale: stale::load(connection)?,
        stale_by_index: meta_as(connection, "stale_by_index")?.unwrap_or(false),
        desired,
        floor: required("floor", meta_as(connection, "floor")?)?,
        indexes: indexes(connection)?,
        behind,
        changing: BTreeMap::new(),
        rules: meta_json(connection, "rules")?.unwrap_or_default(),
        server_name: meta(connection, "server_name")?.filter(|name| !name.is_empty()),
        legacy_search: meta_as(connection, "legacy_search")?.unwrap_or(false),
    }))
}

/// A value of the `meta` table that must be there: one that is missing is never taken for empty, which would be published and stored.
fn required<T>(key: &str, value: Option<T>) -> Result<T> {
    value.ok_or_else(|| meta_cell(&key).unreadable("it is missing"))
}

/// For each shard, its replicas, the one first that copies are made from.
fn replicas(connection: &Connection) -> Result<Vec<Vec<Replica>>> {
    let shards: usize = required("shards", meta_as(connection, "shards")?)?;
    let mut replicas = vec![Vec::new(); shards];
    let mut statement =
        connection.prepare_cached("SELECT shard, node, state FROM placement ORDER BY shard, position")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (shard, node, state): (usize, String, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
        let key = format!("{shard}, {node}");
        let cell = |column| Cell { table: "placement", row: &key, column };
        let of_shard = replicas.get_mut(shard);
        let of_shard =
            of_shard.ok_or_else(|| cell("shard").unreadable(format!("there are {shards} shards")))?;
        of_shard.push(Replica { state: cell("state").parse(&state, read_state)?, node: node.into() });
    }
    Ok(replicas)
}

/// The indexes, with what gateways need of their settings.
fn indexes(connection: &Connection) -> Result<BTreeMap<String, Index>> {
    let mut indexes = connection
        .prepare_cached("SELECT uid, primary_key, created_at, updated_at FROM indexes")?
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

/// Stores the differences between two cluster states. The default one is that of a new ledger.
///
/// # Errors
/// The database failed.
pub fn store(connection: &Connection, old: &ClusterState, new: &ClusterState) -> Result<()> {
    let is_first = *old == ClusterState::default();
    set_meta(connection, "version", &new.version.to_string())?;
    set_meta(connection, "replication", &new.replication.to_string())?;
    set_meta(connection, "floor", &new.floor.to_string())?;
    set_meta(connection, "legacy_search", &new.legacy_search.to_string())?;
    set_meta(connection, "stale_by_index", &new.stale_by_index.to_string())?;
    if is_first || old.nodes != new.nodes {
        set_meta(connection, "nodes", &serde_json::to_string(&new.nodes)?)?;
        let is_in = |state: &ClusterState, name: &NodeName| state.member(name).is_some();
        let names = old.nodes.iter().chain(&new.nodes).map(|member| &member.config.name);
        for name in names.filter(|name| is_in(old, name) != is_in(new, name)) {
            late_tasks::forget_position(connection, name)?;
        }
    }
    if old.server_name != new.server_name {
        set_meta(connection, "server_name", new.server_name.as_deref().unwrap_or_default())?;
    }
    if old.rules != new.rules {
        set_meta(connection, "rules", &serde_json::to_string(&new.rules)?)?;
    }
    if is_first || old.desired != new.desired {
        set_meta(connection, "desired", &serde_json::to_string(&new.desired)?)?;
    }
    if is_first || old.replicas != new.replicas {
        set_meta(connection, "shards", &new.replicas.len().to_string())?;
        connection.execute_cached("DELETE FROM placement", [])?;
        let mut insert = connection
            .prepare_cached("INSERT INTO placement (shard, position, node, state) VALUES (?1, ?2, ?3, ?4)")?;
        for (shard, replicas) in new.replicas.iter().enumerate() {
            for (position, replica) in replicas.iter().enumerate() {
                insert.execute(params![
                    shard,
                    position,
                    replica.node.as_str(),
                    write_state(replica.state)
                ])?;
            }
        }
    }
    if old.stale != new.stale {
        stale::store(connection, &old.stale, &new.stale)?;
    }
    for uid in old.indexes.keys().filter(|uid| !new.indexes.contains_key(*uid)) {
        connection.execute_cached("DELETE FROM indexes WHERE uid = ?1", [uid])?;
        connection.execute_cached("DELETE FROM settings WHERE index_uid = ?1", [uid])?;
        fields::forget(connection, uid)?;
    }
    for (uid, index) in new.indexes.iter().filter(|(uid, index)| old.indexes.get(*uid) != Some(index)) {
        connection.execute_cached(
            "INSERT OR REPLACE INTO indexes (uid, primary_key, created_at, updated_at) VALUES (?1, ?2, ?3, ?4)",
            params![uid, index.primary_key, index.created_at, index.updated_at],
        )?;
    }
    if old.behind != new.behind {
        connection.execute_cached("DELETE FROM behind", [])?;
        for node in &new.behind {
            connection.execute_cached("INSERT INTO behind (node) VALUES (?1)", [node.as_str()])?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Ledger, intents, tasks, webhooks, write_keys::write_keys};

    /// A new ledger, and one whose cluster state is stored without a value of the `meta` table.
    async fn loaded_without(key: &'static str) -> Result<Option<ClusterState>> {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        assert_eq!(ledger.call(load).await.unwrap(), None);
        let new = ClusterState {
            version: 3,
            replicas: vec![vec![Replica::active("a")]],
            desired: vec![vec!["a".into()]],
            ..ClusterState::default()
        };
        ledger.call(move |connection| store(connection, &ClusterState::default(), &new)).await.unwrap();
        let removed =
            move |connection: &Connection| Ok(connection.execute("DELETE FROM meta WHERE key = ?1", [key])?);
        ledger.call(removed).await.unwrap();
        ledger.call(load).await
    }

    #[tokio::test]
    async fn a_cluster_state_that_lacks_a_value_is_an_error_that_names_it() {
        for key in REQUIRED {
            let error = loaded_without(key).await.unwrap_err().to_string();
            let expected =
                format!("the ledger cannot be read: `value` of row `{key}` in table `meta`: it is missing");
            assert_eq!(error, expected);
        }
        // Older versions have not stored these.
        for key in ["rules", "server_name", "legacy_search"] {
            let cluster_state = loaded_without(key).await.unwrap().unwrap();
            assert_eq!((cluster_state.version, cluster_state.of(miroir_core::shard::Shard(0)).len()), (3, 1));
        }
    }

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
            // It would be taken for the wish that no node holds the other shards.
            (
                "`value` of row `desired` in table `meta`",
                "UPDATE meta SET value = '[]' WHERE key = 'desired'",
            ),
            (
                "`step` of row `0, a, 7` in table `node_tasks`",
                "INSERT INTO node_tasks VALUES (0, 'a', 7, 'x', '[]', 'sent')",
            ),
            (
                "`state` of row `0` in table `intents`",
                "INSERT INTO intents (uid, state, body) VALUES (0, 'x', '{}')",
            ),
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
            let (replicas, desired) = (vec![Vec::new()], vec![Vec::new()]);
            let cluster_state = ClusterState { replicas, desired, ..ClusterState::default() };
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
