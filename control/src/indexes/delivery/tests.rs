use super::*;
use crate::{
    cluster::Cluster,
    domain::{
        cluster_state::Index,
        intent::{Effect, ImmediateEffect, Intent},
    },
    indexes::broadcast,
    ledger::{
        settings,
        tasks::{self, NewTask},
    },
    node::Call,
    sync::health,
    testing::{ClusterBuilder, Reply, Script},
};
use miroir_core::path::ApiPath;
use serde_json::json;
use std::{sync::Mutex, time::Duration};
use tempfile::TempDir;

/// The tasks of each node, by port.
type Tasks = Arc<Mutex<BTreeMap<u16, Vec<Value>>>>;

const NODES: [&str; 3] = ["a", "b", "c"];

/// The task that a node makes of a request.
fn task_of(uid: usize, call: &Call) -> Value {
    let body: Value = serde_json::from_slice(&call.body).unwrap_or_default();
    let path = call.url.path();
    let index = path.split('/').nth(2).map(ToOwned::to_owned);
    let (kind, index) = match (call.method.as_str(), path) {
        (_, "/swap-indexes") => ("indexSwap", None),
        ("POST", "/indexes") => ("indexCreation", body["uid"].as_str().map(ToOwned::to_owned)),
        ("DELETE", _) => ("indexDeletion", index),
        (_, path) if path.ends_with("/settings") => ("settingsUpdate", index),
        _ => ("indexUpdate", index),
    };
    json!({"uid": uid, "type": kind, "indexUid": index, "status": "enqueued", "details": {"swaps": body}})
}

/// A node: it is well, has every key, tells its tasks, and makes a task of everything else.
fn answer(tasks: &Tasks, call: &Call) -> Reply {
    let mut all = tasks.lock().unwrap();
    let Some(own) = all.get_mut(&call.url.port().unwrap()) else { return Reply::NoConnection };
    let asked: BTreeMap<String, String> = call.url.query_pairs().into_owned().collect();
    match call.url.path() {
        "/health" => Reply::Answer(200, json!({"status": "available"})),
        "/tasks" => {
            let (is_reversed, from) = (asked.contains_key("reverse"), asked.get("from"));
            let from = from.map_or(0, |from| from.parse().unwrap());
            let mut told: Vec<&Value> =
                own.iter().filter(|task| task["uid"].as_u64() >= Some(from)).collect();
            if !is_reversed {
                told.reverse();
            }
            Reply::Answer(200, json!({"results": told}))
        }
        path if path.starts_with("/keys") => {
            Reply::Answer(201, json!({"description": "Reads of gateways themselves"}))
        }
        _ if call.method == "GET" => Reply::Answer(200, json!({})),
        path if path.contains("refused") => {
            let error =
                json!({"message": "no", "code": "bad_request", "type": "invalid_request", "link": ""});
            Reply::Answer(400, error)
        }
        _ => {
            let task = task_of(own.len(), call);
            let uid = task["uid"].clone();
            own.push(task);
            Reply::Answer(202, json!({"taskUid": uid}))
        }
    }
}

/// A control plane after a restart, over nodes with these tasks, each with one of its own from before.
struct Restarted {
    cluster: Arc<Cluster>,
    tasks: Tasks,
    script: Arc<Script>,
    _data: TempDir,
}

impl Restarted {
    async fn new() -> Self {
        let earlier = json!({"uid": 0, "type": "indexSwap", "details": {"swaps": swap().body}});
        let tasks: Tasks = Arc::new(Mutex::new((1..=3).map(|port| (port, vec![earlier.clone()])).collect()));
        let of_script = tasks.clone();
        let script = Script::new(move |call| answer(&of_script, call));
        let data = tempfile::tempdir().unwrap();
        let nodes = (1..).zip(NODES).map(|(port, name)| format!("{name}=http://127.0.0.1:{port}"));
        let cluster = ClusterBuilder::new(data.path()).nodes(nodes).transport(script.clone()).build();
        let cluster = Arc::new(cluster);
        health::check(&cluster).await;
        let index = |key: &str| Index { primary_key: Some(key.to_owned()), ..Index::default() };
        let fill = |state: &mut crate::domain::cluster_state::ClusterState| {
            state.indexes.extend([("a".to_owned(), index("ka")), ("b".to_owned(), index("kb"))]);
        };
        cluster.change(fill).await.unwrap();
        Self { cluster, tasks, script, _data: data }
    }

