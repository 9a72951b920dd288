//! Grow, shrink and survive without anyone noticing.
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

use miroir_tests::{Options, Sandbox};
use serde_json::{Value, json};

const PATH: &str = "/indexes/books/documents";

fn books(ids: std::ops::Range<u64>, version: u64) -> Value {
    ids.map(|id| json!({"id": id, "v": version, "title": format!("book number {id}")})).collect()
}

fn cluster(nodes: u16, replication: u16) -> Sandbox {
    let cluster =
        Sandbox::start(Options { nodes, replication, gateways: 2, lease_ms: 1_000, ..Options::default() });
    cluster.client.create(
        "books",
        "id",
        &json!({"filterableAttributes": ["v"], "sortableAttributes": ["id"]}),
    );
    cluster.client.add("books", &books(0..400, 1));
    cluster
}

fn replicas(cluster: &Sandbox, node: &str) -> u64 {
    let status = cluster.miroir_json(&["status"]);
    let nodes = status["nodes"].as_array().unwrap().iter();
    nodes.filter(|of| of["name"] == node).map(|of| of["active"].as_u64().unwrap()).sum()
}

/// Every document is there once, for every client, and all copies are the same.
fn is_whole(cluster: &Sandbox, documents: usize, version: u64) {
    cluster.wait_settled();
    for gateway in 0..2 {
        let found = cluster
            .gateway(gateway)
            .search("books", &json!({"limit": 1000, "filter": format!("v = {version}")}));
        assert_eq!(found["hits"].as_array().unwrap().len(), documents, "gateway {gateway}");
    }
    assert_eq!(cluster.identical("books", "id").len(), documents);
    cluster.miroir_ok(&["verify"]);
}

#[test]
fn a_node_is_added_drained_and_removed() {
    let cluster = cluster(2, 2);
    let node = cluster.add_node();
    assert_eq!(node, "meili-2");
    // 16 shards of two replicas, over three nodes.
    let plan = cluster.miroir_json(&["node", "add", &cluster.named("meili-2"), "--dry-run"]);
    assert_eq!((&plan["replicas"], &plan["deleted"]), (&json!(10), &json!(10)), "{plan}");
    assert!(plan["documents"].as_u64().unwrap() > 100 && plan["bytes"].as_u64().unwrap() > 1_000, "{plan}");
    assert_eq!(cluster.miroir_json(&["status"])["nodes"].as_array().unwrap().len(), 2);
    cluster.miroir_ok(&["node", "add", &cluster.named("meili-2")]);
    assert_eq!(replicas(&cluster, "meili-2"), 10);
    is_whole(&cluster, 400, 1);
    assert_eq!(cluster.copies("books"), 800, "old copies are gone");
    cluster.client.add("books", &books(0..400, 2));
    is_whole(&cluster, 400, 2);
    cluster.miroir_ok(&["node", "drain", "meili-0"]);
    assert_eq!((replicas(&cluster, "meili-0"), cluster.node(0).count("books")), (0, 0));
    is_whole(&cluster, 400, 2);
    cluster.miroir_ok(&["node", "remove", "meili-0"]);
    assert_eq!(cluster.miroir_json(&["status"])["nodes"].as_array().unwrap().len(), 2);
    cluster.client.add("books", &books(0..400, 3));
    is_whole(&cluster, 400, 3);
    // It can come back, as a new one.
    cluster.miroir_ok(&["node", "add", &cluster.named("meili-0")]);
    assert_eq!(replicas(&cluster, "meili-0"), 10);
    is_whole(&cluster, 400, 3);
}
