//! A row of every kind, as the ledger stores it.

use super::{
    samples::{cluster_state, operations},
    support::golden::{compare, masked, sql_of},
};
use miroir_control::{
    base::config::Pace,
    domain::{
        cluster_state::ClusterState,
        export::Export,
        intent::{Effect, ImmediateEffect, Intent, KeptChange, NodeRequest, NodeTask, Step},
        key_holder::WriteKeyHolder,
        search_rules::Change,
        task::TaskStatus,
    },
    ledger::{
        self, Ledger, catalogue, fields, intents, leases, settings, stale, steps,
        tasks::{self, Ending, NewTask},
        webhooks, write_keys,
    },
    sync::instance_settings::{self, InstanceChange},
};
use miroir_core::{error::ErrorBody, path::ApiPath, protocol::WriteOperation, shard::Shard};
use serde_json::json;

fn write(operation: WriteOperation) -> Intent {
    let writers = vec![(Shard(0), vec!["a".into(), "b".into()]), (Shard(1), vec!["a".into()])];
    Intent::Write { gateway: "g".into(), index: "movies".into(), operation, writers, begun: "begun".into() }
}

fn broadcast(effect: Effect) -> Intent {
    let main = NodeRequest {
        method: "PATCH".into(),
        path: ApiPath::of_index("a/b", &["settings"]),
        body: None,
        main: true,
    };
    let path = ApiPath::parse("/indexes/x?customMetadata=y").unwrap();
    let step = NodeRequest { method: "POST".into(), path, body: Some(json!({"uid": "x"})), main: false };
    let newest = [("a".into(), Some(7)), ("b".into(), None)].into();
    let at_once = ImmediateEffect::Created { index: "x".into(), primary_key: None };
    let dates = [("x".to_owned(), "2026-01-01T00:00:00.000000001Z".to_owned())].into();
    let created = [("a".into(), dates)].into();
    Intent::Broadcast { requests: vec![main, step], effect, at_once, newest, created }
}

fn effects() -> Vec<Effect> {
    let movies = || "movies".to_owned();
    vec![
        Effect::None,
        Effect::UpdateIndex { index: movies(), primary_key: Some("id".into()), rename: Some("films".into()) },
        Effect::UpdateIndex { index: movies(), primary_key: None, rename: None },
        Effect::Settings { index: movies(), change: Some(json!({"stopWords": null})), creates: true },
        Effect::Settings { index: movies(), change: None, creates: false },
        Effect::Swap { pairs: vec![(movies(), "films".into(), false), ("a".into(), "b".into(), true)] },
        Effect::Rules { change: Change::Update { uid: "r".into(), body: json!({"active": false}) } },
        Effect::Rules { change: Change::Delete { uid: "r".into() } },
        Effect::Rules { change: Change::Clear },
    ]
}

fn exports() -> Vec<Export> {
    let whole = json!({
        "url": "http://other", "apiKey": "k", "payloadSize": "1 MiB",
        "indexes": {"movies*": {"filter": "a = 1", "overrideSettings": true}, "*": {}}
    });
    [whole, json!({"url": "http://other"})].map(|export| serde_json::from_value(export).unwrap()).into()
}

/// The kinds of tasks that the control plane gives uids to.
const KINDS: [&str; 14] = [
    "documentAdditionOrUpdate",
    "documentDeletion",
    "documentEdition",
    "dsrClear",
    "dsrUpdate",
    "dumpCreation",
    "export",
    "indexCompaction",
    "indexCreation",
    "indexDeletion",
    "indexSwap",
    "indexUpdate",
    "settingsUpdate",
    "snapshotCreation",
];