    /// Nodes take requests before the restart, of which the ledger heard `recorded`. Returns the task's uid.
    async fn interrupted(
        &self,
        requests: &[NodeRequest],
        (effect, at_once): (Effect, ImmediateEffect),
        taken: &[(u16, usize)],
        recorded: &[u16],
    ) -> u32 {
        let newest = NODES.iter().map(|node| ((*node).into(), Some(0))).collect();
        let intent = Intent::Broadcast {
            requests: requests.to_vec(),
            effect,
            at_once,
            newest,
            created: Default::default(),
        };
        let kind = kind(&requests[0]).unwrap();
        let index = requests[0].path.segments().get(1).map(|index| (*index).to_owned());
        let new = NewTask { kind, index, ..NewTask::default() };
        let begin = move |connection: &_| intents::begin(connection, &new, &intent, 1);
        let uid = self.cluster.ledger.call(begin).await.unwrap().uid;
        for (port, count) in taken {
            for request in &requests[..*count] {
                let url = format!("http://127.0.0.1:{port}{}", request.path).parse().unwrap();
                let body = request.body.as_ref().map(Value::to_string).unwrap_or_default().into();
                let call = Call { url, body, ..call(&request.method) };
                let Reply::Answer(202, answer) = answer(&self.tasks, &call) else { panic!("not taken") };
                if recorded.contains(port) {
                    let node = NODES[usize::from(port - 1)].into();
                    let node_task = u32::try_from(answer["taskUid"].as_u64().unwrap()).unwrap();
                    let task = NodeTask { node, node_task, main: request.main, shards: Vec::new() };
                    let store = move |connection: &_| intents::add_node_tasks(connection, uid, &[task]);
                    self.cluster.ledger.call(store).await.unwrap();
                }
            }
        }
        uid
    }

