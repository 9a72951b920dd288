//! Replicas that miss a write to one index: what is recorded of it, and what gateways hear.

use super::support::{Control, ControlBuilder, FakeNode, addition, commit, control, enqueued, until};
use miroir_control::{
    cluster::locks::{LockGuard, Scope},
    domain::cluster_state::Missed,
};
use miroir_core::{
    protocol::{
        BEGIN_PATH, BeginReply, COMMIT_PATH, Commit, NodeOutcome, NodeResult, REPORT_PATH, Report,
        WriteOperation,
    },
    shard::Shard,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::Duration,
};
use tokio::task::JoinHandle;

/// Waits in line for a lock that the mover needs, so that it mends nothing until this is dropped.
fn hold(control: &Control, index: &'static str) -> JoinHandle<LockGuard> {
    let cluster = control.cluster.clone();
    tokio::spawn(async move { cluster.locks.lock(Scope::indexes([index])).await })
}

fn ids(ids: &[&str]) -> BTreeSet<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

/// A commit of a write that only the first node took.
fn missed(uid: u32, taken: NodeResult, written: &[(u16, &[&str])]) -> Commit {
    let missed = NodeResult { node: "n1".into(), outcome: NodeOutcome::Refused { status: 503, error: None } };
    let written = written.iter().map(|(shard, written)| (Shard(*shard), ids(written))).collect();
    Commit { written, ..commit(uid, vec![taken, missed]) }
}

/// The published topology.
fn published(folder: &Path) -> Value {
    let ecds: Value = serde_json::from_slice(&std::fs::read(folder.join("xds/ecds.json")).unwrap()).unwrap();
    let text = ecds["resources"][0]["typed_config"]["config"]["configuration"]["value"].as_str().unwrap();
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn a_commit_records_the_documents_that_a_replica_missed() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    let cluster = &control.cluster;
    let (uid, key) = control.begin("movies", &[0, 1]).await;
    let held = hold(&control, "movies");
    let taken = enqueued("n0", a.add_documents("movies", uid, &key).await);
    let written: [(u16, &[&str]); 2] = [(0, &["x"]), (1, &["y", "z"])];
    control.internal(COMMIT_PATH, &missed(uid, taken, &written)).await;
    let state = cluster.cluster_state();
    for shard in [Shard(0), Shard(1)] {
        assert_eq!(state.stale.get("movies", "n1", shard), Some(Missed::Recorded));
        assert_eq!(state.whole("movies", shard).collect::<Vec<_>>(), ["n0"]);
        assert_eq!(state.whole("books", shard).count(), 2, "other indexes are read from both");
    }
    let recorded = async |shard| cluster.missed_ids("movies", &"n1".into(), &[Shard(shard)]).await.unwrap();
    assert_eq!((recorded(0).await, recorded(1).await), (ids(&["x"]), ids(&["y", "z"])));
    // A write to another index goes to both nodes, and one to this index to the whole one.
    let (_, reply) = control.internal(BEGIN_PATH, &addition("books", &[1])).await;
    assert_eq!(reply["writers"], json!([[0, 1]]));
    drop(held.await.unwrap());
    until("the missed documents are compared", || cluster.cluster_state().stale.is_empty()).await;
    assert_eq!(recorded(1).await, ids(&[]), "what is made up for is forgotten");
}

#[tokio::test]
async fn a_replica_that_is_stale_hears_of_later_writes_when_it_is_mended() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    let cluster = &control.cluster;
    let (uid, key) = control.begin("movies", &[1]).await;
    let (other, other_key) = control.begin("movies", &[2]).await;
    let taken = enqueued("n0", a.add_documents("movies", uid, &key).await);
    control.internal(COMMIT_PATH, &missed(uid, taken, &[(1, &["x"])])).await;
    let taken = enqueued("n0", a.add_documents("movies", other, &other_key).await);
    // A gateway that does not say which documents it wrote.
    let held = hold(&control, "movies");
    control.internal(COMMIT_PATH, &missed(other, taken, &[])).await;
    assert_eq!(cluster.cluster_state().stale.get("movies", "n1", Shard(2)), Some(Missed::Anything));
    drop(held.await.unwrap());
    until("everything is mended", || cluster.cluster_state().stale.is_empty()).await;
}

