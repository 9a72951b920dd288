//! The fields of each index, which all nodes are to know, in one order.
//!
//! A node takes up the fields of the documents that it is sent, and what it answers depends on them: conditions on a field that it
//! does not know match nothing, and its documents show their fields in the order in which it took them up. So before a document
//! with a new field is sent to any node, the field is *registered* on every node: the node is sent a document that has it, to be
//! skipped since it is not there yet (`skipCreation`). A node takes up the fields of what it skips, and never forgets them.

use crate::{
    catalogue,
    cluster::Cluster,
    error::{Error, Result},
    ledger::{
        fields as stored,
        intents::{NodeRequest, NodeTask},
    },
    node::{Node, Request},
};
use miroir_core::{documents::MAX_FIELDS, path::ApiPath, shard::TAG_FIELD};
use serde_json::{Map, Value, json};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use uuid::Uuid;

/// The fields of one index, in the order in which nodes have taken them up.
#[derive(Clone, Debug, Default)]
pub struct Known {
    names: Vec<String>,
    all: HashSet<String>,
}

impl Known {
    /// These, each once.
    #[must_use]
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let mut known = Self::default();
        known.add(names);
        known
    }

    /// In their order.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Those of these that are not known yet.
    #[must_use]
    pub fn unknown(&self, names: &[String]) -> Vec<String> {
        let mut seen = HashSet::new();
        names.iter().filter(|name| !self.all.contains(*name) && seen.insert(*name)).cloned().collect()
    }

    /// Whether an index could not have these too.
    #[must_use]
    pub fn would_be_too_many(&self, unknown: &[String]) -> bool {
        // The tag is one more.
        self.names.len() + unknown.len() >= MAX_FIELDS
    }

    fn add(&mut self, names: impl IntoIterator<Item = String>) {
        for name in names {
            if self.all.insert(name.clone()) {
                self.names.push(name);
            }
        }
    }
}

/// The fields of the indexes that were written lately.
#[derive(Debug, Default)]
pub struct Fields {
    known: Mutex<HashMap<String, Arc<Known>>>,
    /// Registrations that nodes have not ended, by index.
    registrations: Mutex<HashMap<String, Vec<NodeTask>>>,
}

impl Fields {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Known>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn registrations(&self) -> MutexGuard<'_, HashMap<String, Vec<NodeTask>>> {
        self.registrations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ledger is to be read again: the index is another one.
    pub fn forget(&self, index: &str) {
        self.lock().remove(index);
        self.registrations().remove(index);
    }

    /// The registrations that a write to an index has to wait for, whichever write they were made for.
    #[must_use]
    pub fn under_way(&self, index: &str) -> Vec<NodeTask> {
        self.registrations().get(index).cloned().unwrap_or_default()
    }

    /// Nodes have taken these.
    pub fn registering(&self, index: &str, tasks: &[NodeTask]) {
        if !tasks.is_empty() {
            self.registrations().entry(index.to_owned()).or_default().extend_from_slice(tasks);
        }
    }

    /// Tasks of nodes have ended.
    pub fn ended(&self, index: &str, mut is_over: impl FnMut(&str, u32) -> bool) {
        let mut registrations = self.registrations();
        if let Some(of_index) = registrations.get_mut(index) {
            of_index.retain(|task| !is_over(&task.node, task.node_task));
            if of_index.is_empty() {
                registrations.remove(index);
            }
        }
    }
}

/// The fields of an index.
///
/// # Errors
/// The ledger failed.
pub async fn known(cluster: &Cluster, index: &str) -> Result<Arc<Known>> {
    if let Some(known) = cluster.fields.lock().get(index) {
        return Ok(known.clone());
    }
    let uid = index.to_owned();
    let names = cluster.ledger.call(move |connection| stored::of(connection, &uid)).await?;
    // What was kept meanwhile is newer.
    Ok(cluster.fields.lock().entry(index.to_owned()).or_insert_with(|| Arc::new(Known::new(names))).clone())
}

/// Keeps fields that all nodes have been told.
///
/// # Errors
/// The ledger failed.
pub async fn keep(cluster: &Cluster, index: &str, new: Vec<String>) -> Result<()> {
    let mut known = Known::clone(&*known(cluster, index).await?);
    let from = known.names.len();
    known.add(new);
    let added = known.names.get(from..).unwrap_or_default().to_vec();
    let uid = index.to_owned();
    cluster.ledger.call(move |connection| stored::add(connection, &uid, from, &added)).await?;
    cluster.fields.lock().insert(index.to_owned(), Arc::new(known));
    Ok(())
}

