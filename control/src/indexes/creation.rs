//! Creates indexes on all nodes, with the shard tag filterable, and records them in the catalogue.

use crate::{
    base::{
        error::{Error, Result},
        random::Random,
    },
    cluster::Cluster,
    disguise::{
        facet_values::{self, FACETING},
        settings_tag::{FILTERABLE, tag_rule},
    },
    domain::{
        cluster_state::Index,
        intent::{NodeRequest, NodeTask},
    },
    fencing::in_flight,
    indexes::fields::{
        self,
        indexable::Reach,
        registration::{Key, registration},
    },
    ledger::settings as stored,
    node::{Node, Request, TIMEOUT},
};
use futures_util::future::join_all;
use miroir_core::{
    error::{ApiError, Code},
    node_name::NodeName,
    path::ApiPath,
};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The requests that create an index on a node, with the settings that every index has. A node handles its queue in order, so
/// the caller need not wait between the requests.
#[must_use]
pub fn creation(index: &str, primary_key: Option<&str>) -> Vec<NodeRequest> {
    let create = json!({"uid": index, "primaryKey": primary_key});
    let create =
        NodeRequest { method: "POST".into(), path: "/indexes".into(), body: Some(create), main: false };
    std::iter::once(create).chain(apart(index, &initial())).collect()
}

/// Like [`creation`], for an index that other nodes have already: the node gets its primary key, and its fields in the order in
/// which the other nodes know them.
#[must_use]
pub fn creation_with(
    index: &str,
    primary_key: Option<&str>,
    fields: &[String],
    random: &dyn Random,
) -> Vec<NodeRequest> {
    let Some(key) = primary_key.filter(|_| !fields.is_empty()) else { return creation(index, primary_key) };
    let mut requests = creation(index, None);
    requests.push(registration(index, Key::of_list(key, fields), fields, random));
    requests
}

/// The requests that give a new index on a node the settings that every index has, except those that the client's first
/// settings contain already.
#[must_use]
pub fn initial_settings(index: &str, has_rules: bool, has_limit: bool) -> Vec<NodeRequest> {
    let mut settings = initial();
    settings.retain(|name, _| if name == FACETING { !has_limit } else { !has_rules });
    if settings.is_empty() { Vec::new() } else { apart(index, &settings).into() }
}

/// A settings change that a node handles in a batch of its own: nodes batch consecutive settings tasks, and if one task of a
/// batch fails, all of them fail.
#[must_use]
pub fn apart(index: &str, settings: &Map<String, Value>) -> [NodeRequest; 3] {
    // This update changes nothing, and a node never batches it: it separates batches.
    let nothing = || NodeRequest {
        method: "PATCH".into(),
        path: ApiPath::of_index(index, &[]),
        body: Some(json!({})),
        main: false,
    };
    [nothing(), patch(index, settings), nothing()]
}

/// The settings that every index has: the shard tag is filterable, and a node returns more facet values than clients may see.
fn initial() -> Map<String, Value> {
    Map::from_iter([
        (FILTERABLE.to_owned(), json!([tag_rule()])),
        (FACETING.to_owned(), facet_values::initial()),
    ])
}

fn patch(index: &str, settings: &Map<String, Value>) -> NodeRequest {
    NodeRequest {
        method: "PATCH".into(),
        path: ApiPath::of_index(index, &["settings"]),
        body: Some(json!(settings)),
        main: false,
    }
}

/// Sends requests to a node, one after the other, under a key that can be deleted, so that a request without an answer cannot
/// take effect later.
///
/// # Errors
/// The node did not accept one of the requests.
pub async fn send_all(cluster: &Cluster, node: &Node, requests: &[NodeRequest]) -> Result<Vec<NodeTask>> {
    let mut tasks = Vec::new();
    for request in requests {
        let own = Request::own(&request.method, request.path.clone(), request.body.as_ref());
        let answer = in_flight::send(cluster, node, own.clone(), TIMEOUT).await?;
        let node_task = answer.task_uid().filter(|_| answer.is_success());
        let node_task = node_task.ok_or_else(|| node.unexpected(&own, &answer))?;
        tasks.push(NodeTask { node: node.name.clone(), node_task, main: request.main, shards: Vec::new() });
    }
    Ok(tasks)
}

/// Sends requests to these nodes concurrently. Marks as behind the nodes that did not accept all of them, and the nodes that
/// are unreachable.
///
/// # Errors
/// No node accepted the requests; or the ledger failed.
pub async fn send_everywhere(
    cluster: &Cluster,
    nodes: &[std::sync::Arc<Node>],
    requests: &[NodeRequest],
) -> Result<Vec<NodeTask>> {
    let Sent { tasks, missed, failure } = send_to(cluster, nodes, requests).await;
    if let Some(failure) = failure.filter(|_| tasks.is_empty()) {
        return Err(failure);
    }
    mark_behind(cluster, &missed).await?;
    Ok(tasks)
}

/// The results of requests to several nodes.
#[derive(Debug, Default)]
pub struct Sent {
    /// The node tasks that the requests created.
    pub tasks: Vec<NodeTask>,
    /// The nodes that did not accept all requests.
    pub missed: Vec<NodeName>,
    /// The error of one of these nodes.
    pub failure: Option<Error>,
}

/// Sends requests to these nodes concurrently.
pub async fn send_to(cluster: &Cluster, nodes: &[std::sync::Arc<Node>], requests: &[NodeRequest]) -> Sent {
    let answers = nodes.iter().map(async |node| (node, send_all(cluster, node, requests).await));
    let mut sent = Sent::default();
    for (node, result) in join_all(answers).await {
        match result {
            Ok(of_node) => sent.tasks.extend(of_node),
            Err(error) => {
                tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a node missed an operation on an index");
                sent.missed.push(node.name.clone());
                sent.failure = Some(error);
            }
        }
    }
    sent
}

