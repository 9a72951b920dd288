use super::*;
use crate::{
    domain::cluster_state::ClusterState,
    membership::{self, Operation, Wanted},
    testing::{ClusterBuilder, Reply, Script},
};
use miroir_core::shard::Shard;
use serde_json::json;
use std::sync::atomic::{AtomicBool, Ordering};

/// Nodes of which `b` never answers. Each is told by its port.
fn only_a() -> Arc<Script> {
    Script::new(|call| match (call.url.port(), call.url.path()) {
        (Some(2), _) => Reply::NoConnection,
        (_, "/health") => Reply::Answer(200, json!({"status": "available"})),
        (_, "/version") => Reply::Answer(200, json!({"pkgVersion": "1.50.0"})),
        (_, "/experimental-features") => Reply::Answer(200, json!({"legacySearch": true})),
        _ => Reply::Answer(200, json!({"results": [], "total": 0})),
    })
}

async fn waited(cluster: &Cluster) -> Duration {
    let begun = cluster.clock.monotonic();
    wait_for_nodes(cluster).await.unwrap();
    cluster.clock.since(begun)
}

#[tokio::test(start_paused = true)]
async fn a_start_waits_for_nodes_but_not_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = ClusterBuilder::new(folder.path()).transport(only_a()).build();
    assert!((READABLE..UNREADABLE).contains(&waited(&cluster).await), "every shard can be read");
    let stale = |cluster_state: &mut ClusterState| assert!(cluster_state.mark_stale(Shard(3), "a"));
    cluster.change(stale).await.unwrap();
    assert!(waited(&cluster).await >= UNREADABLE, "shard 3 is on `b` only");
    let lost = Operation::LostNode { name: "b".into(), force: true };
    let wanted = Wanted { wanted: lost, dry_run: false, pace: Default::default() };
    cluster.change(|cluster_state| cluster_state.replication = 1).await.unwrap();
    membership::run(&cluster, wanted).await.unwrap();
    assert!(waited(&cluster).await < READABLE, "the rest is there");
}

#[tokio::test]
async fn only_a_lost_node_can_be_told_before_the_cluster_is_ready() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = ClusterBuilder::new(folder.path()).transport(only_a()).build();
    let wanted = |wanted| Wanted { wanted, dry_run: false, pace: Default::default() };
    let refused = membership::run(&cluster, wanted(Operation::Throttle)).await;
    assert!(refused.unwrap_err().to_string().contains("the cluster is starting"));
    cluster.set_ready();
    membership::run(&cluster, wanted(Operation::Throttle)).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_new_ledger_does_not_take_the_nodes_of_another_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let is_own = Arc::new(AtomicBool::new(false));
    let own = is_own.clone();
    let transport = Script::new(move |call| match call.url.path() {
        "/keys" => {
            // The unit tests' publisher has this key.
            let text = if own.load(Ordering::Relaxed) { "k" } else { "another" };
            Reply::Answer(200, json!({"results": [{"uid": "u", "name": "miroir:read", "key": text}]}))
        }
        "/version" => Reply::Answer(200, json!({"pkgVersion": "1.50.0"})),
        _ => Reply::Answer(200, json!({"status": "available"})),
    });
    let cluster = ClusterBuilder::new(folder.path()).transport(transport.clone()).build();
    let error = wait_for_nodes(&cluster).await.unwrap_err().to_string();
    assert!(
        error.contains("node `a`: it has the data of another cluster") && error.contains("`miroir recover`"),
        "{error}"
    );
    assert!(transport.calls().iter().all(|call| call.method == "GET"), "nothing was changed");
    is_own.store(true, Ordering::Relaxed);
    wait_for_nodes(&cluster).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_start_with_a_ledger_that_is_not_the_newest_changes_and_publishes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let serving = Serving::by(uuid::Uuid::from_u128(7));
    let transport = Script::new(move |call| match call.url.path() {
        "/version" => Reply::Answer(200, json!({"pkgVersion": "1.50.0"})),
        path if path.starts_with("/keys/") => Reply::Answer(200, json!({"description": serving.to_string()})),
        _ => Reply::Answer(200, json!({"results": [], "total": 0})),
    });
    let cluster = Arc::new(ClusterBuilder::new(folder.path()).transport(transport.clone()).build());
    cluster.ledger.call(|connection| ledger::set_meta(connection, "keys", "equal")).await.unwrap();
    let error = start(cluster.clone()).await.unwrap_err();
    assert!(matches!(&error, Error::Superseded(why) if why.contains("2 of 2 nodes")), "{error}");
    assert!(transport.calls().iter().all(|call| call.method == "GET"), "nothing was changed");
    assert!(!cluster.is_ready() && cluster.publisher.snapshots.borrow().is_none());
}