/// How the primary key of an index comes about on a node where its fields are registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// It is known, or the client says it: nodes take it up before all other fields.
    Said(&'a str),
    /// The node is to infer it, as from the client's first document.
    Inferred(&'a str),
}

impl<'a> Key<'a> {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'a str {
        match self {
            Self::Said(name) | Self::Inferred(name) => name,
        }
    }

    /// The fields in the order in which a node takes them up on which they are registered all at once.
    #[must_use]
    pub fn order(self, names: Vec<String>) -> Vec<String> {
        match self {
            // What points into an object is no field of its own.
            Self::Said(key) if !key.contains('.') => {
                let rest = names.into_iter().filter(|name| name != key);
                std::iter::once(key.to_owned()).chain(rest).collect()
            }
            _ => names,
        }
    }

    /// For a node that has none of these fields: so that it takes them up in this order.
    #[must_use]
    pub fn of_list(key: &'a str, names: &[String]) -> Self {
        let before = names.iter().take_while(|name| *name != key);
        let is_only = before.clone().all(|name| !may_be_key(name)) && may_be_key(key);
        if is_only && before.count() > 0 && !key.contains('.') {
            Self::Inferred(key)
        } else {
            Self::Said(key)
        }
    }
}

/// Whether a node may infer that this field is the primary key.
fn may_be_key(name: &str) -> bool {
    name.to_lowercase().ends_with("id")
}

/// What registers these fields on a node, and the primary key. It writes no document: there is none of its id.
#[must_use]
pub fn registration(index: &str, key: Key<'_>, names: &[String]) -> NodeRequest {
    let mut path = ApiPath::of_index(index, &["documents"]).with("skipCreation", "true");
    let mut rest = names;
    let mut documents = Vec::new();
    match key {
        Key::Said(name) => path = path.with("primaryKey", name),
        Key::Inferred(name) => {
            // It is the only field of the first document that it may be.
            let is_other = |field: &String| field != name && may_be_key(field);
            let (first, others) = names.split_at(names.iter().position(is_other).unwrap_or(names.len()));
            documents.push(document(name, first));
            rest = others;
        }
    }
    if !rest.is_empty() || documents.is_empty() {
        documents.push(document(key.name(), rest));
    }
    NodeRequest { method: "PUT".into(), path, body: Some(Value::Array(documents)), main: false }
}

/// A document that has these fields and an id that no other has.
fn document(key: &str, names: &[String]) -> Value {
    let id = json!(Uuid::new_v4().simple().to_string());
    // A primary key `a.b` is the field `a.b`, or `b` in `a`: whichever the documents have, it may be there once only.
    let leads = |name: &&String| name.as_str() == key || is_above(name, key);
    let holder = names.iter().find(leads).map_or(key, String::as_str);
    let within = key.get(holder.len() + 1..).filter(|_| holder != key);
    let holder = if holder == key || within.is_some() { holder } else { key };
    let held = within.map_or_else(|| id.clone(), |within| json!({within: id}));
    let mut document = Map::new();
    for name in names.iter().filter(|name| name.as_str() == holder || !leads(name)) {
        document.insert(name.clone(), Value::Null);
    }
    document.insert(holder.to_owned(), held);
    Value::Object(document)
}

/// Whether a path leads into a field.
fn is_above(name: &str, path: &str) -> bool {
    path.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'))
}

/// The fields that a node knows of an index; none where it has no such index.
///
/// # Errors
/// It does not tell.
pub async fn of_node(node: &Node, index: &str) -> Result<HashSet<String>> {
    let body = json!({"offset": 0, "limit": u32::MAX});
    let path = ApiPath::of_index(index, &["fields"]);
    let answer = node.send(&Request::own("POST", path.clone(), Some(&body))).await?;
    if answer.status == 404 {
        return Ok(HashSet::new());
    }
    if !answer.is_success() {
        return Err(Error::Unexpected {
            node: node.name.clone(),
            status: answer.status,
            request: format!("POST {path}"),
            body: String::from_utf8_lossy(&answer.body).chars().take(500).collect(),
        });
    }
    let answer = answer.json();
    let fields = answer.get("results").and_then(Value::as_array).into_iter().flatten();
    let names = fields.filter_map(|field| field.get("name")?.as_str());
    Ok(names.filter(|name| *name != TAG_FIELD).map(ToOwned::to_owned).collect())
}

/// What is to be registered on a node that may have missed registrations; `None` where it knows all fields of an index.
///
/// # Errors
/// The ledger failed, or the node does not tell.
pub async fn missed(cluster: &Cluster, node: &Node, index: &str) -> Result<Option<NodeRequest>> {
    let known = known(cluster, index).await?;
    let view = cluster.view();
    let key = view.indexes.get(index).and_then(|index| index.primary_key.as_deref());
    let (Some(key), false) = (key, known.names.is_empty()) else { return Ok(None) };
    let has = of_node(node, index).await?;
    let misses: Vec<String> = known.names.iter().filter(|name| !has.contains(*name)).cloned().collect();
    Ok((!misses.is_empty()).then(|| registration(index, Key::Said(key), &misses)))
}

