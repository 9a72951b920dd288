//! Recovery of writes without a commit, and what keeps late requests out, with fake nodes that accept everything.

use super::HeldLedger;
use super::support::{ControlBuilder, FakeNode, addition, commit, control, enqueued, until};
use miroir_control::{domain::key_holder::WriteKeyHolder, serve};
use miroir_core::{
    protocol::{BEGIN_PATH, COMMIT_PATH, NodeOutcome, NodeResult},
    shard::Shard,
};
use serde_json::json;
use std::time::{Duration, Instant};

#[tokio::test]
async fn a_begin_without_a_commit_is_recovered() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let nodes = [&a, &b];
    let control =
        ControlBuilder::new(folder.path(), &nodes).commit_timeout(Duration::from_secs(1)).start().await;
    let (uid, key) = control.begin("movies", &[3]).await;
    // The gateway reaches only one node, then dies.
    a.add_documents("movies", uid, &key).await;
    let other = addition("movies", &[3]);
    tokio::select! {
        answer = control.internal(BEGIN_PATH, &other) => panic!("its shard is locked: {answer:?}"),
        () = until("the next write waits for the lock", || control.cluster.locks.counts().1 == 1) => {}
    }
    let task = control.ended(uid).await;
    assert_eq!(task["status"], "succeeded", "one replica has it: {task}");
    let fenced = a
        .memory
        .lock()
        .unwrap()
        .requests
        .iter()
        .any(|(method, path, _)| method == "DELETE" && path.starts_with("/keys/"));
    assert!(fenced, "late callouts are kept out");
    let (_, new_key) = control.begin("movies", &[3]).await;
    assert_ne!(new_key, key);
}

#[tokio::test]
async fn an_open_begin_survives_a_crash_of_the_control_plane() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let first = control(folder.path(), &[&a, &b]).await;
    let (written, key) = first.begin("movies", &[0]).await;
    let (unwritten, _) = first.begin("movies", &[1]).await;
    for node in [&a, &b] {
        node.add_documents("movies", written, &key).await;
    }
    // No shutdown: a second control plane opens the data that the first one left.
    let second = control(folder.path(), &[&a, &b]).await;
    assert_eq!(second.ended(written).await["status"], "succeeded");
    let task = second.ended(unwritten).await;
    assert_eq!(task["status"], "failed");
    assert!(task["error"]["message"].as_str().unwrap().ends_with("no replica took them: 1."), "{task}");
    let (later, _) = second.begin("movies", &[0, 1]).await;
    assert!(later > unwritten);
}

#[tokio::test]
async fn a_write_is_not_called_undone_while_a_node_that_may_have_it_is_silent() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let nodes = [&a, &b];
    let control =
        ControlBuilder::new(folder.path(), &nodes).commit_timeout(Duration::from_secs(1)).start().await;
    let hide = |hides| nodes.iter().for_each(|node| node.memory.lock().unwrap().hides_tasks = hides);
    let (done, key) = control.begin("movies", &[3]).await;
    let (undone, same) = control.begin("films", &[1]).await;
    assert_eq!(key, same);
    a.add_documents("movies", done, &key).await;
    hide(true);
    let unknown = |node: &str| NodeResult { node: node.into(), outcome: NodeOutcome::Unknown };
    let results = vec![unknown("n0"), unknown("n1")];
    let (status, error) = control.internal(COMMIT_PATH, &commit(done, results)).await;
    assert_eq!((status, &error["code"]), (503, &json!("remote_could_not_send_request")), "{error}");
    // The recovery of the other one comes to the same: nobody knows.
    tokio::time::sleep(Duration::from_secs(6)).await;
    for uid in [done, undone] {
        let task = control.task(uid).await;
        assert_eq!(task["status"], "enqueued", "{task}");
    }
    hide(false);
    let task = control.ended(done).await;
    assert_eq!(task["status"], "succeeded", "{task}");
    let task = control.ended(undone).await;
    assert!(task["error"]["message"].as_str().unwrap().ends_with("no replica took them: 1."), "{task}");
}

