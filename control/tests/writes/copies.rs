//! Copies of documents from node to node.

use super::support::{FakeNode, commit, control, enqueued, until};
use miroir_control::domain::cluster_state::ReplicaState;
use miroir_core::{protocol::COMMIT_PATH, shard::Shard};
use serde_json::json;
use std::time::Duration;

#[tokio::test]
async fn a_copy_is_not_handed_over_before_its_node_has_done_what_it_took_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    let (uid, key) = control.begin("movies", &[1]).await;
    let taken = vec![
        enqueued("n0", a.add_documents("movies", uid, &key).await),
        enqueued("n1", b.add_documents("movies", uid, &key).await),
    ];
    control.internal(COMMIT_PATH, &commit(uid, taken)).await;
    control.ended(uid).await;
    // An operation that comes while documents are compared, and that the node begins late.
    let swap = {
        let mut memory = b.memory.lock().unwrap();
        let swap = memory.tasks.len();
        memory.takes_next =
            Some(json!({"uid": swap, "status": "enqueued", "enqueuedAt": super::support::MOMENT}));
        swap
    };
    control.cluster.change(|cluster_state| _ = cluster_state.mark_stale(Shard(1), "n1")).await.unwrap();
    let state = || control.cluster.cluster_state().replica(Shard(1), "n1").unwrap().state;
    until("documents are compared", || b.memory.lock().unwrap().takes_next.is_none()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(state(), ReplicaState::Stale, "the operation may change what was compared");
    b.memory.lock().unwrap().tasks[swap]["status"] = json!("succeeded");
    until("the replica is whole", || state() == ReplicaState::Active).await;
}
