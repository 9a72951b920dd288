//! A fake node that accepts everything, and a control plane over such nodes.

pub mod golden;
mod node_tasks;

use axum::{
    Json, Router,
    extract::{Request, State},
    http::StatusCode,
    routing::{any, get, post},
};
use miroir_control::{
    api,
    cluster::Cluster,
    serve::{self, ServeArgs},
};
use miroir_core::protocol::{Begin, BeginReply, Commit, NodeOutcome, NodeResult, WriteOperation};
use miroir_core::shard::Shard;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// The requests that a fake node got, and its state.
#[derive(Debug, Default)]
pub struct Memory {
    /// All requests: method, path, body.
    pub requests: Vec<(String, String, Value)>,
    /// The tasks of the node.
    pub tasks: Vec<Value>,
    /// The status of new tasks from now on; `None` means `succeeded`.
    pub ends: Option<&'static str>,
    /// Requests whose path starts with this prefix are refused from now on.
    pub refuses: Option<&'static str>,
    /// Requests whose path ends with this suffix are answered with 503 from now on, but for the next few.
    pub fails: Option<(&'static str, usize)>,
    /// Whether it does not tell of its tasks.
    pub hides_tasks: bool,
    /// A task that it takes when its documents are read next.
    pub takes_next: Option<Value>,
}

/// A fake node.
pub struct FakeNode {
    /// The listening address.
    pub address: SocketAddr,
    /// The shared state.
    pub memory: Arc<Mutex<Memory>>,
}

impl FakeNode {
    /// Starts a fake node.
    pub async fn start() -> Self {
        let memory = Arc::new(Mutex::new(Memory::default()));
        let app = Router::new()
            .route("/health", get(|| async { Json(json!({"status": "available"})) }))
            .route("/version", get(|| async { Json(json!({"pkgVersion": "0.0.0"})) }))
            .route("/tasks", get(node_tasks::tasks))
            .route("/tasks/cancel", post(node_tasks::cancel))
            .route("/tasks/{uid}", get(node_tasks::task))
            .route("/indexes", get(indexes).fallback(take))
            .route("/indexes/{index}/settings", get(settings).fallback(take))
            .route("/indexes/{index}/fields", post(nothing).fallback(take))
            .route("/indexes/{index}/documents/fetch", post(documents))
            .fallback(any(take))
            .with_state(memory.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, memory }
    }

    /// Adds a document, as a gateway's callout does. Returns the node's task uid.
    pub async fn add_documents(&self, index: &str, uid: u32, key: &str) -> u32 {
        let answer: Value = reqwest::Client::new()
            .post(format!("http://{}/indexes/{index}/documents?customMetadata=miroir:{uid}", self.address))
            .bearer_auth(key)
            .json(&json!([{"id": 1}]))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        u32::try_from(answer["taskUid"].as_u64().unwrap()).unwrap()
    }

    /// It does so many other tasks.
    pub fn do_other_tasks(&self, count: usize) {
        let mut memory = self.memory.lock().unwrap();
        for _ in 0..count {
            let uid = memory.tasks.len();
            memory.tasks.push(json!({"uid": uid, "status": "succeeded", "enqueuedAt": MOMENT}));
        }
    }