#[tokio::test]
async fn small_writes_always_bring_their_ids() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    for (documents, expected) in [(1_000, vec![Shard(0), Shard(3)]), (1_001, Vec::new())] {
        let mut begin = addition("movies", &[0, 3]);
        let WriteOperation::AddDocuments { documents: count, .. } = &mut begin.operation else {
            unreachable!()
        };
        *count = documents;
        let (_, reply) = control.internal(BEGIN_PATH, &begin).await;
        let BeginReply::Send { record, uid, .. } = serde_json::from_value(reply).unwrap() else { panic!() };
        assert_eq!(record, expected);
        let refused = |node: &str| NodeResult {
            node: node.into(),
            outcome: NodeOutcome::Refused { status: 503, error: None },
        };
        control.internal(COMMIT_PATH, &commit(uid, vec![refused("n0"), refused("n1")])).await;
    }
    assert!(control.cluster.cluster_state().stale.is_empty(), "what nobody took, nobody missed");
}

#[tokio::test]
async fn a_write_without_a_commit_may_have_changed_anything() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let nodes = [&a, &b];
    let builder = ControlBuilder::new(folder.path(), &nodes).commit_timeout(Duration::from_millis(300));
    let control = builder.start().await;
    let (uid, key) = control.begin("movies", &[3]).await;
    let held = hold(&control, "movies");
    a.add_documents("movies", uid, &key).await;
    let held = held.await.unwrap();
    let state = control.cluster.cluster_state();
    assert_eq!(state.stale.get("movies", "n1", Shard(3)), Some(Missed::Anything));
    drop(held);
    until("it is compared", || control.cluster.cluster_state().stale.is_empty()).await;
}

#[tokio::test]
async fn what_a_replica_missed_survives_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let first = control(folder.path(), &[&a, &b]).await;
    let (uid, key) = first.begin("movies", &[1]).await;
    let _held = hold(&first, "movies");
    let taken = enqueued("n0", a.add_documents("movies", uid, &key).await);
    first.internal(COMMIT_PATH, &missed(uid, taken, &[(1, &["x"])])).await;
    let second = ControlBuilder::new(folder.path(), &[&a, &b]).listen().await;
    assert_eq!(second.cluster.cluster_state().stale, first.cluster.cluster_state().stale);
    assert_eq!(second.cluster.missed_ids("movies", &"n1".into(), &[Shard(1)]).await.unwrap(), ids(&["x"]));
}

#[tokio::test]
async fn after_a_crash_before_the_publication_gateways_hear_of_it_before_anything_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let nodes = [&a, &b];
    let first = control(folder.path(), &nodes).await;
    let (uid, key) = first.begin("movies", &[1]).await;
    let _held = hold(&first, "movies");
    let taken = enqueued("n0", a.add_documents("movies", uid, &key).await);
    // The ledger has the mark, and the file of before is published.
    let before = std::fs::read(folder.path().join("xds/ecds.json")).unwrap();
    first.internal(COMMIT_PATH, &missed(uid, taken, &[(1, &["x"])])).await;
    std::fs::write(folder.path().join("xds/ecds.json"), before).unwrap();
    assert_eq!(published(folder.path()).get("stale"), None);
    for node in [&a, &b] {
        node.memory.lock().unwrap().ends = Some("processing");
    }
    let second = ControlBuilder::new(folder.path(), &nodes).start().await;
    assert!(second.cluster.is_ready());
    assert_eq!(published(folder.path())["stale"], json!({"movies": {"1": [1]}}));
    assert!(second.cluster.cluster_state().has_stale());
}

