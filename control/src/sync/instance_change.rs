//! Changes of the whole instance that nodes make at once, without a task: API keys, experimental features, the network, workspaces
//! of chats. All nodes make them, or none, also if the control plane stops in between: each is a [`Step`] in the ledger until then.

use crate::{
    base::error::{Error, Result},
    cluster::{
        Cluster,
        locks::{LockGuard, Scope},
    },
    domain::{
        cluster_state::ClusterState,
        intent::{KeptChange, Step},
    },
    ledger::steps,
    node::{Authority, NodeAnswer, Request},
    sync::{
        features,
        instance_settings::{self, InstanceChange},
    },
};
use miroir_core::node_name::NodeName;
use serde_json::Value;
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// The lock of the whole instance: nodes get these changes in one order. No index can have this name.
const INSTANCE: &str = "/";
/// How long to wait until a change is taken up again that could not be.
const PAUSE: Duration = Duration::from_secs(1);
/// The answers of a node that already is as a request wants it.
const DONE: [u16; 2] = [404, 409];

/// Waits until no other change of the instance is under way.
async fn lock(cluster: &Cluster) -> LockGuard {
    cluster.locks.lock(Scope::indexes([INSTANCE])).await
}

/// Sends a change to all nodes. The first node judges the client's request; if it accepts the request, the other nodes get it
/// under the master key. A node that misses it is marked as behind. Returns the first node's answer, which may be a refusal.
///
/// # Errors
/// No node answers; or the ledger failed.
pub async fn send(cluster: &Cluster, request: &Request, kept: KeptChange) -> Result<NodeAnswer> {
    let _guard = lock(cluster).await;
    let body = String::from_utf8_lossy(&request.body).into_owned();
    let (method, path) = (request.method.clone(), request.path.clone());
    let step = Step::Instance { method, path, body: body.clone(), kept: kept.clone() };
    let id = cluster.ledger.call(move |connection| steps::begin(connection, &step)).await?;
    let sent = everywhere(cluster, request, false).await;
    cluster.keys.clear();
    let Sent { answer, missed } = sent;
    match answer {
        Some(answer) if answer.is_success() => {
            let change = change(&kept, &answer, request.method == "DELETE", &body);
            end(cluster, id, missed, change).await;
            Ok(answer)
        }
        Some(refusal) => {
            end(cluster, id, missed, None).await;
            Ok(refusal)
        }
        None => {
            end(cluster, id, missed, None).await;
            Err(Error::NoNode)
        }
    }
}

/// After a restart, takes up a change that was being sent, under its lock: all nodes get it. A node that had it already stays as it
/// is: each of these changes says what is to be, not what is to be added.
pub async fn resume(cluster: &Arc<Cluster>, id: i64, step: Step) {
    let Step::Instance { method, path, body, kept } = step else { return };
    let guard = lock(cluster).await;
    let (cluster, supervisor) = (Arc::clone(cluster), cluster.supervisor.clone());
    supervisor.spawn("broadcast", async move {
        let content_type = (!body.is_empty()).then(|| "application/json".to_owned());
        let own = Request { content_type, body: body.clone().into(), ..Request::own(&method, path, None) };
        while let Err(error) = redo(&cluster, id, &own, &kept, &body).await {
            tracing::error!(error = %error.chain(), "a change of all nodes could not be taken up again yet");
            tokio::time::sleep(PAUSE).await;
        }
        drop(guard);
    });
}

async fn redo(cluster: &Cluster, id: i64, request: &Request, kept: &KeptChange, body: &str) -> Result<()> {
    let Sent { answer, missed } = everywhere(cluster, request, true).await;
    cluster.keys.clear();
    // Where all nodes are behind, nobody can be asked, and they catch up only once the lock is free.
    if answer.is_none() && cluster.cluster_state().is_every_node_behind() {
        tracing::info!(
            "a change of all nodes that a restart has interrupted is given up: all nodes are behind"
        );
        end(cluster, id, missed, None).await;
        return Ok(());
    }
    let answer = answer.ok_or(Error::NoNode)?;
    let is_made = answer.is_success() || DONE.contains(&answer.status);
    let change = if is_made { change(kept, &answer, request.method == "DELETE", body) } else { None };
    end(cluster, id, missed, change).await;
    features::learn(cluster).await?;
    instance_settings::learn_name(cluster).await
}

/// What nodes answered to a change.
struct Sent {
    /// The first node's answer.
    answer: Option<NodeAnswer>,
    /// Nodes that may not have the change while others have it, or may have it while others have not.
    missed: BTreeSet<NodeName>,
}

