//! A request that fails for one document fails as a whole: edits by function, and deletions of many documents.

use miroir_tests::{Client, Node, Options, Sandbox, wait_until};
use serde_json::{Value, json};

/// A task and all documents of an index, as a client sees them.
fn seen(client: &Client, index: &str, task: &Value) -> Value {
    let listed = client.get(&format!("/indexes/{index}/documents?limit=1000")).body["results"].clone();
    let mut documents: Vec<Value> = listed.as_array().cloned().unwrap_or_default();
    documents.sort_by_key(|document| document["id"].as_u64());
    json!({"status": task["status"], "error": task["error"], "details": task["details"], "documents": documents})
}

pub fn an_edit_that_fails_for_one_document_edits_none(cluster: &Sandbox, node: &Node) {
    let documents = json!((0..40).map(|id| json!({"id": id, "n": id, "text": "x"})).collect::<Vec<_>>());
    for client in [&cluster.client, &node.client] {
        let on = client.json("PATCH", "/experimental-features", &json!({"editDocumentsByFunction": true}));
        assert_eq!(on.status, 200, "{}", on.body);
        client.create("edited", "id", &json!({"filterableAttributes": ["n"]}));
        client.add("edited", &documents);
    }
    for (name, edit) in [
        ("throws", json!({"function": "if doc.n == 7 { throw \"seven\" } doc.n += 1"})),
        ("throws its document", json!({"function": "doc.n += 1; if doc.id == 9 { throw doc }"})),
        ("does not know", json!({"function": "if doc.id == 3 { doc.n = nothing } else { doc.n = 0 }"})),
        ("changes an id", json!({"function": "if doc.id == 30 { doc.id = 31 } doc.n = 0"})),
        ("is no document", json!({"function": "if doc.id == 30 { doc = 5 } else { doc = () }"})),
        ("takes long", json!({"function": "if doc.id == 5 { let x = 0; loop { x += 1; } } doc.n = 0"})),
        (
            "is not of it",
            json!({"function": "if doc.id == 2 { throw \"two\" } doc.n += 100", "filter": "n > 30"}),
        ),
        ("returns", json!({"function": "if doc.n > 5 { return; } doc.text = \"small\""})),
        ("deletes", json!({"function": "if doc.n > 130 { doc = () }", "filter": ["n > 100"]})),
        (
            "reads a context",
            json!({"function": "doc.text = context.word", "context": {"word": "y"}, "filter": [["n = 1", "n = 2"]]}),
        ),
    ] {
        let run = |client: &Client| {
            let task = client.ended(&client.json("POST", "/indexes/edited/documents/edit", &edit));
            seen(client, "edited", &task)
        };
        let (alone, together) = (run(&node.client), run(&cluster.client));
        assert_eq!(together, alone, "{name}");
    }
    cluster.miroir_ok(&["verify"]);
}

/// Checks that an edit takes effect in order between the writes before and after it.
pub fn an_edit_keeps_its_place(cluster: &Sandbox) {
    let client = &cluster.client;
    let on = client.json("PATCH", "/experimental-features", &json!({"editDocumentsByFunction": true}));
    assert_eq!(on.status, 200, "{}", on.body);
    client.create("placed", "id", &json!({}));
    for round in 0..10 {
        let documents = |n: u64| json!((0..20).map(|id| json!({"id": id, "n": n})).collect::<Vec<_>>());
        let path = "/indexes/placed/documents";
        let first = client.json("POST", path, &documents(round));
        let edit = client.json("POST", &format!("{path}/edit"), &json!({"function": "doc.n += 1000"}));
        let last = client.json("PUT", path, &json!([{"id": 3, "m": round}]));
        for accepted in [first, edit, last] {
            client.succeeded(&accepted);
        }
        let listed = client.get(&format!("{path}?limit=100")).body["results"].clone();
        for document in listed.as_array().unwrap() {
            assert_eq!(document["n"], round + 1000, "{document}");
            assert_eq!(
                document["id"] == 3,
                document["m"] == round && document.get("m").is_some(),
                "{document}"
            );
        }
    }
    cluster.miroir_ok(&["verify"]);
}

pub fn a_deletion_with_an_id_that_no_node_takes_deletes_none(cluster: &Sandbox, node: &Node) {
    let documents = json!((0..20).map(|id| json!({"id": id})).collect::<Vec<_>>());
    for (number, ids) in [
        json!([1, 2, "", 3, 4, 5]),
        json!([""]),
        json!([1, "a b", null, {"a": 1}, "é", 6, 7, 8]),
        json!([9, "x".repeat(511), 10, 11]),
        json!([12, "x".repeat(512), 13, 14]),
        json!([" 15", "16 ", 17]),
    ]
    .iter()
    .enumerate()
    {
        let index = format!("deleted-{number}");
        let run = |client: &Client| {
            client.create(&index, "id", &json!({}));
            client.add(&index, &documents);
            let path = format!("/indexes/{index}/documents/delete-batch");
            let task = client.ended(&client.json("POST", &path, ids));
            seen(client, &index, &task)
        };
        let (alone, together) = (run(&node.client), run(&cluster.client));
        assert_eq!(together, alone, "{ids}");
    }
    let path = "/indexes/nowhere/documents/delete-batch";
    let gone = [&cluster.client, &node.client]
        .map(|client| client.ended(&client.json("POST", path, &json!(["", 1])))["error"].clone());
    assert_eq!(gone[0], gone[1]);
    cluster.miroir_ok(&["verify"]);
}

/// A node with the only copy of a document is away: what it may refuse because of that document is not done on the others, since it could
/// never catch up.
pub fn settings_that_a_document_contradicts_wait_for_its_node() {
    let cluster = Sandbox::start(Options { nodes: 2, replication: 1, ..Options::default() });
    let client = &cluster.client;
    client.create("things", "id", &json!({}));
    client.add("things", &json!([{"id": 1}]));
    let holds = |node: &u16| cluster.node(*node).get("/indexes/things/stats").body["numberOfDocuments"] == 1;
    let holder = format!("meili-{}", (0..2).find(holds).unwrap());
    cluster.kill(&holder);
    let embedders = json!({"embedders": {"mine": {"source": "userProvided", "dimensions": 2}}});
    let path = "/indexes/things/settings";
    let set = |settings: &Value| client.json("PATCH", path, settings);
    for refused in [&embedders, &json!({"filterableAttributes": ["_geo"]})] {
        let answer = set(refused);
        assert_eq!(answer.status, 503, "{refused}: {}", answer.body);
    }
    client.succeeded(&set(&json!({"stopWords": ["the"]})));
    cluster.revive(&holder);
    wait_until("the node has caught up", || {
        cluster.member(&holder)["behind"] == false && cluster.is_repaired()
    });
    let task = client.ended(&set(&embedders));
    assert_eq!(task["status"], "failed", "the document has no vector: {task}");
    assert_eq!(client.get(path).body["stopWords"], json!(["the"]));
    client.succeeded(&client.send("DELETE", "/indexes/things", None, ""));
}
