//! Ledgers that other builds have written, and files that are none.
#![allow(missing_docs, reason = "tests")]

#[allow(dead_code, reason = "not every test needs all of it")]
mod support;

use miroir_control::{
    ledger::{self, Ledger, catalogue, intents, schema, webhooks, write_keys},
    serve,
};
use rusqlite::Connection;
use std::{
    fs,
    path::{Path, PathBuf},
};
use support::{ControlBuilder, FakeNode, control, golden::sql_of};
use tempfile::TempDir;

/// A ledger of before there were versions, with a row of every kind.
const UNVERSIONED: &str = include_str!("ledgers/version-0.sql");
/// Makes of it a ledger of version 1, which has the same tables.
const VERSION_1: &str = "PRAGMA user_version = 1;";
/// A ledger of version 4, with a row of every kind.
const VERSION_4: &str = include_str!("ledgers/version-4.sql");

/// A folder with the ledger that this SQL makes.
fn folder_of(sql: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(ledger::FILE);
    Connection::open(&file).unwrap().execute_batch(sql).unwrap();
    (folder, file)
}

fn version(file: &Path) -> usize {
    Connection::open(file).unwrap().query_row("PRAGMA user_version", [], |row| row.get(0)).unwrap()
}

/// Why a ledger is not opened; its file is as it was.
fn refused(folder: &TempDir, file: &Path) -> String {
    let before = fs::read(file).unwrap();
    let error = Ledger::open(folder.path()).unwrap_err().to_string();
    assert_eq!(fs::read(file).unwrap(), before, "{error}");
    assert!(error.starts_with(&file.display().to_string()), "{error}");
    error
}

#[tokio::test]
async fn a_ledger_without_a_version_is_the_first_one() {
    let (folder, file) = folder_of(UNVERSIONED);
    assert_eq!(version(&file), 0);
    let ledger = Ledger::open(folder.path()).unwrap();
    assert_eq!(version(&file), schema::VERSION);
    let cluster_state = ledger.call(catalogue::load).await.unwrap().unwrap();
    assert_eq!(
        (
            cluster_state.version,
            cluster_state.nodes.len(),
            cluster_state.replicas.len(),
            cluster_state.indexes.len()
        ),
        (9, 3, 2, 2)
    );
    assert_eq!(ledger.call(write_keys::write_keys).await.unwrap().len(), 2);
    assert_eq!(ledger.call(intents::all).await.unwrap().len(), 15);
    assert_eq!(ledger.call(webhooks::all).await.unwrap().len(), 1);
    assert_eq!(ledger.call(webhooks::take_unposted).await.unwrap().len(), 3);
}

