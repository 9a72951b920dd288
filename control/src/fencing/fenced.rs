//! What the control plane changes on nodes goes under keys that can be taken away: a request that had no answer, because its time was
//! over or the node hung, must not come late and undo what came after it.

use crate::{
    base::error::{Error, Result},
    cluster::Cluster,
    domain::key_holder::WriteKeyHolder,
    node::{Authority, Node, NodeAnswer, Request, TIMEOUT},
};
use std::time::Duration;
use uuid::Uuid;

/// A request that has no answer yet. Whoever lets go of it has the node's key taken away before its copies are trusted.
struct OnItsWay<'a> {
    cluster: &'a Cluster,
    node: &'a Node,
    key: Uuid,
    is_over: bool,
}

impl Drop for OnItsWay<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.cluster.epochs.late(&self.node.name, self.key);
        }
    }
}

/// Sends a request that changes a node.
///
/// # Errors
/// No whole answer came in time, or the ledger failed.
pub async fn send(
    cluster: &Cluster,
    node: &Node,
    request: Request,
    patience: Duration,
) -> Result<NodeAnswer> {
    let holder = WriteKeyHolder::ControlPlane { node: node.name.clone() };
    let (key, text) = cluster.epochs.key(cluster, &holder).await?;
    let mut on_its_way = OnItsWay { cluster, node, key, is_over: false };
    let request = Request { authority: Authority::Header(format!("Bearer {text}")), ..request };
    let answer = node.send_within(&request, patience).await;
    // What found no connection is nowhere.
    let is_nowhere = |error: &Error| matches!(error, Error::Unreachable { is_unsent: true, .. });
    on_its_way.is_over = answer.as_ref().map_or_else(is_nowhere, |_| true);
    answer
}

/// Sends a request that a node makes a task of; gives the task.
///
/// # Errors
/// No whole answer came in time, or it was a refusal; or the ledger failed.
pub async fn enqueue(cluster: &Cluster, node: &Node, request: Request) -> Result<u64> {
    let answer = send(cluster, node, request.clone(), TIMEOUT).await?;
    let task = answer.task_uid().filter(|_| answer.is_success());
    task.map(u64::from).ok_or_else(|| node.unexpected(&request, &answer))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{ClusterBuilder, Reply, Script, node_config};
    use futures_util::FutureExt;
    use serde_json::{Value, json};

    fn page() -> Request {
        Request::own("POST", "/indexes/books/documents", Some(&json!([{"id": 1}])))
    }

    // Time is paused: a node that hangs is given up at once. What is asked of the ledger comes first, since no timer runs then.
    #[tokio::test(start_paused = true)]
    async fn what_may_come_late_is_owed_and_what_was_answered_is_not() {
        let data = tempfile::tempdir().unwrap();
        let cluster = ClusterBuilder::new(data.path())
            .transport(Script::new(|call| match call.url.host_str() {
                Some("answers") => Reply::Answer(202, Value::Null),
                Some("hangs") => Reply::Silence,
                _ => Reply::NoConnection,
            }))
            .build();
        let node = |host: &str| cluster.stranger(node_config("c", &format!("http://{host}:7700")));
        let long = Duration::from_secs(10);
        assert_eq!(send(&cluster, &node("answers"), page(), long).await.unwrap().status, 202);
        assert!(!cluster.epochs.owes("c"));
        assert!(send(&cluster, &node("nobody"), page(), long).await.is_err());
        assert!(!cluster.epochs.owes("c"), "it was never sent");
        let hangs = node("hangs");
        // A hand-over is given up as a whole.
        assert!(send(&cluster, &hangs, page(), long).now_or_never().is_none() && cluster.epochs.owes("c"));
        cluster.epochs.forget("c");
        assert!(send(&cluster, &hangs, page(), long).await.is_err());
        assert!(cluster.epochs.owes("c"));
        cluster.epochs.forget("c");
        let creation = crate::indexes::catalogue::creation("books", None);
        let creation = crate::indexes::catalogue::send_all(&cluster, &hangs, &creation);
        assert!(creation.now_or_never().is_none());
        assert!(cluster.epochs.owes("c"), "indexes and settings are, too");
    }
}
