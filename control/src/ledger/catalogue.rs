//! The topology's truth: placement, indexes, nodes that are behind, epoch keys.

use super::{fields, meta, meta_as, parsed, set_meta};
use crate::{
    base::error::{Error, Result},
    domain::cluster_state::{Index, Replica, ReplicaState, View},
};
use rusqlite::{Connection, params};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The view that was stored last; `None` in a new ledger.
///
/// # Errors
/// The database failed.
pub fn load(connection: &Connection) -> Result<Option<View>> {
    let Some(version) = meta_as(connection, "version")? else {
        return Ok(None);
    };
    let shards: usize = meta_as(connection, "shards")?.unwrap_or(0);
    let mut replicas = vec![Vec::new(); shards];
    let mut statement =
        connection.prepare("SELECT shard, node, state FROM placement ORDER BY shard, position")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let shard: usize = row.get(0)?;
        if let Some(replicas) = replicas.get_mut(shard) {
            replicas.push(Replica { node: row.get(1)?, state: parsed(row, 2, read_state)? });
        }
    }
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
    let behind = connection
        .prepare("SELECT node FROM behind")?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<BTreeSet<_>>>()?;
    let json = |key| Ok::<_, Error>(meta(connection, key)?.unwrap_or_else(|| "[]".to_owned()));
    Ok(Some(View {
        version,
        nodes: serde_json::from_str(&json("nodes")?)?,
        replication: meta_as(connection, "replication")?.unwrap_or(1),
        replicas,
        desired: serde_json::from_str(&json("desired")?)?,
        floor: meta_as(connection, "floor")?.unwrap_or(0),
        indexes,
        behind,
        changing: BTreeMap::new(),
        rules: serde_json::from_str(&json("rules")?)?,
        server_name: meta(connection, "server_name")?.filter(|name| !name.is_empty()),
        legacy_search: meta_as(connection, "legacy_search")?.unwrap_or(false),
    }))
}