#[tokio::test]
async fn a_commit_that_is_repeated_after_a_restart_hears_the_decision() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let first = control(folder.path(), &[&a, &b]).await;
    let (written, key) = first.begin("movies", &[0]).await;
    let (unwritten, _) = first.begin("movies", &[1]).await;
    let node_task = a.add_documents("movies", written, &key).await;
    let second = control(folder.path(), &[&a, &b]).await;
    let unknown = |node: &str| NodeResult { node: node.into(), outcome: NodeOutcome::Unknown };
    let unwritten = commit(unwritten, vec![unknown("n0"), unknown("n1")]);
    let written = commit(written, vec![enqueued("n0", node_task), unknown("n1")]);
    let (unwritten, written) =
        tokio::join!(second.internal(COMMIT_PATH, &unwritten), second.internal(COMMIT_PATH, &written));
    assert_eq!((unwritten.0, written.0), (503, 200), "{unwritten:?} {written:?}");
}

#[tokio::test]
async fn nothing_is_begun_before_what_a_crash_left_has_its_locks() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let first = control(folder.path(), &[&a, &b]).await;
    let (left, _) = first.begin("movies", &[0]).await;
    let second = ControlBuilder::new(folder.path(), &[&a, &b]).listen().await;
    let (status, refused) = second.internal(BEGIN_PATH, &addition("movies", &[0])).await;
    assert_eq!((status, &refused["message"]), (503, &json!("the cluster is starting")));
    // Two open writes of one shard, which an earlier version could leave, must not wait for each other.
    let twice = "INSERT INTO intents (uid, state, body) SELECT uid + 1, state, body FROM intents";
    let task = miroir_control::ledger::tasks::NewTask::default();
    let insert = second.cluster.ledger.call(move |connection| {
        miroir_control::ledger::tasks::insert(connection, &task, 1)?;
        Ok(connection.execute(twice, [])?)
    });
    assert_eq!(insert.await.unwrap(), 1);
    tokio::time::timeout(Duration::from_secs(20), serve::start(second.cluster.clone()))
        .await
        .unwrap()
        .unwrap();
    for uid in [left, left + 1] {
        assert_eq!(second.ended(uid).await["status"], "failed");
    }
    second.begin("movies", &[0]).await;
}

fn keys_deleted(node: &FakeNode) -> Vec<String> {
    let memory = node.memory.lock().unwrap();
    let deleted =
        memory.requests.iter().filter(|(method, path, _)| method == "DELETE" && path.starts_with("/keys/"));
    deleted.map(|(_, path, _)| path.trim_start_matches("/keys/").to_owned()).collect()
}

#[tokio::test]
async fn what_may_come_late_is_refused_before_a_repair_and_tears_no_other_write() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    let (first, key) = control.begin("movies", &[1]).await;
    let (second, same) = control.begin("movies", &[2]).await;
    assert_eq!(key, same);
    let results = vec![
        enqueued("n0", a.add_documents("movies", first, &key).await),
        NodeResult { node: "n1".into(), outcome: NodeOutcome::Unknown },
    ];
    let (status, _) = control.internal(COMMIT_PATH, &commit(first, results)).await;
    assert_eq!(status, 200);
    let active = || control.cluster.cluster_state().whole("movies", Shard(1)).count();
    // The gateway gets another key, and a write that it began under the old key is still accepted.
    let begun = Instant::now();
    let commit = async |index: &str, uid: u32, key: &str| {
        let results = vec![
            enqueued("n0", a.add_documents(index, uid, key).await),
            enqueued("n1", b.add_documents(index, uid, key).await),
        ];
        control.internal(COMMIT_PATH, &commit(uid, results)).await;
    };
    loop {
        let (uid, other) = control.begin("films", &[0]).await;
        commit("films", uid, &other).await;
        if other != key {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "the key is not retired");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!((active(), keys_deleted(&a).len(), keys_deleted(&b).len()), (1, 0, 0));
    commit("movies", second, &key).await;
    until("the replica is repaired", || active() != 1).await;
    for node in [&a, &b] {
        let deleted = keys_deleted(node);
        assert!(
            deleted
                .iter()
                .any(|uid| { control.cluster.secrets.key_text(uuid::Uuid::parse_str(uid).unwrap()) == key }),
            "{deleted:?}"
        );
    }
    // Both nodes have confirmed the deletion of the key, so the ledger has forgotten it.
    let write_keys =
        control.cluster.ledger.call(miroir_control::ledger::write_keys::write_keys).await.unwrap();
    assert!(write_keys.iter().all(|write_key| !write_key.fenced), "{write_keys:?}");
    let of_gateways =
        write_keys.iter().filter(|write_key| matches!(write_key.holder, Some(WriteKeyHolder::Gateway(_))));
    assert_eq!(of_gateways.count(), 1, "{write_keys:?}");
}

