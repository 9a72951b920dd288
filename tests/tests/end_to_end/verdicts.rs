//! If a single node would refuse an operation on a whole index, the cluster refuses it with the same error. Then all nodes are
//! rolled back, and other operations are not affected.

use miroir_tests::{Client, Node, Sandbox, nodes_are_real, pass, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

/// An operation that fails because of documents that most nodes do not have.
struct Refused {
    name: &'static str,
    /// The documents of the index.
    documents: Value,
    settings: Value,
    /// The HTTP method of the operation.
    method: &'static str,
    route: &'static str,
    body: Value,
}

fn refused() -> Vec<Refused> {
    let refused = |name, documents, settings, method, route, body| Refused {
        name,
        documents,
        settings,
        method,
        route,
        body,
    };
    let one = json!([{"id": 1, "code": "x", "title": "the only one"}]);
    let mine = |dimensions: u64| json!({"mine": {"source": "userProvided", "dimensions": dimensions}});
    let some_with_vectors = json!([
        {"id": 1, "title": "one", "_vectors": {"mine": [1, 2]}},
        {"id": 2, "title": "two", "_vectors": {"mine": [2, 1]}},
        {"id": 3, "title": "three"},
    ]);
    vec![
        refused("another key", one.clone(), json!({}), "PATCH", "", json!({"primaryKey": "code"})),
        refused(
            "missing vectors",
            some_with_vectors,
            json!({}),
            "PATCH",
            "/settings",
            json!({"embedders": mine(2)}),
        ),
        refused(
            "one of two changes",
            json!([{"id": 1, "title": "one"}]),
            json!({"stopWords": ["the"], "typoTolerance": {"disableOnWords": ["x"]}}),
            "PATCH",
            "/settings",
            json!({"embedders": mine(2), "stopWords": ["a"], "typoTolerance": {"enabled": false}, "synonyms": {"a": ["b"]},
                   "faceting": {"maxValuesPerFacet": 3}, "filterableAttributes": ["title"]}),
        ),
        refused(
            "invalid coordinates",
            json!([{"id": 1, "_geo": "nowhere"}, {"id": 2, "_geo": {"lat": 1, "lng": 2}}]),
            json!({"sortableAttributes": ["id"]}),
            "PUT",
            "/settings/sortable-attributes",
            json!(["_geo"]),
        ),
        refused(
            "coordinates in an attribute that is not filterable",
            json!([{"id": 1, "_geo": {"lat": "x", "lng": 2}}, {"id": 2}]),
            json!({"filterableAttributes": ["id"]}),
            "PUT",
            "/settings/filterable-attributes",
            json!(["_geo", "id"]),
        ),
    ]
}

/// An index and a task, as a client sees them.
fn seen(client: &Client, index: &str, task: &Value) -> Value {
    let path = |rest: &str| client.get(&format!("/indexes/{index}{rest}"));
    let known = path("").body;
    let query = json!({"limit": 100});
    let hits = client.json("POST", &format!("/indexes/{index}/search"), &query).body["hits"].clone();
    let mut ids: Vec<String> =
        hits.as_array().into_iter().flatten().map(|hit| hit["id"].to_string()).collect();
    ids.sort_unstable();
    json!({
        "status": task["status"],
        "error": task["error"],
        "details": task["details"],
        "key": known["primaryKey"],
        "settings": path("/settings").body,
        "count": path("/stats").body["numberOfDocuments"],
        "ids": ids,
    })
}

/// Whether, for the control plane, no node is behind.
fn no_node_is_behind(cluster: &Sandbox) -> bool {
    let nodes = cluster.status()["nodes"].as_array().cloned().unwrap_or_default();
    !nodes.is_empty() && nodes.iter().all(|node| node["behind"] == false)
}

/// Checks that all nodes have the same settings and the same primary key of an index.
fn nodes_agree(cluster: &Sandbox, index: &str) {
    let of = |number: u16| {
        let node = cluster.node(number);
        let key = node.get(&format!("/indexes/{index}")).body["primaryKey"].clone();
        (key, node.get(&format!("/indexes/{index}/settings")).body)
    };
    let first = of(0);
    for number in 1..3 {
        assert_eq!(of(number), first, "{index}: node {number} and node 0");
    }
}

pub fn what_one_node_refuses_no_node_keeps(cluster: &Sandbox, node: &Node) {
    for client in [&cluster.client, &node.client] {
        client.add("other", &json!([{"id": 1}]));
    }
    cluster.wait_repaired();
    for (number, case) in refused().iter().enumerate() {
        let index = format!("refused-{number}");
        let run = |client: &Client| {
            client.create(&index, "id", &case.settings);
            client.add(&index, &case.documents);
            let path = format!("/indexes/{index}{}", case.route);
            let task = client.ended(&client.json(case.method, &path, &case.body));
            seen(client, &index, &task)
        };
        let alone = run(&node.client);
        // The engine of `miroir-devnode` accepts more than Meilisearch does.
        if alone["status"] == "succeeded" && !nodes_are_real() {
            continue;
        }
        assert_eq!(alone["status"], "failed", "{}: one node takes it: {alone}", case.name);
        assert_eq!(run(&cluster.client), alone, "{}", case.name);
        assert!(no_node_is_behind(cluster), "{}: {}", case.name, cluster.status());
        // Where nodes had an embedder for a moment, replicas are compared.
        cluster.wait_repaired();
        nodes_agree(cluster, &index);
        // Other indexes can still be read, and new ones created.
        assert_eq!(cluster.client.search("other", &json!({}))["hits"], json!([{"id": 1}]), "{}", case.name);
        let new = format!("new-{number}");
        cluster.client.create(&new, "id", &json!({"filterableAttributes": ["n"]}));
        cluster.client.add(&new, &json!([{"id": 1, "n": 1}, {"id": 2, "n": 2}]));
        assert_eq!(
            cluster.client.search(&new, &json!({"filter": "n = 2"}))["hits"],
            json!([{"id": 2, "n": 2}])
        );
        // New documents are indexed with the old settings.
        cluster.client.add(&index, &json!([{"id": 77, "title": "later"}]));
        assert_eq!(
            cluster.client.get(&format!("/indexes/{index}/documents/77")).status,
            200,
            "{}",
            case.name
        );
    }
    cluster.miroir_ok(&["verify"]);
}

/// An update changes name and primary key at once: nodes apply the name before they check the key.
pub fn a_new_name_stays_where_a_new_key_is_refused(cluster: &Sandbox, node: &Node) {
    let run = |client: &Client| {
        client.create("before", "id", &json!({"stopWords": ["the"]}));
        client.add("before", &json!([{"id": 1, "code": "x"}]));
        let change = json!({"uid": "after", "primaryKey": "code"});
        let task = client.ended(&client.json("PATCH", "/indexes/before", &change));
        let names = ["before", "after"].map(|index| client.get(&format!("/indexes/{index}")).status);
        client.add("after", &json!([{"id": 2}]));
        json!([names, seen(client, "after", &task)])
    };
    let alone = run(&node.client);
    assert_eq!(run(&cluster.client), alone);
    assert!(cluster.is_repaired());
    nodes_agree(cluster, "after");
    cluster.miroir_ok(&["verify"]);
}

/// Changes that are sent directly after a refused change are kept, and end after it.
pub fn what_follows_a_refused_change_is_kept(cluster: &Sandbox, node: &Node) {
    let run = |client: &Client| {
        client.create("followed", "id", &json!({"stopWords": ["the"]}));
        client.add("followed", &json!([{"id": 1, "title": "one"}]));
        let path = "/indexes/followed/settings";
        let embedders = json!({"mine": {"source": "userProvided", "dimensions": 2}});
        let refused = client.json(
            "PATCH",
            path,
            &json!({"embedders": embedders, "stopWords": ["a"], "synonyms": {"a": ["b"]}}),
        );
        let refused = client.ended(&refused);
        let kept =
            client.json("PATCH", path, &json!({"stopWords": ["of"], "pagination": {"maxTotalHits": 7}}));
        client.succeeded(&kept);
        seen(client, "followed", &refused)
    };
    let alone = run(&node.client);
    assert_eq!(run(&cluster.client), alone);
    nodes_agree(cluster, "followed");
    // On a single node, the following change may be batched with the refused one, and fail too. So both ends are allowed here.
    let path = "/indexes/followed/settings";
    let embedders = json!({"mine": {"source": "userProvided", "dimensions": 2}});
    for round in 0..10 {
        let refused = cluster.client.json(
            "PATCH",
            path,
            &json!({"embedders": embedders, "dictionary": [round.to_string()]}),
        );
        let next = cluster.client.json("PATCH", path, &json!({"stopWords": [round.to_string()]}));
        assert_eq!(cluster.client.ended(&refused)["status"], "failed");
        let next = cluster.client.ended(&next);
        let settings = cluster.client.get(path).body;
        assert_eq!(
            settings["stopWords"] == json!([round.to_string()]),
            next["status"] == "succeeded",
            "{next} {settings}"
        );
        assert_eq!(
            (&settings["dictionary"], settings.get("embedders")),
            (&json!([]), Some(&json!({}))),
            "{settings}"
        );
        nodes_agree(cluster, "followed");
    }
    assert!(cluster.is_repaired());
}

/// The control plane is killed while nodes try an edit, or have queued it. The edit must be applied once to all documents, or
/// to none.
pub fn edits_are_whole_whoever_is_killed(cluster: &Sandbox) {
    let client = &cluster.client;
    let on = client.json("PATCH", "/experimental-features", &json!({"editDocumentsByFunction": true}));
    assert_eq!(on.status, 200, "{}", on.body);
    client.create("edited", "id", &json!({}));
    client.add("edited", &json!((0..60).map(|id| json!({"id": id, "n": 0})).collect::<Vec<_>>()));
    let mut expected = 0;
    for wait in [0, 5, 15, 40, 100] {
        let edit = client.json("POST", "/indexes/edited/documents/edit", &json!({"function": "doc.n += 1"}));
        pass(Duration::from_millis(wait));
        cluster.kill("control");
        cluster.revive("control");
        wait_until("the control plane is back", || client.get("/tasks").status == 200);
        let task = client.ended(&edit);
        expected += u64::from(task["status"] == "succeeded");
        let listed = client.get("/indexes/edited/documents?limit=100").body["results"].clone();
        let numbers: Vec<u64> =
            listed.as_array().unwrap().iter().map(|it| it["n"].as_u64().unwrap()).collect();
        assert_eq!(numbers, [expected; 60], "after {wait} ms: {task}");
    }
    cluster.wait_repaired();
    cluster.miroir_ok(&["verify"]);
}

/// An index that refuses embedders and another key, and its settings.
fn with_books(cluster: &Sandbox) -> Value {
    let client = &cluster.client;
    client.create("books", "id", &json!({"stopWords": ["the"]}));
    client.add("books", &json!([{"id": 1, "title": "one"}, {"id": 2, "title": "two"}]));
    client.get(BOOKS_SETTINGS).body
}

const BOOKS_SETTINGS: &str = "/indexes/books/settings";

/// It has its documents, and all copies are the same.
fn is_whole(cluster: &Sandbox) {
    assert_eq!(cluster.client.search("books", &json!({}))["hits"].as_array().map(Vec::len), Some(2));
    cluster.miroir_ok(&["verify"]);
}

pub fn a_refused_operation_is_undone_whoever_is_killed(cluster: &Sandbox) {
    let (client, settings) = (&cluster.client, with_books(cluster));
    let embedders = json!({"mine": {"source": "userProvided", "dimensions": 2}});
    for wait in [0, 20, 40, 80, 160] {
        let change = json!({"embedders": embedders, "stopWords": ["a"]});
        let refused = client.json("PATCH", BOOKS_SETTINGS, &change);
        pass(Duration::from_millis(wait));
        cluster.kill("control");
        cluster.revive("control");
        wait_until("the control plane is back", || client.get("/tasks").status == 200);
        assert_eq!(client.ended(&refused)["status"], "failed", "after {wait} ms");
        assert_eq!(client.get(BOOKS_SETTINGS).body, settings, "after {wait} ms");
        nodes_agree(cluster, "books");
        let refused = client.json("PATCH", "/indexes/books", &json!({"primaryKey": "title"}));
        pass(Duration::from_millis(wait));
        cluster.kill("control");
        cluster.revive("control");
        wait_until("the control plane is back", || client.get("/tasks").status == 200);
        assert_eq!(client.ended(&refused)["error"]["code"], "index_primary_key_already_exists");
        nodes_agree(cluster, "books");
    }
    is_whole(cluster);
}

/// An unreachable node may have accepted the change or not. When it comes back, it must be like the others.
pub fn a_refused_operation_is_undone_on_a_node_that_was_away(cluster: &Sandbox) {
    let (client, settings) = (&cluster.client, with_books(cluster));
    let embedders = json!({"mine": {"source": "userProvided", "dimensions": 2}});
    for number in 0..3 {
        let name = format!("meili-{number}");
        let change = json!({"embedders": embedders, "stopWords": ["b"], "synonyms": {"a": ["b"]}});
        cluster.freeze(&name);
        let refused = client.json("PATCH", BOOKS_SETTINGS, &change);
        let was_away = client.ended(&refused);
        cluster.thaw(&name);
        cluster.wait_repaired();
        // The unreachable node cannot be the only one that would refuse the change, because there are two replicas.
        assert_eq!(was_away["status"], "failed", "{was_away}");
        let refused = client.json("PATCH", BOOKS_SETTINGS, &change);
        cluster.kill(&name);
        assert_eq!(client.ended(&refused)["status"], "failed");
        cluster.revive(&name);
        cluster.wait_repaired();
        assert_eq!(client.get(BOOKS_SETTINGS).body, settings);
        nodes_agree(cluster, "books");
    }
    is_whole(cluster);
}