fn read_state(text: &str) -> std::result::Result<ReplicaState, String> {
    let leaving = |since: &str, written| match since.parse() {
        Ok(since) => Ok(ReplicaState::Leaving { since, written }),
        Err(error) => Err(format!("no version: {error}")),
    };
    match text.split_once(':') {
        None if text == "active" => Ok(ReplicaState::Active),
        None if text == "stale" => Ok(ReplicaState::Stale),
        None if text == "removing" => Ok(ReplicaState::Removing),
        Some(("leaving", since)) => leaving(since, true),
        Some(("missed", since)) => leaving(since, false),
        _ => Err("no state of a replica".to_owned()),
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

/// Stores what differs between two views.
///
/// # Errors
/// The database failed.
pub fn store(connection: &Connection, old: &View, new: &View) -> Result<()> {
    set_meta(connection, "version", &new.version.to_string())?;
    set_meta(connection, "replication", &new.replication.to_string())?;
    set_meta(connection, "floor", &new.floor.to_string())?;
    set_meta(connection, "legacy_search", &new.legacy_search.to_string())?;
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

/// Where it is noted that all gateways' VMs are known that have a lease.
const LEASES: &str = "leases";

/// The VMs of gateways that may have a lease; `None` where nobody knows, since an older build has given them.
///
/// # Errors
/// The database failed.
pub fn leases(connection: &Connection) -> Result<Option<Vec<String>>> {
    if meta(connection, LEASES)?.is_none() {
        return Ok(None);
    }
    let mut statement = connection.prepare("SELECT vm FROM leases ORDER BY vm")?;
    let names = statement.query_map([], |row| row.get(0))?;
    Ok(Some(names.collect::<rusqlite::Result<_>>()?))
}

/// From now on all that have a lease are known.
///
/// # Errors
/// The database failed.
pub fn know_leases(connection: &Connection) -> Result<()> {
    set_meta(connection, LEASES, "known")
}

/// Stores which VMs have, or are about to get, a lease.
///
/// # Errors
/// The database failed.
pub fn store_leases(connection: &Connection, vms: &[String]) -> Result<()> {
    connection.execute("DELETE FROM leases", [])?;
    let mut insert = connection.prepare_cached("INSERT OR IGNORE INTO leases (vm) VALUES (?1)")?;
    for vm in vms {
        insert.execute([vm])?;
    }
    Ok(())
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

/// Settings that are changed member by member, and to what depth; all others are replaced.
const DEPTHS: [(&str, u8); 5] =
    [("pagination", 1), ("faceting", 1), ("typoTolerance", 2), ("chat", 1), ("embedders", 2)];

/// To what depth a setting is changed member by member.
#[must_use]
pub fn depth(setting: &str) -> u8 {
    DEPTHS.iter().find(|(group, _)| *group == setting).map_or(0, |(_, depth)| *depth)
}

/// Changes members, those of objects among them one by one to this depth; `null` takes one away.
pub fn merge_members(
    members: &mut serde_json::Map<String, serde_json::Value>,
    change: &serde_json::Value,
    depth: u8,
) {
    for (name, value) in change.as_object().into_iter().flatten() {
        merge(members, name, value, depth.saturating_sub(1));
    }
}

fn merge(
    settings: &mut serde_json::Map<String, serde_json::Value>,
    name: &str,
    value: &serde_json::Value,
    depth: u8,
) {
    if value.is_null() {
        settings.remove(name);
    } else if let (1.., Some(members)) = (depth, value.as_object()) {
        let entry = settings.entry(name).or_insert_with(|| serde_json::json!({}));
        if let Some(entry) = entry.as_object_mut() {
            for (name, value) in members {
                merge(entry, name, value, depth - 1);
            }
        }
    } else {
        settings.insert(name.to_owned(), value.clone());
    }
}

/// Merges a change into what a client had set: `null` resets one setting, `None` all of them.
pub fn merge_change(
    settings: &mut serde_json::Map<String, serde_json::Value>,
    change: Option<&serde_json::Value>,
) {
    let Some(change) = change.and_then(|change| change.as_object()) else {
        settings.clear();
        return;
    };
    for (name, value) in change {
        merge(settings, name, value, depth(name));
    }
}

/// Stores such a change: `null` resets one setting, `None` all of them.
///
/// # Errors
/// The database failed.
pub fn merge_settings(
    connection: &Connection,
    index: &str,
    change: Option<&serde_json::Value>,
) -> Result<()> {
    let mut settings = settings(connection, index)?;
    merge_change(&mut settings, change);
    if settings.is_empty() {
        connection.execute("DELETE FROM settings WHERE index_uid = ?1", [index])?;
        return Ok(());
    }
    connection.execute(
        "INSERT OR REPLACE INTO settings (index_uid, body) VALUES (?1, ?2)",
        params![index, serde_json::to_string(&settings)?],
    )?;
    Ok(())
}

/// Settings and fields follow their index when it changes its name or its place. `pairs`: from, to, and whether `to` comes back.
///
/// # Errors
/// The database failed.
pub fn move_settings(connection: &Connection, pairs: &[(String, String, bool)]) -> Result<()> {
    // No index has this name.
    const ASIDE: &str = "/";
    for (from, to, exchange) in pairs {
        fields::rename(connection, to, ASIDE)?;
        fields::rename(connection, from, to)?;
        if *exchange {
            fields::rename(connection, ASIDE, from)?;
        } else {
            fields::forget(connection, ASIDE)?;
        }
        let (left, right) = (settings(connection, from)?, settings(connection, to)?);
        for (index, moved) in [(to, Some(left)), (from, exchange.then_some(right))] {
            connection.execute("DELETE FROM settings WHERE index_uid = ?1", [index])?;
            if let Some(moved) = moved.filter(|moved| !moved.is_empty()) {
                connection.execute(
                    "INSERT INTO settings (index_uid, body) VALUES (?1, ?2)",
                    params![index, serde_json::to_string(&moved)?],
                )?;
            }
        }
    }
    Ok(())
}

/// What clients have set on an index.
///
/// # Errors
/// The database failed.
pub fn settings(connection: &Connection, index: &str) -> Result<serde_json::Map<String, serde_json::Value>> {
    use rusqlite::OptionalExtension;
    let stored = connection
        .query_row("SELECT body FROM settings WHERE index_uid = ?1", [index], |row| {
            parsed(row, 0, |text| serde_json::from_str(text))
        })
        .optional()?;
    Ok(stored.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;
    use serde_json::json;

    #[tokio::test]
    async fn settings_are_merged_reset_and_moved() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        let read = ledger
            .call(|connection| {
                let set = |change| merge_settings(connection, "a", Some(&change));
                set(json!({"faceting": {"maxValuesPerFacet": 5}, "stopWords": ["x"], "synonyms": {"a": ["b"]}}))?;
                set(json!({"faceting": {"sortFacetValuesBy": {"*": "count"}}, "stopWords": null, "synonyms": {}}))?;
                let merged = settings(connection, "a")?;
                move_settings(connection, &[("a".to_owned(), "b".to_owned(), true)])?;
                let moved = (settings(connection, "a")?, settings(connection, "b")?);
                merge_settings(connection, "b", None)?;
                Ok((merged, moved, settings(connection, "b")?))
            })
            .await
            .unwrap();
        let (merged, (left, right), reset) = read;
        let expected = json!({"faceting": {"maxValuesPerFacet": 5, "sortFacetValuesBy": {"*": "count"}}, "synonyms": {}});
        assert_eq!(serde_json::Value::Object(merged.clone()), expected);
        assert!(left.is_empty() && reset.is_empty());
        assert_eq!(right, merged);
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_an_error_that_names_it() {
        for (name, damage) in [
            ("meta.version", "INSERT OR REPLACE INTO meta VALUES ('version', 'x')"),
            ("meta.shards", "INSERT OR REPLACE INTO meta VALUES ('shards', '-1')"),
            ("meta.replication", "INSERT OR REPLACE INTO meta VALUES ('replication', '')"),
            ("meta.floor", "INSERT OR REPLACE INTO meta VALUES ('floor', '1.5')"),
            ("meta.legacy_search", "INSERT OR REPLACE INTO meta VALUES ('legacy_search', '1')"),
            ("meta.next_task", "INSERT OR REPLACE INTO meta VALUES ('next_task', 'x')"),
            ("state", "INSERT INTO placement VALUES (0, 0, 'a', 'leaving:')"),
            ("state", "INSERT INTO placement VALUES (0, 0, 'a', 'whole')"),
            ("key_uid", "INSERT INTO epochs VALUES ('x', 'g', 'fenced')"),
            ("body", "INSERT INTO settings VALUES ('i', '[')"),
            ("uuid", "INSERT INTO webhooks VALUES ('x', 'http://a', '{}')"),
            (
                "headers",
                "INSERT INTO webhooks VALUES ('00000000-0000-4000-8000-000000000000', 'http://a', '')",
            ),
            ("shards", "INSERT INTO node_tasks VALUES (0, 'a', 0, 'main', '3', 'sent')"),
        ] {
            let folder = tempfile::tempdir().unwrap();
            let ledger = Ledger::open(folder.path()).unwrap();
            let view = View { replicas: vec![Vec::new()], ..View::default() };
            ledger.call(move |connection| store(connection, &View::default(), &view)).await.unwrap();
            let read = |connection: &Connection| {
                load(connection)?;
                epochs(connection)?;
                settings(connection, "i")?;
                crate::ledger::webhooks::all(connection)?;
                crate::ledger::intents::all_node_tasks(connection, 0)?;
                crate::ledger::tasks::insert(connection, &crate::ledger::tasks::NewTask::default(), 1)?;
                Ok(())
            };
            ledger.call(read).await.unwrap();
            ledger.call(move |connection| Ok(connection.execute_batch(damage)?)).await.unwrap();
            let error = ledger.call(read).await.unwrap_err().to_string();
            assert!(error.contains(&format!("the ledger's `{name}` is `")), "{damage}: {error}");
        }
    }
}
