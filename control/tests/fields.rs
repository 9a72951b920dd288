//! Fields are registered on all nodes before documents with them are written.
#![allow(missing_docs, reason = "tests")]

#[allow(dead_code, reason = "not every test needs all of it")]
mod support;

use miroir_core::protocol::{BEGIN_PATH, Begin, COMMIT_PATH};
use serde_json::Value;
use support::{FakeNode, addition, commit, control, enqueued};

/// The registrations of fields that a node got for an index: the fields of each document in them.
fn registered(node: &FakeNode, index: &str) -> Vec<Vec<String>> {
    let members = |document: &Value| document.as_object().unwrap().keys().cloned().collect();
    let requests = node.seen("PUT", &format!("/indexes/{index}/documents"));
    requests.iter().flat_map(|request| request.as_array().unwrap()).map(members).collect()
}

#[tokio::test]
async fn every_node_knows_the_fields_of_a_write_before_any_node_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = [FakeNode::start().await, FakeNode::start().await];
    let told = |index: &str| nodes.each_ref().map(|node| registered(node, index));
    let each = |fields: &[&[&str]]| {
        let fields: Vec<Vec<String>> =
            fields.iter().map(|names| names.iter().map(|name| (*name).to_owned()).collect()).collect();
        [fields.clone(), fields]
    };
    let control = control(folder.path(), &[&nodes[0], &nodes[1]]).await;
    let begin = async |index: &str, fields: &[&str]| {
        let fields = fields.iter().map(|name| (*name).to_owned()).collect();
        let begin = Begin { fields, ..addition(index, &[0]) };
        let (status, reply) = control.internal(BEGIN_PATH, &begin).await;
        assert_eq!(status, 200, "{reply}");
        let (uid, key) = (reply["uid"].as_u64().unwrap(), reply["key"].as_str().unwrap().to_owned());
        let uid = u32::try_from(uid).unwrap();
        let results = vec![
            enqueued("n0", nodes[0].add_documents(index, uid, &key).await),
            enqueued("n1", nodes[1].add_documents(index, uid, &key).await),
        ];
        control.internal(COMMIT_PATH, &commit(uid, results)).await;
        control.ended(uid).await
    };
    // The key must be inferred, as from the first document.
    begin("a", &["title", "id", "otherId"]).await;
    assert_eq!(told("a"), each(&[&["title", "id"], &["otherId", "id"]]));
    // Known fields are not registered again.
    begin("a", &["id", "title"]).await;
    assert_eq!(told("a")[0].len(), 2);
    begin("a", &["id", "new", "new.x", "title"]).await;
    assert_eq!(told("a"), each(&[&["title", "id"], &["otherId", "id"], &["new", "new.x", "id"]]));
    // A new index with the name of a deleted one starts without fields.
    let answer = reqwest::Client::new().delete(format!("{}/indexes/a", control.url)).send().await.unwrap();
    let deleted: Value = answer.json().await.unwrap();
    control.ended(u32::try_from(deleted["taskUid"].as_u64().unwrap()).unwrap()).await;
    begin("a", &["id", "title"]).await;
    assert_eq!(told("a")[0].last().unwrap(), &["id", "title"]);
    // More fields than an index can have: the task fails, and no node gets them.
    let many: Vec<String> = (0..65_535).map(|n| format!("f{n}")).collect();
    let task = control.internal(BEGIN_PATH, &Begin { fields: many, ..addition("a", &[0]) }).await.1;
    let uid = u32::try_from(task["task"]["taskUid"].as_u64().unwrap()).unwrap();
    assert_eq!(control.ended(uid).await["error"]["code"], "max_fields_limit_exceeded");
    assert_eq!(told("a")[0].last().unwrap(), &["id", "title"]);
}