#[tokio::test]
async fn a_write_has_succeeded_once_no_gateway_reads_the_replica_that_missed_it() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    let report = async |version| {
        let report = Report {
            vm: "vm".into(),
            oldest: version,
            newest: version,
            stale_by_index: true,
            ..Report::default()
        };
        control.internal(REPORT_PATH, &report).await;
    };
    let (uid, key) = control.begin("movies", &[1]).await;
    let before = control.cluster.cluster_state().version;
    report(before).await;
    let _held = hold(&control, "movies");
    let taken = enqueued("n0", a.add_documents("movies", uid, &key).await);
    assert_eq!(control.internal(COMMIT_PATH, &missed(uid, taken, &[(1, &["x"])])).await.0, 200);
    assert!(control.cluster.cluster_state().version > before);
    for _ in 0..5 {
        report(before).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_ne!(control.task(uid).await["status"], "succeeded", "the gateway still reads both replicas");
    }
    report(control.cluster.cluster_state().version).await;
    assert_eq!(control.ended(uid).await["status"], "succeeded");
}

#[tokio::test]
async fn what_a_replica_missed_of_an_index_is_forgotten_with_the_index() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    let (uid, key) = control.begin("movies", &[1]).await;
    let taken = enqueued("n0", a.add_documents("movies", uid, &key).await);
    for node in [&a, &b] {
        node.memory.lock().unwrap().ends = Some("processing");
    }
    control.internal(COMMIT_PATH, &missed(uid, taken, &[(1, &["x"])])).await;
    assert!(!control.cluster.cluster_state().stale.is_empty());
    let deleted = reqwest::Client::new().delete(format!("{}/indexes/movies", control.url)).send();
    assert_eq!(deleted.await.unwrap().status(), 202);
    assert!(control.cluster.cluster_state().stale.is_empty());
    assert!(control.cluster.missed_ids("movies", &"n1".into(), &[Shard(1)]).await.unwrap().is_empty());
}

#[tokio::test]
async fn gateways_of_an_older_build_do_not_read_what_they_cannot_tell_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    let (uid, key) = control.begin("movies", &[1]).await;
    let _held = hold(&control, "movies");
    let report = async |vm: &str, stale_by_index| {
        let oldest = control.cluster.cluster_state().version;
        let report = Report { vm: vm.into(), oldest, newest: oldest, stale_by_index, ..Report::default() };
        control.internal(REPORT_PATH, &report).await;
    };
    report("new", true).await;
    let taken = enqueued("n0", a.add_documents("movies", uid, &key).await);
    control.internal(COMMIT_PATH, &missed(uid, taken, &[(1, &["x"])])).await;
    let both: BTreeSet<u64> = [0, 1].into();
    let readable = |topology: &Value| -> BTreeSet<u64> {
        topology["placement"][1].as_array().unwrap().iter().map(|node| node.as_u64().unwrap()).collect()
    };
    let told = published(folder.path());
    assert_eq!((readable(&told), &told["stale"]), (both.clone(), &json!({"movies": {"1": [1]}})));
    let version = told["version"].as_u64().unwrap();
    report("old", false).await;
    let told = published(folder.path());
    assert_eq!((readable(&told), told.get("stale")), ([0].into(), None), "a key that it would refuse");
    assert!(told["version"].as_u64().unwrap() > version);
    report("old", true).await;
    let told = published(folder.path());
    assert_eq!((readable(&told), &told["stale"]), (both, &json!({"movies": {"1": [1]}})));
}

