//! A write has succeeded only where a replica has it that is read from then on.

use super::support::{Control, FakeNode, commit, control, enqueued};
use miroir_control::{
    cluster::locks::{LockGuard, Scope},
    domain::cluster_state::ReplicaState,
};
use miroir_core::{
    protocol::{COMMIT_PATH, NodeOutcome, NodeResult},
    shard::Shard,
};
use serde_json::Value;
use tokio::task::JoinHandle;

const LEAVING: ReplicaState = ReplicaState::Leaving { since: 1, written: true };

/// Gives `n0` another state of its replica of shard 1. Under the lock that is returned, the mover leaves it alone.
async fn with_replica(control: &Control, state: ReplicaState) -> LockGuard {
    let held = control.cluster.locks.lock(Scope::shards("other", &[Shard(1)])).await;
    let set = |cluster_state: &mut miroir_control::domain::cluster_state::ClusterState| {
        for replica in &mut cluster_state.replicas[1] {
            replica.state = if replica.node == "n0" { state } else { ReplicaState::Active };
        }
    };
    control.cluster.change(set).await.unwrap();
    held
}

/// The state of a node's replica of shard 1, and whether it is read for the index that is written.
fn state_of(control: &Control, node: &str) -> (ReplicaState, bool) {
    let cluster_state = control.cluster.cluster_state();
    let state = cluster_state.replica(Shard(1), node).unwrap().state;
    (state, cluster_state.is_whole("movies", Shard(1), node))
}

const WHOLE: (ReplicaState, bool) = (ReplicaState::Active, true);
const STALE_IN_INDEX: (ReplicaState, bool) = (ReplicaState::Active, false);

/// Waits in line for the lock of the index behind a write, so that the mover mends nothing once the write is decided.
fn hold(control: &Control) -> JoinHandle<LockGuard> {
    let cluster = control.cluster.clone();
    tokio::spawn(async move { cluster.locks.lock(Scope::indexes(["movies"])).await })
}

fn unknown(node: &str) -> NodeResult {
    NodeResult { node: node.into(), outcome: NodeOutcome::Unknown }
}

#[tokio::test]
async fn an_old_copy_that_alone_took_a_write_becomes_active_again() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    control.begin("movies", &[0]).await;
    let _held = with_replica(&control, LEAVING).await;
    let (uid, key) = control.begin("movies", &[1]).await;
    let _mended_later = hold(&control);
    let taken = enqueued("n0", a.add_documents("movies", uid, &key).await);
    let (status, _) = control.internal(COMMIT_PATH, &commit(uid, vec![taken, unknown("n1")])).await;
    assert_eq!(status, 200);
    assert_eq!((state_of(&control, "n0"), state_of(&control, "n1")), (WHOLE, STALE_IN_INDEX));
    assert_eq!(control.ended(uid).await["status"], "succeeded");
}

/// The end of a write that both nodes take and `n1` fails, where the replica of `n0` gets this state in between.
async fn failed_by_one(state: ReplicaState) -> (Value, (ReplicaState, bool), (ReplicaState, bool)) {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    let (uid, key) = control.begin("movies", &[1]).await;
    b.memory.lock().unwrap().ends = Some("failed");
    let results = vec![
        enqueued("n0", a.add_documents("movies", uid, &key).await),
        enqueued("n1", b.add_documents("movies", uid, &key).await),
    ];
    let _held = with_replica(&control, state).await;
    let _mended_later = hold(&control);
    control.internal(COMMIT_PATH, &commit(uid, results)).await;
    let task = control.ended(uid).await;
    (task, state_of(&control, "n0"), state_of(&control, "n1"))
}

#[tokio::test]
async fn an_old_copy_that_alone_has_done_a_write_becomes_active_again() {
    let (task, old, new) = failed_by_one(LEAVING).await;
    assert_eq!(task["status"], "succeeded", "{task}");
    assert_eq!((old, new), (WHOLE, STALE_IN_INDEX));
}

#[tokio::test]
async fn a_write_that_no_replica_has_that_stays_has_failed() {
    let (task, _, active) = failed_by_one(ReplicaState::Stale).await;
    assert_eq!(task["status"], "failed", "{task}");
    let message = task["error"]["message"].as_str().unwrap();
    assert!(message.ends_with("no replica that stays has them: 1."), "{message}");
    assert_eq!(task["details"]["indexedDocuments"], 0);
    assert_eq!(active, WHOLE, "it is the only complete replica of what has succeeded");
}
