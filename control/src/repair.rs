//! Brings back what was away: first what a node missed of indexes, settings and keys, then its stale replicas, by copy.
//!
//! A copy holds its shard's locks from its first page to its last, so nothing is written to the shard meanwhile.

use crate::{
    catalogue,
    cluster::Cluster,
    embedders::{EMBEDDERS, with_template},
    epochs::{EPOCH, create_key},
    error::{Error, Result},
    ledger::catalogue as stored,
    locks::Scope,
    node::Node,
    settings_tag::{self, FILTERABLE},
};
use miroir_core::shard::{Shard, tag_filter};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// Documents a page of a copy.
const PAGE: u64 = 1000;
/// Shards that are copied together: locked together, too.
const BATCH: usize = 16;

/// Gives a node what it missed of keys, indexes and settings.
///
/// # Errors
/// The node went away again, or no other node can tell.
pub async fn catch_up(cluster: &Arc<Cluster>, name: &str) -> Result<()> {
    let Some(node) = cluster.node(name).cloned() else { return Ok(()) };
    cluster.epochs.catch_up(cluster, &node).await?;
    if !cluster.view().behind.contains(name) {
        return Ok(());
    }
    // Nothing may change while the node learns what is.
    let guard = cluster.locks.lock(Scope::everything()).await;
    let Some(reference) = cluster.current().into_iter().find(|other| other.name != name) else {
        // Every node has missed something: the catalogue and this node's own settings are the best there is.
        tracing::warn!(node = name, "no node is whole: this one is taken as it is");
        return cluster
            .change(|view| {
                view.behind.remove(name);
            })
            .await;
    };
    // What the reference has in its queue, its settings do not show yet.
    cluster.settler.drained(&reference.name).await;
    sync_keys(&reference, &node).await?;
    let mut last = None;
    let there = index_uids(&node).await?;
    let wanted: BTreeSet<String> = cluster.view().indexes.keys().cloned().collect();
    for index in there.difference(&wanted) {
        let deleted = node.ask("DELETE", &format!("/indexes/{index}"), None).await?;
        last = deleted.get("taskUid").and_then(Value::as_u64).or(last);
    }
    for index in &wanted {
        let mut settings = reference.ask("GET", &format!("/indexes/{index}/settings"), None).await?;
        // The tag's rule is there already, but for an index that was made without this control plane.
        let filterable = settings.get(FILTERABLE).and_then(settings_tag::with_tag).unwrap_or(Value::Null);
        settings[FILTERABLE] = filterable;
        // Nodes do not show the keys of embedders: what clients set is in the ledger.
        let uid = index.clone();
        let set = cluster.ledger.call(move |connection| stored::settings(connection, &uid)).await?;
        if let Some(embedders) = set.get(EMBEDDERS) {
            settings[EMBEDDERS] = embedders.clone();
            with_template(&mut settings[EMBEDDERS]);
        }
        if !there.contains(index) {
            let primary_key = cluster.view().indexes.get(index).and_then(|index| index.primary_key.clone());
            catalogue::send_all(&node, &catalogue::creation(index, primary_key.as_deref())).await?;
        }
        let set = node.ask("PATCH", &format!("/indexes/{index}/settings"), Some(&settings)).await?;
        last = set.get("taskUid").and_then(Value::as_u64).or(last);
    }
    drop(guard);
    if let Some(last) = last {
        wait(&node, last).await?;
    }
    cluster
        .change(|view| {
            view.behind.remove(name);
        })
        .await?;
    tracing::info!(node = name, "a node has caught up");
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
        to.ask("DELETE", &format!("/keys/{uid}"), None).await?;
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

async fn index_uids(node: &Node) -> Result<BTreeSet<String>> {
    let answer = node.ask("GET", "/indexes?limit=100000", None).await?;
    let results = answer.get("results").and_then(Value::as_array).cloned().unwrap_or_default();
    Ok(results.iter().filter_map(|index| index.get("uid")?.as_str().map(ToOwned::to_owned)).collect())
}

/// Waits until a node has ended a task.
async fn wait(node: &Node, node_task: u64) -> Result<()> {
    let mut pause = Duration::from_millis(20);
    loop {
        let task = node.ask("GET", &format!("/tasks/{node_task}"), None).await?;
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

/// Repairs stale replicas on nodes that answer, one after the other, for ever.
pub async fn watch(cluster: Arc<Cluster>) {
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for node in &cluster.nodes {
            if !node.is_up() {
                continue;
            }
            if cluster.view().behind.contains(&node.name)
                && let Err(error) = catch_up(&cluster, &node.name).await
            {
                tracing::warn!(node = node.name, %error, "a node could not catch up yet");
                continue;
            }
            loop {
                // What it may still get late must be refused before its copies are replaced.
                if cluster.epochs.owes(&node.name)
                    && let Err(error) = cluster.epochs.settle(&cluster, node).await
                {
                    tracing::warn!(node = node.name, %error, "a node could not get its epoch keys yet");
                    break;
                }
                let Some((source, shards)) = next_batch(&cluster, node) else { break };
                if let Err(error) = repair(&cluster, &shards, &source, node).await {
                    tracing::warn!(node = node.name, %error, "replicas could not be repaired yet");
                    break;
                }
            }
        }
    }
}

/// Some stale replicas of a node that one other node can give back.
fn next_batch(cluster: &Cluster, target: &Node) -> Option<(Arc<Node>, Vec<Shard>)> {
    let view = cluster.view();
    let source_of = |shard: Shard| {
        let mut active = view.active(shard).filter_map(|name| cluster.node(name));
        active.find(|node| node.is_up() && node.name != target.name)
    };
    let stale = view.stale_on(&target.name);
    let source = stale.iter().find_map(|shard| source_of(*shard))?.clone();
    let of_source =
        stale.into_iter().filter(|shard| source_of(*shard).is_some_and(|node| node.name == source.name));
    Some((source.clone(), of_source.take(BATCH).collect()))
}

/// Copies shards of all indexes from a readable replica, and makes the target's active.
async fn repair(
    cluster: &Arc<Cluster>,
    shards: &[Shard],
    source: &Arc<Node>,
    target: &Arc<Node>,
) -> Result<()> {
    let scope = Scope { indexes: None, shards: Some(shards.iter().copied().collect()) };
    let guard = cluster.locks.lock(scope).await;
    // While it waited, a write may have had no answer. From here on none comes to these shards.
    if cluster.epochs.owes(&target.name) {
        return Ok(());
    }
    // What the source has taken must be indexed, or it would be missed.
    cluster.settler.drained(&source.name).await;
    let view = cluster.view();
    // While it waited, the source may have become stale itself.
    let is_active = |shard: &Shard| view.active(*shard).any(|name| name == source.name);
    let shards: Vec<Shard> = shards.iter().copied().filter(is_active).collect();
    for (index, known) in &view.indexes {
        copy(index, known.primary_key.as_deref(), &shards, source, target).await?;
    }
    cluster.change(|view| shards.iter().for_each(|shard| view.mark_active(*shard, &target.name))).await?;
    drop(guard);
    tracing::info!(node = target.name, from = source.name, shards = shards.len(), "replicas were repaired");
    Ok(())
}

/// Replaces some shards of one index on the target by what the source has. Copies carry vectors, and their tags.
async fn copy(
    index: &str,
    primary_key: Option<&str>,
    shards: &[Shard],
    source: &Node,
    target: &Node,
) -> Result<()> {
    let filter = tag_filter(shards);
    let fetch = format!("/indexes/{index}/documents/fetch");
    let count = async |node: &Node| {
        let counted = node.ask("POST", &fetch, Some(&json!({"filter": filter, "limit": 0}))).await?;
        Ok::<_, Error>(counted.get("total").and_then(Value::as_u64))
    };
    if count(source).await? == Some(0) && count(target).await? == Some(0) {
        return Ok(());
    }
    let body = json!({ "filter": filter });
    let deleted = target.ask("POST", &format!("/indexes/{index}/documents/delete"), Some(&body)).await?;
    let mut last = deleted.get("taskUid").and_then(Value::as_u64);
    let query = primary_key.map(|key| {
        let key = percent_encoding::utf8_percent_encode(key, percent_encoding::NON_ALPHANUMERIC);
        format!("?primaryKey={key}")
    });
    let path = format!("/indexes/{index}/documents{}", query.unwrap_or_default());
    let mut offset = 0;
    loop {
        let body = json!({"filter": filter, "offset": offset, "limit": PAGE, "retrieveVectors": true});
        let mut page = source.ask("POST", &fetch, Some(&body)).await?;
        let documents = page.get_mut("results").map(Value::take).unwrap_or_default();
        let fetched = documents.as_array().map_or(0, Vec::len);
        if fetched == 0 {
            break;
        }
        offset += fetched as u64;
        let added = target.ask("POST", &path, Some(&documents)).await?;
        last = added.get("taskUid").and_then(Value::as_u64).or(last);
    }
    // One queue, in order: what was sent last ends last.
    if let Some(last) = last {
        wait(target, last).await?;
    }
    let (there, here) = (count(source).await?, count(target).await?);
    if there == here {
        return Ok(());
    }
    Err(Error::Other(format!("index `{index}`: the copy has {here:?} documents of {there:?}")))
}