#[tokio::test]
async fn what_is_swapped_is_stale_under_both_names() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    let cluster = &control.cluster;
    let keys: BTreeMap<&str, (u32, String)> =
        [("movies", control.begin("movies", &[1]).await), ("books", control.begin("books", &[2]).await)]
            .into();
    for (index, (uid, key)) in &keys {
        let taken = enqueued("n0", a.add_documents(index, *uid, key).await);
        let other = enqueued("n1", b.add_documents(index, *uid, key).await);
        control.internal(COMMIT_PATH, &commit(*uid, vec![taken, other])).await;
        control.ended(*uid).await;
    }
    // From now on nodes do not end what they take, so that nothing is mended.
    for node in [&a, &b] {
        node.memory.lock().unwrap().ends = Some("processing");
    }
    let (uid, key) = control.begin("movies", &[1]).await;
    let taken = enqueued("n0", a.add_documents("movies", uid, &key).await);
    let held = hold(&control, "movies");
    control.internal(COMMIT_PATH, &missed(uid, taken, &[(1, &["x"])])).await;
    drop(held.await.unwrap());
    let swap = reqwest::Client::new()
        .post(format!("{}/swap-indexes", control.url))
        .json(&json!([{"indexes": ["movies", "books"]}]))
        .send();
    assert_eq!(swap.await.unwrap().status(), 202);
    let state = cluster.cluster_state();
    for index in ["movies", "books"] {
        assert_eq!(state.stale.get(index, "n1", Shard(1)), Some(Missed::Anything), "{index}");
        assert_eq!(cluster.locks.with(index), ids(&["movies", "books"]));
    }
    assert_eq!(state.stale.get("books", "n1", Shard(2)), None);
}

#[tokio::test]
async fn a_replica_that_got_what_it_missed_can_still_lack_a_write_that_has_not_ended() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = [FakeNode::start().await, FakeNode::start().await, FakeNode::start().await];
    let control = control(folder.path(), &nodes.each_ref()).await;
    let cluster = &control.cluster;
    let of = |shard: u16| -> BTreeSet<String> {
        cluster.cluster_state().active(Shard(shard)).map(ToString::to_string).collect()
    };
    let node = |name: &str| &nodes[name.strip_prefix('n').unwrap().parse::<usize>().unwrap()];
    // Two shards on different pairs of nodes: one of the first lacks the write, the third node is slow.
    let (first, second) = (0, (1..4).find(|shard| of(*shard) != of(0)).unwrap());
    let slow = of(second).difference(&of(first)).next().unwrap().clone();
    let [whole, lacking] = of(first).into_iter().collect::<Vec<_>>().try_into().unwrap();
    let (uid, key) = control.begin("movies", &[first, second]).await;
    node(&lacking).memory.lock().unwrap().ends = Some("failed");
    node(&slow).memory.lock().unwrap().ends = Some("enqueued");
    let mut results = Vec::new();
    for name in of(first).union(&of(second)) {
        results.push(enqueued(name, node(name).add_documents("movies", uid, &key).await));
    }
    let written = |shards: &[u16], id: &str| shards.iter().map(|shard| (Shard(*shard), ids(&[id]))).collect();
    let sent = Commit { written: written(&[first, second], "x"), ..commit(uid, results) };
    control.internal(COMMIT_PATH, &sent).await;
    for name in [&lacking, &slow] {
        node(name).memory.lock().unwrap().ends = None;
    }
    // It misses another write, and gets it.
    let (other, key) = control.begin("movies", &[first]).await;
    let refused = NodeOutcome::Refused { status: 503, error: None };
    let results = vec![
        enqueued(&whole, node(&whole).add_documents("movies", other, &key).await),
        NodeResult { node: lacking.as_str().into(), outcome: refused },
    ];
    control
        .internal(COMMIT_PATH, &Commit { written: written(&[first], "y"), ..commit(other, results) })
        .await;
    assert!(!cluster.cluster_state().stale.is_empty());
    until("it has what was recorded", || cluster.cluster_state().stale.is_empty()).await;
    let held = hold(&control, "movies").await.unwrap();
    for task in &mut node(&slow).memory.lock().unwrap().tasks {
        task["status"] = json!("succeeded");
    }
    assert_eq!(control.ended(uid).await["status"], "succeeded");
    let missed = cluster.cluster_state().stale.get("movies", &lacking, Shard(first));
    assert_eq!(missed, Some(Missed::Recorded), "it lacks `x`");
    drop(held);
    until("it has that too", || cluster.cluster_state().stale.is_empty()).await;
}