/// Fills a ledger with a row of every kind.
async fn fill(ledger: &Ledger) {
    let stored = ledger.call(|connection| {
        leases::know_leases(connection)?;
        catalogue::store(connection, &ClusterState::default(), &cluster_state())?;
        let ids = ["1".to_owned(), "it's".to_owned()].into();
        let (index, node, shard) = ("movies".to_owned(), "a".into(), Shard(0));
        stale::add(connection, &stale::MissedDocuments { index, node, shard, ids })?;
        leases::store_leases(connection, &["vm-1".to_owned(), "vm-2".to_owned()])?;
        for (number, gateway) in ["g", "mover/a"].into_iter().enumerate() {
            let key = uuid::Uuid::from_u128(number as u128);
            write_keys::store_write_key(connection, &write_keys::WriteKey { key, holder: WriteKeyHolder::read(gateway), fenced: number == 1 })?;
        }
        settings::merge_settings(connection, "movies", Some(&json!({"rankingRules": ["sort"], "synonyms": {"a": ["b"]}})))?;
        fields::add(connection, "movies", 0, &["id".to_owned(), "title's".to_owned()])?;
        for (key, value) in [("read_key", uuid::Uuid::from_u128(9).to_string()), ("keys", "equal".into()), ("publisher", "p".into())] {
            ledger::set_meta(connection, key, &value)?;
        }
        let pace = Pace { documents_per_second: Some(5), shards_at_once: None };
        ledger::set_meta(connection, "pace", &serde_json::to_string(&pace)?)?;
        let network = json!({"self": "here", "remotes": {"b": {"url": "http://b", "status": "available"}}, "shards": {}});
        instance_settings::store(connection, InstanceChange::Network(network))?;
        instance_settings::store(connection, InstanceChange::Workspace("w".into(), Some(json!({"orgId": "o"}))))?;
        let headers = [("authorization".to_owned(), "Bearer x".to_owned())].into();
        let webhook = webhooks::Webhook { url: "https://example.com/".into(), headers };
        webhooks::put(connection, uuid::Uuid::from_u128(7), &webhook)?;
        let intents = operations().into_iter().map(write).chain(effects().into_iter().map(broadcast));
        let intents = intents.chain(exports().into_iter().map(|export| Intent::Export { export }));
        for (number, intent) in intents.enumerate() {
            let new = NewTask {
                index: (number % 2 == 0).then(|| "movies".into()),
                kind: KINDS[number % KINDS.len()].parse().unwrap(),
                details: (number % 3 == 0).then(|| json!({"receivedDocuments": 3})),
                custom_metadata: (number % 5 == 0).then(|| "the client's".into()),
            };
            intents::begin(connection, &new, &intent, 1_700_000_000_000_000_000)?;
        }
        let node_task = |node: &str, main| NodeTask { node: node.into(), node_task: 7, main, shards: if main { vec![Shard(0), Shard(1)] } else { Vec::new() } };
        intents::sent(connection, 0, &[node_task("a", true), node_task("b", false)])?;
        tasks::start(connection, 0, 10)?;
        let ending = |status, error| Ending { status, details: Some(json!({"indexedDocuments": 3})), error, started_at: Some(11), finished_at: 12 };
        let error = ErrorBody { message: "m".into(), code: "c".into(), kind: "k".into(), link: "l".into() };
        for (uid, status, error) in [(1, TaskStatus::Succeeded, None), (2, TaskStatus::Failed, Some(error)), (3, TaskStatus::Canceled, None)] {
            intents::end(connection, uid, &ending(status, error))?;
        }
        let cancelled = ending(TaskStatus::Canceled, None);
        intents::applied(connection, 0, &cancelled)?;
        intents::interrupt(connection, 0, &"b".into(), 7)?;
        let path = ApiPath::from("/keys");
        let kept = [KeptChange::Nothing, KeptChange::Network, KeptChange::Workspace("w".into()), KeptChange::NoWorkspace("w".into())];
        for kept in kept {
            let (method, path, body) = ("POST".into(), path.clone(), r#"{"uid":"x"}"#.into());
            steps::begin(connection, &Step::Instance { method, path, body, kept })?;
        }
        steps::begin(connection, &Step::Index { index: "movies".into(), primary_key: Some("id".into()) })?;
        tasks::set_canceled_by(connection, 3, 4)
    });
    stored.await.unwrap();
}

#[tokio::test]
async fn the_ledger_has_a_row_of_every_kind_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    fill(&ledger).await;
    let found = ledger.call(intents::all).await.unwrap();
    assert_eq!(found.len(), 15);
    let (loaded, expected) = (ledger.call(catalogue::load).await.unwrap().unwrap(), cluster_state());
    assert_eq!(
        ClusterState { indexes: [].into(), ..loaded },
        ClusterState { indexes: [].into(), ..expected }
    );
    let sql = sql_of(&folder.path().join(ledger::FILE));
    let moments: Vec<&str> = sql.lines().filter(|row| row.starts_with("INSERT INTO tasks")).collect();
    assert_eq!(moments.len(), 18);
    let sql: Vec<String> = sql
        .lines()
        .map(|row| if row.starts_with("INSERT INTO tasks") { masked(row) } else { row.to_owned() })
        .collect();
    compare("ledger-rows.sql", &format!("{}\n", sql.join("\n")));
}