/// Sends a request to all current nodes, one after the other. `again`: some may have it already.
async fn everywhere(cluster: &Cluster, request: &Request, again: bool) -> Sent {
    let mut sent = Sent { answer: None, missed: BTreeSet::new() };
    let mut unsent = BTreeSet::new();
    let mut asked = BTreeSet::new();
    for node in cluster.current() {
        asked.insert(node.name.clone());
        let mut request = request.clone();
        if sent.answer.is_some() {
            request.authority = Authority::Master;
        }
        let (is_first, may_be_done) = (sent.answer.is_none(), again || sent.answer.is_some());
        match node.send(&request).await {
            Ok(answer) if answer.is_success() || (may_be_done && DONE.contains(&answer.status)) => {
                sent.answer.get_or_insert(answer);
            }
            Ok(answer) if is_first => {
                sent.answer = Some(answer);
                return sent;
            }
            Ok(answer) => {
                let error = node.unexpected(&request, &answer);
                tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a node misses a change");
                sent.missed.insert(node.name.clone());
            }
            Err(error) => {
                tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a node may miss a change");
                let is_unsent = matches!(error, Error::Unreachable { is_unsent: true, .. });
                if is_unsent { &mut unsent } else { &mut sent.missed }.insert(node.name.clone());
            }
        }
    }
    if sent.answer.is_some() {
        sent.missed.extend(unsent);
        // Those that were away, also if they have come back meanwhile.
        let nodes = cluster.nodes();
        let names = nodes.iter().map(|node| node.name.clone());
        sent.missed.extend(names.filter(|name| !asked.contains(name)));
    }
    sent
}

/// What the ledger keeps of a change that nodes have made.
fn change(kept: &KeptChange, answer: &NodeAnswer, resets: bool, body: &str) -> Option<InstanceChange> {
    match kept {
        KeptChange::Nothing => None,
        KeptChange::Network => Some(InstanceChange::Network(answer.json())),
        KeptChange::Workspace(uid) => {
            let change = serde_json::from_str::<Value>(body).ok().filter(|_| !resets);
            Some(InstanceChange::Workspace(uid.clone(), change))
        }
        KeptChange::NoWorkspace(uid) => Some(InstanceChange::NoWorkspace(uid.clone())),
    }
}

/// Stores, in one transaction, that a change is over, what is kept of it, and which nodes are behind.
async fn end(cluster: &Cluster, id: i64, missed: BTreeSet<NodeName>, change: Option<InstanceChange>) {
    let end = move |connection: &_, cluster_state: &mut ClusterState| {
        missed.iter().for_each(|node| cluster_state.mark_behind(node));
        if let Some(change) = change {
            instance_settings::store(connection, change)?;
        }
        steps::end(connection, id)
    };
    cluster.store_what_is_done(end).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        node::{Node, Probed},
        testing::{ClusterBuilder, Reply, Script},
    };
    use serde_json::json;
    use std::sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc,
    };

    fn deletion() -> Request {
        Request::own("DELETE", "/keys/0c2e4d1a-0000-4000-8000-000000000000", None)
    }

    fn step() -> Step {
        let Request { method, path, .. } = deletion();
        Step::Instance { method, path, body: String::new(), kept: KeptChange::Nothing }
    }

    #[tokio::test]
    async fn a_node_that_comes_back_during_a_change_is_behind() {
        let data = tempfile::tempdir().unwrap();
        let (comes, back) = mpsc::channel::<(Arc<Node>, Probed)>();
        let back = Mutex::new(back);
        let script = Script::new(move |call| {
            // It answers again while another node is asked.
            if call.method == "DELETE"
                && let Ok((node, probed)) = back.lock().unwrap().try_recv()
            {
                node.learn(probed);
            }
            Reply::Answer(200, json!({}))
        });
        let cluster = ClusterBuilder::new(data.path()).transport(script).build();
        let (a, b) = (cluster.node("a").unwrap(), cluster.node("b").unwrap());
        a.check().await;
        assert!(a.is_up() && !b.is_up());
        comes.send((b.clone(), b.probe().await)).unwrap();
        let answer = send(&cluster, &deletion(), KeptChange::Nothing).await.unwrap();
        assert!(answer.is_success() && b.is_up());
        assert_eq!(cluster.cluster_state().behind.iter().collect::<Vec<_>>(), ["b"]);
    }

    #[tokio::test]
    async fn a_change_that_nobody_can_take_up_lets_nodes_catch_up() {
        let data = tempfile::tempdir().unwrap();
        let is_reached = Arc::new(AtomicBool::new(false));
        let reached = is_reached.clone();
        let script = Script::new(move |call| {
            reached.fetch_or(call.method == "DELETE", Ordering::Relaxed);
            Reply::Answer(200, json!({}))
        });
        let cluster = Arc::new(ClusterBuilder::new(data.path()).transport(script).build());
        for node in cluster.nodes().iter() {
            node.check().await;
        }
        cluster.change(|state| ["a", "b"].iter().for_each(|node| state.mark_behind(node))).await.unwrap();
        let begin = |connection: &_| steps::begin(connection, &step());
        let id = cluster.ledger.call(begin).await.unwrap();
        resume(&cluster, id, step()).await;
        let everything = cluster.locks.lock(Scope::everything());
        tokio::time::timeout(Duration::from_secs(20), everything).await.expect("nodes can catch up");
        assert!(!is_reached.load(Ordering::Relaxed));
        assert!(cluster.ledger.call(steps::all).await.unwrap().is_empty());
    }
}
