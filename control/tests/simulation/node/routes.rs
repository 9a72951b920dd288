//! The routes of a node.

use super::{DiskTrouble, NewTask, Node, NodeReply, NodeRequest, NodeText, Work, error, index_not_found};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// A request, parsed.
struct Parsed<'a> {
    query: &'a str,
    body: Value,
}

impl<'a> Parsed<'a> {
    fn of(request: &'a NodeRequest) -> Self {
        let text = std::str::from_utf8(&request.body).unwrap_or_default();
        let body = if text.is_empty() { Value::Null } else { text.parse().unwrap_or(Value::Null) };
        Self { query: request.path.query(), body }
    }

    fn parameter(&self, name: &str) -> Option<String> {
        let pairs = url::form_urlencoded::parse(self.query.as_bytes());
        pairs.filter(|(key, _)| key == name).map(|(_, value)| value.into_owned()).last()
    }
}

/// The action that a route needs, and the index that it names.
fn authority<'a>(method: &str, segments: &[&'a str]) -> (Option<&'static str>, Option<&'a str>) {
    let action = match (method, segments) {
        ("GET", ["health"]) => None,
        ("GET", ["version"]) => Some("version"),
        ("GET", ["keys", ..]) => Some("keys.get"),
        ("POST", ["keys"]) => Some("keys.create"),
        ("DELETE", ["keys", _]) => Some("keys.delete"),
        ("GET", ["tasks" | "batches", ..]) => Some("tasks.get"),
        ("POST", ["tasks", "cancel"]) => Some("tasks.cancel"),
        ("GET", ["experimental-features"]) => Some("experimental.get"),
        ("PATCH", ["experimental-features"]) => Some("experimental.update"),
        ("GET", ["indexes"] | ["indexes", _]) => Some("indexes.get"),
        ("POST", ["indexes"]) => Some("indexes.create"),
        ("PATCH", ["indexes", _]) => Some("indexes.update"),
        ("DELETE", ["indexes", _]) => Some("indexes.delete"),
        ("POST", ["swap-indexes"]) => Some("indexes.swap"),
        ("GET", ["indexes", _, "settings", ..]) => Some("settings.get"),
        (_, ["indexes", _, "settings", ..]) => Some("settings.update"),
        ("GET", ["indexes", _, "stats"] | ["stats"]) => Some("stats.get"),
        ("POST", ["indexes", _, "fields"]) => Some("fields.post"),
        ("POST" | "PUT", ["indexes", _, "documents"]) => Some("documents.add"),
        ("POST", ["indexes", _, "documents", "fetch"]) => Some("documents.get"),
        ("POST", ["indexes", _, "documents", "edit"]) => Some("*"),
        ("GET", ["indexes", _, "documents", ..]) => Some("documents.get"),
        (_, ["indexes", _, "documents", ..]) => Some("documents.delete"),
        _ => None,
    };
    let index = match segments {
        ["indexes", index, ..] => Some(*index),
        _ => None,
    };
    (action, index)
}

impl Node {
    /// Judges the head of a request: an error is the answer.
    pub fn head(&self, request: &NodeRequest) -> Result<(), NodeText> {
        let segments = request.path.segments();
        let (action, index) = authority(&request.method, &segments);
        self.judge(request, action, index).map_err(|(status, body)| (status, body.to_string()))
    }

    /// Answers a request whose head was let in. `now` is in nanoseconds.
    pub fn answer(&mut self, request: &NodeRequest, now: i64) -> NodeText {
        let segments = request.path.segments();
        if request.method == "GET" && segments == ["tasks"] {
            return self.task_list(request.path.query());
        }
        let (status, body) = self.reply(request, &segments, &Parsed::of(request), now);
        (status, body.to_string())
    }

