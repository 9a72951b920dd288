//! Requests whose headers reach a node before their key is deleted, and whose bodies come after their write was decided. A node judges
//! the key by the headers, so it takes them.
//!
//! The test is the gateway: it begins a write, sends a node the headers and half of the body, and falls silent.

use miroir_core::{
    protocol::{BEGIN_PATH, Begin, BeginReply, SECRET_HEADER, WriteOperation, metadata},
    shard::{Shard, tag_filter},
};
use miroir_tests::{MASTER_KEY, Sandbox, Upload, http, tell, wait_until};
use serde_json::{Value, json};
use std::time::Instant;

const DOCUMENTS: u64 = 40;

fn books(version: u64) -> Value {
    (0..DOCUMENTS).map(|id| json!({"id": id, "v": version})).collect()
}

/// Begins an addition to a shard, as a gateway does. Returns its uid, its key and the names of the nodes to write to.
fn begin(cluster: &Sandbox, shard: Shard, fields: &[&str]) -> (u32, String, Vec<String>) {
    let begin = Begin {
        gateway: "one that falls silent".into(),
        topology_version: cluster.status()["topologyVersion"].as_u64().unwrap(),
        index: "books".into(),
        operation: WriteOperation::AddDocuments {
            update: false,
            documents: 1,
            distinct: 1,
            requested_primary_key: None,
            primary_key: Some("id".into()),
            assumed: false,
            failure: None,
        },
        shards: vec![shard],
        authorization: Some(format!("Bearer {MASTER_KEY}")),
        custom_metadata: None,
        fields: fields.iter().map(|field| (*field).to_owned()).collect(),
        nested_fields: Vec::new(),
        doubts: Default::default(),
        doubtful: None,
    };
    let secrets = std::fs::read(cluster.data().join("control/secrets.json")).unwrap();
    let secrets: Value = serde_json::from_slice(&secrets).unwrap();
    let request = http()
        .post(format!("{}{BEGIN_PATH}", cluster.address("control")))
        .header(SECRET_HEADER, secrets["gatewaySecret"].as_str().unwrap())
        .json(&begin);
    match request.send().unwrap().json::<BeginReply>().unwrap() {
        BeginReply::Send { uid, key, nodes, writers, .. } => {
            let name = |position: &u16| nodes[usize::from(*position)].to_string();
            (uid, key, writers[0].iter().map(name).collect())
        }
        other => panic!("not to be sent: {other:?}"),
    }
}

/// A write to the document 0 of which a node has the headers and half of the body.
struct HalfSent {
    uid: u32,
    node: String,
    upload: Upload,
    rest: Vec<u8>,
}

impl HalfSent {
    fn start(cluster: &Sandbox, version: u64) -> Self {
        let count = u16::try_from(cluster.miroir_json(&["shards"]).as_array().unwrap().len()).unwrap();
        let shard = Shard::of_document("0", count);
        let (uid, key, writers) = begin(cluster, shard, &["id", "v"]);
        let node = writers[0].clone();
        let mut document = held(cluster, &node, shard);
        document["v"] = json!(version);
        let body = json!([document]).to_string().into_bytes();
        let path = format!("/indexes/books/documents?customMetadata={}", metadata(uid));
        let mut upload = Upload::under(&cluster.address(&node), &path, body.len(), &key);
        let (half, rest) = body.split_at(body.len() / 2);
        upload.send(half);
        Self { uid, node, upload, rest: rest.to_vec() }
    }

    /// Sends the rest, which the node takes.
    fn end(mut self) -> String {
        self.upload.send(&self.rest);
        let answer = self.upload.answer();
        assert!(answer.starts_with("HTTP/1.1 202"), "the node had let it in before: {answer}");
        self.node
    }
}

/// The document 0 as a node stores it, with its shard tag.
fn held(cluster: &Sandbox, node: &str, shard: Shard) -> Value {
    let number = node.strip_prefix("meili-").unwrap().parse().unwrap();
    let query = json!({"filter": tag_filter(&[shard]), "ids": ["0"]});
    let answer = cluster.node(number).json("POST", "/indexes/books/documents/fetch", &query);
    answer.body["results"][0].clone()
}

/// Nobody commits the write: it is recovered, and no node has it.
fn wait_recovered(cluster: &Sandbox, uid: u32) {
    let status = || cluster.client.get(&format!("/tasks/{uid}")).body["status"].clone();
    wait_until("it is recovered", || status() != "enqueued");
    assert_eq!(status(), "failed");
}

pub fn a_body_that_comes_after_the_decision_is_mended(cluster: &Sandbox) {
    cluster.client.create("books", "id", &json!({}));
    cluster.client.add("books", &books(0));
    let write = HalfSent::start(cluster, 1);
    let uid = write.uid;
    wait_recovered(cluster, uid);
    cluster.client.add("books", &books(2));
    cluster.wait_repaired();
    let count = u16::try_from(cluster.miroir_json(&["shards"]).as_array().unwrap().len()).unwrap();
    let shard = Shard::of_document("0", count);
    let log = || std::fs::read_to_string(cluster.data().join("logs/control.log")).unwrap();
    let (begun, node) = (Instant::now(), write.end());
    let mark = format!("mark={} ", metadata(uid));
    wait_until("it is found by its mark", || {
        let is_it = |line: &str| {
            line.contains("a node has taken a request after it was decided") && line.contains(&mark)
        };
        log().lines().any(is_it)
    });
    tell!("found {:?} after the late body", begun.elapsed());
    wait_until("the node has what was acknowledged", || held(cluster, &node, shard)["v"] == 2);
    tell!("mended {:?} after the late body", begun.elapsed());
    cluster.wait_idle();
    cluster.wait_repaired();
    let documents = cluster.identical("books", "id");
    assert_eq!(documents.len() as u64, DOCUMENTS);
    for document in documents.values() {
        assert_eq!(document["v"], 2, "{document}");
    }
    let task = cluster.client.get(&format!("/tasks/{uid}")).body;
    assert_eq!(task["status"], "failed", "a task ends once: {task}");
}

/// The control plane is killed between the decision and the late body: it knows by the ledger which tasks it has counted.
pub fn a_body_that_comes_after_a_restart_is_mended(cluster: &Sandbox) {
    cluster.client.create("books", "id", &json!({}));
    cluster.client.add("books", &books(0));
    let write = HalfSent::start(cluster, 1);
    wait_recovered(cluster, write.uid);
    cluster.client.add("books", &books(2));
    cluster.wait_repaired();
    cluster.kill("control");
    // Nobody sees it come.
    let node = write.end();
    cluster.revive("control");
    wait_until("the control plane is back", || {
        !cluster.status().is_null() && cluster.client.get("/tasks").status == 200
    });
    let count = u16::try_from(cluster.miroir_json(&["shards"]).as_array().unwrap().len()).unwrap();
    let shard = Shard::of_document("0", count);
    wait_until("the node has what was acknowledged", || held(cluster, &node, shard)["v"] == 2);
    cluster.wait_repaired();
    for document in cluster.identical("books", "id").values() {
        assert_eq!(document["v"], 2, "{document}");
    }
}
