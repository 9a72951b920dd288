//! What nodes have taken of writes.

use crate::{
    base::error::Result,
    cluster::Cluster,
    node::{Node, answers::task_uid},
};
use futures_util::future::join_all;
use miroir_core::{path::ApiPath, protocol::uid_of_metadata};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How far back nodes are asked, in tasks.
const RECENT: u32 = 1000;

/// What nodes say that they have taken.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// By the ledger's uid: node → its task.
    pub taken: HashMap<u32, BTreeMap<String, u32>>,
    /// The nodes that did not answer: they may have taken anything.
    pub silent: BTreeSet<String>,
}

/// Asks nodes which of their recent tasks carry these uids.
pub async fn find(cluster: &Cluster, nodes: &BTreeSet<String>, uids: &BTreeSet<u32>) -> Found {
    let all = cluster.nodes();
    let asked = all
        .iter()
        .filter(|node| nodes.contains(&node.name))
        .map(async |node| (node.name.clone(), of_node(node, uids).await));
    let mut found = Found::default();
    for (node, answer) in join_all(asked).await {
        match answer {
            Ok(taken) => taken.into_iter().for_each(|(uid, node_task)| {
                found.taken.entry(uid).or_default().insert(node.clone(), node_task);
            }),
            Err(error) => {
                tracing::info!(node, %error, "a node does not tell what it has taken");
                found.silent.insert(node);
            }
        }
    }
    found
}

/// Of these uids, those that a node has tasks of, with these tasks.
async fn of_node(node: &Node, uids: &BTreeSet<u32>) -> Result<Vec<(u32, u32)>> {
    const REQUEST: &str = "GET /tasks";
    let answer = node.ask("GET", ApiPath::from("/tasks").with("limit", &RECENT.to_string()), None).await?;
    let mut taken = Vec::new();
    for task in node.results(REQUEST, &answer)? {
        let metadata = task.get("customMetadata").and_then(Value::as_str);
        if let Some(uid) = metadata.and_then(uid_of_metadata).filter(|uid| uids.contains(uid)) {
            taken.push((uid, task_uid(task).ok_or_else(|| node.unreadable(REQUEST, task))?));
        }
    }
    Ok(taken)
}
