//! A model of a Meilisearch node: what the control plane and gateways rely on. What it is asked and does not know fails the history.
//!
//! Its disk (`indexes`, `tasks`, `keys`) survives a restart. A key is judged when the head of a request has come; the body is read later,
//! without a limit, and then taken. Tasks are handled one batch at a time, in the order of their uids, cancelations first.

mod authority;
mod documents;
mod process;
mod routes;
mod tasks;

use miroir_control::domain::api_key::Key;
use miroir_core::path::ApiPath;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A document as it is stored.
pub type Document = Map<String, Value>;

/// An HTTP request, as a node gets it.
#[derive(Clone, Debug)]
pub struct NodeRequest {
    /// In upper case.
    pub method: String,
    /// Path and query, parsed once.
    pub path: ApiPath,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// The whole body.
    pub body: Vec<u8>,
}

/// A node's answer: status and body.
type NodeReply = (u16, Value);

/// A node's answer as it is sent.
pub type NodeText = (u16, String);

/// What a task does.
#[derive(Clone, Debug)]
pub enum Work {
    /// Adds documents, or updates those that exist.
    Add { documents: Vec<Document>, update: bool, skip_creation: bool, primary_key: Option<String> },
    /// Deletes documents by id.
    Delete { ids: Vec<String> },
    /// Deletes the documents that a filter finds.
    DeleteByFilter { filter: Value },
    /// Deletes all documents.
    DeleteAll,
    /// Sets a field of the documents that a filter finds.
    Edit { filter: Option<Value>, field: String, value: Value, is_trial: bool },
    /// Creates an index.
    Create { primary_key: Option<String> },
    /// Changes an index's primary key or name.
    Update { primary_key: Option<String>, rename: Option<String> },
    /// Deletes an index.
    DeleteIndex,
    /// Swaps indexes.
    Swap { pairs: Vec<(String, String)> },
    /// Changes settings.
    Settings { change: Map<String, Value> },
    /// Cancels tasks.
    Cancel { uids: BTreeSet<u32> },
}

impl Work {
    /// Whether it gives indexes other names.
    fn moves_indexes(&self) -> bool {
        matches!(self, Self::Swap { .. } | Self::Update { rename: Some(_), .. })
    }
}

/// A task of a node.
#[derive(Clone, Debug)]
pub struct NodeTask {
    pub uid: u32,
    pub index: Option<String>,
    pub kind: &'static str,
    pub status: &'static str,
    pub details: Value,
    pub error: Option<Value>,
    pub enqueued_at: i64,
    pub started_at: Option<i64>,
    pub finished_at: Option<i64>,
    pub metadata: Option<String>,
    pub canceled_by: Option<u32>,
    pub work: Work,
}

/// An index of a node.
#[derive(Clone, Debug, Default)]
pub struct NodeIndex {
    /// The moment of its creation tells it from all others, also under another name.
    pub created: u64,
    pub primary_key: Option<String>,
    pub documents: BTreeMap<String, Document>,
    pub fields: BTreeSet<String>,
    /// What differs from the defaults.
    pub settings: Map<String, Value>,
}

/// An API key of a node.
#[derive(Clone, Debug)]
pub struct NodeKey {
    pub uid: String,
    pub text: String,
    pub object: Value,
    /// What it allows.
    pub key: Key,
}

/// What is wrong with a node's disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiskTrouble {
    #[default]
    Nothing,
    /// It enqueues nothing.
    RefusesTasks,
    /// What it has enqueued fails.
    FailsTasks,
}

/// A node.
#[derive(Debug, Default)]
pub struct Node {
    pub name: String,
    pub master_key: String,
    pub indexes: BTreeMap<String, NodeIndex>,
    /// How many indexes it has made.
    pub created: u64,
    pub tasks: BTreeMap<u32, NodeTask>,
    /// The newest first.
    pub keys: Vec<NodeKey>,
    pub disk: DiskTrouble,
    /// The batch that is being processed.
    pub batch: Vec<u32>,
    /// Whether its process runs.
    pub is_up: bool,
    /// Its process: requests of an earlier one are gone.
    pub process: u64,
    /// Until when it is stopped, in simulated milliseconds.
    pub stopped_until: u64,
    /// How much longer than usual it takes for a batch.
    pub slowness: u64,
    /// What it was asked and does not know.
    pub unknown: Vec<String>,
    /// Changes of authority: the uid of a deleted key, and when.
    pub deleted_keys: BTreeMap<String, u64>,
}

