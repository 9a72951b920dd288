//! Finds out which nodes have accepted which writes.

use crate::cluster::Cluster;
use futures_util::future::join_all;
use miroir_core::{node_name::NodeName, protocol::uid_of_metadata};
use std::collections::{BTreeMap, BTreeSet};

/// How many of its latest tasks a node is asked for.
const RECENT: u32 = 1000;

/// The writes that nodes say they have accepted.
#[derive(Clone, Debug, Default)]
pub struct AcceptedWrites {
    /// By the ledger's task uid: node → its own task uid.
    pub taken: BTreeMap<u32, BTreeMap<NodeName, u32>>,
    /// The nodes that did not answer: each may have accepted any of the writes.
    pub silent: BTreeSet<NodeName>,
}

/// Asks nodes which of their recent tasks belong to these uids, by `customMetadata`.
pub async fn find(cluster: &Cluster, nodes: &BTreeSet<NodeName>, uids: &BTreeSet<u32>) -> AcceptedWrites {
    let all = cluster.nodes();
    let asked = all.iter().filter(|node| nodes.contains(&node.name)).map(async |node| {
        let answer = node.recent_tasks(RECENT).await;
        (node.name.clone(), answer)
    });
    let mut found = AcceptedWrites::default();
    for (node, answer) in join_all(asked).await {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(node = node.as_str(), error = %error.chain(), "a node does not tell what it has taken");
                found.silent.insert(node);
                continue;
            }
        };
        for task in answer {
            let uid = task.custom_metadata().and_then(uid_of_metadata).filter(|uid| uids.contains(uid));
            if let (Some(uid), Some(node_task)) = (uid, task.uid()) {
                found.taken.entry(uid).or_default().insert(node.clone(), node_task);
            }
        }
    }
    found
}
