//! Brings a node up to date that was away, or is new: keys, experimental features, indexes, settings. Its documents are the
//! mover's.

use crate::{
    catalogue,
    cluster::Cluster,
    embedders::{self, EMBEDDERS, with_template},
    epochs::{EPOCH, INTERNAL, create_key},
    error::{Error, Result},
    features, fenced, fields,
    ledger::catalogue as stored,
    locks::Scope,
    node::{Node, Request},
    rules, server,
    settings_tag::{self, FILTERABLE},
};
use miroir_core::path::ApiPath;
use serde_json::{Map, Value};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// How long everything may be locked for the last of it.
const LONGEST: Duration = Duration::from_secs(1);

/// Gives a node what it missed of keys, indexes and settings.
///
/// # Errors
/// The node went away again, or no other node can tell.
pub async fn catch_up(cluster: &Arc<Cluster>, name: &str) -> Result<()> {
    let Some(node) = cluster.node(name) else { return Ok(()) };
    cluster.epochs.catch_up(cluster, &node).await?;
    if !cluster.view().behind.contains(name) {
        return Ok(());
    }
    // What it may still get late would undo what it learns.
    cluster.epochs.settle(cluster, &node).await?;
    // Without locks first, however long it takes. Then nothing may change while the node learns what is left.
    if let Some(reference) = reference(cluster, name)
        && let Some(last) = learn(cluster, &reference, &node).await?
    {
        wait(&node, last).await?;
    }
    let mut patience = LONGEST / 4;
    loop {
        let lock = cluster.locks.lock(Scope::everything());
        let Ok(guard) = tokio::time::timeout(patience, lock).await else {
            tokio::time::sleep(patience).await;
            patience = (patience * 2).min(LONGEST * 5);
            continue;
        };
        let Some(reference) = reference(cluster, name) else {
            // Every node has missed something: the catalogue and this node's own settings are the best there is.
            tracing::warn!(node = name, "no node is whole: this one is taken as it is");
            return caught_up(cluster, name).await;
        };
        // What the reference has in its queue, its settings do not show yet.
        let is_busy = cluster.settler.has_operations(&reference.name);
        let last = if is_busy { None } else { learn(cluster, &reference, &node).await? };
        let learnt = async {
            match last {
                Some(last) => wait(&node, last).await,
                None => Ok(()),
            }
        };
        match tokio::time::timeout(LONGEST, learnt).await {
            Ok(learnt) if !is_busy => {
                learnt?;
                if cluster.epochs.owes(name) {
                    return Err(Error::Other(format!("node `{name}` may get something late")));
                }
                return caught_up(cluster, name).await;
            }
            _ => {
                drop(guard);
                match last {
                    Some(last) => wait(&node, last).await?,
                    None => tokio::time::sleep(LONGEST / 4).await,
                }
            }
        }
    }
}

/// A node that has missed nothing.
fn reference(cluster: &Cluster, name: &str) -> Option<Arc<Node>> {
    cluster.current().into_iter().find(|other| other.name != name)
}

async fn caught_up(cluster: &Cluster, name: &str) -> Result<()> {
    cluster
        .change(|view| {
            view.behind.remove(name);
        })
        .await?;
    tracing::info!(node = name, "a node has caught up");
    Ok(())
}

/// Makes keys, features, indexes and settings of a node those of another; returns the last task to wait for.
async fn learn(cluster: &Cluster, reference: &Node, node: &Node) -> Result<Option<u64>> {
    sync_keys(reference, node).await?;
    server::sync(cluster, node).await?;
    let mut last = rules::sync(cluster, node).await?;
    features::sync(reference, node).await?;
    let there = index_uids(node).await?;
    let wanted: BTreeSet<String> = cluster.view().indexes.keys().cloned().collect();
    for index in there.difference(&wanted) {
        let deletion = Request::own("DELETE", ApiPath::of_index(index, &[]), None);
        last = Some(fenced::enqueue(cluster, node, deletion).await?);
    }
    for index in &wanted {
        let path = ApiPath::of_index(index, &["settings"]);
        let mut settings = match reference.ask("GET", path.clone(), None).await {
            // It is being made, or was deleted a moment ago.
            Err(Error::Unexpected { status: 404, .. }) => continue,
            settings => settings?,
        };
        let uid = index.clone();
        let set = cluster.ledger.call(move |connection| stored::settings(connection, &uid)).await?;
        if there.contains(index) {
            if let Some(missed) = fields::missed(cluster, node, index).await? {
                let request = Request::own(&missed.method, missed.path, missed.body.as_ref());
                last = Some(fenced::enqueue(cluster, node, request).await?);
            }
            // Nodes do not show the keys of embedders: those may differ.
            if set.get(EMBEDDERS).is_none()
                && node.ask("GET", path.clone(), None).await.is_ok_and(|own| own == settings)
            {
                continue;
            }
        } else {
            let primary_key = cluster.view().indexes.get(index).and_then(|index| index.primary_key.clone());
            let fields = fields::known(cluster, index).await?;
            let creation = catalogue::creation_with(index, primary_key.as_deref(), fields.names());
            catalogue::send_all(cluster, node, &creation).await?;
        }
        // The tag's rule is there already, but for an index that was made without this control plane.
        let filterable = settings.get(FILTERABLE).and_then(settings_tag::with_tag).unwrap_or(Value::Null);
        settings[FILTERABLE] = filterable;
        if let Some(shown) = settings.get_mut(EMBEDDERS) {
            let (mut embedders, unknown) = embedders::known(shown, set.get(EMBEDDERS));
            // One that has them keeps their keys.
            let own =
                if there.contains(index) { node.ask("GET", path.clone(), None).await? } else { Value::Null };
            let own = own.get(EMBEDDERS).unwrap_or(&Value::Null);
            let lacks = |name: &&String| {
                own.get(name.as_str()).and_then(|embedder| embedder.get(embedders::KEY)).is_none()
            };
            if let Some(name) = unknown.iter().find(lacks) {
                return Err(Error::Other(unknown_key(index, name)));
            }
            with_template(&mut embedders);
            *shown = embedders;
        }
        last = Some(fenced::enqueue(cluster, node, Request::own("PATCH", path, Some(&settings))).await?);
    }
    Ok(last)
}