    /// The bodies of all requests with this method and path.
    pub fn seen(&self, method: &str, path: &str) -> Vec<Value> {
        let memory = self.memory.lock().unwrap();
        let matching = memory.requests.iter().filter(|(m, p, _)| m == method && p == path);
        matching.map(|(_, _, body)| body.clone()).collect()
    }
}

/// When everything happens on a fake node.
pub const MOMENT: &str = "2024-01-01T00:00:00Z";

/// All indexes have the same settings.
async fn settings() -> Json<Value> {
    Json(json!({"filterableAttributes": []}))
}

/// The indexes that its requests have made.
async fn indexes(memory: State<Arc<Mutex<Memory>>>) -> Json<Value> {
    let mut uids = BTreeSet::new();
    for (method, path, body) in &memory.lock().unwrap().requests {
        match path.trim_start_matches('/').split('/').collect::<Vec<_>>().as_slice() {
            ["indexes"] => uids.extend(body["uid"].as_str().map(ToOwned::to_owned)),
            ["indexes", index] if method == "DELETE" => drop(uids.remove(*index)),
            ["indexes", index, ..] => drop(uids.insert((*index).to_owned())),
            _ => {}
        }
    }
    let index =
        |uid: &String| json!({"uid": uid, "primaryKey": "id", "createdAt": MOMENT, "updatedAt": MOMENT});
    let results: Vec<Value> = uids.iter().map(index).collect();
    Json(json!({"results": results, "offset": 0, "limit": 1000, "total": results.len()}))
}

async fn documents(memory: State<Arc<Mutex<Memory>>>) -> Json<Value> {
    {
        let mut memory = memory.lock().unwrap();
        let task = memory.takes_next.take();
        memory.tasks.extend(task);
    }
    nothing().await
}

/// It keeps no documents.
async fn nothing() -> Json<Value> {
    Json(json!({"results": [], "offset": 0, "limit": 20, "total": 0}))
}

async fn take(memory: State<Arc<Mutex<Memory>>>, request: Request) -> (StatusCode, Json<Value>) {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
    let mut memory = memory.lock().unwrap();
    memory.requests.push((parts.method.to_string(), parts.uri.path().to_owned(), body));
    if memory.refuses.is_some_and(|refused| parts.uri.path().starts_with(refused)) {
        let error =
            json!({"message": "refused", "code": "bad_request", "type": "invalid_request", "link": ""});
        return (StatusCode::BAD_REQUEST, Json(error));
    }
    if let Some((suffix, left)) = &mut memory.fails
        && parts.uri.path().ends_with(*suffix)
    {
        if *left == 0 {
            return (StatusCode::SERVICE_UNAVAILABLE, Json(Value::Null));
        }
        *left -= 1;
    }
    if parts.uri.path().starts_with("/keys") {
        let status = if parts.method == "POST" { StatusCode::CREATED } else { StatusCode::OK };
        return (status, Json(json!({"results": [], "description": "Reads of gateways themselves"})));
    }
    let metadata = parts.uri.query().and_then(|query| query.split("customMetadata=").nth(1));
    let uid = memory.tasks.len();
    let end = memory.ends.unwrap_or("succeeded");
    let error = (end == "failed").then(|| {
        json!({"message": "nodes know `_miroir_shard, x`", "code": "internal", "type": "internal", "link": ""})
    });
    memory.tasks.push(json!({
        "uid": uid, "status": end, "customMetadata": metadata, "error": error, "enqueuedAt": MOMENT,
        "startedAt": MOMENT, "finishedAt": MOMENT, "details": {"deletedDocuments": 3},
    }));
    (StatusCode::ACCEPTED, Json(json!({"taskUid": uid, "status": "enqueued"})))
}

/// A control plane under test.
pub struct Control {
    /// The state of the control plane.
    pub cluster: Arc<Cluster>,
    /// The listening address.
    pub url: String,
}

/// Starts a control plane over these nodes, with two replicas per shard. Clients need no keys.
pub async fn control(data: &Path, nodes: &[&FakeNode]) -> Control {
    ControlBuilder::new(data, nodes).start().await
}

/// What a control plane under test is like.
pub struct ControlBuilder<'a> {
    data: &'a Path,
    nodes: &'a [&'a FakeNode],
    commit_timeout: Duration,
    with_keys: bool,
}

