//! A client that has seen a task succeed must see its effect at every gateway.

use miroir_tests::{Client, Options, Sandbox, number, tell};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Polls a task without a pause until it has succeeded. Returns how long that took.
fn succeeded(client: &Client, accepted: &miroir_tests::Answer) -> Duration {
    assert_eq!(accepted.status, 202, "{}", accepted.body);
    let path = format!("/tasks/{}", accepted.body["taskUid"]);
    let begun = Instant::now();
    loop {
        let task = client.get(&path).body;
        match task["status"].as_str() {
            Some("succeeded") => return begun.elapsed(),
            Some("failed") => panic!("{task}"),
            _ => {}
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{task}");
    }
}

/// Settings that affect how gateways merge searches: the change, a search, and the expected value at a pointer in its answer.
fn settings(round: u64) -> [(Value, Value, &'static str, Value); 4] {
    let odd = round % 2 == 1;
    let limit = 2 + round % 5;
    [
        (json!({"pagination": {"maxTotalHits": limit}}), json!({"limit": 100}), "/hits", json!(limit)),
        (
            json!({"pagination": {"maxTotalHits": 1000}, "distinctAttribute": if odd { json!("kind") } else { Value::Null }}),
            json!({"hitsPerPage": 100}),
            "/totalHits",
            json!(if odd { 3 } else { 30 }),
        ),
        (
            json!({"distinctAttribute": null, "faceting": {"maxValuesPerFacet": limit, "sortFacetValuesBy": {"*": "count"}}}),
            json!({"facets": ["n"]}),
            "/facetDistribution/n",
            json!(limit),
        ),
        (
            json!({"rankingRules": [if odd { "n:asc" } else { "n:desc" }, "words"]}),
            json!({"limit": 1}),
            "/hits/0/n",
            json!(if odd { 0 } else { 29 }),
        ),
    ]
}

/// A cluster with two gateways.
pub fn cluster() -> Sandbox {
    Sandbox::start(Options { gateways: 2, ..Options::default() })
}

fn gateways(cluster: &Sandbox) -> [Client; 2] {
    [cluster.gateway(0), cluster.gateway(1)]
}

fn rounds() -> u64 {
    number("MIROIR_SEEN_ROUNDS", 12)
}

fn fill(client: &Client) {
    client.create("seen", "id", &json!({"filterableAttributes": ["n", "kind"], "sortableAttributes": ["n"]}));
    client.add(
        "seen",
        &json!((0..30).map(|id| json!({"id": id, "n": id, "kind": id % 3})).collect::<Vec<_>>()),
    );
}

pub fn settings_that_have_succeeded_are_seen_at_every_gateway(cluster: &Sandbox) {
    let gateways = gateways(cluster);
    let client = &gateways[0];
    fill(client);
    let mut took = Vec::new();
    for round in 0..rounds() {
        for (change, query, pointer, expected) in settings(round) {
            let accepted =
                gateways[usize::from(round % 3 == 0)].json("PATCH", "/indexes/seen/settings", &change);
            took.push(succeeded(client, &accepted));
            for at in 0..8 {
                let answer = gateways[at % 2].json("POST", "/indexes/seen/search", &query);
                let found = answer.body.pointer(pointer).cloned().unwrap_or_default();
                let found = match &found {
                    Value::Object(values) => json!(values.len()),
                    Value::Array(hits) => json!(hits.len()),
                    found => found.clone(),
                };
                assert_eq!(found, expected, "round {round}, {change}, search {at}: {}", answer.body);
            }
        }
    }
    took.sort_unstable();
    tell!(
        "a settings task takes {:?}, 9 of 10 {:?}, at most {:?}",
        took[took.len() / 2],
        took[took.len() * 9 / 10],
        took.last()
    );
}

/// Creates, swaps and deletes indexes, and checks that every gateway sees it.
pub fn indexes_come_and_go_at_every_gateway(cluster: &Sandbox) {
    let gateways = gateways(cluster);
    let client = &gateways[0];
    let search = |at: usize, index: &str| {
        let answer = gateways[at % 2].json(
            "POST",
            &format!("/indexes/{index}/search"),
            &json!({"filter": "n > 0", "limit": 5}),
        );
        (answer.status, answer.body["hits"][0]["id"].clone())
    };
    for round in 0..rounds() {
        let names = [format!("a{round}"), format!("b{round}")];
        for (name, id) in names.iter().zip([1, 2]) {
            let made = match round % 2 {
                0 => client.json(
                    "PATCH",
                    &format!("/indexes/{name}/settings"),
                    &json!({"filterableAttributes": ["n"]}),
                ),
                _ => client.json("POST", "/indexes", &json!({"uid": name, "primaryKey": "id"})),
            };
            succeeded(client, &made);
            for at in 0..4 {
                assert_eq!(gateways[at % 2].get(&format!("/indexes/{name}")).status, 200, "{name}");
                let answer = gateways[at % 2].json("POST", &format!("/indexes/{name}/search"), &json!({}));
                assert_eq!(
                    (answer.status, &answer.body["hits"]),
                    (200, &json!([])),
                    "{name}: {}",
                    answer.body
                );
            }
            succeeded(
                client,
                &client.json(
                    "PATCH",
                    &format!("/indexes/{name}/settings"),
                    &json!({"filterableAttributes": ["n"]}),
                ),
            );
            succeeded(
                client,
                &client.json("POST", &format!("/indexes/{name}/documents"), &json!([{"id": id, "n": 1}])),
            );
            (0..4).for_each(|at| assert_eq!(search(at, name), (200, json!(id)), "{name}"));
        }
        let swap = client.json("POST", "/swap-indexes", &json!([{"indexes": names}]));
        succeeded(client, &swap);
        for at in 0..4 {
            assert_eq!(search(at, &names[0]), (200, json!(2)));
            assert_eq!(search(at, &names[1]), (200, json!(1)));
        }
        for name in &names {
            succeeded(client, &client.send("DELETE", &format!("/indexes/{name}"), None, ""));
            for at in 0..4 {
                assert_eq!(search(at, name).0, 404, "{name}");
                assert_eq!(gateways[at % 2].get(&format!("/indexes/{name}/documents")).status, 404, "{name}");
            }
        }
    }
}

/// Keys are valid, and invalid, as soon as the requests that create or delete them are answered.
pub fn keys_come_and_go_at_every_gateway(cluster: &Sandbox) {
    let gateways = gateways(cluster);
    fill(&gateways[0]);
    for round in 0..rounds() {
        let body = json!({"actions": ["search", "documents.add"], "indexes": ["seen"], "expiresAt": null});
        let made = gateways[usize::from(round % 2 == 0)].json("POST", "/keys", &body);
        assert_eq!(made.status, 201, "{}", made.body);
        let key = made.body["key"].as_str().unwrap();
        let tried = |at: usize| {
            let client = gateways[at % 2].under(Some(key));
            let read = client.json("POST", "/indexes/seen/search", &json!({"limit": 1})).status;
            (
                read,
                client.json("POST", "/indexes/seen/documents", &json!([{"id": 1, "n": 1, "kind": 1}])).status,
            )
        };
        (0..4).for_each(|at| assert_eq!(tried(at), (200, 202), "a key that was just made"));
        let gone = gateways[usize::from(round % 2 == 1)].send("DELETE", &format!("/keys/{key}"), None, "");
        assert_eq!(gone.status, 204, "{}", gone.body);
        (0..4).for_each(|at| assert_eq!(tried(at), (403, 403), "a key that was just deleted"));
    }
}