/// Registers on all nodes what some of them know and the ledger does not: fields that a function has made, or that were there before this
/// ledger. Returns the tasks to wait for.
///
/// # Errors
/// The ledger failed, or no node took the registration.
pub async fn share(cluster: &Cluster, index: &str) -> Result<Vec<NodeTask>> {
    let _one = cluster.creating.lock(index).await;
    let Some(key) = cluster.view().indexes.get(index).and_then(|index| index.primary_key.clone()) else {
        return Ok(Vec::new());
    };
    let nodes = cluster.current();
    let mut found = Vec::new();
    for fields in futures_util::future::join_all(nodes.iter().map(|node| of_node(node, index))).await {
        // A node that cannot be asked is one that will be away soon, and learns it then.
        found.extend(fields.unwrap_or_default());
    }
    found.sort_unstable();
    let new = known(cluster, index).await?.unknown(&found);
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let requests = [registration(index, Key::Said(&key), &new)];
    let tasks = catalogue::send_everywhere(cluster, &nodes, &requests).await?;
    cluster.fields.registering(index, &tasks);
    keep(cluster, index, new).await?;
    Ok(tasks)
}

/// The same for all indexes of which the ledger knows no field: it is of an earlier version, or was recovered.
///
/// # Errors
/// As [`share`].
pub async fn share_all(cluster: &Cluster) -> Result<()> {
    for index in cluster.view().indexes.keys() {
        if known(cluster, index).await?.names.is_empty() {
            share(cluster, index).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn registered(key: Key<'_>, fields: &[&str]) -> (String, Vec<Vec<String>>) {
        let request = registration("i", key, &names(fields));
        let documents = request.body.unwrap();
        let members = |document: &Value| document.as_object().unwrap().keys().cloned().collect();
        (request.path.to_string(), documents.as_array().unwrap().iter().map(members).collect())
    }

    #[test]
    fn a_registration_names_every_field_in_its_order() {
        let (path, documents) = registered(Key::Said("id"), &["id", "b", "a", "a.x"]);
        assert_eq!(path, "/indexes/i/documents?skipCreation=true&primaryKey=id");
        assert_eq!(documents, [names(&["id", "b", "a", "a.x"])]);
        // The key itself was known before.
        assert_eq!(registered(Key::Said("id"), &["c"]).1, [names(&["c", "id"])]);
        // To be inferred, it must be the only one of its document that it may be.
        let (path, documents) = registered(Key::Inferred("bookId"), &["title", "bookId", "otherId", "a"]);
        assert_eq!(path, "/indexes/i/documents?skipCreation=true");
        assert_eq!(documents, [names(&["title", "bookId"]), names(&["otherId", "a", "bookId"])]);
    }

    #[test]
    fn a_key_in_an_object_is_there_once() {
        let document = |fields: &[&str]| {
            let mut document = document("a.b.c", &names(fields));
            for pointer in ["/a/b.c", "/a.b/c", "/a.b.c"] {
                if let Some(id) = document.pointer_mut(pointer) {
                    *id = json!(1);
                }
            }
            document
        };
        assert_eq!(
            document(&["t", "a", "u", "a.b", "a.b.c"]),
            json!({"t": null, "a": {"b.c": 1}, "u": null})
        );
        assert_eq!(document(&["a.b", "a.b.c", "t"]), json!({"a.b": {"c": 1}, "t": null}));
        assert_eq!(document(&["a.b.c", "a.b.cd"]), json!({"a.b.c": 1, "a.b.cd": null}));
        assert_eq!(document(&["t"]), json!({"t": null, "a.b.c": 1}));
    }

    #[test]
    fn a_node_without_fields_takes_them_up_as_the_others_have() {
        let of_list = |key, fields: &[&str]| match Key::of_list(key, &names(fields)) {
            Key::Said(_) => "said",
            Key::Inferred(_) => "inferred",
        };
        assert_eq!(of_list("id", &["title", "id", "otherId"]), "inferred");
        assert_eq!(of_list("id", &["id", "title"]), "said");
        // Of a ledger that was recovered, whose order is another.
        assert_eq!(of_list("id", &["aid", "id"]), "said");
        assert_eq!(of_list("a.id", &["t", "a", "a.id"]), "said");
        assert_eq!(of_list("isbn", &["t", "isbn"]), "said");
        let ordered = Key::Said("id").order(names(&["title", "id"]));
        assert_eq!(
            (ordered, Key::Inferred("id").order(names(&["t", "id"]))),
            (names(&["id", "title"]), names(&["t", "id"]))
        );
    }

    #[test]
    fn fields_are_known_once() {
        let known = Known::new(names(&["a", "b", "a"]));
        assert_eq!(known.names(), names(&["a", "b"]));
        assert_eq!(known.unknown(&names(&["c", "b", "c", "d"])), names(&["c", "d"]));
        assert!(!known.would_be_too_many(&names(&["c"])));
        let many: Vec<String> = (0..MAX_FIELDS - 2).map(|n| n.to_string()).collect();
        assert!(known.would_be_too_many(&many));
    }
}
