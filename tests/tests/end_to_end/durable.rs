//! Durable intents: whichever process is killed or paused during a write, all copies are the same afterwards, and nothing stays
//! locked.
//!
//! The tests pause a node to hold a write between begin and commit: the node's answer does not come.

use miroir_tests::{Answer, Client, Options, Sandbox, Upload, nodes_are_real, wait_until};
use serde_json::{Value, json};
use std::{
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

const PATH: &str = "/indexes/books/documents";

/// A cluster that recovers writes after some seconds.
pub fn cluster(gateways: u16) -> Sandbox {
    cluster_that_waits(gateways, 4_000)
}

fn cluster_that_waits(gateways: u16, write_timeout_ms: u64) -> Sandbox {
    Sandbox::start(Options { gateways, write_timeout_ms, ..Options::default() })
}

/// Fills every shard, and makes every worker write once.
fn fill(cluster: &Sandbox) {
    cluster.client.create("books", "id", &json!({}));
    every_worker_writes(cluster);
    cluster.client.add("books", &books(0, 40));
}

/// Makes every worker write: a worker's first write under a new key waits until all nodes have the key.
fn every_worker_writes(cluster: &Sandbox) {
    for _ in 0..10 {
        for gateway in 0..cluster.gateways() {
            // A new connection, which any worker may accept.
            let body = json!([{"id": 0}]).to_string();
            let mut upload = Upload::start(&cluster.address(&format!("gateway-{gateway}")), PATH, body.len());
            upload.send(body.as_bytes());
            let answer = upload.answer();
            assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
        }
    }
}

fn books(version: u64, count: u64) -> Value {
    (0..count).map(|id| json!({"id": id, "v": version})).collect()
}

/// Sends a write in a thread that waits for the answer.
fn send(client: Client, documents: Value) -> JoinHandle<Option<Answer>> {
    thread::spawn(move || {
        client.try_send("POST", PATH, Some("application/json"), documents.to_string().into()).ok()
    })
}

fn wait_status(cluster: &Sandbox, key: &str, count: u64) {
    wait_until(&format!("{key} is {count}"), || cluster.status()[key] == count);
}

/// Pauses a node, and begins a write that this node cannot answer.
///
/// If the worker or the control plane first has to ask that node for something, the write begins only when the node is known to
/// be unreachable, and ends at once. Then another write is sent.
fn begin_without(
    cluster: &Sandbox,
    node: &str,
    gateway: u16,
    documents: &Value,
) -> JoinHandle<Option<Answer>> {
    for _ in 0..5 {
        cluster.freeze(node);
        let write = send(cluster.gateway(gateway), documents.clone());
        let mut is_open = false;
        wait_until("it is begun", || {
            is_open = cluster.status()["openWrites"] == 1;
            is_open || write.is_finished()
        });
        if is_open {
            return write;
        }
        cluster.thaw(node);
        assert_eq!(write.join().unwrap().unwrap().status, 202);
        cluster.wait_repaired();
        every_worker_writes(cluster);
    }
    panic!("no write was seen open");
}

/// Waits until nothing is in progress. Checks that all copies are the same, and that every document has this version. Returns
/// their number.
fn consistent(cluster: &Sandbox, version: u64) -> usize {
    cluster.wait_tasks_ended();
    cluster.wait_repaired();
    let documents = cluster.identical("books", "id");
    for document in documents.values() {
        assert_eq!(document["v"], version, "{document}");
    }
    documents.len()
}

pub fn the_control_plane_is_killed_between_begin_and_commit(cluster: &Sandbox) {
    fill(cluster);
    let write = begin_without(cluster, "meili-0", 0, &books(1, 40));
    cluster.kill("control");
    cluster.revive("control");
    cluster.thaw("meili-0");
    // The client got a true answer: either 202, or that the result is unknown.
    let answer = write.join().unwrap().unwrap();
    assert!([202, 503].contains(&answer.status), "{}", answer.body);
    wait_until("the control plane is back", || {
        !cluster.status().is_null() && cluster.client.get("/tasks").status == 200
    });
    assert_eq!(consistent(cluster, 1), 40);
    let task = &cluster.client.get("/tasks?limit=1").body["results"][0];
    assert_eq!((&task["type"], &task["status"]), (&json!("documentAdditionOrUpdate"), &json!("succeeded")));
    cluster.client.add("books", &books(2, 40));
    assert_eq!(consistent(cluster, 2), 40);
}

pub fn a_gateway_is_killed_between_begin_and_commit(cluster: &Sandbox) {
    fill(cluster);
    let write = begin_without(cluster, "meili-1", 1, &books(1, 40));
    cluster.kill("gateway-1");
    cluster.thaw("meili-1");
    assert!(write.join().unwrap().is_none(), "its gateway is gone");
    // Writes to another index do not wait.
    assert_eq!(cluster.client.json("POST", "/indexes/films/documents", &books(1, 10)).status, 202);
    assert_eq!(cluster.status()["openWrites"], 1);
    // Writes to the same shards wait for the recovery, but no longer.
    let begun = Instant::now();
    cluster.client.add("books", &books(2, 40));
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    cluster.revive("gateway-1");
    assert_eq!(consistent(cluster, 2), 40);
}

pub fn a_gateway_sleeps_through_the_recovery_of_its_write(cluster: &Sandbox) {
    fill(cluster);
    // The first write holds the locks, so the second one waits in its begin when its gateway is paused.
    let first = begin_without(cluster, "meili-2", 0, &books(1, 40));
    let second =
        send(cluster.gateway(1), json!((0..60).map(|id| json!({"id": id, "v": 2})).collect::<Vec<_>>()));
    wait_status(cluster, "waiting", 1);
    cluster.freeze("gateway-1");
    cluster.thaw("meili-2");
    assert_eq!(first.join().unwrap().unwrap().status, 202);
    // The second write has begun, but its paused gateway does not know it. The control plane recovers the write.
    wait_status(cluster, "openWrites", 1);
    wait_status(cluster, "openWrites", 0);
    cluster.client.add("books", &books(3, 40));
    let versions = cluster.client.get("/tasks?limit=2").body;
    assert_eq!(versions["results"][1]["status"], "failed", "{versions}");
    // The resumed gateway sends its callouts under a deleted key.
    cluster.thaw("gateway-1");
    let answer = second.join().unwrap().unwrap();
    assert_eq!(answer.status, 503, "nothing is acknowledged that is not written: {}", answer.body);
    assert_eq!(consistent(cluster, 3), 40);
    // It continues with a new key.
    cluster.gateway(1).add("books", &books(4, 40));
    assert_eq!(consistent(cluster, 4), 40);
}

pub fn a_client_that_leaves_tears_nothing(cluster: &Sandbox) {
    fill(cluster);
    let tasks = || cluster.client.get("/tasks?limit=0").body["total"].as_u64().unwrap();
    let before = tasks();
    // The client disconnects during its upload: nothing is written.
    let body = books(1, 40).to_string();
    for part in [0, 1, body.len() / 2, body.len() - 1] {
        let mut upload = Upload::start(&cluster.address("gateway-0"), PATH, body.len());
        upload.send(&body.as_bytes()[..part]);
    }
    cluster.client.add("books", &books(2, 40));
    assert_eq!(tasks(), before + 1);
    assert_eq!(consistent(cluster, 2), 40);
    // The client disconnects after its upload, while a node handles the write: all replicas get it.
    cluster.freeze("meili-0");
    let body = books(3, 40).to_string();
    let before = tasks();
    let mut upload = Upload::start(&cluster.address("gateway-0"), PATH, body.len());
    upload.send(body.as_bytes());
    wait_until("it is begun", || tasks() > before);
    drop(upload);
    cluster.thaw("meili-0");
    assert_eq!(consistent(cluster, 3), 40);
}

/// Gives Envoy an equivalent new configuration. Envoy drops the old one with its last stream.
fn configure_again(cluster: &Sandbox, version: &str) {
    let published = std::fs::read(cluster.published("ecds.json")).unwrap();
    let mut resources: Value = serde_json::from_slice(&published).unwrap();
    resources["version_info"] = json!(version);
    let value = resources.pointer_mut("/resources/0/typed_config/config/configuration/value").unwrap();
    // With another space, the text is different for Envoy, but means the same to the filter.
    *value = json!(format!("{} ", value.as_str().unwrap()));
    let admin = cluster.admin(0);
    let is_in_force = || admin.get("/config_dump").body.to_string().contains(&format!("\"{version}\""));
    let what = "the configuration is in force";
    cluster.publish_instead("ecds.json", resources.to_string().as_bytes(), what, is_in_force);
}

pub fn a_client_that_leaves_and_a_new_configuration_tear_nothing(cluster: &Sandbox) {
    fill(cluster);
    let tasks = || cluster.client.get("/tasks?limit=0").body["total"].as_u64().unwrap();
    for version in 1..4 {
        let uid = tasks();
        cluster.freeze("meili-0");
        let body = books(version, 40).to_string();
        let mut upload = Upload::start(&cluster.address("gateway-0"), PATH, body.len());
        upload.send(body.as_bytes());
        wait_until("it is begun", || tasks() > uid);
        drop(upload);
        configure_again(cluster, &format!("test-{version}"));
        cluster.thaw("meili-0");
        assert_eq!(consistent(cluster, version), 40);
        let log = std::fs::read_to_string(cluster.data().join("logs/control.log")).unwrap();
        assert!(!log.contains(&format!("was recovered uid={uid} ")), "its gateway has ended it itself");
        let task = &cluster.client.get(&format!("/tasks/{uid}")).body;
        assert_eq!(task["status"], "succeeded", "{task}");
    }
}

pub fn a_node_is_killed_while_it_takes_a_write(cluster: &Sandbox) {
    fill(cluster);
    let write = begin_without(cluster, "meili-2", 0, &books(1, 40));
    cluster.kill("meili-2");
    let answer = write.join().unwrap().unwrap();
    cluster.client.succeeded(&answer);
    // As soon as the client has the answer, the stale replica is not read any more.
    assert_eq!(cluster.client.search("books", &json!({"limit": 100}))["hits"].as_array().unwrap().len(), 40);
    for hit in cluster.client.search("books", &json!({"limit": 100}))["hits"].as_array().unwrap() {
        assert_eq!(hit["v"], 1, "{hit}");
    }
    cluster.client.add("books", &books(2, 40));
    cluster.revive("meili-2");
    cluster.client.add("books", &books(3, 40));
    assert_eq!(consistent(cluster, 3), 40);
}

/// Simulates a node with a full disk: its task fails, those of other replicas do not.
pub fn a_task_that_fails_on_one_node_only_is_mended(cluster: &Sandbox) {
    cluster.client.create("books", "id", &json!({"filterableAttributes": ["_geo"]}));
    cluster.client.add("books", &books(0, 40));
    let node = cluster.node(0);
    // While the node is busy, an invalid document and the client's documents get into one batch, which fails.
    let long: Value =
        (0..20_000).map(|id| json!({"id": id, "text": format!("river {id} ").repeat(20)})).collect();
    assert_eq!(node.json("POST", "/indexes/busy/documents", &long).status, 202);
    let bad = node.json("POST", PATH, &json!([{"id": 1_000, "_geo": "nowhere"}]));
    let written = cluster.client.json("POST", PATH, &books(1, 40));
    cluster.client.succeeded(&written);
    assert_eq!(node.ended(&bad)["status"], "failed");
    let failed = &node.get("/tasks?statuses=failed&indexUids=books").body["total"];
    // `miroir-devnode` fails only the invalid document.
    assert_eq!(failed, if nodes_are_real() { 2 } else { 1 }, "the client's task has failed there too");
    assert_eq!(consistent(cluster, 1), 40);
    node.succeeded(&node.send("DELETE", "/indexes/busy", None, ""));
}

pub fn a_slow_upload_holds_up_nobody(cluster: &Sandbox) {
    fill(cluster);
    let body = books(1, 40).to_string();
    let (first, rest) = body.as_bytes().split_at(body.len() / 2);
    let mut upload = Upload::start(&cluster.address("gateway-0"), PATH, body.len());
    upload.send(first);
    let begun = Instant::now();
    cluster.client.add("films", &books(1, 40));
    cluster.client.add("books", &books(2, 40));
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert_eq!(consistent(cluster, 2), 40);
    // The upload is completed last, so it is written last.
    upload.send(rest);
    let answer = upload.answer();
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    assert_eq!(consistent(cluster, 1), 40);
}

/// A new topology makes Envoy free the gateway's old configuration, and a write whose client has disconnected depends on that
/// configuration only. This test shows that the root context stays until its writes are over. When the topology changes, one
/// such write is between begin and commit, and another waits in its begin. Both are written to all replicas, the second one
/// last, and their tasks succeed.
pub fn a_new_topology_takes_no_write_from_a_client_that_left() {
    // Long enough that the node is known to be unreachable before its write is recovered.
    let cluster = cluster_that_waits(2, 20_000);
    fill(&cluster);
    cluster.client.add("films", &books(0, 40));
    let leave = |gateway: &str, body: Value, key: &str| {
        let body = body.to_string();
        let mut upload = Upload::start(&cluster.address(gateway), PATH, body.len());
        upload.send(body.as_bytes());
        wait_status(&cluster, key, 1);
    };
    cluster.freeze("meili-2");
    leave("gateway-0", books(1, 40), "openWrites");
    leave("gateway-1", books(2, 40), "waiting");
    let reloads = |gateway| {
        let stats = cluster.admin(gateway).get("/stats?format=json&filter=config_reload$").body;
        stats["stats"].as_array().into_iter().flatten().filter_map(|stat| stat["value"].as_u64()).sum::<u64>()
    };
    let before = [reloads(0), reloads(1)];
    // The next write to its shards removes the replicas on an unreachable node from the topology.
    wait_until("the node is away", || cluster.status()["nodes"][2]["up"] == false);
    cluster.client.add("films", &books(1, 40));
    wait_until("gateways have the new topology", || reloads(0) > before[0] && reloads(1) > before[1]);
    assert_eq!(cluster.status()["openWrites"], 1);
    cluster.thaw("meili-2");
    assert_eq!(consistent(&cluster, 2), 40);
    let tasks = cluster.client.get("/tasks?indexUids=books&types=documentAdditionOrUpdate&limit=2").body;
    for task in tasks["results"].as_array().unwrap() {
        assert_eq!(
            (&task["status"], &task["details"]["indexedDocuments"]),
            (&json!("succeeded"), &json!(40)),
            "{task}"
        );
    }
}

/// A node that is paused longer than a write's timeout finds the write in its socket when it resumes, after newer writes. This
/// test shows that the late write does not matter: its key is deleted before the node's copies are replaced. Other writes of
/// the same gateway continue meanwhile.
pub fn a_callout_that_comes_late_changes_nothing(cluster: &Sandbox) {
    fill(cluster);
    let keys = |node| -> Vec<Value> {
        let keys = cluster.node(node).get("/keys?limit=1000").body["results"].as_array().cloned().unwrap();
        let mut epochs: Vec<Value> =
            keys.iter().filter(|key| key["name"] == "miroir:epoch").map(|key| key["uid"].clone()).collect();
        epochs.sort_by_key(Value::to_string);
        epochs
    };
    let before = keys(0);
    for round in 0..2 {
        let version = 10 * round;
        every_worker_writes(cluster);
        let late = begin_without(cluster, "meili-1", 0, &books(version + 1, 40));
        let answer = late.join().unwrap().unwrap();
        assert_eq!(answer.status, 202, "{}", answer.body);
        let newer = cluster.gateway(1).json("POST", PATH, &books(version + 2, 40));
        assert_eq!(newer.status, 202, "{}", newer.body);
        cluster.thaw("meili-1");
        for gateway in [0, 1] {
            let newest = cluster.gateway(gateway).json("POST", PATH, &books(version + 3, 40));
            assert_eq!(newest.status, 202, "{}", newest.body);
        }
        assert_eq!(consistent(cluster, version + 3), 40);
    }
    wait_until("all nodes have the same keys", || keys(0) == keys(1) && keys(0) == keys(2));
    assert!(before.iter().any(|key| !keys(0).contains(key)), "the key of the late write is gone");
}
