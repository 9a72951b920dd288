//! Tests of begin, commit, task tracking and recovery, with fake nodes that accept everything.
#![allow(missing_docs, reason = "tests")]

mod copies;
mod edits;
mod late;
mod recovery;
mod stale;
#[allow(dead_code, reason = "not every test needs all of it")]
#[path = "../support/mod.rs"]
mod support;
mod verdicts;

use futures_util::FutureExt;
use miroir_control::base::error::Result;
use miroir_control::cluster::locks::Scope;
use miroir_control::domain::cluster_state::ClusterState;
use miroir_control::writes::recovery::recover;
use miroir_core::protocol::{BEGIN_PATH, COMMIT_PATH, Commit, NodeOutcome, NodeResult, REPORT_PATH, Report};
use miroir_core::{shard::Shard, topology::Topology};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use support::{Control, FakeNode, LEASE_MS, addition, commit, control, enqueued, until};
use tokio::task::JoinHandle;

/// A ledger whose next calls wait until it is released.
struct HeldLedger {
    release: std::sync::mpsc::Sender<()>,
    call: JoinHandle<Result<()>>,
}

impl HeldLedger {
    async fn new(control: &Control) -> Self {
        let (is_held, held) = tokio::sync::oneshot::channel();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let cluster = control.cluster.clone();
        let call = tokio::spawn(async move {
            let call = cluster.ledger.call(move |_| {
                is_held.send(()).unwrap();
                released.recv().unwrap();
                Ok(())
            });
            call.await
        });
        held.await.unwrap();
        Self { release, call }
    }

    async fn release(self) {
        self.release.send(()).unwrap();
        self.call.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_write_is_begun_committed_and_settled() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    let (uid, key) = control.begin("movies", &[0, 2]).await;
    for node in [&a, &b] {
        // The index is created before its documents, the shard tag is filterable, and the node knows the gateway's write key.
        assert_eq!(node.seen("POST", "/indexes"), [json!({"uid": "movies", "primaryKey": null})]);
        let settings = node.seen("PATCH", "/indexes/movies/settings");
        assert_eq!(settings[0]["filterableAttributes"][0]["attributePatterns"], json!(["_miroir_shard"]));
        let keys = node.seen("POST", "/keys");
        let text = |key: &Value| {
            control.cluster.secrets.key_text(uuid::Uuid::parse_str(key["uid"].as_str().unwrap()).unwrap())
        };
        assert!(keys.iter().any(|made| text(made) == key));
    }
    let results = vec![
        enqueued("n0", a.add_documents("movies", uid, &key).await),
        enqueued("n1", b.add_documents("movies", uid, &key).await),
    ];
    let (status, summary) = control.internal(COMMIT_PATH, &commit(uid, results)).await;
    assert_eq!((status, &summary["status"], &summary["taskUid"]), (200, &json!("enqueued"), &json!(uid)));
    let task = control.ended(uid).await;
    assert_eq!(task["status"], "succeeded");
    assert_eq!(task["details"], json!({"receivedDocuments": 2, "indexedDocuments": 2}));
    assert_eq!(task["customMetadata"], "the client's");
    // The published topology has the primary key that the write set.
    let ecds = std::fs::read(folder.path().join("xds/ecds.json")).unwrap();
    let ecds: Value = serde_json::from_slice(&ecds).unwrap();
    let topology = ecds["resources"][0]["typed_config"]["config"]["configuration"]["value"].as_str().unwrap();
    assert_eq!(Topology::from_json(topology.as_bytes()).unwrap().primary_key("movies"), Some("id"));
}

#[tokio::test]
async fn a_replica_that_missed_a_write_is_stale_before_the_client_hears_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    let (uid, key) = control.begin("movies", &[1]).await;
    let version = control.cluster.cluster_state().version;
    let report = async |oldest| {
        let report = Report { vm: "one".into(), oldest, ..Report::default() };
        control.internal(REPORT_PATH, &report).await
    };
    report(version).await;
    let taken = enqueued("n0", a.add_documents("movies", uid, &key).await);
    let missed = NodeResult { node: "n1".into(), outcome: NodeOutcome::Unknown };
    // Wait in line for a lock that the mover needs; otherwise it would repair the replica at once.
    let cluster = control.cluster.clone();
    let _held = tokio::spawn(async move { cluster.locks.lock(Scope::shards("movies", &[Shard(1)])).await });
    tokio::task::yield_now().await;
    control.internal(COMMIT_PATH, &commit(uid, vec![taken, missed])).await;
    let cluster_state = control.cluster.cluster_state();
    assert_eq!(cluster_state.whole("movies", Shard(1)).collect::<Vec<_>>(), ["n0"]);
    assert!(cluster_state.version > version);
    // The task does not end while a gateway may still read the stale replica.
    for _ in 0..5 {
        control.cluster.tracked_tasks.refresh().await;
    }
    assert!(["enqueued", "processing"].contains(&control.task(uid).await["status"].as_str().unwrap()));
    let known = Instant::now();
    report(cluster_state.version).await;
    assert_eq!(control.ended(uid).await["status"], "succeeded");
    assert!(known.elapsed() < Duration::from_millis(LEASE_MS), "{:?}", known.elapsed());
}

