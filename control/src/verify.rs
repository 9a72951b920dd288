//! Compares all copies of shards by content, and finds misplaced documents.

use crate::{
    base::error::{Error, Result},
    cluster::{Cluster, locks::Scope},
    mover::{
        copy::{fetch, ids, untagged},
        document::{by_id, content},
    },
    node::Node,
};
use miroir_core::{
    documents::PrimaryKey,
    node_name::NodeName,
    shard::{Shard, tag_filter},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// Documents per page.
const PAGE: usize = 1000;
/// How long to wait for locks.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);

/// The result of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Findings {
    /// Number of copies of documents that were compared.
    pub copies: u64,
    /// Documents whose copies differ.
    pub differences: Vec<Difference>,
    /// Replicas that were not compared, because their nodes are unreachable.
    pub silent: Vec<SilentReplica>,
    /// Misplaced documents.
    #[serde(default, rename = "strays")]
    pub misplaced: Vec<MisplacedDocument>,
}

/// A misplaced document: its node has no replica of its shard, and should have none. No search finds it, but it takes space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MisplacedDocument {
    /// Index uid.
    pub index: String,
    /// The document's shard.
    pub shard: Shard,
    /// The node.
    pub node: NodeName,
    /// The document's id.
    pub id: String,
}

/// A document whose copies differ.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// Index uid.
    pub index: String,
    /// The document's shard.
    pub shard: Shard,
    /// The document's id.
    pub id: String,
    /// By node, the start of a hash of the document's content; `None` if it is missing there.
    pub copies: BTreeMap<NodeName, Option<String>>,
    /// The nodes whose copy differs from the majority's; empty if there is no majority.
    pub odd: Vec<NodeName>,
}

/// A replica, by shard and node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SilentReplica {
    /// Its shard.
    pub shard: Shard,
    /// Its node.
    pub node: NodeName,
}

/// Hashes of documents, by id and node.
type Copies = BTreeMap<String, BTreeMap<NodeName, String>>;

/// Nodes that are up, by name, each with the shards whose replicas are compared.
type Held = BTreeMap<NodeName, (Arc<Node>, Vec<Shard>)>;

/// Compares all copies of some shards. Documents that differ are compared again under the shards' locks, because they may have
/// been written in between.
///
/// # Errors
/// A node did not answer, or refused a request.
pub async fn verify(cluster: &Cluster, shards: &[Shard]) -> Result<Findings> {
    let cluster_state = cluster.cluster_state();
    let mut findings = Findings::default();
    let up = |name: &NodeName| cluster.node(name).filter(|node| node.is_up());
    for shard in shards {
        let silent = cluster_state.active(*shard).filter(|name| up(name).is_none());
        let silent = silent.map(|name| SilentReplica { shard: *shard, node: name.clone() });
        findings.silent.extend(silent);
    }
    for (index, known) in &cluster_state.indexes {
        let Some(key) = known.primary_key.as_ref().map(PrimaryKey::new) else { continue };
        let mut held = Held::new();
        for shard in shards {
            for node in cluster_state.whole(index, *shard).filter_map(up) {
                held.entry(node.name.clone()).or_insert((node, Vec::new())).1.push(*shard);
            }
        }
        let mut copies = Copies::new();
        for (node, shards) in held.values() {
            let wanted = ids(node, index, tag_filter(shards), &key).await?;
            read(node, index, &key, &wanted, &mut copies).await?;
        }
        findings.copies += copies.values().map(|copies| copies.len() as u64).sum::<u64>();
        let count = u16::try_from(cluster_state.replicas.len()).unwrap_or(u16::MAX);
        let mut suspects: BTreeMap<Shard, BTreeSet<String>> = BTreeMap::new();
        for (id, copies) in copies {
            let shard = Shard::of_document(&id, count);
            let holders = held.values().filter(|(_, shards)| shards.contains(&shard)).count();
            let distinct: BTreeSet<&String> = copies.values().collect();
            if distinct.len() > 1 || copies.len() != holders {
                suspects.entry(shard).or_default().insert(id);
            }
        }
        findings.misplaced.extend(misplaced(cluster, index, &key, shards).await?);
        for (node, shards) in held.values() {
            for id in untagged(cluster, node, index, shards, &key).await? {
                suspects.entry(Shard::of_document(&id, count)).or_default().insert(id);
            }
        }
        for (shard, suspects) in suspects {
            let suspects: Vec<String> = suspects.into_iter().collect();
            findings.differences.extend(look_again(cluster, index, &key, shard, &suspects).await?);
        }
    }
    Ok(findings)
}

