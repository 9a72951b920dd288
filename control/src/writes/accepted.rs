//! Finds out which nodes have accepted which writes.

use crate::{base::error::Result, cluster::Cluster, fencing::late_tasks};
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
///
/// # Errors
/// The ledger failed, or another control plane serves the cluster: then nothing is known of what nodes have accepted.
pub async fn find(
    cluster: &Cluster,
    nodes: &BTreeSet<NodeName>,
    uids: &BTreeSet<u32>,
) -> Result<AcceptedWrites> {
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
            Err(error) if !error.is_of_node() => return Err(error),
            Err(error) => {
                tracing::warn!(node = node.as_str(), error = %error.chain(), "a node does not tell what it has taken");
                found.silent.insert(node);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ledger::FILE,
        testing::{ClusterBuilder, Reply, Script},
    };
    use rusqlite::Connection;
    use serde_json::json;

    #[tokio::test]
    async fn no_node_counts_as_silent_because_the_ledger_fails() {
        let folder = tempfile::tempdir().unwrap();
        let answering = |call: &crate::node::Call| match call.url.host_str() {
            Some("a") => Reply::Answer(200, json!({"results": [], "next": null})),
            _ => Reply::NoConnection,
        };
        let nodes = ["a=http://a:7700".to_owned(), "b=http://b:7700".to_owned()];
        let cluster =
            ClusterBuilder::new(folder.path()).nodes(nodes).transport(Script::new(answering)).build();
        let nodes = BTreeSet::from(["a".into(), "b".into()]);
        let found = find(&cluster, &nodes, &BTreeSet::from([1])).await.unwrap();
        assert_eq!(found.silent, BTreeSet::from(["b".into()]));

        let impatient = |connection: &Connection| Ok(connection.busy_timeout(std::time::Duration::ZERO)?);
        cluster.ledger.call(impatient).await.unwrap();
        let other = Connection::open(folder.path().join(FILE)).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let found = find(&cluster, &nodes, &BTreeSet::from([1])).await;
        assert!(found.is_err_and(|error| !error.is_of_node()));
        other.execute_batch("ROLLBACK").unwrap();
        assert!(find(&cluster, &nodes, &BTreeSet::from([1])).await.is_ok());
    }
}
