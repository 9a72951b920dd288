//! Operations that free the name of an index, or give it to another index, and what follows them at once.

use miroir_tests::{Client, Node, Sandbox, pass};
use serde_json::{Value, json};
use std::{collections::BTreeSet, time::Duration};

const A: &str = "freed-a";
const B: &str = "freed-b";
const C: &str = "freed-c";

fn documents(ids: std::ops::Range<u32>) -> Value {
    ids.map(|id| json!({"id": id, "title": format!("number {id}")})).collect()
}

fn index(uid: &str) -> String {
    format!("/indexes/{uid}")
}

/// What reads say of an index.
fn seen(client: &Client, uid: &str) -> Value {
    let get = |rest: &str| client.get(&format!("/indexes/{uid}{rest}"));
    let search = client.json("POST", &format!("/indexes/{uid}/search"), &json!({"limit": 100}));
    json!({
        "index": get("").status,
        "documents": [get("/documents").status, get("/documents").body["total"]],
        "search": [search.status, search.body["hits"].as_array().map(Vec::len)],
        "stopWords": get("/settings/stop-words").body,
        "code": search.body["code"],
    })
}

pub fn what_takes_a_freed_name_is_as_on_one_node(cluster: &Sandbox, node: &Node) {
    let rename = ("PATCH", index(A), json!({"uid": C}));
    let swap =
        |rename: bool| ("POST", "/swap-indexes".to_owned(), json!([{"indexes": [A, C], "rename": rename}]));
    let create = |body: Value| ("POST", "/indexes".to_owned(), body);
    let stop_words = ("PATCH", format!("/indexes/{A}/settings"), json!({"stopWords": ["q"]}));
    let cases = [
        ("a rename, a new index", vec![rename.clone(), create(json!({"uid": A}))]),
        (
            "a rename, a new index with a key",
            vec![rename.clone(), create(json!({"uid": A, "primaryKey": "id"}))],
        ),
        ("a swap that renames, a new index", vec![swap(true), create(json!({"uid": A}))]),
        ("a rename, settings", vec![rename.clone(), stop_words.clone()]),
        (
            "a rename, one setting",
            vec![rename, ("PUT", format!("/indexes/{A}/settings/stop-words"), json!(["q"]))],
        ),
        ("a deletion, settings", vec![("DELETE", index(A), Value::Null), stop_words]),
    ];
    for (name, operations) in cases {
        let run = |client: &Client| {
            for uid in [A, B, C] {
                let _ = client.ended(&client.send("DELETE", &index(uid), None, ""));
            }
            client.add(A, &documents(0..7));
            let accepted: Vec<_> = operations
                .iter()
                .map(|(method, path, body)| match body {
                    Value::Null => client.send(method, path, None, ""),
                    body => client.json(method, path, body),
                })
                .collect();
            let statuses: Vec<Value> =
                accepted.iter().map(|accepted| client.ended(accepted)["status"].clone()).collect();
            let before = [seen(client, A), seen(client, C)];
            client.add(A, &documents(20..23));
            json!([statuses, before, [seen(client, A), seen(client, C)]])
        };
        assert_eq!(run(&cluster.client), run(&node.client), "{name}");
    }
}

/// The ids that searches find in an index.
fn found(client: &Client, uid: &str) -> BTreeSet<u64> {
    let hits = client.search(uid, &json!({"limit": 1000}))["hits"].clone();
    hits.as_array().into_iter().flatten().filter_map(|hit| hit["id"].as_u64()).collect()
}

/// A node that is killed during an operation may do it twice, or half.
pub fn a_node_that_dies_in_an_operation_has_what_the_others_have(cluster: &Sandbox) {
    let client = &cluster.client;
    let mut round = 0;
    for delay in [0, 15, 40] {
        for case in ["swap of two full indexes", "swap with an empty index", "deletion and a new index"] {
            let node = format!("meili-{}", round % 3);
            round += 1;
            for uid in [A, B] {
                let _ = client.ended(&client.send("DELETE", &index(uid), None, ""));
            }
            client.add(A, &documents(0..20));
            match case {
                "swap of two full indexes" => client.add(B, &documents(100..130)),
                _ => _ = client.succeeded(&client.json("POST", "/indexes", &json!({"uid": B}))),
            }
            let mut accepted = vec![match case {
                "deletion and a new index" => client.send("DELETE", &index(A), None, ""),
                _ => client.json("POST", "/swap-indexes", &json!([{"indexes": [A, B]}])),
            }];
            pass(Duration::from_millis(delay));
            cluster.kill(&node);
            pass(Duration::from_millis(150));
            cluster.revive(&node);
            if case == "deletion and a new index" {
                accepted.push(client.json("POST", "/indexes", &json!({"uid": A})));
            }
            accepted.iter().for_each(|accepted| _ = client.succeeded(accepted));
            cluster.wait_repaired();
            let (a, b): (BTreeSet<u64>, BTreeSet<u64>) = match case {
                "swap of two full indexes" => ((100..130).collect(), (0..20).collect()),
                "swap with an empty index" => (BTreeSet::new(), (0..20).collect()),
                _ => (BTreeSet::new(), BTreeSet::new()),
            };
            let what = format!("{case}, {node} killed after {delay} ms");
            assert_eq!((found(client, A), found(client, B)), (a, b), "{what}");
            cluster.miroir_ok(&["verify"]);
            for uid in [A, B] {
                let keys: Vec<Value> = (0..3)
                    .map(|number| cluster.node(number).get(&index(uid)).body["primaryKey"].clone())
                    .collect();
                assert!(keys.iter().all(|key| *key == keys[0]), "{what}: {uid} has the keys {keys:?}");
            }
        }
    }
}
