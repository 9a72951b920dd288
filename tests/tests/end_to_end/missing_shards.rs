//! All nodes that hold a shard are unreachable, with one or two replicas. Reads return the results of the other shards, or an
//! error, as configured.

use miroir_core::shard::Shard;
use miroir_tests::{Answer, Client, Options, Sandbox};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const SHARDS: u16 = 16;

const DOCUMENTS: u64 = 120;

/// Sends every kind of read that uses many shards, for all documents.
pub fn reads(client: &Client) -> Vec<(&'static str, Answer)> {
    let query = json!({"indexUid": "things", "filter": "rank >= 0"});
    let limited = json!({"indexUid": "things", "filter": "rank >= 0", "limit": 1000});
    let post = |path: &str, body: &Value| client.json("POST", path, body);
    vec![
        ("search", post("/indexes/things/search", &json!({"limit": 1000}))),
        ("search by GET", client.get("/indexes/things/search?limit=1000")),
        ("multi-search", post("/multi-search", &json!({"queries": [limited]}))),
        ("federated", post("/multi-search", &json!({"queries": [query], "federation": {"limit": 1000}}))),
        ("facet search", post("/indexes/things/facet-search", &json!({"facetName": "kind"}))),
        ("documents", client.get("/indexes/things/documents?limit=1000")),
        ("documents/fetch", post("/indexes/things/documents/fetch", &json!({"limit": 1000}))),
    ]
}

/// The ids of the documents that an answer includes. A facet search tells only their number.
fn found(answer: &Value) -> Vec<u64> {
    if let Some(value) = answer.pointer("/facetHits/0/count") {
        return (0..value.as_u64().unwrap()).collect();
    }
    let hits = [answer.pointer("/results/0/hits"), answer.get("hits"), answer.get("results")];
    let hits = hits.into_iter().flatten().next().and_then(Value::as_array).unwrap();
    hits.iter().map(|hit| hit["id"].as_u64().unwrap()).collect()
}

/// The gateway's counter of missing shards, over all its answers.
fn counted(cluster: &Sandbox) -> u64 {
    let stats = cluster.admin(0).get("/stats?format=json&filter=miroir_missing_shards").body;
    stats["stats"].as_array().unwrap().iter().filter_map(|stat| stat["value"].as_u64()).sum()
}

/// A cluster of three nodes, of which as many are killed as there are replicas. Returns it, and the shards that only the killed
/// nodes hold.
fn left_alone(on_missing_shards: &'static str, replication: u16) -> (Sandbox, BTreeSet<u16>) {
    let options = Options { shards: SHARDS, replication, on_missing_shards, ..Options::default() };
    let cluster = Sandbox::start(options);
    let client = &cluster.client;
    client.create("things", "id", &json!({"filterableAttributes": ["rank", "kind"]}));
    let document = |id: u64| json!({"id": id, "rank": id, "kind": "one"});
    client.add("things", &json!((0..DOCUMENTS).map(document).collect::<Vec<_>>()));
    for (route, answer) in reads(client) {
        assert_eq!(answer.header("x-miroir-missing-shards"), None, "{route}");
        assert_eq!(found(&answer.body).len(), DOCUMENTS as usize, "{route}");
    }
    assert_eq!(counted(&cluster), 0);
    let victims = &["meili-1", "meili-2"][..usize::from(replication)];
    let placed = cluster.miroir_json(&["shards"]);
    let missing = placed.as_array().unwrap().iter().filter(|shard| {
        let mut nodes = shard["active"].as_array().unwrap().iter();
        nodes.all(|node| victims.contains(&node.as_str().unwrap()))
    });
    let missing: BTreeSet<u16> = missing.map(|shard| shard["shard"].as_u64().unwrap() as u16).collect();
    assert!((1..SHARDS as usize).contains(&missing.len()), "{missing:?}");
    victims.iter().for_each(|victim| cluster.kill(victim));
    (cluster, missing)
}

fn names(shards: &BTreeSet<u16>) -> String {
    shards.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

pub fn a_partial_answer_names_the_missing_shards_and_has_all_others() {
    let (cluster, missing) = left_alone("partial", 2);
    let held = |id: &u64| !missing.contains(&Shard::of_document(&id.to_string(), SHARDS).0);
    let expected: Vec<u64> = (0..DOCUMENTS).filter(held).collect();
    assert!(expected.len() < DOCUMENTS as usize);
    let answers = reads(&cluster.client);
    for (route, answer) in &answers {
        assert_eq!(answer.status, 200, "{route}: {}", answer.body);
        assert_eq!(answer.header("x-miroir-missing-shards"), Some(&*names(&missing)), "{route}");
        let found = found(&answer.body);
        match *route {
            "facet search" => assert_eq!(found.len(), expected.len()),
            _ => assert_eq!(found, expected, "{route}"),
        }
    }
    assert_eq!(counted(&cluster), (answers.len() * missing.len()) as u64);
}

pub fn an_answer_that_would_be_partial_is_an_error_where_that_is_wanted() {
    let (cluster, missing) = left_alone("error", 1);
    let answers = reads(&cluster.client);
    for (route, answer) in &answers {
        let message = format!("No replica answers for {} of {SHARDS} shards.", missing.len());
        let error = json!({
            "message": message, "code": "remote_could_not_send_request", "type": "system",
            "link": "https://docs.meilisearch.com/errors#remote_could_not_send_request"
        });
        assert_eq!((answer.status, &answer.body), (503, &error), "{route}");
        assert_eq!(answer.header("x-miroir-missing-shards"), Some(&*names(&missing)), "{route}");
        assert_eq!(answer.header("retry-after"), Some("10"), "{route}");
    }
    assert_eq!(counted(&cluster), (answers.len() * missing.len()) as u64);
    // Reads that need none of these shards are answered.
    for id in 0..DOCUMENTS {
        let answer = cluster.client.get(&format!("/indexes/things/documents/{id}"));
        let held = !missing.contains(&Shard::of_document(&id.to_string(), SHARDS).0);
        assert_eq!(answer.status, if held { 200 } else { 503 }, "{id}: {}", answer.body);
    }
}