impl<'a> ControlBuilder<'a> {
    /// Outcome these nodes, two replicas a shard, without keys for clients; commits are overdue after a minute.
    pub fn new(data: &'a Path, nodes: &'a [&'a FakeNode]) -> Self {
        Self { data, nodes, commit_timeout: Duration::from_secs(60), with_keys: false }
    }

    /// Commits are overdue after this long.
    pub fn commit_timeout(self, commit_timeout: Duration) -> Self {
        Self { commit_timeout, ..self }
    }

    /// Clients need keys.
    pub fn with_keys(self) -> Self {
        Self { with_keys: true, ..self }
    }

    /// Starts it.
    pub async fn start(self) -> Control {
        let control = self.listen().await;
        serve::start(control.cluster.clone()).await.unwrap();
        control
    }

    /// As before a start: it listens only.
    pub async fn listen(self) -> Control {
        let args = self.flags();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cluster = serve::open(&args, address).await.unwrap();
        let app = api::router(cluster.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Control { cluster, url: format!("http://{address}") }
    }

    /// Its flags, as `miroir serve` has them.
    pub fn flags(&self) -> ServeArgs {
        let nodes = self.nodes.iter().enumerate();
        let nodes = nodes
            .map(|(n, node)| json!({"name": format!("n{n}"), "url": format!("http://{}", node.address)}));
        let file = json!({
            "nodes": nodes.collect::<Vec<_>>(),
            "shards": 4,
            "replication": self.nodes.len().min(2),
            "limits": {"leaseMs": LEASE_MS},
        });
        let config = self.data.join("cluster.json");
        std::fs::write(&config, file.to_string()).unwrap();
        ServeArgs {
            listen: "127.0.0.1:0".parse().unwrap(),
            data: self.data.to_owned(),
            config: Some(config),
            nodes: Vec::new(),
            shards: None,
            replication: None,
            publish_dir: Some(self.data.join("xds")),
            publish_mode: 0o600,
            allowed_ip_networks: Vec::new(),
            wasm: "filter.wasm".into(),
            advertise: None,
            control_cluster: miroir_control::base::config::CONTROL_CLUSTER.into(),
            tracing_cluster: None,
            envoy_filter: None,
            kubernetes_api: String::new(),
            service_account: self.data.to_owned(),
            tls: miroir_control::base::tls::NodeTls::default(),
            control_tls: miroir_control::base::tls::ControlTls::default(),
            no_master_key: !self.with_keys,
            commit_timeout_ms: Some(self.commit_timeout.as_millis().try_into().unwrap()),
            callout_timeout_ms: Some(20),
            log_format: Default::default(),
        }
    }
}

impl Control {
    /// Sends a request to the control plane, as a gateway does.
    pub async fn internal(&self, path: &str, body: &impl serde::Serialize) -> (u16, Value) {
        let answer = reqwest::Client::new()
            .post(format!("{}{path}", self.url))
            .header(miroir_core::protocol::SECRET_HEADER, &self.cluster.secrets.gateway_secret)
            .json(body)
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Begins an addition to some shards, and expects the reply `Send`. Returns the uid and the write key.
    pub async fn begin(&self, index: &str, shards: &[u16]) -> (u32, String) {
        let (status, reply) =
            self.internal(miroir_core::protocol::BEGIN_PATH, &addition(index, shards)).await;
        assert_eq!(status, 200, "{reply}");
        match serde_json::from_value(reply).unwrap() {
            BeginReply::Send { uid, key, primary_key, .. } => {
                assert_eq!(primary_key.as_deref(), Some("id"));
                (uid, key)
            }
            other => panic!("not to be sent: {other:?}"),
        }
    }

    /// A task as clients see it.
    pub async fn task(&self, uid: u32) -> Value {
        reqwest::get(format!("{}/tasks/{uid}", self.url)).await.unwrap().json().await.unwrap()
    }

    /// Waits until there is a task and it has ended, and returns it.
    pub async fn ended(&self, uid: u32) -> Value {
        let begun = Instant::now();
        loop {
            let task = self.task(uid).await;
            let status = task["status"].as_str();
            if status.is_some_and(|status| !["enqueued", "processing"].contains(&status)) {
                return task;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{task} has not ended");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Waits until something is so, and fails where that takes too long.
pub async fn until(what: &str, is: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// How long a gateway may read without a new lease, in milliseconds.
pub const LEASE_MS: u64 = 2_000;

/// The begin of an addition of two documents.
pub fn addition(index: &str, shards: &[u16]) -> Begin {
    Begin {
        gateway: "g".into(),
        topology_version: 1,
        index: index.into(),
        operation: WriteOperation::AddDocuments {
            update: false,
            documents: 2,
            distinct: 2,
            requested_primary_key: None,
            primary_key: Some("id".into()),
            assumed: false,
            failure: None,
        },
        shards: shards.iter().copied().map(Shard).collect(),
        authorization: None,
        custom_metadata: Some("the client's".into()),
        fields: vec!["title".into(), "id".into()],
        nested_fields: Vec::new(),
        doubts: Default::default(),
        doubtful: None,
    }
}

/// The result of a node that has accepted its part of a write.
pub fn enqueued(node: &str, task_uid: u32) -> NodeResult {
    NodeResult { node: node.into(), outcome: NodeOutcome::Enqueued { task_uid } }
}

/// A gateway's commit.
pub fn commit(uid: u32, results: Vec<NodeResult>) -> Commit {
    Commit { uid, begun: None, results, written: BTreeMap::new() }
}
