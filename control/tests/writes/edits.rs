//! An edit by function is done in all documents, or in none.

use super::support::{Control, FakeNode, addition, commit, control, enqueued};
use miroir_control::{
    cluster::locks::{LockGuard, Scope},
    domain::cluster_state::{ClusterState, ReplicaState},
};
use miroir_core::{
    protocol::{BEGIN_PATH, Begin, BeginReply, WriteOperation},
    shard::Shard,
};
use serde_json::{Value, json};
use std::time::Duration;

const EDITS: &str = "/indexes/movies/documents/edit";

/// An index of which `n0` alone has shard 0, and `n1` alone shard 1. Under the lock that is returned, the mover leaves that so.
async fn apart(control: &Control, a: &FakeNode, b: &FakeNode) -> LockGuard {
    let (uid, key) = control.begin("movies", &[0, 1]).await;
    let taken = vec![
        enqueued("n0", a.add_documents("movies", uid, &key).await),
        enqueued("n1", b.add_documents("movies", uid, &key).await),
    ];
    control.internal(miroir_core::protocol::COMMIT_PATH, &commit(uid, taken)).await;
    control.ended(uid).await;
    let held = control.cluster.locks.lock(Scope::shards("other", &[Shard(0), Shard(1)])).await;
    let set = |cluster_state: &mut ClusterState| {
        for (shard, holder) in [(0, "n0"), (1, "n1")] {
            for replica in &mut cluster_state.replicas[shard] {
                let is_holder = replica.node == holder;
                replica.state = if is_holder { ReplicaState::Active } else { ReplicaState::Stale };
            }
        }
    };
    control.cluster.change(set).await.unwrap();
    held
}

/// Begins an edit of both shards, and returns its uid.
async fn edit(control: &Control) -> u32 {
    let operation = WriteOperation::Edit { filter: None, context: None, function: "doc.n += 1".into() };
    let begin = Begin { operation, ..addition("movies", &[0, 1]) };
    let (status, reply) = control.internal(BEGIN_PATH, &begin).await;
    assert_eq!(status, 200, "{reply}");
    match serde_json::from_value(reply).unwrap() {
        BeginReply::Recorded { task } => task["taskUid"].as_u64().unwrap().try_into().unwrap(),
        other => panic!("not recorded: {other:?}"),
    }
}

fn is_over(task: &Value) -> bool {
    !["enqueued", "processing"].contains(&task["status"].as_str().unwrap())
}

#[tokio::test]
async fn what_one_shard_has_is_sent_until_all_have_it() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    let _held = apart(&control, &a, &b).await;
    // The node of shard 1 fails right after its trial.
    b.memory.lock().unwrap().fails = Some(("/edit", 1));
    let uid = edit(&control).await;
    for _ in 0..100 {
        if b.seen("POST", EDITS).len() >= 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(b.seen("POST", EDITS).len() >= 3, "it is sent again");
    assert_eq!(a.seen("POST", EDITS).len(), 2, "a trial and the edit");
    assert!(!is_over(&control.task(uid).await));
    let other = control.cluster.locks.lock(Scope::shards("movies", &[Shard(1)]));
    let overtakes = tokio::time::timeout(Duration::from_millis(100), other).await.is_ok();
    assert!(!overtakes, "later writes wait for it");
    b.memory.lock().unwrap().fails = None;
    assert_eq!(control.ended(uid).await["status"], "succeeded");
    assert_eq!(a.seen("POST", EDITS).len(), 2, "nothing is edited twice");
    let taken = |node: &FakeNode| {
        let memory = node.memory.lock().unwrap();
        let mark = json!(format!("miroir%3A{uid}"));
        memory.tasks.iter().filter(|task| task["customMetadata"] == mark).count()
    };
    assert_eq!((taken(&a), taken(&b)), (1, 1));
}

#[tokio::test]
async fn no_shard_has_it_where_another_cannot_try_it() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    let _held = apart(&control, &a, &b).await;
    b.memory.lock().unwrap().fails = Some(("/edit", 0));
    let uid = edit(&control).await;
    let task = control.ended(uid).await;
    assert_eq!(task["status"], "failed", "{task}");
    assert!(task["error"]["message"].as_str().unwrap().ends_with(": 1."), "{task}");
    assert_eq!(a.seen("POST", EDITS).len(), 1, "a trial only");
    b.memory.lock().unwrap().fails = None;
    let again = edit(&control).await;
    assert_eq!(control.ended(again).await["status"], "succeeded");
}
