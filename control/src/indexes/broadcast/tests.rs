use super::*;
use crate::{
    auth::authorize,
    domain::cluster_state::Missed,
    sync::health,
    testing::{ClusterBuilder, Reply, Script},
};
use miroir_core::shard::Shard;
use serde_json::json;
use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

#[test]
fn renames_and_swaps_move_the_catalogue() {
    let index = |key: &str| Index { primary_key: Some(key.into()), ..Index::default() };
    let mut cluster_state = ClusterState::default();
    cluster_state.indexes.insert("a".into(), index("ka"));
    cluster_state.indexes.insert("b".into(), index("kb"));
    apply(&mut cluster_state, &Effect::Swap { pairs: vec![("a".into(), "b".into(), false)] });
    assert_eq!(cluster_state.indexes["a"].primary_key.as_deref(), Some("kb"));
    let rename = Effect::UpdateIndex { index: "a".into(), primary_key: None, rename: Some("c".into()) };
    apply(&mut cluster_state, &rename);
    assert_eq!(cluster_state.indexes.keys().collect::<Vec<_>>(), ["b", "c"]);
    apply(
        &mut cluster_state,
        &Effect::UpdateIndex { index: "b".into(), primary_key: Some("x".into()), rename: None },
    );
    assert_eq!(cluster_state.indexes["b"].primary_key.as_deref(), Some("x"));
}

/// The catalogue has two indexes.
fn know_left_and_right(state: &mut ClusterState) {
    state.indexes.extend(["left", "right"].map(|index| (index.to_owned(), Index::default())));
}

#[tokio::test(start_paused = true)]
async fn documents_are_moved_only_where_all_of_them_are_reached() {
    let data = tempfile::tempdir().unwrap();
    let script = Script::new(|_| Reply::Answer(200, json!({"results": []})));
    let cluster = Arc::new(ClusterBuilder::new(data.path()).transport(script).build());
    health::check(&cluster).await;
    let master = format!("Bearer {}", cluster.secrets.master_key);
    let grant = authorize(&cluster, Some(&master), "indexes.swap", None).await.unwrap();
    let lock = || lock_documents(&cluster, &grant, Scope::indexes(["left", "right"]));
    cluster.change(|cluster_state| cluster_state.mark_behind("a")).await.unwrap();
    assert!(lock().await.is_ok(), "the other node has everything");
    cluster.change(|cluster_state| cluster_state.mark_behind("b")).await.unwrap();
    let refused = lock().await.unwrap_err();
    assert_eq!(refused.to_api().status, 503, "{refused}");
    // It catches up while the operation waits. That takes the locks.
    let catches_up = async {
        tokio::time::sleep(CATCH_UP / 2).await;
        let _everything = cluster.locks.lock(Scope::everything()).await;
        cluster.change(|cluster_state| cluster_state.behind.clear()).await.unwrap();
    };
    let (locked, ()) = tokio::join!(lock(), catches_up);
    assert!(locked.is_ok());
}

#[tokio::test(start_paused = true)]
async fn documents_are_moved_only_where_a_replica_is_reached_that_misses_nothing_of_them() {
    let data = tempfile::tempdir().unwrap();
    let script = Script::new(|call| {
        let status = if call.method == "POST" { 202 } else { 200 };
        Reply::Answer(status, json!({"results": [], "taskUid": 7}))
    });
    let cluster = Arc::new(ClusterBuilder::new(data.path()).transport(script).build());
    health::check(&cluster).await;
    cluster.change(know_left_and_right).await.unwrap();
    let master = format!("Bearer {}", cluster.secrets.master_key);
    let grant = authorize(&cluster, Some(&master), "indexes.swap", None).await.unwrap();
    let swap = async || {
        let held = lock_documents(&cluster, &grant, Scope::indexes(["left", "right"])).await?;
        let task = NewTask { index: None, kind: TaskKind::IndexSwap, details: None, custom_metadata: None };
        let request = NodeRequest {
            method: "POST".to_owned(),
            path: "/swap-indexes".into(),
            body: Some(json!([])),
            main: true,
        };
        let effect = Effect::Swap { pairs: vec![("left".into(), "right".into(), false)] };
        let authority = Authority::Master;
        let at_once = ImmediateEffect::Nothing;
        run(&cluster, held, Operation { task, requests: vec![request], authority, at_once, effect }).await
    };
    let shard = Shard(0);
    let misses = async |index: &str, node: &str| {
        let mark = |state: &mut ClusterState| _ = state.mark_missed(index, shard, node, Missed::Recorded);
        cluster.change(mark).await.unwrap();
    };
    // Each of the nodes has all of one of them only.
    misses("left", "a").await;
    misses("right", "b").await;
    let refused = swap().await.unwrap_err();
    assert!(matches!(refused, Error::OutOfReach { shards: 1 }), "{refused}");
    // It gets what it missed while the operation waits. That takes the locks.
    let mends = async {
        tokio::time::sleep(CATCH_UP / 2).await;
        let _right = cluster.locks.lock(Scope::shards("right", &[shard])).await;
        cluster.change(|state| state.mark_whole("right", shard, "b")).await.unwrap();
    };
    let (swapped, ()) = tokio::join!(swap(), mends);
    swapped.unwrap();
    let state = cluster.cluster_state();
    for index in ["left", "right"] {
        assert_eq!(state.stale.get(index, "a", shard), Some(Missed::Anything), "{index}");
        assert!(state.is_whole(index, shard, "b"));
    }
}