fn unknown_key(index: &str, embedder: &str) -> String {
    format!(
        "the key of the embedder `{embedder}` of index `{index}` is not known since the ledger was recovered: set it again, with \
         PATCH /indexes/{index}/settings/embedders and {{\"{embedder}\": {{\"apiKey\": \"…\"}}}}"
    )
}

/// What keeps a new node from learning the settings of all indexes: keys of embedders that nobody knows.
///
/// # Errors
/// The ledger failed.
pub async fn unknown_keys(cluster: &Cluster) -> Result<Vec<String>> {
    let mut all = Vec::new();
    let Some(reference) = cluster.current().into_iter().next() else { return Ok(all) };
    for index in cluster.view().indexes.keys() {
        // What it does not tell now is seen when the node learns it.
        let Ok(settings) = reference.ask("GET", ApiPath::of_index(index, &["settings"]), None).await else {
            continue;
        };
        let uid = index.clone();
        let set = cluster.ledger.call(move |connection| stored::settings(connection, &uid)).await?;
        let shown = settings.get(EMBEDDERS).unwrap_or(&Value::Null);
        let (_, unknown) = embedders::known(shown, set.get(EMBEDDERS));
        all.extend(unknown.iter().map(|name| unknown_key(index, name)));
    }
    Ok(all)
}

/// Gives embedders, if there are any, their keys, which nodes do not tell: `set` is what clients have set.
pub fn with_keys(settings: &mut Value, set: &Map<String, Value>) -> bool {
    let embedders = set.get(EMBEDDERS);
    embedders.into_iter().for_each(|embedders| settings[EMBEDDERS] = embedders.clone());
    embedders.is_some()
}

/// Deletes what a node that has left keeps of the cluster: indexes, and gateways' keys.
///
/// # Errors
/// The node did not answer, or refused.
pub async fn clear(node: &Node) -> Result<()> {
    for index in index_uids(node).await? {
        node.ask("DELETE", ApiPath::of_index(&index, &[]), None).await?;
    }
    let keys = node.ask("GET", "/keys?limit=10000", None).await?;
    for key in keys.get("results").and_then(Value::as_array).into_iter().flatten() {
        let text = |name: &str| key.get(name).and_then(Value::as_str).unwrap_or_default();
        if text("name").starts_with(INTERNAL) {
            node.ask("DELETE", ApiPath::new(["keys", text("uid")]), None).await?;
        }
    }
    Ok(())
}

/// Makes a node's API keys the same as another's. A key's text follows from its uid and the master key.
///
/// # Errors
/// A node did not answer. Expired keys cannot be made again, and are left out.
pub async fn sync_keys(from: &Node, to: &Node) -> Result<()> {
    // Epoch keys come and go on their own.
    let shared = |answer: Value| {
        let mut keys: Vec<Value> =
            answer.get("results").and_then(Value::as_array).cloned().unwrap_or_default();
        keys.retain(|key| key.get("name").and_then(Value::as_str) != Some(EPOCH));
        keys
    };
    let wanted = shared(from.ask("GET", "/keys?limit=10000", None).await?);
    let there = shared(to.ask("GET", "/keys?limit=10000", None).await?);
    let uid = |key: &Value| key.get("uid").and_then(Value::as_str).unwrap_or_default().to_owned();
    let wanted_uids: BTreeSet<String> = wanted.iter().map(uid).collect();
    let there_uids: BTreeSet<String> = there.iter().map(uid).collect();
    for uid in there_uids.difference(&wanted_uids) {
        to.ask("DELETE", ApiPath::new(["keys", uid]), None).await?;
    }
    // Lists show the newest first: made in the other order, they come in the same.
    for key in wanted.iter().rev().filter(|key| !there_uids.contains(&uid(key))) {
        let mut body = key.clone();
        if let Some(object) = body.as_object_mut() {
            object.retain(|name, _| {
                ["uid", "name", "description", "actions", "indexes", "expiresAt"].contains(&name.as_str())
            });
        }
        if let Err(error) = create_key(to, &body).await {
            tracing::warn!(node = to.name, uid = uid(key), %error, "an API key could not be copied");
        }
    }
    Ok(())
}

/// The uids of a node's indexes.
///
/// # Errors
/// The node did not answer, or refused.
pub async fn index_uids(node: &Node) -> Result<BTreeSet<String>> {
    let answer = node.ask("GET", "/indexes?limit=100000", None).await?;
    let results = answer.get("results").and_then(Value::as_array).cloned().unwrap_or_default();
    Ok(results.iter().filter_map(|index| index.get("uid")?.as_str().map(ToOwned::to_owned)).collect())
}

/// Waits until a node has ended a task.
///
/// # Errors
/// It failed, or the node did not answer.
pub async fn wait(node: &Node, node_task: u64) -> Result<()> {
    let mut pause = Duration::from_millis(20);
    loop {
        let task = node.ask("GET", ApiPath::new(["tasks", &node_task.to_string()]), None).await?;
        match task.get("status").and_then(Value::as_str) {
            Some("succeeded") => return Ok(()),
            Some("failed" | "canceled") => {
                return Err(Error::Other(format!("task {node_task} of node `{}` failed: {task}", node.name)));
            }
            _ => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}