#[tokio::test]
async fn what_nodes_refuse_is_told_in_their_words_without_the_tag() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    let (uid, key) = control.begin("movies", &[0]).await;
    for node in [&a, &b] {
        node.memory.lock().unwrap().ends = Some("failed");
    }
    let results = vec![
        enqueued("n0", a.add_documents("movies", uid, &key).await),
        enqueued("n1", b.add_documents("movies", uid, &key).await),
    ];
    control.internal(COMMIT_PATH, &commit(uid, results)).await;
    let task = control.ended(uid).await;
    assert_eq!((&task["status"], &task["error"]["message"]), (&json!("failed"), &json!("nodes know `x`")));
    assert_eq!(task["details"]["indexedDocuments"], 0);
    assert!(control.cluster.cluster_state().stale_on("n1").is_empty(), "both ended alike");
}

#[tokio::test]
async fn only_gateways_may_begin() {
    let folder = tempfile::tempdir().unwrap();
    let a = FakeNode::start().await;
    let b = FakeNode::start().await;
    let control = control(folder.path(), &[&a, &b]).await;
    let answer = reqwest::Client::new()
        .post(format!("{}{BEGIN_PATH}", control.url))
        .json(&addition("movies", &[0]))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status().as_u16(), 403);
    assert_eq!(answer.json::<Value>().await.unwrap()["code"], "invalid_api_key");
}

#[tokio::test]
async fn writes_are_cancelled_on_nodes_and_swaps_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    let (uid, key) = control.begin("movies", &[0]).await;
    for node in [&a, &b] {
        node.memory.lock().unwrap().ends = Some("enqueued");
    }
    let results = vec![
        enqueued("n0", a.add_documents("movies", uid, &key).await),
        enqueued("n1", b.add_documents("movies", uid, &key).await),
    ];
    control.internal(COMMIT_PATH, &commit(uid, results)).await;
    let swap = reqwest::Client::new()
        .post(format!("{}/swap-indexes", control.url))
        .json(&json!([{"indexes": ["movies", "books"]}]))
        .send()
        .await
        .unwrap();
    let swap: Value = swap.json().await.unwrap();
    let swap = u32::try_from(swap["taskUid"].as_u64().unwrap()).unwrap();
    assert_eq!(
        control.cluster.tracked_tasks.cancel(&[uid, swap], 9).values().map(Vec::len).sum::<usize>(),
        2
    );
    assert!(control.cluster.tracked_tasks.cancel(&[swap], 9).is_empty());
}

#[tokio::test]
async fn a_write_that_a_part_of_its_shards_took_is_not_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = [FakeNode::start().await, FakeNode::start().await, FakeNode::start().await];
    let control = control(folder.path(), &nodes.each_ref()).await;
    let (uid, key) = control.begin("movies", &[0, 1, 2, 3]).await;
    let cluster_state = control.cluster.cluster_state();
    let of_first = |shard: &Shard| cluster_state.writers("movies", *shard).any(|node| node == "n0");
    let lost: Vec<String> =
        cluster_state.shards().filter(|shard| !of_first(shard)).map(|shard| shard.0.to_string()).collect();
    assert!(!lost.is_empty() && lost.len() < 4, "{lost:?}");
    let refused = |node: &str| NodeResult {
        node: node.into(),
        outcome: NodeOutcome::Refused { status: 403, error: None },
    };
    let taken = enqueued("n0", nodes[0].add_documents("movies", uid, &key).await);
    let results = vec![taken, refused("n1"), refused("n2")];
    // The gateway sends the commit again, as if the first answer had been lost.
    for _ in 0..2 {
        let (status, error) = control.internal(COMMIT_PATH, &commit(uid, results.clone())).await;
        assert_eq!((status, &error["code"]), (503, &json!("remote_could_not_send_request")), "{error}");
    }
    let task = control.ended(uid).await;
    let told = format!("no replica took them: {}.", lost.join(", "));
    assert_eq!(task["status"], "failed");
    assert!(task["error"]["message"].as_str().unwrap().ends_with(&told), "{task}");
}

#[tokio::test]
async fn a_second_commit_hears_what_the_first_one_does() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    let begin = async || {
        let (_, reply) = control.internal(BEGIN_PATH, &addition("movies", &[1])).await;
        let text = |name: &str| reply[name].as_str().unwrap().to_owned();
        (u32::try_from(reply["uid"].as_u64().unwrap()).unwrap(), text("begun"), text("key"))
    };
    let (uid, begun, _) = begin().await;
    // No node has accepted the write, but that is known only once no callout can arrive any more.
    let unknown = |node: &str| NodeResult { node: node.into(), outcome: NodeOutcome::Unknown };
    let first = Commit { begun: Some(begun), ..commit(uid, vec![unknown("n0"), unknown("n1")]) };
    let deciding = Instant::now();
    let (one, two) = tokio::join!(control.internal(COMMIT_PATH, &first), async {
        until("the first commit decides", || control.cluster.open.count() == 0).await;
        let answer = control.internal(COMMIT_PATH, &first).await;
        assert!(deciding.elapsed() > Duration::from_secs(1), "it was not decided yet");
        answer
    });
    assert_eq!((one.0, &one), (503, &two));
    // A node may still take the first write, so its uid is not given to another one.
    let (again, begun, key) = begin().await;
    assert_eq!(again, uid + 1);
    let uid = again;
    assert_eq!(control.internal(COMMIT_PATH, &first).await, one);
    let results = vec![
        enqueued("n0", a.add_documents("movies", uid, &key).await),
        enqueued("n1", b.add_documents("movies", uid, &key).await),
    ];
    let second = Commit { begun: Some(begun), ..commit(uid, results) };
    for _ in 0..2 {
        assert_eq!(control.internal(COMMIT_PATH, &second).await.0, 200);
    }
    assert_eq!(control.ended(uid).await["status"], "succeeded");
}