/// Swaps two indexes on nodes `a` and `b`, of which `b` has all active replicas, and which answer by a script. Returns the nodes that are
/// behind then.
async fn swapped(script: Arc<Script>) -> Vec<String> {
    let data = tempfile::tempdir().unwrap();
    let cluster = Arc::new(ClusterBuilder::new(data.path()).transport(script).build());
    health::check(&cluster).await;
    let stale = |state: &mut ClusterState| {
        know_left_and_right(state);
        state.shards().for_each(|shard| _ = state.mark_stale(shard, "a"));
    };
    cluster.change(stale).await.unwrap();
    let master = format!("Bearer {}", cluster.secrets.master_key);
    let grant = authorize(&cluster, Some(&master), "indexes.swap", None).await.unwrap();
    let held = lock_documents(&cluster, &grant, Scope::indexes(["left", "right"])).await.unwrap();
    let body = Some(json!([{"indexes": ["left", "right"]}]));
    let request = NodeRequest { method: "POST".into(), path: "/swap-indexes".into(), body, main: true };
    let operation = Operation {
        task: NewTask { kind: TaskKind::IndexSwap, ..NewTask::default() },
        requests: vec![request],
        authority: Authority::Master,
        at_once: ImmediateEffect::Nothing,
        effect: Effect::Swap { pairs: vec![("left".into(), "right".into(), false)] },
    };
    let task = run(&cluster, held, operation).await.unwrap();
    assert_eq!(cluster.tracked_tasks.uids(), [task.uid]);
    cluster.cluster_state().behind.iter().map(ToString::to_string).collect()
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_a_node_has_taken_is_done_although_no_answer_came() {
    let is_taken = AtomicBool::new(false);
    let script = Script::new(move |call| match (call.url.path(), call.url.port()) {
        ("/swap-indexes", port) => {
            // The first node has never got it.
            is_taken.fetch_or(port == Some(2), Ordering::Relaxed);
            Reply::Silence
        }
        ("/tasks", Some(2)) if is_taken.load(Ordering::Relaxed) => {
            let swaps = json!([{"indexes": ["left", "right"]}]);
            let details = json!({"swaps": swaps});
            let task = json!({"uid": 0, "type": "indexSwap", "status": "enqueued", "details": details});
            Reply::Answer(200, json!({"results": [task]}))
        }
        _ => Reply::Answer(200, json!({"results": []})),
    });
    assert_eq!(swapped(script).await, ["a"], "it may take it late");
}

#[tokio::test(start_paused = true)]
async fn an_operation_is_sent_again_where_documents_would_stay_without_it() {
    let sent = AtomicUsize::new(0);
    let script = Script::new(move |call| match (call.url.path(), call.url.port()) {
        ("/swap-indexes", Some(2)) if sent.fetch_add(1, Ordering::Relaxed) == 0 => Reply::Silence,
        ("/swap-indexes", _) => Reply::Answer(202, json!({"taskUid": 7})),
        _ => Reply::Answer(200, json!({"results": []})),
    });
    assert!(swapped(script).await.is_empty());
}

/// The request that renames the index `left`, and what it does.
fn rename_of_left(to: &str) -> (NodeRequest, Effect) {
    let body = Some(json!({"uid": to}));
    let request = NodeRequest { method: "PATCH".into(), path: "/indexes/left".into(), body, main: true };
    (request, Effect::UpdateIndex { index: "left".into(), primary_key: None, rename: Some(to.into()) })
}

#[tokio::test(start_paused = true)]
async fn a_rename_that_cannot_be_done_is_judged_by_nodes_that_know_that() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let script = Script::new(move |call| match (call.method.as_str(), call.url.path(), call.url.port()) {
        // One has failed to create the index on the right, and has not told so yet.
        ("GET", "/indexes", port) => {
            let names = if port == Some(1) { &["left", "right"][..] } else { &["left"] };
            let index = |name: &&str| json!({"uid": name, "createdAt": "2026-01-01T00:00:00Z"});
            Reply::Answer(200, json!({"results": names.iter().map(index).collect::<Vec<_>>()}))
        }
        ("PATCH", _, port) => {
            seen.lock().unwrap().push(port);
            Reply::Answer(202, json!({"taskUid": 7}))
        }
        _ => Reply::Answer(200, json!({"results": []})),
    });
    let data = tempfile::tempdir().unwrap();
    let cluster = Arc::new(ClusterBuilder::new(data.path()).transport(script).build());
    health::check(&cluster).await;
    cluster.change(know_left_and_right).await.unwrap();
    let master = format!("Bearer {}", cluster.secrets.master_key);
    let grant = authorize(&cluster, Some(&master), "indexes.update", None).await.unwrap();
    let rename = async |to: &str| {
        let held = lock_documents(&cluster, &grant, Scope::indexes(["left", to])).await.unwrap();
        let (request, effect) = rename_of_left(to);
        let operation = Operation {
            task: NewTask { kind: TaskKind::IndexUpdate, ..NewTask::default() },
            requests: vec![request],
            authority: Authority::Master,
            at_once: ImmediateEffect::Nothing,
            effect,
        };
        let task = run(&cluster, held, operation).await.unwrap();
        drop(cluster.tracked_tasks.pending().remove(&task.uid));
        std::mem::take(&mut *asked.lock().unwrap())
    };
    assert_eq!(rename("right").await, [Some(1)]);
    assert!(cluster.cluster_state().behind.is_empty(), "nobody has missed anything");
    let mut ports = rename("new").await;
    ports.sort_unstable();
    assert_eq!(ports, [Some(1), Some(2)]);
}

