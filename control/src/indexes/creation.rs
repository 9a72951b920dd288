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
        cluster_state::{ClusterState, Index},
        intent::{NodeRequest, NodeTask, Step},
    },
    fencing::{in_flight, late_tasks},
    indexes::fields::{
        self,
        indexable::Reach,
        registration::{Key, registration},
    },
    ledger::{settings as stored, steps},
    node::{Node, Request, TIMEOUT},
};
use futures_util::future::join_all;
use miroir_core::{
    error::{ApiError, Code},
    node_name::NodeName,
    path::ApiPath,
};
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, time::Duration};

/// For how long nodes are sent again what some of them may have, and none has wholly.
const PERSISTENCE: Duration = Duration::from_secs(20);
/// The pause before that.
const PAUSE: Duration = Duration::from_millis(500);

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
    let (tasks, failure) = send_some(cluster, node, requests).await;
    failure.map_or(Ok(tasks), Err)
}

/// Sends requests to a node until it does not accept one. Returns the tasks of those that it has accepted.
async fn send_some(
    cluster: &Cluster,
    node: &Node,
    requests: &[NodeRequest],
) -> (Vec<NodeTask>, Option<Error>) {
    let mut tasks = Vec::new();
    for request in requests {
        let own = Request::own(&request.method, request.path.clone(), request.body.as_ref());
        // Documents that come late make an index again that was deleted meanwhile.
        let is_of_documents = request.path.segments().get(2) == Some(&"documents");
        let answer = if is_of_documents {
            late_tasks::send_marked(cluster, node, &[], own.clone(), TIMEOUT).await
        } else {
            in_flight::send(cluster, node, own.clone(), TIMEOUT).await
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return (tasks, Some(error)),
        };
        let Some(node_task) = answer.task_uid().filter(|_| answer.is_success()) else {
            return (tasks, Some(node.unexpected(&own, &answer)));
        };
        tasks.push(NodeTask { node: node.name.clone(), node_task, main: request.main, shards: Vec::new() });
    }
    (tasks, None)
}

/// The results of requests to several nodes.
#[derive(Debug, Default)]
pub struct Sent {
    /// The node tasks that the requests created on nodes that accepted all of them.
    pub tasks: Vec<NodeTask>,
    /// The nodes that accepted all requests.
    pub whole: BTreeSet<NodeName>,
    /// Those of the nodes that were asked that did not accept all requests.
    pub missed: Vec<NodeName>,
    /// Those of them that have some of the requests, or may have.
    pub may_have: BTreeSet<NodeName>,
    /// The error of one of these nodes.
    pub failure: Option<Error>,
}

/// Sends requests to these nodes concurrently.
pub async fn send_to(cluster: &Cluster, nodes: &[std::sync::Arc<Node>], requests: &[NodeRequest]) -> Sent {
    let answers = nodes.iter().map(async |node| (node, send_some(cluster, node, requests).await));
    let mut sent = Sent::default();
    for (node, (of_node, failure)) in join_all(answers).await {
        let Some(error) = failure else {
            sent.tasks.extend(of_node);
            sent.whole.insert(node.name.clone());
            continue;
        };
        tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a node missed an operation on an index");
        // What fails otherwise failed before anything was sent, or was refused.
        let is_unknown = match &error {
            Error::Unreachable { is_unsent, .. } => !is_unsent,
            Error::Unexpected { status, .. } => !(400..500).contains(status),
            _ => false,
        };
        if !of_node.is_empty() || is_unknown {
            sent.may_have.insert(node.name.clone());
        }
        sent.missed.push(node.name.clone());
        sent.failure = Some(error);
    }
    sent
}

/// Sends requests to all current nodes, until one has all of them, or none has any. If that does not come about in time, each node
/// that may have some is among those that missed it: it must learn that there was nothing.
async fn send_everywhere(cluster: &Cluster, requests: &[NodeRequest]) -> Sent {
    let begun = cluster.clock.monotonic();
    let mut may_have = BTreeSet::new();
    loop {
        let mut sent = send_to(cluster, &cluster.current(), requests).await;
        may_have.append(&mut sent.may_have);
        if sent.failure.is_none() || !sent.tasks.is_empty() {
            return Sent { failure: None, ..sent };
        }
        if may_have.is_empty() || cluster.clock.since(begun) > PERSISTENCE {
            return Sent { missed: may_have.into_iter().collect(), ..sent };
        }
        tokio::time::sleep(PAUSE).await;
    }
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
    let away = nodes.iter().filter(|node| !node.is_up()).map(|node| &node.name);
    cluster
        .change(|cluster_state| missed.iter().chain(away).for_each(|node| cluster_state.mark_behind(node)))
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
    let primary_key = content.map(|content| content.key.name().to_owned());
    let makes_index = !cluster.cluster_state().indexes.contains_key(index) || known_key.is_none();
    let step = match makes_index {
        true => {
            let step = Step::Index { index: index.to_owned(), primary_key: primary_key.clone() };
            Some(cluster.ledger.call(move |connection| steps::begin(connection, &step)).await?)
        }
        false => None,
    };
    let Sent { tasks, whole, missed, failure, .. } = send_everywhere(cluster, &requests).await;
    let (now, uid, is_made) = (cluster.clock.wall(), index.to_owned(), failure.is_none());
    let change = move |connection: &_, cluster_state: &mut ClusterState| {
        // A node that has come back meanwhile was not asked, and is not away any more.
        let all = cluster_state.nodes.iter().map(|member| member.config.name.clone());
        let lacking: Vec<NodeName> =
            if is_made { all.filter(|node| !whole.contains(node)).collect() } else { missed.clone() };
        lacking.iter().for_each(|node| cluster_state.mark_behind(node));
        step.map_or(Ok(()), |step| steps::end(connection, step))?;
        if is_made {
            let entry = cluster_state.indexes.entry(uid).or_insert_with(|| Index {
                created_at: now,
                updated_at: now,
                ..Index::default()
            });
            if entry.primary_key.is_none() {
                entry.primary_key = primary_key;
            }
        }
        Ok(())
    };
    cluster.store_what_is_done(change).await;
    if let Some(failure) = failure {
        return Err(failure);
    }
    // Only after the tasks are known: if the registration fails, the next write registers the fields again.
    cluster.fields.registering(index, &tasks);
    if !new.is_empty() {
        fields::keep(cluster, index, new).await?;
    }
    let earlier = cluster.fields.under_way(index).into_iter().filter(|task| !tasks.contains(task));
    Ok(earlier.chain(tasks.iter().cloned()).collect())
}

/// After a restart, finishes what a write had begun to make for its index: all nodes get it, or those that may have it are behind.
/// The client got no answer.
///
/// # Errors
/// The ledger failed.
pub async fn resume(cluster: &Cluster, id: i64, index: &str, primary_key: Option<&str>) -> Result<()> {
    let content = primary_key.map(|key| Content { key: Key::Explicit(key), fields: &[], nested: &[] });
    let made = ensure_index(cluster, index, content).await;
    if let Err(error) = &made {
        tracing::error!(index, error = %error.chain(), "an index could not be finished: nodes learn whether it exists");
    }
    // Before the restart, any node may have got a part of it.
    let is_made = made.is_ok();
    let change = move |connection: &_, cluster_state: &mut ClusterState| {
        if !is_made {
            let all = cluster_state.nodes.iter().map(|member| member.config.name.clone());
            all.collect::<Vec<_>>().iter().for_each(|node| cluster_state.mark_behind(node));
        }
        steps::end(connection, id)
    };
    cluster.change_stored(change).await
}

#[cfg(test)]
mod tests;
