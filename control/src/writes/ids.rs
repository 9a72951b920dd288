//! Ids that a node's store has no keys for: on one node a deletion of many documents fails whole for one of these. Here the node that
//! would own it would fail alone; so a node is asked first, in an index that nobody has.

use super::node_task::ended;
use crate::{base::error::Result, cluster::Cluster, node::Node};
use miroir_core::error::ErrorBody;
use tracing::Instrument;
use uuid::Uuid;

/// The error with which nodes fail to delete a document of this id; `None` where they do not, or none can be asked.
pub async fn refused(cluster: &Cluster, index: &str, id: &str) -> Option<ErrorBody> {
    let node = cluster.current().into_iter().next()?;
    let probe = format!("miroir-{}", Uuid::new_v4().simple());
    let (name, id) = (probe.clone(), id.to_owned());
    // A gateway that leaves must not leave the index.
    let judging = async move {
        let judged = judge(&node, &name, &id).await;
        if let Err(error) = node.delete_index(&name).await {
            tracing::warn!(node = node.name, index = name, error = %error.chain(), "an index made for a question stays");
        }
        judged
            .inspect_err(|error| tracing::warn!(node = node.name, error = %error.chain(), "an id could not be looked at"))
            .ok()?
    };
    let judged = tokio::spawn(judging.in_current_span());
    let mut error = judged.await.ok()??;
    error.message = error.message.replace(&probe, index);
    Some(error)
}

async fn judge(node: &Node, probe: &str, id: &str) -> Result<Option<ErrorBody>> {
    node.create_index(probe, "id").await?;
    let uid = node.delete_documents(probe, &[id]).await?;
    let task = ended(node, uid, probe).await;
    Ok(task.and_then(|task| task.error()))
}