/// What a restart finds of a rename to the name of an index that one of the nodes has failed to create, `b`; and the ports of the nodes that
/// get it then. Returns them, and whether the client's task is there still. `a` answers if it `is_up`.
async fn renamed_after_a_restart(is_up: bool) -> (Vec<Option<u16>>, bool) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&asked);
    let script = Script::new(move |call| match (call.method.as_str(), call.url.port()) {
        (_, Some(1)) if !is_up => Reply::NoConnection,
        ("PATCH", port) => {
            seen.lock().unwrap().push(port);
            Reply::Answer(202, json!({"taskUid": 7}))
        }
        _ => Reply::Answer(200, json!({"results": []})),
    });
    let data = tempfile::tempdir().unwrap();
    let cluster = Arc::new(ClusterBuilder::new(data.path()).transport(script).build());
    health::check(&cluster).await;
    cluster.change(know_left_and_right).await.unwrap();
    let (request, effect) = rename_of_left("right");
    let has = |names: &[&str]| names.iter().map(|name| ((*name).to_owned(), String::new())).collect();
    let intent = Intent::Broadcast {
        requests: vec![request],
        effect,
        at_once: ImmediateEffect::Nothing,
        newest: [("a".into(), None), ("b".into(), None)].into(),
        created: [("a".into(), has(&["left", "right"])), ("b".into(), has(&["left"]))].into(),
    };
    let new = NewTask { kind: TaskKind::IndexUpdate, index: Some("left".into()), ..NewTask::default() };
    let task =
        cluster.ledger.call(move |connection| intents::begin(connection, &new, &intent, 1)).await.unwrap();
    let stored = cluster.ledger.read(intents::all).await.unwrap().remove(0);
    redo(&cluster, &stored, &task, &mut None).await.unwrap();
    let behind: &[&str] = if is_up { &[] } else { &["a"] };
    assert!(cluster.cluster_state().behind.iter().eq(behind), "only one that is away may have it");
    let task = cluster.ledger.read(move |connection| tasks::get(connection, task.uid)).await.unwrap();
    (std::mem::take(&mut *asked.lock().unwrap()), task.is_some())
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_too_nodes_that_know_judge_a_rename_that_cannot_be_done() {
    assert_eq!(renamed_after_a_restart(true).await, (vec![Some(1)], true));
    assert_eq!(
        renamed_after_a_restart(false).await,
        (Vec::new(), false),
        "nobody judges it: there is no such task"
    );
}