#[test]
fn a_ledger_of_every_older_version_has_the_schema_of_a_new_one() {
    let schema = |file: &Path| {
        let sql = sql_of(file);
        sql.lines().take_while(|line| !line.starts_with("INSERT")).map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let (new, new_file) = (tempfile::tempdir().unwrap(), |folder: &TempDir| folder.path().join(ledger::FILE));
    drop(Ledger::open(new.path()).unwrap());
    // One of before gateways had leases.
    let older = format!("{UNVERSIONED} DROP TABLE leases;");
    let first = format!("{UNVERSIONED} {VERSION_1}");
    for sql in [UNVERSIONED, &older, &first, VERSION_4] {
        let (folder, file) = folder_of(sql);
        // It is opened again as it is.
        for _ in 0..2 {
            drop(Ledger::open(folder.path()).unwrap());
            assert_eq!(schema(&file), schema(&new_file(&new)));
        }
    }
}

#[tokio::test]
async fn in_an_older_ledger_no_replica_is_stale_in_an_index_and_gateways_may_not_know_that() {
    let (folder, file) = folder_of(&format!("{UNVERSIONED} {VERSION_1}"));
    assert_eq!(version(&file), 1);
    let cluster_state = Ledger::open(folder.path()).unwrap().call(catalogue::load).await.unwrap().unwrap();
    assert!(cluster_state.stale.is_empty() && !cluster_state.stale_by_index);
    assert_eq!((cluster_state.version, cluster_state.replicas.len()), (9, 2));
}

#[test]
fn a_ledger_of_a_newer_version_is_left_alone() {
    let newer = schema::VERSION + 1;
    let (folder, file) = folder_of(&format!("{UNVERSIONED} PRAGMA user_version = {newer};"));
    let error = refused(&folder, &file);
    let known = schema::VERSION;
    assert!(
        error.contains(&format!("schema version {newer}, and this build knows versions up to {known}")),
        "{error}"
    );
}

/// As SQLite's `.dump` and `.recover` write a ledger: all but its version.
fn rescued(sql: &str) -> String {
    sql.lines().filter(|line| !line.starts_with("PRAGMA")).map(|line| format!("{line}\n")).collect()
}

#[tokio::test]
async fn a_ledger_that_was_rescued_without_its_version_is_known_by_its_tables() {
    let (folder, file) = folder_of(UNVERSIONED);
    drop(Ledger::open(folder.path()).unwrap());
    let whole = sql_of(&file);
    let of_table = |sql: &str, table: &str| sql.lines().filter(|line| line.contains(table)).count();
    for more in ["", "CREATE TABLE lost_and_found (rootpgno INTEGER, c0);"] {
        let (folder, file) = folder_of(&format!("{} {more}", rescued(&whole)));
        assert_eq!(version(&file), 0);
        let ledger = Ledger::open(folder.path()).unwrap();
        assert_eq!(version(&file), schema::VERSION);
        assert_eq!(of_table(&sql_of(&file), "INTO placement"), of_table(&whole, "INTO placement"));
        assert_eq!(ledger.call(intents::all).await.unwrap().len(), 15);
    }
}

#[test]
fn a_ledger_whose_tables_are_of_no_version_is_left_alone() {
    let (folder, file) = folder_of(UNVERSIONED);
    drop(Ledger::open(folder.path()).unwrap());
    let whole = rescued(&sql_of(&file));
    for (wrong, said) in [
        (
            format!("{whole} ALTER TABLE intents ADD COLUMN later TEXT;"),
            "of no version that this build knows",
        ),
        (format!("{whole} DROP TABLE missed;"), "of no version that this build knows"),
        (
            format!("{whole} DROP TABLE missed; PRAGMA user_version = {};", schema::VERSION),
            "lacks tables of it",
        ),
    ] {
        let (folder, file) = folder_of(&wrong);
        let error = refused(&folder, &file);
        assert!(error.contains(said) && error.contains("`miroir recover`"), "{error}");
    }
}

#[test]
fn a_database_of_another_program_is_left_alone() {
    for sql in ["CREATE TABLE tasks (a);", "CREATE TABLE a (b); PRAGMA user_version = 7;"] {
        let (folder, file) = folder_of(sql);
        let error = refused(&folder, &file);
        assert!(error.contains("another program") && error.contains("`miroir recover`"), "{error}");
    }
}

#[test]
fn a_damaged_file_is_left_alone() {
    let (_folder, whole) = folder_of(UNVERSIONED);
    let whole = fs::read(whole).unwrap();
    // The page size of SQLite's default.
    let page = 4096;
    let pages = whole.len() / page;
    let mut torn = whole.clone();
    torn[page..3 * page].fill(7);
    for damaged in [
        b"no database, and long enough to be one: ".repeat(20),
        whole[..whole.len() - page].to_vec(),
        whole[..page / 2].to_vec(),
        whole[..50].to_vec(),
        torn,
    ] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(ledger::FILE);
        fs::write(&file, &damaged).unwrap();
        let error = refused(&folder, &file);
        assert!(error.contains("damaged") && error.contains("`miroir recover`"), "{pages} pages: {error}");
    }
}

#[tokio::test]
async fn settings_that_cannot_be_read_are_not_published_as_none() {
    let folder = tempfile::tempdir().unwrap();
    let node = FakeNode::start().await;
    let nodes = [&node];
    let first = control(folder.path(), &nodes).await;
    first.begin("movies", &[0]).await;
    drop(first);
    let file = folder.path().join(ledger::FILE);
    let damage = "INSERT OR REPLACE INTO settings (index_uid, body) VALUES ('movies', '{\"rankingRules\":')";
    Connection::open(&file).unwrap().execute_batch(damage).unwrap();
    fs::remove_dir_all(folder.path().join("xds")).unwrap();
    let settings = || sql_of(&file).lines().filter(|row| row.contains("settings")).collect::<String>();
    let before = settings();
    let args = ControlBuilder::new(folder.path(), &nodes).flags();
    let error = serve::open(&args, "127.0.0.1:1".parse().unwrap()).await.unwrap_err().to_string();
    assert!(error.contains("`body` of row `movies` in table `settings`"), "{error}");
    assert_eq!(settings(), before);
    assert!(!folder.path().join("xds/ecds.json").exists());
}
