use super::*;
use crate::{
    domain::{
        cluster_state::{ClusterState, Index},
        intent::Intent,
        task::TaskKind,
    },
    ledger::{intents, tasks::NewTask},
    node::Call,
    testing::{ClusterBuilder, ManualClock, Reply, Script},
};
use miroir_core::protocol::{WriteOperation, metadata};
use serde_json::{Value, json};
use std::{path::Path, sync::Mutex};

/// The tasks of node `a`, of which a page has three; and the name that their index has where a task is asked for by its uid.
#[derive(Clone, Default)]
struct Tasks(Arc<Mutex<Vec<Value>>>, Arc<Mutex<Option<&'static str>>>);

impl Tasks {
    fn add(&self, metadata: &str) {
        let mut tasks = self.0.lock().unwrap();
        let (uid, moment) = (tasks.len(), format!("moment {}", tasks.len()));
        tasks.push(json!({
            "uid": uid, "indexUid": "books", "status": "succeeded", "customMetadata": metadata, "enqueuedAt": moment,
        }));
    }

    fn answer(&self, call: &Call) -> Reply {
        let query: BTreeMap<String, String> = call.url.query_pairs().into_owned().collect();
        if call.url.path() == "/indexes" || query.contains_key("statuses") {
            return Reply::Answer(200, json!({"results": [], "total": 0}));
        }
        let tasks = self.0.lock().unwrap();
        let from = query.get("from").map_or(0, |from| from.parse().unwrap());
        let uids: Option<Vec<u64>> =
            query.get("uids").map(|uids| uids.split(',').map(|uid| uid.parse().unwrap()).collect());
        let is_asked = |task: &&Value| {
            let uid = task["uid"].as_u64().unwrap();
            uid >= from && uids.as_ref().is_none_or(|uids| uids.contains(&uid))
        };
        let mut found: Vec<Value> = tasks.iter().filter(is_asked).cloned().collect();
        if let (Some(_), Some(name)) = (&uids, *self.1.lock().unwrap()) {
            found.iter_mut().for_each(|task| task["indexUid"] = json!(name));
        }
        let next = found.get(3).map(|task| task["uid"].clone());
        Reply::Answer(200, json!({"results": found[..found.len().min(3)], "next": next}))
    }

    async fn cluster(&self, data: &Path, clock: Arc<ManualClock>) -> Cluster {
        let tasks = self.clone();
        let script = Script::new(move |call| tasks.answer(call));
        let cluster = ClusterBuilder::new(data).transport(script).clock(clock).build();
        let books = |state: &mut ClusterState| {
            let index = Index { primary_key: Some("id".to_owned()), ..Index::default() };
            state.indexes.insert("books".to_owned(), index);
        };
        cluster.change(books).await.unwrap();
        cluster
    }
}

/// A write between begin and commit. Returns its uid.
async fn open_write(cluster: &Cluster) -> u32 {
    let intent = Intent::Write {
        gateway: "g".into(),
        index: "books".into(),
        operation: WriteOperation::DeleteAll,
        writers: vec![(Shard(1), vec!["a".into(), "b".into()])],
        begun: String::new(),
    };
    let task = NewTask { kind: TaskKind::DocumentDeletion, ..NewTask::default() };
    cluster.ledger.call(move |connection| intents::begin(connection, &task, &intent, 1)).await.unwrap().uid
}

/// It is decided, without the node's part.
async fn decide(cluster: &Cluster, uid: u32) {
    let missed = BTreeMap::from([("a".into(), vec![Shard(1)])]);
    let sent = cluster.ledger.call(move |connection| {
        stored::store_missed(connection, uid, &missed)?;
        intents::sent(connection, uid, &[])
    });
    sent.await.unwrap();
}

async fn look(cluster: &Cluster) -> (BTreeMap<u32, u32>, Vec<Shard>) {
    let node = cluster.node("a").unwrap();
    let open = examine(cluster, &node).await.unwrap();
    (open, stale_in(cluster, "books"))
}

/// The shards of which node `a` misses something of an index.
fn stale_in(cluster: &Cluster, index: &str) -> Vec<Shard> {
    let cluster_state = cluster.cluster_state();
    let of_a = cluster_state.stale.iter().filter(|(of, node, ..)| (*of, node.as_str()) == (index, "a"));
    of_a.map(|(_, _, shard, _)| shard).collect()
}

#[tokio::test]
async fn tasks_of_open_writes_are_found_on_all_pages_and_are_late_where_the_decision_lacks_them() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = Tasks::default();
    let cluster = tasks.cluster(folder.path(), ManualClock::new()).await;
    let (first, second) = (open_write(&cluster).await, open_write(&cluster).await);
    tasks.add(&metadata(first));
    (0..7).for_each(|_| tasks.add("a client's own"));
    tasks.add(&metadata(second));
    let found = BTreeMap::from([(first, 0), (second, 8)]);
    assert_eq!(look(&cluster).await, (found.clone(), Vec::new()));
    assert_eq!(look(&cluster).await, (found, Vec::new()), "they are not decided yet");
    decide(&cluster, first).await;
    assert_eq!(look(&cluster).await, (BTreeMap::from([(second, 8)]), vec![Shard(1)]));
    assert_eq!(cluster.late_tasks.seen(&"a".into()), 1);
    let counted = intents_of(second, 8);
    cluster.ledger.call(move |connection| intents::sent(connection, second, &counted)).await.unwrap();
    assert_eq!(look(&cluster).await.0, BTreeMap::new());
    assert_eq!(cluster.late_tasks.seen(&"a".into()), 1, "a decision that counts a task is no late one");
    tasks.add(&metadata(second));
    look(&cluster).await;
    assert_eq!(cluster.late_tasks.seen(&"a".into()), 2, "the node has it twice");
}

