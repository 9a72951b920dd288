use super::*;
use crate::{
    cluster::tracked_tasks::TrackedTask,
    domain::{
        cluster_state::ClusterState,
        deleted_index::DeletedIndex,
        intent::{Intent, NodeRequest, NodeTask},
        verdict::{ReportedState, TrackedNodeTask},
    },
    ledger::tasks::NewTask,
    testing::{ClusterBuilder, Reply, Script},
};
use miroir_core::error::{ApiError, Code};
use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

#[test]
fn details_of_settings_are_what_the_client_wrote() {
    let mut told = json!({
        "a": {"source": "rest", "dimensions": 3, "documentTemplate": "ours", "apiKey": "XXX..."},
        "b": {"documentTemplate": "ours"}, "c": null,
        "d": {"indexingEmbedder": {"source": "ollama", "documentTemplate": "ours"}},
    });
    let sent = json!({
        "d": {"indexingEmbedder": {"source": "ollama"}}, "c": null,
        "b": {"documentTemplate": null}, "a": {"dimensions": 3, "apiKey": "XXX...", "source": "rest"},
    });
    as_sent(&mut told, &sent);
    // The members are in the node's order.
    let expected = json!({
        "a": {"source": "rest", "dimensions": 3, "apiKey": "XXX..."},
        "b": {"documentTemplate": null}, "c": null,
        "d": {"indexingEmbedder": {"source": "ollama"}},
    });
    assert_eq!(told.to_string(), expected.to_string());
}

const SWAP: [(&str, &str, bool); 1] = [("a", "b", false)];

fn swap() -> Effect {
    Effect::Swap { pairs: SWAP.iter().map(|(a, b, rename)| ((*a).into(), (*b).into(), *rename)).collect() }
}

/// A control plane over two indexes, `b` with settings of its own. Nodes answer while `are_up`.
async fn cluster(data: &Path, are_up: Arc<AtomicBool>) -> Arc<Cluster> {
    let script = Script::new(move |_| match are_up.load(Ordering::Relaxed) {
        true => Reply::Answer(200, json!({"uid": 3})),
        false => Reply::NoConnection,
    });
    let cluster = Arc::new(ClusterBuilder::new(data).transport(script).build());
    let index = |key: &str| Index { primary_key: Some(key.to_owned()), ..Index::default() };
    let fill = move |connection: &_, state: &mut ClusterState| {
        state.indexes.extend([("a".to_owned(), index("ka")), ("b".to_owned(), index("kb"))]);
        stored::merge_settings(connection, "b", Some(&json!({"stopWords": ["b"]})))
    };
    cluster.change_stored(fill).await.unwrap();
    cluster
}

/// A swap that nodes have, as the ledger has it.
async fn sent(cluster: &Cluster) -> (Task, Vec<NodeTask>) {
    let new = NewTask { kind: TaskKind::IndexSwap, ..NewTask::default() };
    let request = NodeRequest { method: "POST".into(), path: "/swap-indexes".into(), body: None, main: true };
    let (at_once, newest, created) = Default::default();
    let intent = Intent::Broadcast { requests: vec![request], effect: swap(), at_once, newest, created };
    let task = |node: &str| NodeTask { node: node.into(), node_task: 3, main: true, shards: Vec::new() };
    let node_tasks = vec![task("a"), task("b")];
    let stored = node_tasks.clone();
    let begin = move |connection: &_| {
        let task = intents::begin(connection, &new, &intent, 1)?;
        intents::sent(connection, task.uid, &stored)?;
        Ok(task)
    };
    (cluster.ledger.call(begin).await.unwrap(), node_tasks)
}

fn succeeded() -> Outcome {
    Outcome { status: TaskStatus::Succeeded, finished_at: Some(9), ..Outcome::default() }
}

/// The names of indexes with their keys, and whose the settings are.
async fn names(cluster: &Cluster) -> Vec<(String, Option<String>, bool)> {
    let mut names = Vec::new();
    for (uid, index) in &cluster.cluster_state().indexes {
        let of = uid.clone();
        let set = cluster.ledger.call(move |connection| stored::settings(connection, &of)).await.unwrap();
        names.push((uid.clone(), index.primary_key.clone(), !set.is_empty()));
    }
    names
}

