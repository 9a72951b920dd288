//! Making nodes know what other nodes know.

use super::{
    keep, known,
    registration::{Key, is_of_key, registration},
};
use crate::{
    base::error::{Error, Result},
    cluster::{Cluster, locks::Scope},
    domain::intent::{NodeRequest, NodeTask},
    indexes::catalogue,
    node::{Node, Request},
};
use futures_util::future::join_all;
use miroir_core::{path::ApiPath, shard::TAG_FIELD};
use serde_json::json;
use std::collections::{BTreeSet, HashSet};

/// The fields that a node knows of an index; none where it has no such index.
///
/// # Errors
/// It does not tell.
async fn of_node(node: &Node, index: &str) -> Result<HashSet<String>> {
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
    let (request, answer) = (format!("POST {path}"), answer.json());
    let names = node.results(&request, &answer)?.iter().map(|field| node.text(&request, field, "name"));
    names.filter(|name| !matches!(name, Ok(TAG_FIELD))).map(|name| Ok(name?.to_owned())).collect()
}

/// Those of the wanted fields that a node does not know, in their order.
fn missing(wanted: &[String], has: &HashSet<String>, key: &str) -> Vec<String> {
    wanted.iter().filter(|name| !has.contains(*name) && !is_of_key(name, key)).cloned().collect()
}

/// What is to be registered on a node that may have missed registrations; `None` where it knows all fields of an index.
///
/// # Errors
/// The ledger failed, or the node does not tell.
pub async fn missed(cluster: &Cluster, node: &Node, index: &str) -> Result<Option<NodeRequest>> {
    let known = known(cluster, index).await?;
    let view = cluster.view();
    let key = view.indexes.get(index).and_then(|index| index.primary_key.as_deref());
    let (Some(key), false) = (key, known.is_empty()) else { return Ok(None) };
    let misses = missing(&known.names(), &of_node(node, index).await?, key);
    Ok((!misses.is_empty()).then(|| registration(index, Key::Said(key), &misses)))
}

/// Registers on each node what others know of an index and it does not, whatever the reason: a function has made fields, a registration
/// has failed, or the fields were there before this ledger. Returns the tasks to wait for.
///
/// Nothing happens to the index meanwhile: to be called by who holds none of its locks.
///
/// # Errors
/// A node does not tell what it knows, or the ledger failed.
pub async fn complete(cluster: &Cluster, index: &str) -> Result<Vec<NodeTask>> {
    let _whole = cluster.locks.lock(Scope::shards(index, &[])).await;
    let _one = cluster.creating.lock(index).await;
    let Some(key) = cluster.view().indexes.get(index).and_then(|index| index.primary_key.clone()) else {
        return Ok(Vec::new());
    };
    let nodes = cluster.current();
    let told = join_all(nodes.iter().map(|node| of_node(node, index))).await;
    let told: Vec<HashSet<String>> = told.into_iter().collect::<Result<_>>()?;
    let found: BTreeSet<&String> = told.iter().flatten().collect();
    let known = known(cluster, index).await?;
    let mut new = known.unknown(found);
    if known.would_be_too_many(&new) {
        tracing::warn!(
            index,
            "nodes know more fields than one index can have: they are not told those of each other"
        );
        new.clear();
    }
    let wanted: Vec<String> = known.names().into_iter().chain(new.iter().cloned()).collect();
    let mut tasks = Vec::new();
    for (node, has) in nodes.iter().zip(&told) {
        let misses = missing(&wanted, has, &key);
        if misses.is_empty() {
            continue;
        }
        let request = registration(index, Key::Said(&key), &misses);
        let sent = catalogue::send_to(cluster, std::slice::from_ref(node), &[request]).await;
        catalogue::mark_behind(cluster, &sent.missed).await?;
        tasks.extend(sent.tasks);
    }
    cluster.fields.registering(index, &tasks);
    if !new.is_empty() {
        keep(cluster, index, new).await?;
    }
    Ok(tasks)
}

/// [`complete`] for all indexes of which the ledger knows no field: it is of an earlier version, or was recovered.
pub async fn complete_unknown(cluster: &Cluster) {
    for index in cluster.view().indexes.keys() {
        let done = async {
            if known(cluster, index).await?.is_empty() {
                complete(cluster, index).await?;
            }
            Ok::<_, Error>(())
        };
        if let Err(error) = done.await {
            tracing::warn!(index, %error, "nodes could not be told each other's fields: the next write will do it");
        }
    }
}
