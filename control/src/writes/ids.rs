//! Ids that a node's store has no keys for: on one node a deletion of many documents fails whole for one of these. Here the node that
//! would own it would fail alone; so a node is asked first, in an index that nobody has.

use super::node_task::ended;
use crate::{
    base::error::Result,
    cluster::Cluster,
    node::{Node, answers::task_error},
};
use miroir_core::{error::ErrorBody, path::ApiPath};
use serde_json::{Value, json};
use uuid::Uuid;

/// The error with which nodes fail to delete a document of this id; `None` where they do not, or none can be asked.
pub async fn refused(cluster: &Cluster, index: &str, id: &str) -> Option<ErrorBody> {
    let node = cluster.current().into_iter().next()?;
    let probe = format!("miroir-{}", Uuid::new_v4().simple());
    let (name, id) = (probe.clone(), id.to_owned());
    // A gateway that leaves must not leave the index.
    let judged = tokio::spawn(async move {
        let judged = judge(&node, &name, &id).await;
        if let Err(error) = node.ask("DELETE", ApiPath::of_index(&name, &[]), None).await {
            tracing::warn!(node = node.name, index = name, %error, "an index made for a question stays");
        }
        judged
            .inspect_err(|error| tracing::warn!(node = node.name, %error, "an id could not be looked at"))
            .ok()?
    });
    let mut error = judged.await.ok()??;
    error.message = error.message.replace(&probe, index);
    Some(error)
}

async fn judge(node: &Node, probe: &str, id: &str) -> Result<Option<ErrorBody>> {
    node.ask("POST", "/indexes", Some(&json!({"uid": probe, "primaryKey": "id"}))).await?;
    let path = ApiPath::of_index(probe, &["documents", "delete-batch"]);
    let accepted = node.ask("POST", path, Some(&json!([id]))).await?;
    let uid = accepted.get("taskUid").and_then(Value::as_u64).and_then(|uid| u32::try_from(uid).ok());
    let uid = uid.ok_or_else(|| node.unreadable("POST /indexes/…/documents/delete-batch", &accepted))?;
    let task = ended(node, uid, probe).await;
    Ok(task.as_ref().and_then(task_error))
}