#[tokio::test]
async fn a_copy_hears_of_a_write_only_when_it_can_wait_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    let recording = control.cluster.mover.recorder.start(None, [Shard(1)]);
    let (uid, key) = control.begin("movies", &[1]).await;
    for node in [&a, &b] {
        node.memory.lock().unwrap().ends = Some("enqueued");
    }
    let results = vec![
        enqueued("n0", a.add_documents("movies", uid, &key).await),
        enqueued("n1", b.add_documents("movies", uid, &key).await),
    ];
    let ledger = HeldLedger::new(&control).await;
    let commit = commit(uid, results);
    tokio::join!(control.internal(COMMIT_PATH, &commit), async {
        until("the commit is decided", || control.cluster.open.count() == 0).await;
        for _ in 0..50 {
            assert!(recording.is_clean(Shard(1)), "the ledger does not have it yet");
            tokio::task::yield_now().await;
        }
        ledger.release().await;
        until("the recording shows the write", || !recording.is_clean(Shard(1))).await;
        assert!(
            control.cluster.tracked_tasks.is_pending("n0", Shard(1)),
            "the task is not tracked when the recording shows the write"
        );
    });
}

#[tokio::test]
async fn a_write_keeps_its_locks_while_the_ledger_fails() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    let (uid, key) = control.begin("movies", &[1]).await;
    let recover = async || recover(&control.cluster, control.cluster.open.take_older(Duration::ZERO)).await;
    let rename = async |from: &str, to: &str| {
        let sql = format!("ALTER TABLE {from} RENAME TO {to}");
        control.cluster.ledger.call(move |connection| Ok(connection.execute_batch(&sql)?)).await.unwrap();
    };
    rename("node_tasks", "gone").await;
    let results = vec![
        enqueued("n0", a.add_documents("movies", uid, &key).await),
        enqueued("n1", b.add_documents("movies", uid, &key).await),
    ];
    let (status, _) = control.internal(COMMIT_PATH, &commit(uid, results)).await;
    assert_eq!(status, 500);
    for _ in 0..2 {
        assert!(recover().await.is_err());
        let locked = control.cluster.locks.lock(Scope::shards("movies", &[Shard(1)]));
        assert!(locked.now_or_never().is_none(), "nobody may overtake it");
    }
    rename("gone", "node_tasks").await;
    recover().await.unwrap();
    assert_eq!(control.ended(uid).await["status"], "succeeded");
    control.cluster.locks.lock(Scope::shards("movies", &[Shard(1)])).await;
}

#[tokio::test]
async fn a_payload_without_documents_succeeds_without_any_node() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    let (uid, _) = control.begin("movies", &[]).await;
    let (status, _) = control.internal(COMMIT_PATH, &commit(uid, Vec::new())).await;
    assert_eq!(status, 200);
    assert_eq!(control.ended(uid).await["status"], "succeeded");
}

#[tokio::test]
async fn what_a_client_asks_for_is_done_though_it_leaves() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    let ledger = HeldLedger::new(&control).await;
    let asked = reqwest::Client::new()
        .post(format!("{}/tasks/cancel?statuses=enqueued", control.url))
        .timeout(Duration::from_millis(300))
        .send();
    assert!(asked.await.unwrap_err().is_timeout());
    ledger.release().await;
    let task = control.ended(0).await;
    assert_eq!((&task["type"], &task["status"]), (&json!("taskCancelation"), &json!("succeeded")));
}

#[tokio::test]
async fn a_change_whose_maker_leaves_is_taken_up() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    for (name, by_transaction) in [("one", false), ("other", true)] {
        let ledger = HeldLedger::new(&control).await;
        let change = move |state: &mut ClusterState| state.server_name = Some(name.to_owned());
        let stored = move |_: &_, state: &mut ClusterState| {
            change(state);
            Ok(())
        };
        let changed = async {
            match by_transaction {
                false => control.cluster.change(change).await,
                true => control.cluster.change_stored(stored).await,
            }
        };
        assert!(tokio::time::timeout(Duration::from_millis(100), changed).await.is_err());
        ledger.release().await;
        let is_taken_up = || control.cluster.cluster_state().server_name.as_deref() == Some(name);
        until("it is taken up", is_taken_up).await;
    }
}
