//! Document ids that a node cannot store as keys. On a single node such an id fails a whole deletion of many documents. In a
//! cluster only the node that owns the id would fail, so a node is asked first, with a temporary index.

use super::node_task::ended;
use crate::{base::error::Result, cluster::Cluster, node::Node};
use miroir_core::error::ErrorBody;
use tracing::Instrument;

/// The error with which a node fails to delete a document of this id; `None` if it does not fail, or no node could be asked.
pub async fn refused(cluster: &Cluster, index: &str, id: &str) -> Option<ErrorBody> {
    let node = cluster.current().into_iter().next()?;
    let probe = format!("miroir-{}", cluster.random.name());
    let (name, id) = (probe.clone(), id.to_owned());
    // In a task of its own: if the gateway disconnects, the temporary index must still be deleted.
    let judging = async move {
        let judged = judge(&node, &name, &id).await;
        if let Err(error) = node.delete_index(&name).await {
            tracing::warn!(node = node.name.as_str(), index = name, error = %error.chain(), "a temporary index could not be deleted");
        }
        judged
            .inspect_err(|error| tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a document id could not be checked"))
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