    fn reply(
        &mut self,
        request: &NodeRequest,
        segments: &[&str],
        parsed: &Parsed<'_>,
        now: i64,
    ) -> NodeReply {
        let method = request.method.as_str();
        let millis = u64::try_from(now / 1_000_000).unwrap_or(0);
        match (method, segments) {
            ("GET", ["health"]) => (200, json!({"status": "available"})),
            ("GET", ["version"]) => (200, json!({"commitSha": "", "commitDate": "", "pkgVersion": "1.50.0"})),
            ("GET", ["experimental-features"]) => (200, json!({"editDocumentsByFunction": true})),
            (_, ["keys", rest @ ..]) => self.keys(method, rest, &parsed.body, millis),
            ("POST", ["tasks", "cancel"]) => self.cancel(parsed, now),
            ("GET", ["tasks", uid]) => self.one_task(uid),
            ("GET", ["batches"]) => self.batches(parsed.query),
            ("GET", ["indexes"]) => {
                let all: Vec<Value> = self.indexes.keys().map(|uid| self.index_view(uid)).collect();
                (200, json!({"results": all, "offset": 0, "limit": 100_000, "total": all.len()}))
            }
            ("POST", ["indexes"]) => self.create(parsed, now),
            ("POST", ["swap-indexes"]) => self.swap(parsed, now),
            (_, ["indexes", index, rest @ ..]) => self.of_index(method, index, rest, parsed, now),
            _ => self.not_known(method, &request.path.to_string()),
        }
    }

    /// What this model does not know, and the control plane relies on, is a fault of the model: the history fails.
    pub(super) fn not_known(&mut self, method: &str, path: &str) -> NodeReply {
        self.unknown.push(format!("{method} {path}"));
        error(500, "internal", "internal", "the model of a node does not know this request")
    }

    fn index_view(&self, uid: &str) -> Value {
        let index = self.indexes.get(uid);
        let key = index.and_then(|index| index.primary_key.clone());
        let date = format!("2024-01-01T00:00:00.{:09}Z", index.map_or(0, |index| index.created));
        json!({"uid": uid, "primaryKey": key, "createdAt": date, "updatedAt": date})
    }

    fn of_index(
        &mut self,
        method: &str,
        index: &str,
        rest: &[&str],
        parsed: &Parsed<'_>,
        now: i64,
    ) -> NodeReply {
        let not_found = || (404, index_not_found(index));
        let is_there = self.indexes.contains_key(index);
        match (method, rest) {
            ("GET", []) if is_there => (200, self.index_view(index)),
            ("PATCH", []) => {
                let text = |name: &str| parsed.body[name].as_str().map(ToOwned::to_owned);
                let work = Work::Update { primary_key: text("primaryKey"), rename: text("uid") };
                let details = json!({"primaryKey": text("primaryKey")});
                self.queue(index, "indexUpdate", details, work, parsed, now)
            }
            ("DELETE", []) => self.queue(
                index,
                "indexDeletion",
                json!({"deletedDocuments": null}),
                Work::DeleteIndex,
                parsed,
                now,
            ),
            ("GET", ["stats"]) if is_there => {
                let documents = self.indexes[index].documents.len();
                (200, json!({"numberOfDocuments": documents, "isIndexing": false, "fieldDistribution": {}}))
            }
            ("GET", ["settings"]) if is_there => (200, self.settings_of(index)),
            ("PATCH", ["settings"]) => {
                let change = parsed.body.as_object().cloned().unwrap_or_default();
                let details = Value::Object(change.clone());
                self.queue(index, "settingsUpdate", details, Work::Settings { change }, parsed, now)
            }
            ("POST", ["fields"]) if is_there => {
                let all: Vec<Value> =
                    self.indexes[index].fields.iter().map(|name| json!({"name": name})).collect();
                (200, json!({"results": all, "offset": 0, "limit": all.len(), "total": all.len()}))
            }
            ("POST" | "PUT", ["documents"]) => {
                let Some(documents) = documents(&parsed.body) else {
                    return error(400, "invalid_request", "malformed_payload", "The payload is malformed.");
                };
                let details = json!({"receivedDocuments": documents.len(), "indexedDocuments": null});
                let work = Work::Add {
                    documents,
                    update: method == "PUT",
                    skip_creation: parsed.parameter("skipCreation").as_deref() == Some("true"),
                    primary_key: parsed.parameter("primaryKey"),
                };
                self.queue(index, "documentAdditionOrUpdate", details, work, parsed, now)
            }
            ("DELETE", ["documents"]) => self.delete_some(index, Work::DeleteAll, 0, parsed, now),
            ("POST", ["documents", "delete-batch"]) => {
                let ids =
                    parsed.body.as_array().into_iter().flatten().map(super::documents::id_text).collect();
                let count = parsed.body.as_array().map_or(0, Vec::len);
                self.delete_some(index, Work::Delete { ids }, count, parsed, now)
            }
            ("POST", ["documents", "delete"]) => {
                let filter = parsed.body["filter"].clone();
                self.delete_some(index, Work::DeleteByFilter { filter }, 0, parsed, now)
            }
            ("POST", ["documents", "edit"]) => self.edit(index, parsed, now),
            ("POST", ["documents", "fetch"]) if is_there => self.fetch(index, &parsed.body),
            ("GET", ["documents", id]) if is_there => match self.indexes[index].documents.get(*id) {
                Some(document) => (200, Value::Object(document.clone())),
                None => error(
                    404,
                    "invalid_request",
                    "document_not_found",
                    &format!("Document `{id}` not found."),
                ),
            },
            ("GET", [] | ["stats" | "settings"] | ["documents", _])
            | ("POST", ["fields"] | ["documents", "fetch"]) => not_found(),
            _ => self.not_known(method, &format!("/indexes/{index}/{}", rest.join("/"))),
        }
    }