    /// Takes up what the restart has interrupted, and waits until it is decided.
    async fn resume(&self) {
        let mut uids = Vec::new();
        for stored in self.cluster.ledger.call(intents::all).await.unwrap() {
            uids.push(stored.uid);
            broadcast::resume(&self.cluster, stored).await.unwrap();
        }
        for uid in uids {
            let is_tracked = || self.cluster.tracked_tasks.pending().contains_key(&uid);
            // It is tracked last, or taken back.
            while !is_tracked()
                && self.cluster.ledger.call(move |c| tasks::get(c, uid)).await.unwrap().is_some()
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }

    /// How many tasks of a kind each node has, without the one of before.
    fn counts(&self, kind: &str) -> Vec<usize> {
        let tasks = self.tasks.lock().unwrap();
        tasks.values().map(|tasks| tasks.iter().skip(1).filter(|task| task["type"] == kind).count()).collect()
    }

    fn behind(&self) -> Vec<String> {
        self.cluster.cluster_state().behind.iter().map(ToString::to_string).collect()
    }
}

fn call(method: &str) -> Call {
    Call {
        method: method.parse().unwrap(),
        url: "http://127.0.0.1:1".parse().unwrap(),
        authorization: None,
        content_type: None,
        content_encoding: None,
        body: Default::default(),
        timeout: Duration::from_secs(1),
    }
}

fn swap() -> NodeRequest {
    let body = Some(json!([{"indexes": ["a", "b"]}]));
    NodeRequest { method: "POST".into(), path: "/swap-indexes".into(), body, main: true }
}

fn swapped() -> (Effect, ImmediateEffect) {
    (Effect::Swap { pairs: vec![("a".into(), "b".into(), false)] }, ImmediateEffect::Nothing)
}

#[tokio::test]
async fn nodes_swap_once_wherever_a_restart_interrupts_it() {
    let taken: [&[u16]; 5] = [&[], &[1], &[2], &[1, 3], &[1, 2, 3]];
    for taken in taken {
        for recorded in [&[][..], &taken[..taken.len().min(1)], taken] {
            let restarted = Restarted::new().await;
            let with: Vec<(u16, usize)> = taken.iter().map(|port| (*port, 1)).collect();
            let uid = restarted.interrupted(&[swap()], swapped(), &with, recorded).await;
            restarted.resume().await;
            assert_eq!(restarted.counts("indexSwap"), [1, 1, 1], "{taken:?} {recorded:?}");
            let known =
                restarted.cluster.ledger.call(move |c| intents::all_node_tasks(c, uid)).await.unwrap();
            let known: Vec<(&str, u32)> = known.iter().map(|task| (&*task.node, task.node_task)).collect();
            assert_eq!(known, [("a", 1), ("b", 1), ("c", 1)], "{taken:?} {recorded:?}");
            assert!(restarted.behind().is_empty() && restarted.cluster.locks.counts() == (1, 0));
        }
    }
}

#[tokio::test]
async fn a_node_that_cannot_be_asked_is_behind_and_gets_nothing_twice() {
    for recorded in [false, true] {
        let restarted = Restarted::new().await;
        let is_known = if recorded { &[3][..] } else { &[] };
        restarted.interrupted(&[swap()], swapped(), &[(1, 1), (3, 1)], is_known).await;
        let away = restarted.tasks.lock().unwrap().remove(&3).unwrap();
        let asked = restarted.script.calls().len();
        restarted.resume().await;
        let calls = restarted.script.calls().split_off(asked);
        let was_sent = |call: &Call| call.url.port() == Some(3) && call.url.path() == "/swap-indexes";
        assert!(!calls.iter().any(was_sent) && away.len() == 2);
        assert_eq!(restarted.counts("indexSwap"), [1, 1]);
        // Its queue has what it answered.
        assert_eq!(restarted.behind(), if recorded { vec![] } else { vec!["c"] });
    }
}

#[tokio::test]
async fn nothing_is_sent_again_while_the_ledger_does_not_work() {
    let restarted = Restarted::new().await;
    restarted.interrupted(&[swap()], swapped(), &[(1, 1)], &[]).await;
    let run = |sql: &'static str| move |connection: &rusqlite::Connection| Ok(connection.execute_batch(sql)?);
    let cluster = &restarted.cluster;
    let is_refused = async {
        let refuse =
            "CREATE TRIGGER refusal BEFORE INSERT ON meta BEGIN SELECT RAISE(ABORT, 'on purpose'); END";
        cluster.ledger.call(run(refuse)).await.unwrap();
        let begun = std::time::Instant::now();
        while cluster.ledger.failures() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert!(begun.elapsed().as_secs() < 20, "the ledger is not written to");
        }
        assert_eq!(restarted.counts("indexSwap"), [1, 0, 0]);
        cluster.ledger.call(run("DROP TRIGGER refusal")).await.unwrap();
    };
    tokio::join!(is_refused, restarted.resume());
    assert_eq!(restarted.counts("indexSwap"), [1, 1, 1]);
}

#[tokio::test]
async fn a_deletion_is_done_on_all_nodes_and_leaves_the_catalogue() {
    for taken in [&[][..], &[(2, 1)], &[(1, 1), (2, 1), (3, 1)]] {
        let restarted = Restarted::new().await;
        let deletion =
            NodeRequest { method: "DELETE".into(), path: "/indexes/a".into(), body: None, main: true };
        let effects = (Effect::None, ImmediateEffect::Deleted { index: "a".into() });
        restarted.interrupted(&[deletion], effects, taken, &[]).await;
        restarted.resume().await;
        assert_eq!(restarted.counts("indexDeletion"), [1, 1, 1]);
        assert_eq!(restarted.cluster.cluster_state().indexes.keys().collect::<Vec<_>>(), ["b"]);
        assert!(restarted.behind().is_empty() && restarted.cluster.locks.counts() == (0, 0));
    }
}