impl Node {
    /// A node with an empty disk, as after its first start.
    pub fn new(name: &str, master_key: &str, seed: u64) -> Self {
        let mut node = Self {
            name: name.to_owned(),
            master_key: master_key.to_owned(),
            is_up: true,
            slowness: 1,
            ..Self::default()
        };
        node.format(seed);
        node
    }

    /// Its disk is empty: it makes its default keys, whose uids are its own.
    pub fn format(&mut self, seed: u64) {
        self.indexes.clear();
        self.tasks.clear();
        self.keys.clear();
        self.batch.clear();
        let mut rng = super::random::Rng::new(seed, &self.name);
        for (name, actions) in [("Default Search API Key", "search"), ("Default Admin API Key", "*")] {
            let bytes = (u128::from(rng.next()) << 64) | u128::from(rng.next());
            let uid = uuid::Builder::from_random_bytes(bytes.to_be_bytes()).into_uuid().to_string();
            self.add_key(&json!({
                "uid": uid, "name": name, "description": null, "actions": [actions], "indexes": ["*"], "expiresAt": null,
            }));
        }
    }

    /// Its process ends.
    pub fn stop(&mut self) {
        self.is_up = false;
        self.process += 1;
        // A batch that was being processed is processed again. Changes of names are stored before the end of their task, so that they may be
        // done twice.
        for uid in std::mem::take(&mut self.batch) {
            let task = self.tasks.get(&uid).filter(|task| task.work.moves_indexes()).cloned();
            if let Some(task) = task.filter(|_| self.process % 2 == 1 && self.disk != DiskTrouble::FailsTasks)
            {
                let _ = self.execute(&task, 0);
            }
            if let Some(task) = self.tasks.get_mut(&uid) {
                task.status = "enqueued";
                task.started_at = None;
            }
        }
    }

    fn enqueue(&mut self, new: NewTask, now: i64) -> NodeReply {
        if self.disk == DiskTrouble::RefusesTasks {
            let message = "No space left on device (os error 28)";
            return error(422, "system", "no_space_left_on_device", message);
        }
        let uid = self.tasks.last_key_value().map_or(0, |(uid, _)| uid + 1);
        let NewTask { index, kind, details, metadata, work } = new;
        let summary = json!({
            "taskUid": uid, "indexUid": index, "status": "enqueued", "type": kind, "enqueuedAt": moment(now),
        });
        self.tasks.insert(
            uid,
            NodeTask {
                uid,
                index,
                kind,
                status: "enqueued",
                details,
                error: None,
                enqueued_at: now,
                started_at: None,
                finished_at: None,
                metadata,
                canceled_by: None,
                work,
            },
        );
        (202, summary)
    }
}

/// A task before it has a uid.
struct NewTask {
    index: Option<String>,
    kind: &'static str,
    details: Value,
    metadata: Option<String>,
    work: Work,
}

/// A moment as Meilisearch writes it.
fn moment(nanos: i64) -> String {
    miroir_control::base::time::format(nanos)
}

/// An error as Meilisearch answers it.
fn error(status: u16, kind: &str, code: &str, message: &str) -> NodeReply {
    (status, error_object(kind, code, message))
}

/// An error as tasks show it.
fn error_object(kind: &str, code: &str, message: &str) -> Value {
    let link = format!("https://docs.meilisearch.com/errors#{code}");
    json!({"message": message, "code": code, "type": kind, "link": link})
}

/// The error of an index that is not there.
fn index_not_found(index: &str) -> Value {
    error_object("invalid_request", "index_not_found", &format!("Index `{index}` not found."))
}