/// Finds documents of some shards on nodes that have no replica of the shard in any state.
async fn misplaced(
    cluster: &Cluster,
    index: &str,
    key: &PrimaryKey,
    shards: &[Shard],
) -> Result<Vec<MisplacedDocument>> {
    let mut misplaced = Vec::new();
    for node in cluster.nodes().iter().filter(|node| node.is_up()) {
        let foreign = |shard: &Shard| cluster.cluster_state().replica(*shard, &node.name).is_none();
        let not_here: Vec<Shard> = shards.iter().copied().filter(foreign).collect();
        if not_here.is_empty() {
            continue;
        }
        let mut found = match ids(node, index, tag_filter(&not_here), key).await {
            // The index has just been deleted, or the node missed its creation.
            Err(Error::Unexpected { status: 404, .. }) => continue,
            found => found?,
        };
        found.extend(untagged(cluster, node, index, &not_here, key).await?);
        let count = u16::try_from(cluster.cluster_state().replicas.len()).unwrap_or(u16::MAX);
        for id in found {
            let shard = Shard::of_document(&id, count);
            // The mover may have started to copy the shard to the node in between.
            if foreign(&shard) {
                misplaced.push(MisplacedDocument {
                    index: index.to_owned(),
                    shard,
                    node: node.name.clone(),
                    id,
                });
            }
        }
    }
    Ok(misplaced)
}

async fn read(node: &Node, index: &str, key: &PrimaryKey, ids: &[String], copies: &mut Copies) -> Result<()> {
    for ids in ids.chunks(PAGE) {
        let query = json!({"ids": ids, "limit": ids.len(), "retrieveVectors": true});
        let page = fetch(node, index, &query).await?;
        for (id, document) in by_id(&page.results, key) {
            let text = serde_json::to_string(&content(document)?)?;
            let hash = hex::encode(Sha256::digest(text.as_bytes()).get(..8).unwrap_or_default());
            copies.entry(id).or_default().insert(node.name.clone(), hash);
        }
    }
    Ok(())
}

/// Compares some documents of a shard under its lock, so that nobody writes them.
async fn look_again(
    cluster: &Cluster,
    index: &str,
    key: &PrimaryKey,
    shard: Shard,
    ids: &[String],
) -> Result<Vec<Difference>> {
    let lock = cluster.locks.lock(Scope::shards(index, &[shard]));
    let busy =
        || Error::Other(format!("shard {} was not compared: writes to it did not end in time", shard.0));
    let _guard = tokio::time::timeout(LOCK_PATIENCE, lock).await.map_err(|_| busy())?;
    let cluster_state = cluster.cluster_state();
    if !cluster_state.indexes.contains_key(index) {
        return Ok(Vec::new());
    }
    let nodes: Vec<Arc<Node>> =
        cluster_state.whole(index, shard).filter_map(|name| cluster.node(name)).collect();
    let nodes: Vec<Arc<Node>> = nodes.into_iter().filter(|node| node.is_up()).collect();
    let mut copies = Copies::new();
    for node in &nodes {
        if !cluster.tracked_tasks.indexed(&node.name, &[shard]).await {
            return Err(Error::Other(format!("node `{}` became unreachable", node.name)));
        }
        read(node, index, key, ids, &mut copies).await?;
    }
    // Read the cluster state again: only after its last task has ended is it known whether a replica is stale.
    let cluster_state = cluster.cluster_state();
    let names: Vec<NodeName> = nodes.iter().map(|node| node.name.clone()).collect();
    let names: Vec<NodeName> =
        names.into_iter().filter(|name| cluster_state.is_whole(index, shard, name)).collect();
    let difference = |id: &String| {
        let found = copies.remove(id).unwrap_or_default();
        let of_node = |name: &NodeName| (name.clone(), found.get(name).cloned());
        let copies: BTreeMap<NodeName, Option<String>> = names.iter().map(of_node).collect();
        let distinct: BTreeSet<&Option<String>> = copies.values().collect();
        (distinct.len() > 1).then(|| Difference {
            index: index.to_owned(),
            shard,
            id: id.clone(),
            odd: odd(&copies),
            copies,
        })
    };
    Ok(ids.iter().filter_map(difference).collect())
}

/// The nodes whose copy differs from the majority's.
fn odd(copies: &BTreeMap<NodeName, Option<String>>) -> Vec<NodeName> {
    let count = |value: &Option<String>| copies.values().filter(|other| *other == value).count();
    let majority = copies.values().find(|value| count(value) * 2 > copies.len());
    let Some(majority) = majority else { return Vec::new() };
    copies.iter().filter(|(_, value)| *value != majority).map(|(node, _)| node.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_copies_are_right_where_there_are_most() {
        let copies = |values: &[Option<&str>]| -> BTreeMap<NodeName, Option<String>> {
            let values = values.iter().enumerate();
            values.map(|(node, value)| (format!("n{node}").into(), value.map(str::to_owned))).collect()
        };
        assert_eq!(odd(&copies(&[Some("a"), None, Some("a")])), ["n1"]);
        assert_eq!(odd(&copies(&[None, None, Some("a")])), ["n2"]);
        assert!(odd(&copies(&[Some("a"), Some("b")])).is_empty());
    }
}
