//! Statistics, in the form in which a node returns them. Each document counts once, however many replicas there are.

use super::{Sent, Shared, pass_on};
use crate::{
    base::{
        error::{Error, Result},
        time,
    },
    cluster::Cluster,
    node::Request,
};
use axum::{
    Json,
    extract::Path,
    response::{IntoResponse, Response},
};
use futures_util::future::join_all;
use miroir_core::{
    path::ApiPath,
    shard::{TAG_FIELD, tag_filter},
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// `GET /stats`.
///
/// # Errors
/// A node's error.
pub async fn all(cluster: Shared, sent: Sent) -> Result<Response> {
    let answer = cluster.ask_any(&sent.request).await?;
    let mut stats = answer.json();
    let Some(indexes) =
        stats.get("indexes").and_then(Value::as_object).cloned().filter(|_| answer.is_success())
    else {
        return Ok(pass_on(&answer));
    };
    let of_nodes = everywhere(&cluster, ApiPath::from("/stats").with_query_of(&sent.request.path)).await;
    // Sizes are the bytes on all disks together. A client that asks for formatted sizes gets those of one node.
    for name in ["databaseSize", "usedDatabaseSize"] {
        if stats.get(name).is_some_and(Value::is_number) {
            stats[name] = json!(sum(of_nodes.iter(), name));
        }
    }
    let cluster_state = cluster.cluster_state();
    let last =
        indexes.keys().filter_map(|uid| cluster_state.indexes.get(uid)).map(|index| index.updated_at).max();
    stats["lastUpdate"] = json!(last.map(time::format));
    let whole = indexes.iter().map(async |(uid, own)| {
        let of_index: Vec<Value> =
            of_nodes.iter().filter_map(|stats| stats.get("indexes")?.get(uid).cloned()).collect();
        (uid.clone(), merge(&cluster, uid, own.clone(), &of_index).await)
    });
    stats["indexes"] = Value::Object(join_all(whole).await.into_iter().collect());
    Ok(Json(stats).into_response())
}

/// `GET /indexes/{index}/stats`.
///
/// # Errors
/// A node's error.
pub async fn one(cluster: Shared, Path(index): Path<String>, sent: Sent) -> Result<Response> {
    let answer = cluster.ask_any(&sent.request).await?;
    if !answer.is_success() {
        return Ok(pass_on(&answer));
    }
    let path = ApiPath::of_index(&index, &["stats"]).with_query_of(&sent.request.path);
    let of_nodes = everywhere(&cluster, path).await;
    Ok(Json(merge(&cluster, &index, answer.json(), &of_nodes).await).into_response())
}

async fn everywhere(cluster: &Cluster, path: ApiPath) -> Vec<Value> {
    let request = Request::own("GET", path, None);
    let nodes = cluster.current();
    let asked = nodes.iter().map(async |node| node.send(&request).await);
    join_all(asked)
        .await
        .into_iter()
        .flatten()
        .filter(|answer| answer.is_success())
        .map(|a| a.json())
        .collect()
}

fn sum<'a>(values: impl Iterator<Item = &'a Value>, name: &str) -> u64 {
    values.filter_map(|value| value.get(name)?.as_u64()).sum()
}

/// Merges the statistics of an index from all nodes.
///
/// Documents are counted exactly, each shard on one replica. Numbers that nodes report only over all their copies (fields,
/// embeddings) are scaled by the ratio of documents to copies: this is exact while all shards have the same number of copies,
/// and an estimate otherwise.
async fn merge(cluster: &Cluster, index: &str, own: Value, of_nodes: &[Value]) -> Value {
    let mut stats = own;
    let copies = sum(of_nodes.iter(), "numberOfDocuments");
    let documents = match count(cluster, index).await {
        Ok(documents) => documents,
        Err(error) => {
            tracing::warn!(index, error = %error.chain(), "documents could not be counted by shard");
            copies / cluster.config.replication.max(1) as u64
        }
    };
    let scale = |count: u64| (count * documents + copies / 2).checked_div(copies).unwrap_or(0);
    stats["numberOfDocuments"] = json!(documents);
    stats["isIndexing"] = json!(of_nodes.iter().any(|stats| stats["isIndexing"] == json!(true)));
    for name in ["numberOfEmbeddings", "numberOfEmbeddedDocuments"] {
        if stats.get(name).is_some() {
            stats[name] = json!(scale(sum(of_nodes.iter(), name)));
        }
    }
    if stats.get("rawDocumentDbSize").is_some_and(Value::is_number) {
        stats["rawDocumentDbSize"] = json!(sum(of_nodes.iter(), "rawDocumentDbSize"));
    }
    let mut fields: BTreeMap<&str, u64> = BTreeMap::new();
    for (name, count) in
        of_nodes.iter().filter_map(|stats| stats.get("fieldDistribution")?.as_object()).flatten()
    {
        if name != TAG_FIELD {
            *fields.entry(name).or_default() += count.as_u64().unwrap_or(0);
        }
    }
    let fields = fields.into_iter().map(|(name, count)| (name.to_owned(), scale(count)));
    let fields: Map<String, Value> =
        fields.filter(|(_, count)| *count > 0).map(|(name, count)| (name, json!(count))).collect();
    stats["fieldDistribution"] = Value::Object(fields);
    stats
}

/// Counts the documents of an index, each shard on one active replica of a reachable node.
pub(super) async fn count(cluster: &Cluster, index: &str) -> Result<u64> {
    let asked = cluster.sources(index, cluster.cluster_state().shards());
    let counts = asked.iter().map(async |(node, shards)| {
        node.count_documents(index, &tag_filter(shards)).await?.ok_or(Error::NoNode)
    });
    join_all(counts).await.into_iter().sum()
}
