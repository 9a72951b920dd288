//! The control plane's own changes on nodes use write keys that can be fenced. A request that had no answer, because of a
//! timeout or because the node hung, must not arrive late and undo later changes.

use crate::{
    base::error::{Error, Result},
    cluster::{Cluster, write_keys::Late},
    domain::key_holder::WriteKeyHolder,
    node::{Authority, Node, NodeAnswer, Request, TIMEOUT},
};
use std::time::Duration;
use uuid::Uuid;

/// A request that has no answer yet. If it is dropped without one, its key is fenced before the node's copies are trusted
/// again.
struct InFlight<'a> {
    cluster: &'a Cluster,
    node: &'a Node,
    key: Uuid,
    is_over: bool,
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.cluster.write_keys.late(&self.node.name, self.key, Late::AnyRequest);
        }
    }
}

/// Sends a request that changes a node, under the node's own write key.
///
/// # Errors
/// The node did not answer completely in time, or the ledger failed.
pub async fn send(
    cluster: &Cluster,
    node: &Node,
    request: Request,
    patience: Duration,
) -> Result<NodeAnswer> {
    let holder = WriteKeyHolder::ControlPlane { node: node.name.clone() };
    let (beginning, text) = cluster.write_keys.key(cluster, &holder).await?;
    let key = beginning.uid();
    // A fence does not wait for what the control plane sends: the node may hang.
    drop(beginning);
    let mut on_its_way = InFlight { cluster, node, key, is_over: false };
    let request = Request { authority: Authority::Header(format!("Bearer {text}")), ..request };
    let answer = node.send_within(&request, patience).await;
    // A request that got no connection was never sent.
    let is_nowhere = |error: &Error| matches!(error, Error::Unreachable { is_unsent: true, .. });
    on_its_way.is_over = answer.as_ref().map_or_else(is_nowhere, |_| true);
    if answer.as_ref().is_ok_and(|answer| matches!(answer.status, 401 | 403)) {
        cluster.write_keys.refused(&node.name, key);
    }
    answer
}

/// Sends a request that enqueues a task on a node, and returns the task's uid.
///
/// # Errors
/// The node did not answer completely in time, or refused the request; or the ledger failed.
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
        let node = |host: &str| cluster.outside_node(node_config("c", &format!("http://{host}:7700")));
        let long = Duration::from_secs(10);
        assert_eq!(send(&cluster, &node("answers"), page(), long).await.unwrap().status, 202);
        assert!(!cluster.write_keys.may_accept_late("c"));
        assert!(send(&cluster, &node("nobody"), page(), long).await.is_err());
        assert!(!cluster.write_keys.may_accept_late("c"), "it was never sent");
        let hangs = node("hangs");
        // A timeout of a hand-over drops the request with it.
        assert!(
            send(&cluster, &hangs, page(), long).now_or_never().is_none()
                && cluster.write_keys.may_accept_late("c")
        );
        cluster.write_keys.forget("c");
        let holder = WriteKeyHolder::ControlPlane { node: "c".into() };
        let key = cluster.write_keys.key(&cluster, &holder).await.unwrap().0.uid();
        let mut sending = Box::pin(send(&cluster, &hangs, page(), long));
        assert!((&mut sending).now_or_never().is_none());
        assert!(!cluster.open.uses(key), "no fence waits for a node that hangs");
        drop(sending);
        cluster.write_keys.forget("c");
        assert!(send(&cluster, &hangs, page(), long).await.is_err());
        assert!(cluster.write_keys.may_accept_late("c"));
        cluster.write_keys.forget("c");
        let creation = crate::indexes::creation::creation("books", None);
        let creation = crate::indexes::creation::send_all(&cluster, &hangs, &creation);
        assert!(creation.now_or_never().is_none());
        assert!(cluster.write_keys.may_accept_late("c"), "indexes and settings are, too");
    }
}
