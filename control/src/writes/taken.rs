//! What nodes have taken of writes.

use super::metadata;
use crate::cluster::Cluster;
use futures_util::future::join_all;
use miroir_core::path::ApiPath;
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
    let wanted: HashMap<String, u32> = uids.iter().map(|uid| (metadata(*uid), *uid)).collect();
    let all = cluster.nodes();
    let asked = all.iter().filter(|node| nodes.contains(&node.name)).map(async |node| {
        let answer = node.ask("GET", ApiPath::from("/tasks").with("limit", &RECENT.to_string()), None).await;
        (node.name.clone(), answer)
    });
    let mut found = Found::default();
    for (node, answer) in join_all(asked).await {
        let Ok(answer) = answer else {
            found.silent.insert(node);
            continue;
        };
        for task in answer.get("results").and_then(Value::as_array).into_iter().flatten() {
            let uid = task.get("customMetadata").and_then(Value::as_str).and_then(|text| wanted.get(text));
            let node_task = task.get("uid").and_then(Value::as_u64).and_then(|uid| u32::try_from(uid).ok());
            if let (Some(uid), Some(node_task)) = (uid, node_task) {
                found.taken.entry(*uid).or_default().insert(node.clone(), node_task);
            }
        }
    }
    found
}
