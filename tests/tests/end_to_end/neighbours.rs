//! Clients that use different indexes do not affect each other. Eight clients run at once, each with its own index, and some of
//! their requests fail. Each client sees the same as on a node of its own.

use miroir_tests::{Answer, Client, Node, Options, Sandbox, number};
use serde_json::{Value, json};

/// An answer without the values that differ from run to run.
fn told(answer: &Answer) -> Value {
    let mut body = answer.body.clone();
    if let Some(body) = body.as_object_mut() {
        for name in ["processingTimeMs", "requestUid", "taskUid", "enqueuedAt", "createdAt", "updatedAt"] {
            body.remove(name);
        }
    }
    json!([answer.status, body])
}

/// The end of a task, or the answer if it is not a 202.
fn ended(client: &Client, accepted: &Answer) -> Value {
    if accepted.status != 202 {
        return told(accepted);
    }
    let mut task = client.ended(accepted);
    // Each node's message names only its own documents.
    if task["error"]["code"] == "vector_embedding_error" {
        task["error"]["message"] = Value::Null;
    }
    json!([task["type"], task["status"], task["error"], task["details"]])
}

/// The life of an index, from its creation to its deletion. Returns everything that its client gets.
fn life(client: &Client, name: &str, number: u64) -> Vec<Value> {
    let mut seen = Vec::new();
    let index = format!("/indexes/{name}");
    let path = |rest: &str| format!("{index}{rest}");
    let mut step = |said: Value| seen.push(said);
    let run = |method: &str, path: &str, body: Value| ended(client, &client.json(method, path, &body));
    let search = |query: Value| told(&client.json("POST", &format!("{index}/search"), &query));
    match number % 3 {
        0 => step(run("POST", "/indexes", json!({"uid": name, "primaryKey": "id"}))),
        1 => step(run("PATCH", &path("/settings"), json!({"stopWords": ["the"]}))),
        _ => {
            step(run("POST", &path("/documents?primaryKey=id"), json!([{"id": 900, "kind": "first"}])));
            // Most nodes have no document of this index, and would accept these changes.
            step(run("PATCH", &index, json!({"primaryKey": "kind"})));
            let embedders = json!({"x": {"source": "userProvided", "dimensions": 2}});
            step(run("PATCH", &path("/settings"), json!({"embedders": embedders, "stopWords": ["x"]})));
        }
    }
    step(search(json!({})));
    step(run(
        "PATCH",
        &path("/settings"),
        json!({"filterableAttributes": ["kind", "rank"], "sortableAttributes": ["rank"]}),
    ));
    step(search(json!({"filter": "rank > 3"})));
    let documents: Vec<Value> = (0..30)
        .map(|id| json!({"id": id, "kind": (["a", "b", "c"][id % 3]), "rank": id, "title": format!("title {id} of {name}")}))
        .collect();
    step(run("POST", &path("/documents?primaryKey=id"), json!(documents)));
    step(search(
        json!({"q": "title", "filter": "kind = a", "sort": ["rank:desc"], "facets": ["kind"], "limit": 4}),
    ));
    // Requests that fail.
    step(run("PATCH", &index, json!({"primaryKey": "kind"})));
    step(run(
        "PATCH",
        &path("/settings"),
        json!({"embedders": {"x": {"source": "userProvided", "dimensions": 2}}}),
    ));
    step(run("POST", "/indexes", json!({"uid": name})));
    step(run("POST", &path("/documents"), json!([{"no": "id"}])));
    step(run("POST", &path("/documents"), json!([{"id": "not an id"}])));
    step(run("POST", "/swap-indexes", json!([{"indexes": [name, format!("{name}-absent")]}])));
    step(run("PATCH", &path("/settings"), json!({"rankingRules": ["nonsense"]})));
    step(told(&client.json("GET", &path("/settings"), &json!({}))));
    // Reads immediately after each task.
    step(run("PATCH", &path("/settings"), json!({"pagination": {"maxTotalHits": 5}})));
    step(search(json!({"hitsPerPage": 2, "sort": ["rank:asc"]})));
    step(run(
        "PATCH",
        &path("/settings"),
        json!({"distinctAttribute": "kind", "pagination": {"maxTotalHits": 100}}),
    ));
    step(search(json!({"hitsPerPage": 10, "sort": ["rank:asc"]})));
    step(run("POST", &path("/documents/delete"), json!({"filter": "rank < 10"})));
    step(run("DELETE", &path("/settings/distinct-attribute"), Value::Null));
    step(search(json!({"hitsPerPage": 3, "sort": ["rank:asc"], "facets": ["kind"]})));
    step(told(&client.get(&path("/documents/12"))));
    step(run("DELETE", &index, Value::Null));
    step(told(&client.json("POST", &path("/search"), &json!({}))));
    step(run("DELETE", &index, Value::Null));
    seen
}

pub fn clients_on_different_indexes_do_not_notice_each_other() {
    const CLIENTS: u64 = 8;
    let (cluster, node) = (Sandbox::start(Options { gateways: 2, ..Options::default() }), Node::start());
    let rounds = number("MIROIR_NEIGHBOUR_ROUNDS", 3);
    let kinds: Vec<Vec<Value>> =
        (0..3).map(|number| life(&node.client, &format!("n{number}"), number)).collect();
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let (cluster, kinds) = (&cluster, &kinds);
            scope.spawn(move || {
                let client = cluster.gateway(u16::try_from(number % 2).unwrap());
                for round in 0..rounds {
                    let (name, kind) = (format!("m{number}x{round}"), (number + round) % 3);
                    let alone = &kinds[usize::try_from(kind).unwrap()];
                    let lived = life(&client, &name, kind);
                    for (step, (alone, together)) in alone.iter().zip(&lived).enumerate() {
                        let alone: Value =
                            serde_json::from_str(&alone.to_string().replace(&format!("n{kind}"), &name))
                                .unwrap();
                        assert_eq!(*together, alone, "client {number}, round {round}, step {step}");
                    }
                }
            });
        }
    });
    let nodes = cluster.status()["nodes"].clone();
    assert!(
        nodes.as_array().unwrap().iter().all(|node| node["behind"] == false && node["stale"] == 0),
        "{nodes}"
    );
    let log = std::fs::read_to_string(cluster.data().join("logs/control.log")).unwrap();
    let words = ["missed", "differently", "caught up", "lost its disk"];
    let disturbed: Vec<&str> =
        log.lines().filter(|line| words.iter().any(|what| line.contains(what))).collect();
    assert_eq!(disturbed, [""; 0], "the control plane logged that a node or replica differs");
}