#[tokio::test]
async fn a_creation_goes_on_where_each_node_was_interrupted() {
    let restarted = Restarted::new().await;
    let create = NodeRequest {
        method: "POST".into(),
        path: "/indexes".into(),
        body: Some(json!({"uid": "new"})),
        main: true,
    };
    let requests: Vec<NodeRequest> = std::iter::once(create)
        .chain(crate::indexes::creation::initial_settings("new", false, false))
        .collect();
    assert_eq!(requests.len(), 4);
    let created = ImmediateEffect::Created { index: "new".into(), primary_key: Some("id".into()) };
    restarted.interrupted(&requests, (Effect::None, created), &[(1, 4), (2, 2)], &[2]).await;
    restarted.resume().await;
    for (kind, each) in [("indexCreation", 1), ("indexUpdate", 2), ("settingsUpdate", 1)] {
        assert_eq!(restarted.counts(kind), [each; 3], "{kind}");
    }
    let cluster_state = restarted.cluster.cluster_state();
    assert_eq!(cluster_state.indexes["new"].primary_key.as_deref(), Some("id"));
    assert!(restarted.behind().is_empty());
}

#[tokio::test]
async fn what_nodes_refuse_after_a_restart_is_taken_back() {
    let restarted = Restarted::new().await;
    let path = ApiPath::of_index("refused", &["settings"]);
    let request = NodeRequest { method: "PATCH".into(), path, body: Some(json!({})), main: true };
    let change = Effect::Settings { index: "refused".into(), change: Some(json!({})), creates: false };
    let uid = restarted.interrupted(&[request], (change, ImmediateEffect::Nothing), &[], &[]).await;
    restarted.resume().await;
    assert!(restarted.cluster.ledger.call(move |c| tasks::get(c, uid)).await.unwrap().is_none());
    assert!(restarted.behind().is_empty() && restarted.cluster.cluster_state().changing.is_empty());
    assert_eq!(restarted.cluster.locks.counts(), (0, 0));
}

#[tokio::test]
async fn an_operation_frees_its_locks_where_all_nodes_are_behind() {
    for taken in [&[][..], &[(2, 1)]] {
        let restarted = Restarted::new().await;
        let path = ApiPath::of_index("a", &[]);
        let request =
            NodeRequest { method: "PATCH".into(), path, body: Some(json!({"uid": "new"})), main: true };
        let rename = Effect::UpdateIndex { index: "a".into(), primary_key: None, rename: Some("new".into()) };
        let uid = restarted.interrupted(&[request], (rename, ImmediateEffect::Nothing), taken, &[]).await;
        let all = |state: &mut crate::domain::cluster_state::ClusterState| {
            NODES.iter().for_each(|node| state.mark_behind(node));
        };
        restarted.cluster.change(all).await.unwrap();
        restarted.resume().await;
        let task = restarted.cluster.ledger.call(move |c| tasks::get(c, uid)).await.unwrap();
        assert_eq!(task.is_some(), !taken.is_empty(), "what a node has taken is done");
        let holders = restarted.cluster.locks.counts().0;
        assert_eq!(holders, taken.len(), "it is free, or it is tracked until its end");
        assert_eq!(restarted.counts("indexUpdate").iter().sum::<usize>(), taken.len());
    }
}

#[tokio::test]
async fn earlier_intents_follow_indexes_that_are_renamed() {
    let restarted = Restarted::new().await;
    let path = ApiPath::of_index("a", &["settings"]);
    let request = NodeRequest { method: "PATCH".into(), path, body: Some(json!({})), main: true };
    let change = Effect::Settings { index: "a".into(), change: Some(json!({})), creates: false };
    let uid = restarted.interrupted(&[request], (change, ImmediateEffect::Nothing), &[], &[]).await;
    let moves = vec![("a".to_owned(), "b".to_owned(), true)];
    let moved = restarted.cluster.ledger.call(move |connection| {
        settings::move_settings(connection, &moves)?;
        intents::follow(connection, uid + 1, &moves)?;
        intents::all(connection)
    });
    let moved = moved.await.unwrap();
    let Intent::Broadcast { effect, .. } = &moved[0].intent else { panic!("no broadcast") };
    assert_eq!(effect.names().collect::<Vec<_>>(), ["b"]);
}
