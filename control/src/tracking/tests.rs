use super::*;
use crate::{
    cluster::{missed::WrittenIds, tracked_tasks::TrackedTask},
    domain::intent::{Effect, NodeTask},
    fencing::lost_disk::note_loss,
    testing::{self, ClusterBuilder, Reply, Script},
};
use serde_json::json;

/// The deletion of an index, of which the nodes `a` and `b` have a task each.
fn deletion() -> TrackedTask {
    let task = testing::task(7, "movies", TaskKind::IndexDeletion);
    let node_task = |node: &str| NodeTask { node: node.into(), node_task: 1, main: true, shards: Vec::new() };
    TrackedTask {
        task,
        node_tasks: vec![node_task("a"), node_task("b")],
        effect: Effect::None,
        indexed: None,
        written: WrittenIds::new(),
        guard: None,
    }
}

#[tokio::test]
async fn a_task_is_interrupted_where_its_node_stopped_and_not_where_the_node_fails_to_answer() {
    let data = tempfile::tempdir().unwrap();
    let transport = Script::new(|call| match call.url.port() {
        Some(1) => Reply::NoConnection,
        _ => Reply::Answer(503, json!({})),
    });
    let cluster = Arc::new(ClusterBuilder::new(data.path()).transport(transport).build());
    cluster.tracked_tasks.add(deletion());
    round(&cluster).await.unwrap();
    let pending = cluster.tracked_tasks.pending();
    let parts = pending[&7].parts.iter();
    let interrupted: Vec<_> = parts.map(|part| (part.node.as_str(), part.is_interrupted)).collect();
    assert_eq!(interrupted, [("a", true), ("b", false)]);
}

#[tokio::test]
async fn a_panic_over_one_nodes_answer_hides_no_others() {
    let data = tempfile::tempdir().unwrap();
    let transport = Script::new(|call| match call.url.port() {
        Some(1) => panic!("on purpose"),
        _ => Reply::Answer(200, json!({"results": [{"uid": 1, "status": "processing"}], "total": 1})),
    });
    let cluster = Arc::new(ClusterBuilder::new(data.path()).transport(transport).build());
    for node in cluster.nodes().iter() {
        // So that the second counts as up.
        let _ = cluster.supervisor.catch("check", node.check()).await;
    }
    cluster.tracked_tasks.add(deletion());
    round(&cluster).await.unwrap();
    let pending = cluster.tracked_tasks.pending();
    let states: Vec<State> = pending[&7].parts.iter().map(|part| part.seen.state).collect();
    assert_eq!(states, [State::Waiting, State::Processing]);
    assert_eq!(cluster.supervisor.failures().get("task states"), Some(&1));
}

#[tokio::test]
async fn the_tasks_of_a_lost_disk_are_not_those_that_get_their_uids() {
    let data = tempfile::tempdir().unwrap();
    let transport = Script::new(|call| {
        let status = if call.url.port() == Some(1) { "succeeded" } else { "processing" };
        Reply::Answer(200, json!({"results": [{"uid": 1, "status": status}], "total": 1}))
    });
    let cluster = Arc::new(ClusterBuilder::new(data.path()).transport(transport).build());
    for node in cluster.nodes().iter() {
        node.check().await;
    }
    cluster.tracked_tasks.add(deletion());
    note_loss(&cluster, &cluster.node("a").unwrap()).await.unwrap();
    round(&cluster).await.unwrap();
    let pending = cluster.tracked_tasks.pending();
    let states: Vec<State> = pending[&7].parts.iter().map(|part| part.seen.state).collect();
    assert_eq!(states, [State::Failed, State::Processing]);
}

#[tokio::test(start_paused = true)]
async fn whoever_waits_for_a_task_does_not_have_nodes_asked_all_the_time() {
    let data = tempfile::tempdir().unwrap();
    // The node fails at once: a round takes no time.
    let transport = Script::new(|_| Reply::Answer(503, json!({})));
    let cluster = Arc::new(ClusterBuilder::new(data.path()).transport(transport.clone()).build());
    cluster.tracked_tasks.add(deletion());
    let tracking = tokio::spawn(run(cluster.clone()));
    let waiting = cluster.tracked_tasks.ended(&[7]);
    assert!(tokio::time::timeout(Duration::from_secs(1), waiting).await.is_err());
    tracking.abort();
    assert!(transport.calls().len() < 100, "{} requests to two nodes in a second", transport.calls().len());
}
