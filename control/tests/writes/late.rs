//! Requests that nodes take after the control plane has decided that they did not.

use super::support::{Control, ControlBuilder, FakeNode, commit, control, enqueued, until};
use miroir_control::{
    cluster::locks::{LockGuard, Scope},
    ledger::tasks::{self, NewTask},
};
use miroir_core::{
    protocol::{COMMIT_PATH, NodeOutcome, NodeResult},
    shard::Shard,
};
use std::time::Duration;

/// A write to shard 1 that `n0` took and `n1` did not answer. Returns its uid and its key once `n1` is repaired.
async fn missed_by_one(control: &Control, a: &FakeNode) -> (u32, String) {
    let (uid, key) = control.begin("movies", &[1]).await;
    let taken = enqueued("n0", a.add_documents("movies", uid, &key).await);
    let missed = NodeResult { node: "n1".into(), outcome: NodeOutcome::Unknown };
    let (status, _) = control.internal(COMMIT_PATH, &commit(uid, vec![taken, missed])).await;
    assert_eq!(status, 200);
    assert_eq!(control.ended(uid).await["status"], "succeeded");
    until("repaired", || active(control) == ["n0", "n1"]).await;
    (uid, key)
}

fn active(control: &Control) -> Vec<String> {
    let cluster_state = control.cluster.cluster_state();
    let mut active: Vec<String> = cluster_state.whole("movies", Shard(1)).map(ToString::to_string).collect();
    active.sort();
    active
}

/// A lock that keeps the mover from handing over, and no writer.
async fn hold(control: &Control) -> LockGuard {
    control.cluster.locks.lock(Scope::shards("movies", &[Shard(1)])).await
}

#[tokio::test]
async fn a_replica_that_takes_a_request_late_is_repaired_again() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    let (uid, key) = missed_by_one(&control, &a).await;
    let seen = control.cluster.late_tasks.seen(&"n1".into());
    let held = hold(&control).await;
    // The node had let it in before its key was deleted.
    b.add_documents("movies", uid, &key).await;
    until("stale", || active(&control) == ["n0"]).await;
    assert_eq!(control.cluster.late_tasks.seen(&"n1".into()), seen + 1);
    let state = control.cluster.cluster_state();
    let stale: Vec<_> =
        state.stale.iter().map(|(index, node, shard, _)| (index, node.as_str(), shard)).collect();
    assert_eq!(stale, [("movies", "n1", Shard(1))], "the write had no other shard and no other index");
    drop(held);
    until("repaired", || active(&control) == ["n0", "n1"]).await;
    assert_eq!(control.task(uid).await["status"], "succeeded");
}

#[tokio::test]
async fn a_late_request_that_a_node_has_not_begun_is_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    let (uid, key) = missed_by_one(&control, &a).await;
    let seen = control.cluster.late_tasks.seen(&"n1".into());
    b.memory.lock().unwrap().ends = Some("enqueued");
    // When the second one is cancelled, the node was asked what has become of the first one.
    for _ in 0..2 {
        let late = usize::try_from(b.add_documents("movies", uid, &key).await).unwrap();
        until("cancelled", || b.memory.lock().unwrap().tasks[late]["status"] == "canceled").await;
    }
    assert_eq!(active(&control), ["n0", "n1"]);
    assert_eq!(control.cluster.late_tasks.seen(&"n1".into()), seen);
    let cancelations =
        b.memory.lock().unwrap().tasks.iter().filter(|t| t["type"] == "taskCancelation").count();
    assert_eq!(cancelations, 2, "each is cancelled once");
}

#[tokio::test]
async fn what_was_counted_is_not_late_when_its_task_was_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    let (_, key) = missed_by_one(&control, &a).await;
    let seen = control.cluster.late_tasks.seen(&"n1".into());
    let deleted = control.cluster.ledger.call(|connection| {
        let uid = tasks::insert(connection, &NewTask::default(), 0)?.uid;
        tasks::forget(connection, uid).map(|()| uid)
    });
    b.add_documents("movies", deleted.await.unwrap(), &key).await;
    let node = control.cluster.node("n1").unwrap();
    miroir_control::fencing::late_tasks::examine(&control.cluster, &node).await.unwrap();
    assert_eq!(control.cluster.late_tasks.seen(&"n1".into()), seen);
    assert_eq!(active(&control), ["n0", "n1"]);
}

#[tokio::test]
async fn what_a_node_took_is_found_however_many_tasks_it_had_since() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let nodes = [&a, &b];
    let control =
        ControlBuilder::new(folder.path(), &nodes).commit_timeout(Duration::from_secs(1)).start().await;
    let (uid, key) = control.begin("movies", &[3]).await;
    a.add_documents("movies", uid, &key).await;
    a.do_other_tasks(2_500);
    let task = control.ended(uid).await;
    assert_eq!(task["status"], "succeeded", "one replica has it: {task}");
}
