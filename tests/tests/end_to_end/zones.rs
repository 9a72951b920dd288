//! Gateways and nodes in two zones, with a replica of each shard in both.

use miroir_tests::{Options, Sandbox};
use serde_json::{Value, json};

const DOCUMENTS: u64 = 60;

/// How many requests of searches a gateway has sent to nodes of the other zone.
fn crossings(cluster: &Sandbox, gateway: u16) -> u64 {
    let path = "/stats?format=json&filter=miroir_zone_crossings_total;operation=search";
    let stats = cluster.admin(gateway).get(path).body;
    stats["stats"].as_array().unwrap().iter().filter_map(|stat| stat["value"].as_u64()).sum()
}

/// Searches at both gateways, for all documents.
fn search(cluster: &Sandbox) {
    for number in 0..20 {
        let query = json!({"filter": format!("rank != {}", DOCUMENTS + number), "limit": DOCUMENTS});
        for gateway in 0..2 {
            let answer = cluster.gateway(gateway).json("POST", "/indexes/things/search", &query);
            assert_eq!(answer.body["hits"].as_array().unwrap().len() as u64, DOCUMENTS, "{}", answer.body);
        }
    }
}

pub fn reads_stay_in_the_gateways_zone_while_its_nodes_have_every_shard() {
    let cluster = Sandbox::start(Options { nodes: 4, gateways: 2, zones: 2, ..Options::default() });
    let client = &cluster.client;
    client.create("things", "id", &json!({"filterableAttributes": ["rank"]}));
    let documents: Vec<Value> = (0..DOCUMENTS).map(|id| json!({"id": id, "rank": id})).collect();
    client.add("things", &json!(documents));
    search(&cluster);
    assert_eq!([0, 1].map(|gateway| crossings(&cluster, gateway)), [0, 0]);
    cluster.kill("meili-0");
    search(&cluster);
    assert!(crossings(&cluster, 0) > 0, "the other zone has what its own lacks");
    assert_eq!(crossings(&cluster, 1), 0);
}
