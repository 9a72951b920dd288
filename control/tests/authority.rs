//! Requests that a key does not allow, with fake nodes that accept everything: their bodies are not read, they wait for no
//! lock, and nothing of them is stored.
#![allow(missing_docs, reason = "tests")]

#[allow(dead_code, reason = "not every test needs all of it")]
mod support;

use miroir_control::{
    cluster::locks::Scope,
    domain::intent::{Effect, ImmediateEffect, Intent, NodeRequest},
    ledger::{intents, tasks::NewTask},
    serve,
};
use miroir_core::path::ApiPath;
use std::time::{Duration, Instant};
use support::{Control, ControlBuilder, FakeNode, control};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// Requests that would change something, by method and path. The keys of the test do not allow any of them.
const CHANGES: [(&str, &str); 14] = [
    ("POST", "/indexes"),
    ("PATCH", "/indexes/movies"),
    ("DELETE", "/indexes/movies"),
    ("PATCH", "/indexes/movies/settings"),
    ("DELETE", "/indexes/movies/settings"),
    ("POST", "/indexes/movies/compact"),
    ("POST", "/swap-indexes"),
    ("POST", "/dumps"),
    ("POST", "/snapshots"),
    ("POST", "/keys"),
    ("PATCH", "/experimental-features"),
    ("PATCH", "/network"),
    ("DELETE", "/tasks"),
    ("POST", "/export"),
];

#[tokio::test]
async fn what_no_key_allows_waits_for_no_lock_and_is_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let node = FakeNode::start().await;
    let control = ControlBuilder::new(folder.path(), &[&node]).with_keys().start().await;
    let asked = node.memory.lock().unwrap().requests.len();
    // The test holds a lock on everything: a request that waits for a lock times out.
    let _all = control.cluster.locks.lock(Scope::everything()).await;
    let http = reqwest::Client::builder().timeout(Duration::from_secs(5)).build().unwrap();
    for (method, path) in CHANGES {
        for key in [None, Some("no key"), Some(&*"a".repeat(64))] {
            let mut request = http.request(method.parse().unwrap(), format!("{}{path}", control.url));
            if let Some(key) = key {
                request = request.bearer_auth(key);
            }
            let answer = request.json(&serde_json::json!({"uid": "new"})).send().await;
            let answer = answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
            let expected = if key.is_some() { 403 } else { 401 };
            assert_eq!(answer.status().as_u16(), expected, "{method} {path} {key:?}");
        }
    }
    let open = control.cluster.ledger.call(intents::all).await.unwrap();
    assert!(open.is_empty(), "{open:?}");
    let seen = node.memory.lock().unwrap().requests.split_off(asked);
    let changes: Vec<_> = seen.iter().filter(|(method, ..)| method != "GET" && method != "OPTIONS").collect();
    assert!(changes.is_empty(), "{changes:?}");
}

/// Sends a body that never ends, until the server answers. Returns the status.
async fn sent_for_ever(control: &Control, key: Option<&str>, path: &str) -> u16 {
    let address = control.url.strip_prefix("http://").unwrap();
    let (mut answer, mut request) = TcpStream::connect(address).await.unwrap().into_split();
    let key = key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: {address}\r\n{key}content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    request.write_all(head.as_bytes()).await.unwrap();
    let sending = tokio::spawn(async move {
        let chunk = [format!("{:x}\r\n", 64 << 10).as_bytes(), &[b' '; 64 << 10], b"\r\n"].concat();
        while request.write_all(&chunk).await.is_ok() {}
    });
    let mut line = [0; 12];
    tokio::time::timeout(Duration::from_secs(20), answer.read_exact(&mut line)).await.unwrap().unwrap();
    sending.abort();
    String::from_utf8_lossy(&line[9..]).parse().unwrap()
}

#[tokio::test]
async fn a_body_is_read_once_it_is_allowed_and_only_as_much_as_its_route_takes() {
    let folder = tempfile::tempdir().unwrap();
    let node = FakeNode::start().await;
    let control = ControlBuilder::new(folder.path(), &[&node]).with_keys().start().await;
    let master = control.cluster.secrets.master_key.clone();
    for (key, path, expected) in [
        (None, "/indexes", 401),
        (Some("no key"), "/swap-indexes", 403),
        (Some(&*master), "/indexes", 413),
        (None, "/_miroir/begin", 403),
        (None, "/nothing", 400),
    ] {
        assert_eq!(sent_for_ever(&control, key, path).await, expected, "{path}");
    }
}

/// An operation is in the ledger, because its key allowed it, but the control plane crashed before any node got it.
#[tokio::test]
async fn what_nodes_refuse_after_a_crash_is_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let node = FakeNode::start().await;
    let control = control(folder.path(), &[&node]).await;
    let path = ApiPath::of_index("refused", &["settings"]);
    let request = NodeRequest { method: "PATCH".into(), path, body: None, main: true };
    let (requests, newest) = (vec![request], [("n0".into(), None)].into());
    let (effect, at_once) = (Effect::None, ImmediateEffect::Nothing);
    let intent = Intent::Broadcast { requests, effect, at_once, newest, created: Default::default() };
    let task = control
        .cluster
        .ledger
        .call(move |connection| intents::begin(connection, &NewTask::default(), &intent, 1));
    let uid = task.await.unwrap().uid;
    node.memory.lock().unwrap().refuses = Some("/indexes/refused");
    drop(control);
    let control = ControlBuilder::new(folder.path(), &[&node]).listen().await;
    serve::start(control.cluster.clone()).await.unwrap();
    let begun = Instant::now();
    while control.cluster.ledger.call(move |c| intents::is_open(c, uid, None)).await.unwrap() {
        assert!(begun.elapsed() < Duration::from_secs(20), "it is not taken back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let open = control.cluster.ledger.call(intents::all).await.unwrap();
    assert!(open.iter().all(|found| found.uid != uid), "{open:?}");
}