fn intents_of(_: u32, node_task: u32) -> Vec<crate::domain::intent::NodeTask> {
    vec![crate::domain::intent::NodeTask { node: "a".into(), node_task, main: true, shards: vec![Shard(1)] }]
}

#[tokio::test]
async fn a_restart_goes_on_where_it_was_and_misses_nothing_in_between() {
    let folder = tempfile::tempdir().unwrap();
    let (tasks, clock) = (Tasks::default(), ManualClock::new());
    let first = tasks.cluster(folder.path(), clock.clone()).await;
    // What is in a list when it is seen for the first time is from before, unless its write is open.
    tasks.add(&metadata(77));
    look(&first).await;
    let uid = open_write(&first).await;
    tasks.add(&metadata(uid));
    clock.advance(STORED_EVERY);
    look(&first).await;
    drop(first);
    let second = tasks.cluster(folder.path(), clock.clone()).await;
    assert_eq!(look(&second).await, (BTreeMap::from([(uid, 1)]), Vec::new()), "the write is still open");
    let forgotten = open_write(&second).await;
    decide(&second, forgotten).await;
    second.ledger.call(move |connection| crate::ledger::tasks::forget(connection, forgotten)).await.unwrap();
    let deleted = open_write(&second).await;
    second.ledger.call(move |connection| crate::ledger::tasks::take_back(connection, deleted)).await.unwrap();
    drop(second);
    tasks.add(&metadata(forgotten));
    tasks.add(&metadata(deleted));
    let third = tasks.cluster(folder.path(), clock).await;
    assert_eq!(look(&third).await, (BTreeMap::from([(uid, 1)]), vec![Shard(1)]));
    assert_eq!(
        third.late_tasks.seen(&"a".into()),
        1,
        "one came in between, and another is of a write that was taken back"
    );
}

#[tokio::test]
async fn the_list_of_another_disk_is_read_from_its_beginning() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = Tasks::default();
    let cluster = tasks.cluster(folder.path(), ManualClock::new()).await;
    (0..5).for_each(|_| tasks.add("before"));
    look(&cluster).await;
    tasks.0.lock().unwrap().clear();
    let uid = open_write(&cluster).await;
    tasks.add("on the new disk");
    tasks.0.lock().unwrap()[0]["enqueuedAt"] = json!("another moment");
    tasks.add(&metadata(uid));
    assert!(cluster.cluster_state().behind.is_empty());
    assert_eq!(look(&cluster).await.0, BTreeMap::from([(uid, 1)]));
    assert!(cluster.cluster_state().behind.contains("a"), "nothing on this disk is trusted");
    let is_whole_again = |state: &mut ClusterState| {
        state.behind.clear();
        state.shards().collect::<Vec<_>>().iter().for_each(|shard| state.mark_active(*shard, "a"));
    };
    cluster.change(is_whole_again).await.unwrap();
    // As long as before, and not the same.
    (0..9).for_each(|_| tasks.add("later"));
    assert_eq!(look(&cluster).await.0, BTreeMap::from([(uid, 1)]));
    decide(&cluster, uid).await;
    assert_eq!(look(&cluster).await.1, [Shard(1)]);
}

#[tokio::test]
async fn late_documents_of_an_index_that_is_gone_or_made_again_leave_their_node_behind() {
    let gone = |state: &mut ClusterState| state.indexes.clear();
    let made_again = |state: &mut ClusterState| {
        state.indexes.insert("books".to_owned(), Index::default());
    };
    for change in [gone, made_again] {
        let folder = tempfile::tempdir().unwrap();
        let tasks = Tasks::default();
        let cluster = tasks.cluster(folder.path(), ManualClock::new()).await;
        look(&cluster).await;
        cluster.change(change).await.unwrap();
        let uid = open_write(&cluster).await;
        decide(&cluster, uid).await;
        tasks.add(&metadata(uid));
        look(&cluster).await;
        assert!(cluster.cluster_state().behind.contains("a"));
    }
}