    fn queue(
        &mut self,
        index: &str,
        kind: &'static str,
        details: Value,
        work: Work,
        parsed: &Parsed<'_>,
        now: i64,
    ) -> NodeReply {
        let metadata = parsed.parameter("customMetadata");
        self.enqueue(NewTask { index: Some(index.to_owned()), kind, details, metadata, work }, now)
    }

    fn delete_some(
        &mut self,
        index: &str,
        work: Work,
        ids: usize,
        parsed: &Parsed<'_>,
        now: i64,
    ) -> NodeReply {
        let details = json!({"providedIds": ids, "deletedDocuments": null, "originalFilter": null});
        self.queue(index, "documentDeletion", details, work, parsed, now)
    }

    fn create(&mut self, parsed: &Parsed<'_>, now: i64) -> NodeReply {
        let Some(uid) = parsed.body["uid"].as_str() else {
            return error(400, "invalid_request", "missing_index_uid", "Missing field `uid`");
        };
        let primary_key = parsed.body["primaryKey"].as_str().map(ToOwned::to_owned);
        let details = json!({"primaryKey": primary_key});
        self.queue(uid, "indexCreation", details, Work::Create { primary_key }, parsed, now)
    }

    fn swap(&mut self, parsed: &Parsed<'_>, now: i64) -> NodeReply {
        let name = |swap: &Value, side: usize| swap["indexes"][side].as_str().unwrap_or_default().to_owned();
        let pairs: Vec<(String, String)> =
            parsed.body.as_array().into_iter().flatten().map(|swap| (name(swap, 0), name(swap, 1))).collect();
        let details = json!({"swaps": parsed.body});
        let new =
            NewTask { index: None, kind: "indexSwap", details, metadata: None, work: Work::Swap { pairs } };
        self.enqueue(new, now)
    }

    fn cancel(&mut self, parsed: &Parsed<'_>, now: i64) -> NodeReply {
        self.cancel_tasks(self.selected(parsed.query), parsed.query, now)
    }

    pub(super) fn cancel_tasks(&mut self, uids: BTreeSet<u32>, query: &str, now: i64) -> NodeReply {
        let details = json!({"matchedTasks": uids.len(), "canceledTasks": null, "originalFilter": query});
        let work = Work::Cancel { uids };
        // It needs no room of its own.
        let disk = std::mem::replace(&mut self.disk, DiskTrouble::Nothing);
        let reply = self
            .enqueue(NewTask { index: None, kind: "taskCancelation", details, metadata: None, work }, now);
        self.disk = disk;
        reply
    }

    /// An edit sets one field: `doc.FIELD = VALUE`, inside what wraps it. A trial ends with an exception that tells what it would do.
    fn edit(&mut self, index: &str, parsed: &Parsed<'_>, now: i64) -> NodeReply {
        let function = parsed.body["function"].as_str().unwrap_or_default();
        let set = function.split("doc.set_by_edit = ").nth(1).map(|rest| {
            rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse::<u64>().unwrap_or(0)
        });
        let Some(value) = set else { return self.not_known("POST", &format!("an edit: {function}")) };
        let filter = parsed.body.get("filter").filter(|filter| !filter.is_null()).cloned();
        let details = json!({
            "deletedDocuments": null, "editedDocuments": null, "context": null, "function": function,
            "originalFilter": filter.as_ref().map(Value::to_string),
        });
        let is_trial = function.contains("let original_");
        let work = Work::Edit { filter, field: "set_by_edit".to_owned(), value: json!(value), is_trial };
        self.queue(index, "documentEdition", details, work, parsed, now)
    }
}

/// The documents of a payload; `None` where it is none.
fn documents(body: &Value) -> Option<Vec<Map<String, Value>>> {
    body.as_array()?.iter().map(|document| document.as_object().cloned()).collect()
}
