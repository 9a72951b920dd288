//! What must be so after a crash: nodes and catalogue agree, and nothing goes on.

use super::{NODES, at_rest};
use miroir_tests::{Client, Sandbox, pass, wait_until};
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, time::Duration};

/// What a node has: its indexes with their keys and settings, and clients' API keys.
fn of_node(node: &Client) -> Value {
    let indexes = node.get("/indexes?limit=1000").body["results"].clone();
    let index = |index: &Value| {
        let uid = index["uid"].as_str().unwrap();
        let settings = node.get(&format!("/indexes/{uid}/settings")).body;
        (uid.to_owned(), json!([index["primaryKey"], settings]))
    };
    let indexes: Map<String, Value> = indexes.as_array().unwrap().iter().map(index).collect();
    let keys = node.get("/keys?limit=1000").body["results"].clone();
    let is_clients = |key: &&Value| !key["name"].as_str().is_some_and(|name| name.starts_with("miroir:"));
    let mut keys: Vec<String> =
        keys.as_array().unwrap().iter().filter(is_clients).map(|key| key["uid"].to_string()).collect();
    keys.sort_unstable();
    json!([indexes, keys])
}

/// Waits until the cluster is at rest, and checks that nodes and catalogue agree.
pub fn agree(cluster: &Sandbox) {
    cluster.wait_tasks_ended();
    at_rest(cluster);
    // What the control plane itself has sent is no task of a client.
    wait_until("nodes have done what they were sent", || {
        let unfinished = "/tasks?statuses=enqueued,processing&limit=1";
        (0..NODES).all(|number| cluster.node(number).get(unfinished).body["total"] == 0)
    });
    let listed = cluster.client.get("/indexes?limit=1000").body["results"].clone();
    let first = of_node(&cluster.node(0));
    for number in 1..NODES {
        assert_eq!(of_node(&cluster.node(number)), first, "node {number} and node 0");
    }
    let known: BTreeSet<&str> = first[0].as_object().unwrap().keys().map(String::as_str).collect();
    let listed: BTreeSet<&str> =
        listed.as_array().unwrap().iter().filter_map(|index| index["uid"].as_str()).collect();
    assert_eq!(known, listed);
    cluster.miroir_ok(&["verify"]);
    // What was copied right before the crash may be copied again.
    wait_until("no topology follows", || {
        let version = cluster.status()["topologyVersion"].clone();
        pass(Duration::from_millis(1_300));
        cluster.status()["topologyVersion"] == version
    });
}
