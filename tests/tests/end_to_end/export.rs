//! An export sends each document of all shards once, with its vectors and without its shard tag.

use miroir_tests::{Answer, Client, MASTER_KEY, Node, Sandbox, nodes_are_real, wait_until};
use serde_json::{Value, json};
use std::collections::BTreeMap;

fn documents(client: &Client, index: &str) -> BTreeMap<u64, Value> {
    let path = format!("/indexes/{index}/documents?limit=1000&retrieveVectors=true");
    let found = client.get(&path).body;
    let found = found["results"].as_array().unwrap_or_else(|| panic!("{found}"));
    found.iter().map(|document| (document["id"].as_u64().unwrap(), document.clone())).collect()
}

/// Waits until the task of an export or cancelation has ended; these are answered with 200.
fn ended(client: &Client, answer: Answer) -> Value {
    assert_eq!(answer.status, 200, "{}", answer.body);
    client.ended(&Answer { status: 202, ..answer })
}

pub fn an_export_sends_every_document_once(cluster: &Sandbox) {
    // A node must check the request, and `miroir-devnode` does not support exports.
    if !nodes_are_real() {
        return;
    }
    let (client, target) = (&cluster.client, Node::start());
    let settings = json!({
        "filterableAttributes": ["year"], "synonyms": {"film": ["movie"]}, "faceting": {"maxValuesPerFacet": 7},
        "embedders": {"mine": {"source": "userProvided", "dimensions": 2}},
    });
    client.create("films", "id", &settings);
    let film = |id: u64| json!({"id": id, "year": 1900 + id % 100, "text": "x".repeat(100), "_vectors": {"mine": [id, 1]}});
    client.add("films", &json!((0..300).map(film).collect::<Vec<_>>()));
    client.add("books", &json!([{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]));
    client.add("others", &json!([{"id": 1}]));
    target.client.create("books", "id", &json!({"stopWords": ["the"]}));

    let wanted = json!({
        "url": target.client.url(), "apiKey": MASTER_KEY, "payloadSize": "4 KiB",
        "indexes": {"fi*": {"filter": "year >= 1950"}, "books": {"overrideSettings": false}},
    });
    let task = ended(client, client.json("POST", "/export", &wanted));
    assert_eq!(task["status"], "succeeded", "{task}");
    let told = json!({
        "url": target.client.url(), "apiKey": "a-mXXXXX...", "payloadSize": "4 KiB",
        "indexes": {
            "films": {"filter": "year >= 1950", "overrideSettings": false, "matched_documents": 150},
            "books": {"filter": null, "overrideSettings": false, "matched_documents": 2},
        },
    });
    assert_eq!(task["details"], told, "{task}");
    wait_until("the target has indexed all", || {
        target.client.get("/tasks?statuses=enqueued,processing").body["total"] == 0
    });
    assert_eq!(target.client.get("/tasks?statuses=failed").body["total"], 0);
    let mut expected = documents(client, "films");
    expected.retain(|_, film| film["year"].as_u64().unwrap() >= 1950);
    assert_eq!(documents(&target.client, "films"), expected);
    assert_eq!(documents(&target.client, "books"), documents(client, "books"));
    assert_eq!(target.client.get("/indexes/others").status, 404);
    let settings = |client: &Client, index: &str| client.get(&format!("/indexes/{index}/settings")).body;
    assert_eq!(settings(&target.client, "films"), settings(client, "films"));
    assert_eq!(settings(&target.client, "books")["stopWords"], json!(["the"]));

    let wrong = json!({"url": target.client.url(), "apiKey": MASTER_KEY, "indexes": {"films": {"filter": "nope = 1"}}});
    let task = ended(client, client.json("POST", "/export", &wrong));
    let code = json!("invalid_document_filter");
    assert_eq!((&task["status"], &task["error"]["code"]), (&json!("failed"), &code), "{task}");
    let message = task["error"]["message"].as_str().unwrap();
    assert!(message.starts_with("Index `films`: Attribute `nope` is not filterable."), "{message}");
    assert!(!message.contains("_miroir_shard"), "{message}");

    // The cluster's outbound policy allows only 127.0.0.1.
    let port = target.client.url().rsplit(':').next().unwrap().to_owned();
    let private = json!({"url": format!("http://127.0.0.2:{port}")});
    let task = ended(client, client.json("POST", "/export", &private));
    let told = json!({"message": "bad uri: Rejected URI", "code": "internal", "type": "internal",
                      "link": "https://docs.meilisearch.com/errors#internal"});
    assert_eq!((&task["status"], &task["error"]), (&json!("failed"), &told), "{task}");

    // Nothing listens at this URL: the export is retried until it is cancelled.
    let answer = client.json("POST", "/export", &json!({"url": "http://127.0.0.1:9"}));
    let path = format!("/tasks/cancel?uids={}", answer.body["taskUid"]);
    let cancelation = ended(client, client.send("POST", &path, None, ""));
    assert_eq!(cancelation["details"]["canceledTasks"], 1, "{cancelation}");
    let task = ended(client, answer);
    assert_eq!((&task["status"], &task["canceledBy"]), (&json!("canceled"), &cancelation["uid"]), "{task}");
}
