//! Brings back what was away: first what a node missed of indexes, settings and keys, then its stale replicas, by copy.
//!
//! A copy holds its shard's locks from its first page to its last, so nothing is written to the shard meanwhile.

use crate::{
    catalogue,
    cluster::Cluster,
    epochs::create_key,
    error::{Error, Result},
    locks::Scope,
    node::{Node, Request},
    settings_tag::{self, FILTERABLE},
};
use miroir_core::shard::{Shard, TAG_FIELD, tag_filter};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// Documents a page of a copy.
const PAGE: u64 = 1000;

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
    let keys = |answer: Value| -> Vec<Value> {
        answer.get("results").and_then(Value::as_array).cloned().unwrap_or_default()
    };
    let wanted = keys(from.ask("GET", "/keys?limit=10000", None).await?);
    let there = keys(to.ask("GET", "/keys?limit=10000", None).await?);
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
            for shard in cluster.view().stale_on(&node.name) {
                if let Err(error) = repair(&cluster, shard, node).await {
                    tracing::warn!(node = node.name, shard = shard.0, %error, "a replica could not be repaired yet");
                    break;
                }
            }
        }
    }
}

/// Copies a shard of all indexes from a readable replica, and makes the target's active.
async fn repair(cluster: &Arc<Cluster>, shard: Shard, target: &Arc<Node>) -> Result<()> {
    let guard = cluster.locks.lock(Scope::shard(shard)).await;
    let view = cluster.view();
    let source = view
        .active(shard)
        .filter_map(|name| cluster.node(name))
        .find(|node| node.is_up() && node.name != target.name)
        .ok_or(Error::NoNode)?;
    // What the source has taken must be indexed, or it would be missed.
    cluster.settler.drained(&source.name).await;
    for (index, known) in &view.indexes {
        copy(index, known.primary_key.as_deref(), shard, source, target).await?;
    }
    cluster.change(|view| view.mark_active(shard, &target.name)).await?;
    drop(guard);
    tracing::info!(node = target.name, shard = shard.0, "a replica was repaired");
    Ok(())
}

/// Replaces one shard of one index on the target by what the source has. Copies carry vectors.
async fn copy(
    index: &str,
    primary_key: Option<&str>,
    shard: Shard,
    source: &Node,
    target: &Node,
) -> Result<()> {
    let filter = tag_filter(&[shard]);
    let body = json!({ "filter": filter });
    let deleted = target.ask("POST", &format!("/indexes/{index}/documents/delete"), Some(&body)).await?;
    let mut last = deleted.get("taskUid").and_then(Value::as_u64);
    let mut offset = 0;
    loop {
        let body = json!({"filter": filter, "offset": offset, "limit": PAGE, "retrieveVectors": true});
        let page = source.ask("POST", &format!("/indexes/{index}/documents/fetch"), Some(&body)).await?;
        let mut documents = page.get("results").and_then(Value::as_array).cloned().unwrap_or_default();
        if documents.is_empty() {
            break;
        }
        offset += documents.len() as u64;
        for document in &mut documents {
            document[TAG_FIELD] = json!(shard.tag());
        }
        let query = primary_key.map(|key| {
            format!(
                "?primaryKey={}",
                percent_encoding::utf8_percent_encode(key, percent_encoding::NON_ALPHANUMERIC)
            )
        });
        let path = format!("/indexes/{index}/documents{}", query.unwrap_or_default());
        let answer = target.send(&Request::own("POST", path, Some(&Value::Array(documents)))).await?;
        last = Some(answer.task_uid().map(u64::from).ok_or_else(|| Error::Unexpected {
            node: target.name.clone(),
            status: answer.status,
            request: "POST documents".to_owned(),
            body: String::from_utf8_lossy(&answer.body).into_owned(),
        })?);
    }
    match last {
        // One queue, in order: what was sent last ends last. A failed page fails the copy.
        Some(last) => wait(target, last).await,
        None => Ok(()),
    }
}
