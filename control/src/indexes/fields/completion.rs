//! Registers on each node the fields that only other nodes know.

use super::{
    keep, known,
    registration::{Key, is_of_key, registration},
};
use crate::{
    base::error::{Error, Result},
    cluster::{Cluster, locks::Scope},
    domain::intent::{NodeRequest, NodeTask},
    indexes::creation,
    node::{Node, Request},
};
use futures_util::future::join_all;
use miroir_core::{path::ApiPath, shard::TAG_FIELD};
use serde_json::json;
use std::collections::BTreeSet;

/// The fields that a node knows of an index; `None` if it does not have the index.
///
/// # Errors
/// The node did not answer, or refused.
async fn of_node(node: &Node, index: &str) -> Result<Option<BTreeSet<String>>> {
    let body = json!({"offset": 0, "limit": u32::MAX});
    let request = Request::own("POST", ApiPath::of_index(index, &["fields"]), Some(&body));
    let answer = node.send(&request).await?;
    if answer.status == 404 {
        return Ok(None);
    }
    if !answer.is_success() {
        return Err(node.unexpected(&request, &answer));
    }
    let (request, answer) = (format!("POST {}", request.path), answer.json());
    let names = node.results(&request, &answer)?.iter().map(|field| node.text(&request, field, "name"));
    let names = names.filter(|name| !matches!(name, Ok(TAG_FIELD)));
    names.map(|name| Ok(name?.to_owned())).collect::<Result<_>>().map(Some)
}

/// The wanted fields that a node does not know, in their order.
fn missing(wanted: &[String], has: &BTreeSet<String>, key: &str) -> Vec<String> {
    wanted.iter().filter(|name| !has.contains(*name) && !is_of_key(name, key)).cloned().collect()
}

/// The registration that a node needs that may have missed some; `None` if it knows all fields of the index.
///
/// # Errors
/// The ledger failed, or the node did not answer.
pub async fn missed(cluster: &Cluster, node: &Node, index: &str) -> Result<Option<NodeRequest>> {
    let known = known(cluster, index).await?;
    let cluster_state = cluster.cluster_state();
    let key = cluster_state.indexes.get(index).and_then(|index| index.primary_key.as_deref());
    let (Some(key), false) = (key, known.is_empty()) else { return Ok(None) };
    let misses = missing(&known.names(), &of_node(node, index).await?.unwrap_or_default(), key);
    Ok((!misses.is_empty()).then(|| registration(index, Key::Explicit(key), &misses, &*cluster.random)))
}

/// Registers on each node the fields of an index that only other nodes know. There are several causes: an edit by function
/// created fields, a registration failed, or the fields are older than this ledger. Returns the node tasks to wait for.
///
/// Locks the whole index meanwhile. The caller must not hold any of its locks.
///
/// # Errors
/// A node did not answer, or the ledger failed.
pub async fn complete(cluster: &Cluster, index: &str) -> Result<Vec<NodeTask>> {
    let _whole = cluster.locks.lock(Scope::shards(index, &[])).await;
    let _one = cluster.creating.lock(index).await;
    let Some(key) = cluster.cluster_state().indexes.get(index).and_then(|index| index.primary_key.clone())
    else {
        return Ok(Vec::new());
    };
    let nodes = cluster.current();
    let told = join_all(nodes.iter().map(|node| of_node(node, index))).await;
    let told: Vec<Option<BTreeSet<String>>> = told.into_iter().collect::<Result<_>>()?;
    let found: BTreeSet<&String> = told.iter().flatten().flatten().collect();
    let known = known(cluster, index).await?;
    let mut new = known.unknown(found);
    if known.would_be_too_many(&new) {
        tracing::warn!(
            index,
            "nodes together know more fields than one index can have: fields are not registered on other nodes"
        );
        new.clear();
    }
    let wanted: Vec<String> = known.names().into_iter().chain(new.iter().cloned()).collect();
    let mut tasks = Vec::new();
    for (node, has) in nodes.iter().zip(&told) {
        // Its creation has failed there: a registration would make an index without the settings that every index has.
        if has.is_none() && node.keeps_its_indexes().await? {
            creation::mark_behind(cluster, std::slice::from_ref(&node.name)).await?;
            continue;
        }
        let has = has.clone().unwrap_or_default();
        let misses = missing(&wanted, &has, &key);
        if misses.is_empty() {
            continue;
        }
        let request = registration(index, Key::Explicit(&key), &misses, &*cluster.random);
        let sent = creation::send_to(cluster, std::slice::from_ref(node), &[request]).await;
        // A node that has come back meanwhile was not asked.
        let unasked = cluster.nodes();
        let unasked = unasked.iter().filter(|other| !nodes.iter().any(|node| node.name == other.name));
        let missed: Vec<_> = unasked.map(|node| node.name.clone()).chain(sent.missed).collect();
        creation::mark_behind(cluster, &missed).await?;
        tasks.extend(sent.tasks);
    }
    cluster.fields.registering(index, &tasks);
    if !new.is_empty() {
        keep(cluster, index, new).await?;
    }
    Ok(tasks)
}

/// [`complete`] for all indexes of which the ledger knows no field: an earlier version wrote the ledger, or it was recovered.
pub async fn complete_unknown(cluster: &Cluster) {
    for index in cluster.cluster_state().indexes.keys() {
        let done = async {
            if known(cluster, index).await?.is_empty() {
                complete(cluster, index).await?;
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = done.await {
            tracing::warn!(index, error = %error.chain(), "fields could not be registered on all nodes: the next write will do it");
        }
    }
}