#[tokio::test]
async fn registrations_of_before_a_restart_stay_unsettled_until_it_is_known_what_nodes_have() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = Tasks::default();
    let cluster = tasks.cluster(folder.path(), ManualClock::new()).await;
    look(&cluster).await;
    let registration = TaskMark::Copy { request: Uuid::from_u128(1), shards: Vec::new() };
    tasks.add(&registration.to_string());
    cluster.change(|state| state.indexes.clear()).await.unwrap();
    look(&cluster).await;
    let unsettled = async || cluster.late_tasks.tail(&"a".into()).lock().await.unsettled.len();
    assert_eq!(unsettled().await, 1);
    assert!(cluster.cluster_state().behind.is_empty(), "what was interrupted is not resumed yet");
    cluster.set_ready();
    look(&cluster).await;
    assert_eq!(unsettled().await, 0);
}

#[tokio::test]
async fn a_late_task_makes_replicas_stale_in_its_own_index_under_each_name_that_it_may_have() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = Tasks::default();
    let cluster = tasks.cluster(folder.path(), ManualClock::new()).await;
    for index in ["old", "other"] {
        let add = |state: &mut ClusterState| {
            let with_key = Index { primary_key: Some("id".to_owned()), ..Index::default() };
            state.indexes.insert(index.to_owned(), with_key);
        };
        cluster.change(add).await.unwrap();
    }
    look(&cluster).await;
    // The index is being renamed: nodes may have the documents under either name.
    let renaming = cluster.locks.lock(crate::cluster::locks::Scope::indexes(["books", "old"])).await;
    let uid = open_write(&cluster).await;
    decide(&cluster, uid).await;
    tasks.add(&metadata(uid));
    assert_eq!(look(&cluster).await.1, [Shard(1)]);
    assert_eq!((stale_in(&cluster, "old"), stale_in(&cluster, "other")), (vec![Shard(1)], Vec::new()));
    drop(renaming);
    // The node had renamed it before it was asked what the task wrote to.
    cluster.change(|state| state.stale = Default::default()).await.unwrap();
    let uid = open_write(&cluster).await;
    decide(&cluster, uid).await;
    tasks.add(&metadata(uid));
    *tasks.1.lock().unwrap() = Some("old");
    look(&cluster).await;
    assert_eq!(stale_in(&cluster, "old"), [Shard(1)]);
    assert!(stale_in(&cluster, "other").is_empty());
    assert!(cluster.cluster_state().stale_on("a").is_empty(), "as a whole it is not stale");
}

#[tokio::test]
async fn copies_are_late_that_nobody_waits_for() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = Tasks::default();
    let cluster = tasks.cluster(folder.path(), ManualClock::new()).await;
    look(&cluster).await;
    let mark = |request: u128, shard| TaskMark::Copy {
        request: Uuid::from_u128(request),
        shards: vec![Shard(shard)],
    };
    let answered = cluster.late_tasks.copying(&"a".into(), Uuid::from_u128(1));
    tasks.add(&mark(1, 1).to_string());
    look(&cluster).await;
    answered.answered(Some(0));
    look(&cluster).await;
    assert_eq!(cluster.late_tasks.seen(&"a".into()), 0);
    let given_up = cluster.late_tasks.copying(&"a".into(), Uuid::from_u128(2));
    tasks.add(&mark(2, 2).to_string());
    assert!(look(&cluster).await.1.is_empty(), "its answer may still come");
    drop(given_up);
    assert_eq!(look(&cluster).await.1, [Shard(2)]);
    tasks.add(&mark(3, 3).to_string());
    assert_eq!(look(&cluster).await.1, [Shard(2), Shard(3)], "it is from before a restart");
}

#[tokio::test]
async fn a_task_of_a_write_that_the_ledger_has_not_begun_shows_that_it_is_not_the_newest() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = Tasks::default();
    let cluster = tasks.cluster(folder.path(), ManualClock::new()).await;
    let known = open_write(&cluster).await;
    tasks.add(&metadata(known + 1));
    look(&cluster).await;
    assert!(!cluster.instance.is_stopped(), "it is from before the node joined");
    let copy = TaskMark::Copy { request: Uuid::from_u128(1), shards: vec![Shard(2)] };
    (0..3).for_each(|_| tasks.add(&copy.to_string()));
    tasks.add(&metadata(known + 1));
    let node = cluster.node("a").unwrap();
    let error = examine(&cluster, &node).await.unwrap_err().to_string();
    assert!(
        error.contains("node `a` has taken a write with the task uid 1")
            && error.contains("`miroir recover`"),
        "{error}"
    );
    assert!(cluster.instance.is_stopped() && !cluster.is_ready());
    assert!(
        cluster.cluster_state().stale_on("a").is_empty(),
        "nothing follows from what an older ledger does not know"
    );
}

#[tokio::test]
async fn what_a_node_has_done_elsewhere_does_not_count() {
    let folder = tempfile::tempdir().unwrap();
    let tasks = Tasks::default();
    let cluster = tasks.cluster(folder.path(), ManualClock::new()).await;
    tasks.add("before");
    look(&cluster).await;
    let member = cluster.cluster_state().nodes[0].clone();
    cluster.change(|state| drop(state.nodes.remove(0))).await.unwrap();
    tasks.add(&metadata(99));
    cluster.change(|state| state.nodes.insert(0, member)).await.unwrap();
    look(&cluster).await;
    assert!(!cluster.instance.is_stopped());
}