/// What a swap has written: no documents.
fn written() -> Written {
    Written { names: BTreeSet::new(), ids: WrittenIds::new(), indexed: None }
}

#[tokio::test]
async fn what_is_applied_is_neither_judged_nor_applied_again() {
    let data = tempfile::tempdir().unwrap();
    let cluster = cluster(data.path(), Arc::default()).await;
    let (task, node_tasks) = sent(&cluster).await;
    let swapped = [("a".into(), Some("kb".into()), true), ("b".into(), Some("ka".into()), false)];
    let ending = apply(&cluster, &task, &swap(), succeeded(), written(), None).await.unwrap();
    assert_eq!(names(&cluster).await, swapped);
    // After a restart, nodes know nothing of their tasks any more.
    let found = cluster.ledger.call(intents::all).await.unwrap().remove(0);
    assert_eq!(found.ending.as_ref(), Some(&ending));
    let uid = task.uid;
    let written = WrittenIds::new();
    let unsettled = TrackedTask { task, node_tasks, effect: swap(), indexed: None, written, guard: None };
    cluster.tracked_tasks.restore(unsettled, found.ending, &found.interrupted);
    let begun = std::time::Instant::now();
    while cluster.tracked_tasks.count() > 0 {
        crate::tracking::round(&cluster).await.unwrap();
        assert!(begun.elapsed().as_secs() < 20, "it does not end");
    }
    assert_eq!(names(&cluster).await, swapped);
    let task = cluster.ledger.call(move |connection| tasks::get(connection, uid)).await.unwrap().unwrap();
    assert_eq!((task.status, task.finished_at), (TaskStatus::Succeeded, Some(9)));
    assert!(cluster.ledger.call(intents::all).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_node_that_stopped_is_behind_after_a_restart_too() {
    let data = tempfile::tempdir().unwrap();
    let are_up = Arc::new(AtomicBool::new(false));
    let cluster = cluster(data.path(), are_up.clone()).await;
    let (task, node_tasks) = sent(&cluster).await;
    let uid = task.uid;
    let unsettled = || TrackedTask {
        task: task.clone(),
        node_tasks: node_tasks.clone(),
        effect: swap(),
        indexed: None,
        written: WrittenIds::new(),
        guard: None,
    };
    cluster.tracked_tasks.add(unsettled());
    crate::tracking::round(&cluster).await.unwrap();
    let found = cluster.ledger.call(intents::all).await.unwrap().remove(0);
    assert_eq!(found.interrupted.iter().collect::<Vec<_>>(), ["a", "b"]);
    are_up.store(true, Ordering::Relaxed);
    cluster.tracked_tasks.restore(unsettled(), None, &["b".into()].into());
    let ended = ReportedState { state: State::Succeeded, ..ReportedState::default() };
    for part in &mut cluster.tracked_tasks.pending().get_mut(&uid).unwrap().parts {
        TrackedNodeTask::report(part, ended.clone(), false);
    }
    finish(&cluster, uid, succeeded()).await.unwrap();
    assert_eq!(cluster.cluster_state().behind.iter().collect::<Vec<_>>(), ["b"]);
}

#[tokio::test]
async fn an_index_that_nodes_have_not_deleted_is_there_again() {
    let error = |code: Code| Some(ApiError::new(code, "on purpose").body);
    for (status, error, is_back) in [
        (TaskStatus::Succeeded, None, false),
        (TaskStatus::Canceled, None, true),
        (TaskStatus::Failed, error(Code::INTERNAL), true),
        (TaskStatus::Failed, error(Code::INDEX_NOT_FOUND), false),
    ] {
        let data = tempfile::tempdir().unwrap();
        let cluster = cluster(data.path(), Arc::default()).await;
        let before = names(&cluster).await;
        let settings = cluster.ledger.read(|connection| stored::settings(connection, "b")).await.unwrap();
        let was = DeletedIndex::of(&cluster.cluster_state(), "b", settings);
        cluster.change(|cluster_state| _ = cluster_state.indexes.remove("b")).await.unwrap();
        let effect = Effect::Deletion { index: "b".into(), was, is_undone: false };
        let new = NewTask { kind: TaskKind::IndexDeletion, index: Some("b".into()), ..NewTask::default() };
        let task = cluster.ledger.call(move |connection| tasks::insert(connection, &new, 1)).await.unwrap();
        let over = Outcome { status, error, finished_at: Some(9), ..Outcome::default() };
        let effect = if status == TaskStatus::Succeeded { effect } else { kept(effect, &over) };
        apply(&cluster, &task, &effect, over, written(), None).await.unwrap();
        let names = names(&cluster).await;
        assert_eq!(names == before, is_back, "{status:?}: {names:?}");
    }
}

#[tokio::test]
async fn replicas_of_a_node_that_stopped_in_an_edit_are_repaired_from_others() {
    let data = tempfile::tempdir().unwrap();
    let are_up = Arc::new(AtomicBool::new(true));
    let cluster = cluster(data.path(), are_up).await;
    let edit = NewTask { kind: TaskKind::DocumentEdition, index: Some("a".into()), ..NewTask::default() };
    let task = cluster.ledger.call(move |connection| tasks::insert(connection, &edit, 1)).await.unwrap();
    let uid = task.uid;
    let part = |node: &str| NodeTask { node: node.into(), node_task: 3, main: true, shards: vec![Shard(0)] };
    let edited = TrackedTask {
        task,
        node_tasks: ["a", "b"].map(part).into(),
        effect: Effect::None,
        indexed: None,
        written: WrittenIds::new(),
        guard: None,
    };
    cluster.tracked_tasks.restore(edited, None, &["b".into()].into());
    let ended = ReportedState { state: State::Succeeded, ..ReportedState::default() };
    {
        let mut pending = cluster.tracked_tasks.pending();
        let pending = pending.get_mut(&uid).unwrap();
        pending.parts.iter_mut().for_each(|part| part.report(ended.clone(), false));
        // Its fields are registered.
        pending.completing.attempts = 1;
    }
    finish(&cluster, uid, succeeded()).await.unwrap();
    let cluster_state = cluster.cluster_state();
    assert_eq!(cluster_state.whole("a", Shard(0)).collect::<Vec<_>>(), ["a"]);
    assert_eq!(cluster_state.whole("b", Shard(0)).collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn a_setting_that_two_tasks_change_is_that_of_the_later_one() {
    let data = tempfile::tempdir().unwrap();
    let cluster = cluster(data.path(), Arc::default()).await;
    let mut uids = Vec::new();
    for word in ["first", "second"] {
        let change = json!({"stopWords": [word]});
        let effect = Effect::Settings { index: "b".into(), change: Some(change), creates: false };
        let new = NewTask { kind: TaskKind::SettingsUpdate, index: Some("b".into()), ..NewTask::default() };
        let (at_once, newest, created) = Default::default();
        let intent =
            Intent::Broadcast { requests: Vec::new(), effect: effect.clone(), at_once, newest, created };
        let begin = move |connection: &_| {
            let task = intents::begin(connection, &new, &intent, 1)?;
            intents::sent(connection, task.uid, &[])?;
            Ok(task)
        };
        let task = cluster.ledger.call(begin).await.unwrap();
        uids.push(task.uid);
        let node_tasks = Vec::new();
        cluster.tracked_tasks.add(TrackedTask {
            task,
            node_tasks,
            effect,
            indexed: None,
            written: Default::default(),
            guard: None,
        });
    }
    // Nodes tell of the second one first.
    for uid in [uids[1], uids[0], uids[1]] {
        let is_applied = cluster.tracked_tasks.pending().get(&uid).is_none_or(|it| it.ending.is_some());
        if !is_applied {
            finish(&cluster, uid, succeeded()).await.unwrap();
        }
    }
    let stored = cluster.ledger.call(|connection| stored::settings(connection, "b")).await.unwrap();
    assert_eq!(stored.get("stopWords"), Some(&json!(["second"])));
}

#[tokio::test]
async fn replicas_whose_node_has_had_a_refused_embedder_are_repaired_from_others() {
    let embedders = json!({"embedders": {"mine": {"source": "userProvided", "dimensions": 2}}});
    let cases = [
        (Some(embedders.clone()), false, &["a"][..], 1, &["b"][..]),
        (None, false, &["a"], 1, &["b"]),
        // One of them stays.
        (Some(embedders.clone()), false, &["a", "b"], 1, &["a"]),
        // It has no documents.
        (Some(embedders.clone()), false, &["a"], 0, &["a", "b"]),
        (Some(json!({"stopWords": ["x"]})), false, &["a"], 1, &["a", "b"]),
        (Some(embedders), true, &["a"], 1, &["a", "b"]),
    ];
    for (change, creates, rolled_back, documents, whole) in cases {
        let data = tempfile::tempdir().unwrap();
        let script = Script::new(move |call| match call.url.path() {
            "/indexes/b/stats" => Reply::Answer(200, json!({"numberOfDocuments": documents})),
            "/indexes/b/settings" if call.method == "GET" => Reply::Answer(200, json!({})),
            "/tasks" => Reply::Answer(200, json!({"results": [{"uid": 3, "status": "succeeded"}]})),
            path if path.starts_with("/tasks/") => {
                Reply::Answer(200, json!({"uid": 3, "status": "succeeded"}))
            }
            _ => Reply::Answer(202, json!({"taskUid": 3})),
        });
        let cluster = Arc::new(ClusterBuilder::new(data.path()).transport(script).build());
        let index = ("b".to_owned(), Index { primary_key: Some("id".to_owned()), ..Index::default() });
        cluster.change(|cluster_state| cluster_state.indexes.extend([index])).await.unwrap();
        let new = NewTask { kind: TaskKind::SettingsUpdate, index: Some("b".into()), ..NewTask::default() };
        let task = cluster.ledger.call(move |connection| tasks::insert(connection, &new, 1)).await.unwrap();
        let uid = task.uid;
        let effect = Effect::Settings { index: "b".into(), change: change.clone(), creates };
        let (node_tasks, written) = (Vec::new(), WrittenIds::new());
        cluster.tracked_tasks.add(TrackedTask {
            task,
            node_tasks,
            effect,
            indexed: None,
            written,
            guard: None,
        });
        let to_roll_back = rolled_back.iter().map(|node| NodeName::from(*node)).collect();
        let over =
            Outcome { status: TaskStatus::Failed, finished_at: Some(9), to_roll_back, ..Outcome::default() };
        let begun = std::time::Instant::now();
        while cluster.tracked_tasks.pending().get(&uid).is_some_and(|pending| pending.ending.is_none()) {
            finish(&cluster, uid, over.clone()).await.unwrap();
            assert!(begun.elapsed().as_secs() < 20, "it is not rolled back");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let cluster_state = cluster.cluster_state();
        assert!(cluster_state.behind.is_empty());
        for shard in cluster_state.shards() {
            let found: Vec<&str> = cluster_state.whole("b", shard).map(|node| &**node).collect();
            assert_eq!(found, whole, "{change:?} {creates} {rolled_back:?} {documents}");
        }
    }
}

#[tokio::test]
async fn a_node_that_was_away_when_a_roll_back_began_is_behind_though_it_comes_back() {
    let data = tempfile::tempdir().unwrap();
    let cluster = cluster(data.path(), Arc::new(AtomicBool::new(true))).await;
    let new = NewTask { kind: TaskKind::SettingsUpdate, index: Some("b".into()), ..NewTask::default() };
    let task = cluster.ledger.call(move |connection| tasks::insert(connection, &new, 1)).await.unwrap();
    let uid = task.uid;
    let change = Some(json!({"stopWords": ["x"]}));
    let effect = Effect::Settings { index: "b".into(), change, creates: false };
    let (node_tasks, written) = (Vec::new(), WrittenIds::new());
    cluster.tracked_tasks.add(TrackedTask { task, node_tasks, effect, indexed: None, written, guard: None });
    let refused = Outcome { status: TaskStatus::Failed, finished_at: Some(9), ..Outcome::default() };
    let away = Outcome { to_roll_back: ["a".into()].into(), behind: ["b".into()].into(), ..refused.clone() };
    finish(&cluster, uid, away).await.unwrap();
    let is_done = || match &cluster.tracked_tasks.pending().get(&uid).unwrap().roll_back {
        RollBack::Done(left) => left.behind.contains("b"),
        _ => false,
    };
    let begun = std::time::Instant::now();
    while !is_done() {
        assert!(begun.elapsed().as_secs() < 20, "it is not behind");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    // By now it has done what the others have undone.
    let back = Outcome { to_roll_back: ["a".into(), "b".into()].into(), ..refused };
    finish(&cluster, uid, back).await.unwrap();
    assert!(cluster.cluster_state().behind.contains("b"));
}