/// Waits until nodes have ended these tasks, for a limited time.
pub async fn wait_until_over(cluster: &Cluster, tasks: &[NodeTask]) {
    const PATIENCE: Duration = Duration::from_secs(20);
    let over = tasks.iter().map(async |task| {
        let Some(node) = cluster.node(&task.node) else { return };
        loop {
            let told = match node.task(task.node_task).await {
                Ok(told) => told,
                Err(error) => {
                    let uid = task.node_task;
                    tracing::warn!(node = node.name.as_str(), uid, error = %error.chain(), "a node does not tell of a task");
                    return;
                }
            };
            if told.is_over() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    if tokio::time::timeout(PATIENCE, join_all(over)).await.is_err() {
        tracing::warn!("nodes are slow to create an index");
    }
}

/// Marks these nodes as behind, and all nodes that are unreachable.
///
/// # Errors
/// The ledger failed.
pub async fn mark_behind(cluster: &Cluster, missed: &[NodeName]) -> Result<()> {
    let nodes = cluster.nodes();
    let away: Vec<&NodeName> = nodes.iter().filter(|node| !node.is_up()).map(|node| &node.name).collect();
    cluster
        .change(|cluster_state| {
            for node in missed.iter().chain(away) {
                cluster_state.mark_behind(node);
            }
        })
        .await
}

/// What all nodes must know of an index before documents are written to it.
#[derive(Clone, Copy, Debug)]
pub struct Content<'a> {
    /// The primary key, if the index has none yet.
    pub key: Key<'a>,
    /// The fields of the documents.
    pub fields: &'a [String],
    /// The fields within objects of the documents.
    pub nested: &'a [String],
}

impl Content<'_> {
    /// The fields that nodes would index of these documents, and that are not registered yet.
    async fn unknown(&self, cluster: &Cluster, index: &str) -> Result<Vec<String>> {
        let known = fields::known(cluster, index).await?;
        let mut new = known.unknown(self.fields);
        let mut nested = known.unknown(self.nested);
        if !nested.is_empty() {
            let uid = index.to_owned();
            let settings = cluster.ledger.call(move |connection| stored::settings(connection, &uid)).await?;
            let reach = Reach::of(&settings);
            nested.retain(|field| reach.has(field) && !new.contains(field));
            new.extend(nested);
        }
        Ok(new)
    }
}

/// Makes sure that an index exists on all nodes, and that they know its primary key and the fields of the documents to be
/// written. Returns the node tasks to wait for.
///
/// If the index has another primary key, it keeps it: the caller must read the key from the cluster state afterwards.
///
/// # Errors
/// `max_fields_limit_exceeded`; no node accepted the requests; or the ledger failed.
pub async fn ensure_index(
    cluster: &Cluster,
    index: &str,
    content: Option<Content<'_>>,
) -> Result<Vec<NodeTask>> {
    // Fast path: for most writes nothing is to be done, and they do not wait for the lock.
    if let Some(entry) = cluster.cluster_state().indexes.get(index) {
        let is_whole = match (&content, &entry.primary_key) {
            (None, _) => true,
            // The caller splits the payload again by the index's own key, and calls again.
            (Some(content), Some(key)) if key != content.key.name() => true,
            (Some(content), Some(_)) => content.unknown(cluster, index).await?.is_empty(),
            (Some(_), None) => false,
        };
        if is_whole {
            return Ok(cluster.fields.under_way(index));
        }
    }
    let _one = cluster.creating.lock(index).await;
    let known = cluster.cluster_state().indexes.get(index).cloned();
    let mut requests = Vec::new();
    if known.is_none() {
        fields::forget(cluster, index).await?;
        requests = creation(index, None);
    }
    let known_key = known.and_then(|index| index.primary_key);
    let mut new = Vec::new();
    if let Some(content) = &content
        && known_key.as_deref().is_none_or(|known| known == content.key.name())
    {
        // If the index was created with a primary key, nodes know the key before the first fields of documents.
        let key = if known_key.is_some() { Key::Explicit(content.key.name()) } else { content.key };
        new = content.unknown(cluster, index).await?;
        let known_fields = fields::known(cluster, index).await?;
        if known_fields.is_empty() {
            new = key.order(new);
        }
        if known_fields.would_be_too_many(&new) {
            let message = format!("Index `{index}`: A document cannot contain more than 65,535 fields.");
            return Err(ApiError::new(Code::MAX_FIELDS_LIMIT_EXCEEDED, message).into());
        }
        if !new.is_empty() || known_key.is_none() {
            requests.push(registration(index, key, &new, &*cluster.random));
        }
    }
    if requests.is_empty() {
        return Ok(cluster.fields.under_way(index));
    }
    let primary_key = content.map(|content| content.key.name());
    let tasks = send_everywhere(cluster, &cluster.current(), &requests).await?;
    let now = cluster.clock.wall();
    cluster
        .change(|cluster_state| {
            let entry = cluster_state.indexes.entry(index.to_owned()).or_insert_with(|| Index {
                created_at: now,
                updated_at: now,
                ..Index::default()
            });
            if entry.primary_key.is_none() {
                entry.primary_key = primary_key.map(ToOwned::to_owned);
            }
        })
        .await?;
    // Only after the tasks are known: if the registration fails, the next write registers the fields again.
    cluster.fields.registering(index, &tasks);
    if !new.is_empty() {
        fields::keep(cluster, index, new).await?;
    }
    let earlier = cluster.fields.under_way(index).into_iter().filter(|task| !tasks.contains(task));
    Ok(earlier.chain(tasks.iter().cloned()).collect())
}
