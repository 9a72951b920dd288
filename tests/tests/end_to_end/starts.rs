//! Starts of the control plane that something stands in the way of: nodes that are gone, a ledger that is damaged, nodes that belong to
//! another ledger.

use miroir_tests::{MASTER_KEY, Options, Sandbox, programs, scratch, wait_until};
use serde_json::{Value, json};
use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

/// A node is lost for good with the only copies of its shards, and the control plane starts again: operators can declare the node lost
/// before the cluster is ready, and everything else goes on.
pub fn a_lost_node_can_be_told_before_the_cluster_is_ready() {
    let cluster = Sandbox::start(Options { replication: 1, ..Options::default() });
    let client = &cluster.client;
    client.create("things", "id", &json!({}));
    let document = |id: u64| json!({"id": id});
    client.add("things", &json!((0..120).map(document).collect::<Vec<_>>()));
    cluster.kill("control");
    cluster.kill("meili-1");
    cluster.revive("control");
    wait_until("the control plane says that shards are missing", || {
        let status = cluster.status();
        status["ready"] == false && status["shardsMissing"].as_u64().is_some_and(|missing| missing > 0)
    });
    assert_eq!(client.get("/health").status, 503);
    let said = |arguments: &[&str]| {
        let output = cluster.miroir(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let why = said(&["rebalance"]);
    assert!(why.contains("the cluster is starting") && why.contains("`miroir node lost`"), "{why}");
    let why = said(&["node", "lost", "meili-1"]);
    assert!(why.contains("the only complete copy") && why.contains("--force"), "{why}");
    cluster.miroir_ok(&["node", "lost", "meili-1", "--force", "--no-wait"]);
    wait_until("the cluster is ready", || cluster.client.get("/health").status == 200);
    assert_eq!(cluster.status()["shardsMissing"], 0);
    let left = client.count("things");
    assert!((1..120).contains(&left), "{left} documents are left");
    client.add("things", &json!((0..120).map(document).collect::<Vec<_>>()));
    assert_eq!(client.count("things"), 120);
}

/// Nobody declares the node lost: after half a minute the shards that are there are served.
pub fn what_is_there_is_served_without_a_node() {
    let cluster = Sandbox::start(Options { replication: 1, ..Options::default() });
    let client = &cluster.client;
    client.create("things", "id", &json!({}));
    cluster.kill("control");
    cluster.kill("meili-1");
    cluster.revive("control");
    wait_until("the cluster is ready", || cluster.client.get("/health").status == 200);
    assert!(cluster.status()["shardsMissing"].as_u64().is_some_and(|missing| missing > 0));
    cluster.revive("meili-1");
    wait_until("every shard is there", || cluster.status()["shardsMissing"] == 0);
    // The control plane notices a node that is back sooner than Envoy does.
    cluster.wait_reachable();
    client.add("things", &json!((0..120).map(|id| json!({"id": id})).collect::<Vec<_>>()));
    assert_eq!(client.count("things"), 120);
}

/// Runs `miroir serve`, which must refuse to.
fn refused(config: &Path, data: &Path) -> String {
    let Output { status, stderr, .. } = Command::new(programs().join("miroir"))
        .args(["serve", "--listen", "127.0.0.1:0", "--config"])
        .arg(config)
        .arg("--data")
        .arg(data)
        .env("MIROIR_MASTER_KEY", MASTER_KEY)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&stderr).into_owned();
    assert!(!status.success(), "{said}");
    said
}

/// A ledger that is damaged is left as it is, and `miroir recover` is offered. A control plane with a ledger of its own does not take
/// the nodes of this cluster, and does not change them.
pub fn damaged_and_second_ledgers_are_refused() {
    let cluster = Sandbox::start(Options::default());
    let client = &cluster.client;
    client.create("things", "id", &json!({}));
    client.add("things", &json!((0..50).map(|id| json!({"id": id})).collect::<Vec<_>>()));
    let config = cluster.data().join("cluster.json");
    let keys = || cluster.node(0).get("/keys?limit=100").body["results"].clone();
    let before = keys();
    let second = scratch();
    let said = refused(&config, second.path());
    assert!(said.contains("the data of another cluster") && said.contains("miroir recover"), "{said}");
    assert_eq!(keys(), before, "the nodes are as they were");
    client.add("things", &json!([{"id": 50}]));
    assert_eq!(client.count("things"), 51);
    // The first ledger is not in use any more.
    cluster.kill("control");
    let ledger = cluster.data().join("control/ledger.sqlite");
    let log = cluster.data().join("control/ledger.sqlite-wal");
    let whole = (fs::read(&ledger).unwrap(), fs::read(&log).unwrap_or_default());
    for damaged in [[&b"SQLite format 3\0"[..], &[7; 4_080]].concat(), vec![7; 20_000]] {
        fs::write(&ledger, &damaged).unwrap();
        let _ = fs::remove_file(&log);
        let said = refused(&config, &cluster.data().join("control"));
        assert!(said.contains("damaged") && said.contains("miroir recover"), "{said}");
        assert_eq!(fs::read(&ledger).unwrap(), damaged, "nothing is overwritten");
    }
    fs::write(&ledger, whole.0).unwrap();
    fs::write(&log, whole.1).unwrap();
    cluster.revive("control");
    wait_until("the cluster is ready", || cluster.client.get("/health").status == 200);
    assert_eq!(client.count("things"), 51);
}

/// The files of a ledger, and the secrets that belong to it.
const LEDGER: [&str; 3] = ["ledger.sqlite", "ledger.sqlite-wal", "secrets.json"];

/// Copies a ledger over another one.
fn copy_ledger(from: &Path, to: &Path) {
    let _ = fs::remove_file(to.join("ledger.sqlite-shm"));
    for name in LEDGER {
        let _ = fs::remove_file(to.join(name));
        if from.join(name).exists() {
            fs::copy(from.join(name), to.join(name)).unwrap();
        }
    }
}

/// A control plane with a copy of the ledger ends while the first one lives, and does not harm it. A copy that is older than the data is
/// refused in the ledger's place too, and nodes are as they were.
pub fn copies_of_the_ledger_are_refused() {
    let cluster = Sandbox::start(Options::default());
    let client = &cluster.client;
    client.create("things", "id", &json!({}));
    client.add("things", &json!((0..50).map(|id| json!({"id": id})).collect::<Vec<_>>()));
    let (config, control) = (cluster.data().join("cluster.json"), cluster.data().join("control"));
    let [older, beside, newest] = [scratch(), scratch(), scratch()];
    copy_ledger(&control, older.path());
    copy_ledger(&control, beside.path());
    let said = refused(&config, beside.path());
    assert!(said.contains("another control plane serves this cluster with a copy of this ledger"), "{said}");
    assert!(
        cluster.logs().contains("another control plane wants to serve this cluster"),
        "{}",
        cluster.logs()
    );
    client.add("things", &json!([{"id": 50}]));
    assert_eq!(client.count("things"), 51);
    cluster.kill("control");
    copy_ledger(&control, newest.path());
    copy_ledger(older.path(), &control);
    let keys = || cluster.node(0).get("/keys?limit=100").body["results"].clone();
    let before = keys();
    let said = refused(&config, &control);
    assert!(
        said.contains("has taken a write with the task uid") && said.contains("`miroir recover`"),
        "{said}"
    );
    assert_eq!(keys(), before, "the nodes are as they were");
    // Neither the one of before the last start.
    copy_ledger(newest.path(), &control);
    cluster.revive("control");
    wait_until("the cluster is ready", || cluster.client.get("/health").status == 200);
    assert_eq!(client.count("things"), 51);
    let said = refused(&config, newest.path());
    assert!(said.contains("by a control plane with another ledger, or with a newer state"), "{said}");
    client.add("things", &json!([{"id": 51}]));
    assert_eq!(client.count("things"), 52);
}

/// A node that another cluster has had does not join, even without any index.
pub fn a_node_of_another_cluster_does_not_join() {
    let (cluster, other) = (Sandbox::start(Options::default()), Sandbox::start(Options::default()));
    let named = format!("stranger={}", other.address("meili-0"));
    let before = cluster.miroir_json(&["topology", "show"]);
    let output = cluster.miroir(&["node", "add", &named]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("the data of another cluster"), "{said}");
    assert_eq!(cluster.miroir_json(&["topology", "show"]), before);
    assert_eq!(cluster.member("stranger"), Value::Null);
}
