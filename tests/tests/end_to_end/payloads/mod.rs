//! Valid and invalid payloads of every form: a cluster must answer as a single node does, and store the same documents.

mod cases;

use miroir_tests::{Client, Node, Sandbox, tell};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};

/// One request to a route of the case's own index.
struct Case {
    name: String,
    method: &'static str,
    /// Behind `/indexes/{uid}`.
    route: String,
    content_type: Option<&'static str>,
    encoding: Option<&'static str>,
    body: Vec<u8>,
    /// The documents that are in the index before.
    before: Option<&'static str>,
    /// The index's settings.
    settings: Option<Value>,
}

fn case(name: &str, content_type: &'static str, body: impl Into<Vec<u8>>) -> Case {
    Case {
        name: name.to_owned(),
        method: "POST",
        route: "/documents".to_owned(),
        content_type: Some(content_type),
        encoding: None,
        body: body.into(),
        before: None,
        settings: None,
    }
}

/// The answer to a case and its effects, without the values that differ from run to run.
fn told(client: &Client, index: &str, case: &Case) -> Value {
    if let Some(settings) = &case.settings {
        client.succeeded(&client.json("PATCH", &format!("/indexes/{index}/settings"), settings));
    }
    if let Some(before) = case.before {
        client.add(index, &serde_json::from_str(before).unwrap());
    }
    let path = format!("/indexes/{index}{}", case.route);
    let answer = client.encoded(case.method, &path, case.content_type, case.encoding, case.body.clone());
    let task = (answer.status == 202).then(|| {
        let task = client.ended(&answer);
        json!({"status": task["status"], "type": task["type"], "details": task["details"], "error": task["error"]})
    });
    let mut body = answer.body;
    for name in ["taskUid", "enqueuedAt"] {
        body.as_object_mut().map(|body| body.remove(name));
    }
    let fetched = client.json("POST", &format!("/indexes/{index}/documents/fetch"), &json!({"limit": 100}));
    let mut documents = fetched.body["results"].as_array().cloned().unwrap_or_default();
    documents.sort_by_key(Value::to_string);
    let primary_key = &client.get(&format!("/indexes/{index}")).body["primaryKey"];
    json!({
        "status": answer.status, "body": body, "task": task, "documents": documents, "total": fetched.body["total"],
        "fetched": [fetched.status, fetched.body["code"], fetched.body["message"]],
        "primaryKey": primary_key
    })
}

fn compare(cluster: &Sandbox, node: &Node, cases: &[Case]) {
    let (cluster, node) = (&cluster.client, &node.client);
    let next = AtomicUsize::new(0);
    let different = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(case) = cases.get(number) else { break };
                    let index = format!("payload-{number}");
                    let (one, many) = (told(node, &index, case), told(cluster, &index, case));
                    if one != many {
                        different.fetch_add(1, Ordering::Relaxed);
                        let shown =
                            String::from_utf8_lossy(&case.body[..case.body.len().min(200)]).into_owned();
                        tell!("{} {} {shown}\n  node    {one}\n  cluster {many}", case.name, case.route);
                    }
                }
            });
        }
    });
    assert_eq!(different.into_inner(), 0, "of {} requests", cases.len());
}

pub fn payloads_of_json_are_taken_and_refused_as_by_one_node(cluster: &Sandbox, node: &Node) {
    compare(cluster, node, &cases::json_payloads());
}

pub fn tables_and_lines_are_taken_and_refused_as_by_one_node(cluster: &Sandbox, node: &Node) {
    compare(cluster, node, &cases::tables_and_lines());
}

pub fn parameters_and_headers_are_taken_and_refused_as_by_one_node(cluster: &Sandbox, node: &Node) {
    compare(cluster, node, &cases::parameters_and_headers());
}

pub fn deletions_and_edits_are_taken_and_refused_as_by_one_node(cluster: &Sandbox, node: &Node) {
    compare(cluster, node, &cases::deletions_and_edits());
}

pub fn what_settings_of_an_index_refuse_is_refused_as_by_one_node(cluster: &Sandbox, node: &Node) {
    compare(cluster, node, &cases::refused_by_settings());
}

pub fn the_key_comes_before_the_payload(cluster: &Sandbox, node: &Node) {
    let all = [
        cases::json_payloads(),
        cases::tables_and_lines(),
        cases::parameters_and_headers(),
        cases::deletions_and_edits(),
        cases::refused_by_settings(),
    ];
    let cases: Vec<Case> = all.into_iter().flatten().collect();
    for wrong in [None, Some("wrong")] {
        let (cluster, node) = (cluster.client.under(wrong), node.client.under(wrong));
        for case in cases.iter().filter(|case| case.before.is_none()).step_by(9) {
            let path = format!("/indexes/movies{}", case.route);
            let answer = |client: &Client| {
                let answer =
                    client.encoded(case.method, &path, case.content_type, case.encoding, case.body.clone());
                (answer.status, answer.body)
            };
            assert_eq!(answer(&cluster), answer(&node), "{} under {wrong:?}", case.name);
        }
    }
}

/// The tag is neither seen nor lost.
pub fn edits_by_function_leave_the_tag_alone(cluster: &Sandbox, node: &Node) {
    for client in [&cluster.client, &node.client] {
        let features = json!({"editDocumentsByFunction": true});
        assert_eq!(client.json("PATCH", "/experimental-features", &features).status, 200);
        client.create("edited", "id", &json!({"filterableAttributes": ["id", "n"]}));
        client.add("edited", &json!((0..50).map(|id| json!({"id": id, "n": id % 5})).collect::<Vec<_>>()));
    }
    let edits = [
        json!({"function": "doc.n += 1; doc.names = doc.keys().len()"}),
        json!({"function": "if doc.id > 40 { doc = (); }"}),
        json!({"function": "if doc.id % 2 == 0 { return; } doc = #{id: doc.id, by: context.who}", "context": {"who": "x"}}),
        json!({"function": "doc.m = doc.id;", "filter": "n = 3"}),
        json!({"function": "let x = doc.none.none"}),
        json!({"function": "doc.a = ;"}),
    ];
    for edit in edits {
        let told = |client: &Client| {
            let answer = client.json("POST", "/indexes/edited/documents/edit", &edit);
            let task = (answer.status == 202).then(|| client.ended(&answer));
            let task = task.map(|task| json!([task["status"], task["details"], task["error"]]));
            let fetch = json!({"limit": 100});
            let mut documents =
                client.json("POST", "/indexes/edited/documents/fetch", &fetch).body["results"].take();
            if let Some(documents) = documents.as_array_mut() {
                documents.sort_by_key(|document| document["id"].as_u64());
            }
            (answer.status, task, documents)
        };
        assert_eq!(told(&cluster.client), told(&node.client), "{edit}");
    }
}
