//! Finds out which nodes have accepted which writes.

use crate::{cluster::Cluster, fencing::late_tasks};
use futures_util::future::join_all;
use miroir_core::node_name::NodeName;
use std::collections::{BTreeMap, BTreeSet};

/// The writes that nodes say they have accepted.
#[derive(Clone, Debug, Default)]
pub struct AcceptedWrites {
    /// By the ledger's task uid: node → its own task uid.
    pub taken: BTreeMap<u32, BTreeMap<NodeName, u32>>,
    /// The nodes that did not tell of all their tasks: each may have accepted any of the writes.
    pub silent: BTreeSet<NodeName>,
}

/// Asks nodes which of their tasks belong to these writes, which are not decided, by `customMetadata`. Every task of a node counts
/// that is not older than the write, however many there are.
pub async fn find(cluster: &Cluster, nodes: &BTreeSet<NodeName>, uids: &BTreeSet<u32>) -> AcceptedWrites {
    let all = cluster.nodes();
    let asked = all.iter().filter(|node| nodes.contains(&node.name)).map(async |node| {
        let answer = late_tasks::examine(cluster, node).await;
        (node.name.clone(), answer)
    });
    let mut found = AcceptedWrites::default();
    for (node, answer) in join_all(asked).await {
        match answer {
            Ok(tasks) => {
                for (uid, node_task) in tasks.into_iter().filter(|(uid, _)| uids.contains(uid)) {
                    found.taken.entry(uid).or_default().insert(node.clone(), node_task);
                }
            }
            Err(error) => {
                tracing::warn!(node = node.as_str(), error = %error.chain(), "a node does not tell what it has taken");
                found.silent.insert(node);
            }
        }
    }
    found
}