#[tokio::test]
async fn a_write_whose_key_was_fenced_is_one_to_be_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    let refused = |node: &str| {
        let error = json!({"message": "The provided API key is invalid.", "code": "invalid_api_key", "type": "auth", "link": ""});
        let error = serde_json::from_value(error).unwrap();
        NodeResult { node: node.into(), outcome: NodeOutcome::Refused { status: 403, error } }
    };
    // A node that did not answer the gateway can still be asked by the control plane.
    let silent = NodeResult { node: "n1".into(), outcome: NodeOutcome::Unknown };
    for other in [refused("n1"), silent] {
        let (uid, _) = control.begin("movies", &[1]).await;
        let results = vec![refused("n0"), other];
        let (status, error) = control.internal(COMMIT_PATH, &commit(uid, results)).await;
        assert_eq!((status, &error["code"]), (503, &json!("remote_could_not_send_request")));
        assert_eq!(control.task(uid).await["code"], "task_not_found");
        assert_eq!(
            control.cluster.cluster_state().whole("movies", Shard(1)).count(),
            2,
            "both replicas are still active"
        );
    }
    control.begin("movies", &[1]).await;
}

#[tokio::test]
async fn a_fence_waits_for_a_write_that_begins() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (FakeNode::start().await, FakeNode::start().await);
    let control = control(folder.path(), &[&a, &b]).await;
    let (first, key) = control.begin("movies", &[1]).await;
    let taken = async |uid: u32, key: &str| {
        vec![
            enqueued("n0", a.add_documents("movies", uid, key).await),
            enqueued("n1", b.add_documents("movies", uid, key).await),
        ]
    };
    control.internal(COMMIT_PATH, &commit(first, taken(first, &key).await)).await;
    control.ended(first).await;
    let of_gateway =
        control.cluster.ledger.call(miroir_control::ledger::write_keys::write_keys).await.unwrap();
    let uid = of_gateway
        .iter()
        .find(|write_key| matches!(write_key.holder, Some(WriteKeyHolder::Gateway(_))))
        .unwrap()
        .key;
    let ledger = HeldLedger::new(&control).await;
    let (begun, ()) = tokio::join!(control.begin("movies", &[1]), async {
        until("the write has its key", || control.cluster.open.uses(uid)).await;
        let fence = tokio::spawn({
            let cluster = control.cluster.clone();
            async move { cluster.write_keys.fence(&cluster, uid, Duration::from_secs(20)).await }
        });
        tokio::time::sleep(Duration::from_millis(50)).await;
        ledger.release().await;
        drop(fence);
    });
    let (second, second_key) = begun;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(second_key != key || keys_deleted(&a).is_empty(), "the write has a key that nodes refuse");
    let (status, _) = control.internal(COMMIT_PATH, &commit(second, taken(second, &second_key).await)).await;
    assert_eq!(status, 200);
    until("the key is deleted", || !keys_deleted(&a).is_empty()).await;
}
