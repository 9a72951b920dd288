//! The control planes that have served the cluster with this ledger: each start of one is an instance, with a random id.

use super::{cached::Cached, cell::Cell, meta, meta_as, set_meta};
use crate::base::error::Result;
use rusqlite::{Connection, params};
use std::collections::BTreeSet;
use uuid::Uuid;

/// The `meta` key of the newest instance.
const NEWEST: &str = "instance";
/// The `meta` keys of all instances begin so; their values count the starts.
const KNOWN: &str = "instance/";
/// The `meta` key of where the file of the ledger was at the newest start.
const PLACE: &str = "place";
/// The `meta` key of the newest version of the topology that a gateway had, where that is newer than the ledger's.
const AHEAD: &str = "ahead";
/// So many starts are remembered. A node that was away longer names an instance that is not known any more.
const REMEMBERED: u64 = 10_000;

/// What the ledger knows of instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownInstances {
    /// The newest one.
    pub newest: Option<Uuid>,
    /// Those of the asked ones that have served with this ledger.
    pub known: BTreeSet<Uuid>,
    /// Where the file of the ledger was at the newest start; `None` where that was not to be told.
    pub place: Option<String>,
}

/// What the ledger knows of these instances.
///
/// # Errors
/// The database failed, or a row cannot be read.
pub fn known(connection: &Connection, asked: impl IntoIterator<Item = Uuid>) -> Result<KnownInstances> {
    let mut known = BTreeSet::new();
    for id in asked {
        if meta(connection, &key(id))?.is_some() {
            known.insert(id);
        }
    }
    Ok(KnownInstances { newest: meta_as(connection, NEWEST)?, known, place: meta(connection, PLACE)? })
}

/// Stores a new instance, and where its ledger is. This comes before any node names the instance.
///
/// # Errors
/// The database failed, or a row cannot be read.
pub fn store(connection: &Connection, id: Uuid, place: Option<&str>) -> Result<()> {
    know(connection, id)?;
    set_meta(connection, NEWEST, &id.hyphenated().to_string())?;
    match place {
        Some(place) => set_meta(connection, PLACE, place),
        None => {
            connection.execute_cached("DELETE FROM meta WHERE key = ?1", [PLACE])?;
            Ok(())
        }
    }
}

/// Notes that an instance has served the cluster whose ledger this is.
///
/// # Errors
/// The database failed, or a row cannot be read.
pub fn know(connection: &Connection, id: Uuid) -> Result<()> {
    let last: Option<String> = connection
        .prepare_cached("SELECT max(CAST(value AS INTEGER)) || '' FROM meta WHERE substr(key, 1, ?1) = ?2")?
        .query_row(params![KNOWN.len(), KNOWN], |row| row.get(0))?;
    let cell = Cell { table: "meta", row: &KNOWN, column: "value" };
    let last = last.map(|text| cell.parse(&text, str::parse::<u64>)).transpose()?;
    let number = last.map_or(1, |last| last + 1);
    connection.execute_cached(
        "DELETE FROM meta WHERE substr(key, 1, ?1) = ?2 AND CAST(value AS INTEGER) <= ?3",
        params![KNOWN.len(), KNOWN, number.saturating_sub(REMEMBERED)],
    )?;
    set_meta(connection, &key(id), &number.to_string())
}

/// Notes that a gateway has a newer topology than the ledger.
///
/// # Errors
/// The database failed.
pub fn note_ahead(connection: &Connection, version: u64) -> Result<()> {
    set_meta(connection, AHEAD, &version.to_string())
}

/// The version of a topology that a gateway had, and that was newer than the ledger's; it is forgotten with this.
///
/// # Errors
/// The database failed, or the row cannot be read.
pub fn take_ahead(connection: &Connection) -> Result<Option<u64>> {
    let version = meta_as(connection, AHEAD)?;
    connection.execute_cached("DELETE FROM meta WHERE key = ?1", [AHEAD])?;
    Ok(version)
}

fn key(id: Uuid) -> String {
    format!("{KNOWN}{}", id.hyphenated())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;

    #[tokio::test]
    async fn all_instances_are_known_and_one_is_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        let ids = [1, 2, 3].map(Uuid::from_u128);
        let known = || ledger.read(move |connection| known(connection, ids));
        assert_eq!(known().await.unwrap(), KnownInstances::default());
        ledger.call(move |connection| store(connection, ids[0], Some("here"))).await.unwrap();
        ledger.call(move |connection| store(connection, ids[1], None)).await.unwrap();
        let expected =
            KnownInstances { newest: Some(ids[1]), known: BTreeSet::from([ids[0], ids[1]]), place: None };
        assert_eq!(known().await.unwrap(), expected);
    }

    #[tokio::test]
    async fn the_oldest_starts_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        let ids = [1, 2, 3].map(Uuid::from_u128);
        let stored = ledger.call(move |connection| {
            know(connection, ids[0])?;
            set_meta(connection, &key(ids[1]), &REMEMBERED.to_string())?;
            know(connection, ids[2])?;
            known(connection, ids)
        });
        assert_eq!(stored.await.unwrap().known, BTreeSet::from([ids[1], ids[2]]));
    }
}
