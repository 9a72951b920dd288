use super::*;
use crate::{
    cluster::moves::recording::{IndexChanges, RecordedWrites},
    domain::cluster_state::{Index, Missed},
    testing::{ClusterBuilder, Reply, Script},
};
use miroir_core::shard::tag_filter;
use serde_json::json;
use std::sync::atomic::{AtomicU32, Ordering};

#[tokio::test(start_paused = true)]
async fn work_that_panics_is_free_again_after_a_pause() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = Arc::new(ClusterBuilder::new(folder.path()).build());
    let runs = Arc::new(AtomicU32::new(0));
    let look = || {
        let runs = runs.clone();
        Mover::alone(&cluster, "fill a".to_owned(), |_| async move {
            runs.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_millis(10)).await;
            panic!("on purpose")
        });
    };
    for _ in 0..3 {
        look();
        tokio::time::sleep(PAUSE / 2).await;
    }
    assert_eq!(runs.load(Ordering::Relaxed), 1, "it is not started again and again");
    look();
    tokio::time::sleep(PAUSE / 2).await;
    assert_eq!(runs.load(Ordering::Relaxed), 2);
    assert_eq!(cluster.supervisor.failures().get(MOVER), Some(&2));
}

#[tokio::test]
async fn a_copy_ends_whose_source_was_not_complete_all_the_time() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = ["a", "b", "c"].map(|name| format!("{name}=http://{name}:7700"));
    let cluster = Arc::new(ClusterBuilder::new(folder.path()).nodes(nodes).build());
    let shard = Shard(0);
    cluster.change(|state| _ = state.mark_stale(shard, "b")).await.unwrap();
    let [source, target] = ["a", "b"].map(|name| cluster.node(name).unwrap());
    let shards = [shard];
    let begin = || Move::new(&cluster, &source, &target, None, &shards, cluster.mover.changes.newest());
    let copy = begin();
    assert!(copy.is_wanted(shard));
    // What becomes of others does not matter.
    cluster.change(|state| _ = state.mark_stale(shard, "c")).await.unwrap();
    cluster.change(|state| state.mark_active(shard, "c")).await.unwrap();
    assert!(copy.is_wanted(shard));
    cluster.change(|state| _ = state.mark_stale(shard, "a")).await.unwrap();
    assert!(!copy.is_wanted(shard));
    cluster.change(|state| state.mark_active(shard, "a")).await.unwrap();
    assert!(!copy.is_wanted(shard), "it is complete again, and what was copied from it may not be");
    assert!(begin().is_wanted(shard));
}

#[tokio::test]
async fn a_copy_of_one_index_does_not_mind_what_its_nodes_miss_of_others() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = ["a", "b", "c"].map(|name| format!("{name}=http://{name}:7700"));
    let cluster = Arc::new(ClusterBuilder::new(folder.path()).nodes(nodes).build());
    let shards = [Shard(0)];
    let [shard] = shards;
    let misses = async |index: &str, node: &str, missed: Missed| {
        let mark = |state: &mut ClusterState| _ = state.mark_missed(index, shard, node, missed);
        cluster.change(mark).await.unwrap();
    };
    let has = async |index: &str, node: &str| {
        cluster.change(|state| state.mark_whole(index, shard, node)).await.unwrap();
    };
    misses("written", "b", Missed::Recorded).await;
    let [source, target] = ["a", "b"].map(|name| cluster.node(name).unwrap());
    let begin =
        || Move::new(&cluster, &source, &target, Some("written"), &shards, cluster.mover.changes.newest());
    let copy = begin();
    for node in ["a", "b"] {
        misses("other", node, Missed::Recorded).await;
        assert!(copy.is_wanted(shard));
        has("other", node).await;
        assert!(copy.is_wanted(shard));
    }
    misses("written", "b", Missed::Anything).await;
    assert!(!copy.is_wanted(shard), "it misses more than what is copied");
    let copy = begin();
    misses("written", "a", Missed::Recorded).await;
    assert!(!copy.is_wanted(shard));
    has("written", "a").await;
    assert!(!copy.is_wanted(shard), "what was copied may lack what the source missed");
    assert!(begin().is_wanted(shard));
    has("written", "b").await;
    assert!(!begin().is_wanted(shard));
    // A copy of all indexes minds each of them.
    cluster.change(|state| _ = state.mark_stale(shard, "b")).await.unwrap();
    let whole = || Move::new(&cluster, &source, &target, None, &shards, cluster.mover.changes.newest());
    let copy = whole();
    assert!(copy.is_wanted(shard));
    misses("other", "a", Missed::Recorded).await;
    has("other", "a").await;
    assert!(!copy.is_wanted(shard) && whole().is_wanted(shard));
}

#[tokio::test]
async fn what_changes_before_a_copy_begins_makes_it_worthless() {
    let folder = tempfile::tempdir().unwrap();
    let nodes = ["a", "b"].map(|name| format!("{name}=http://{name}:7700"));
    let cluster = Arc::new(ClusterBuilder::new(folder.path()).nodes(nodes).build());
    let (shard, shards) = (Shard(0), [Shard(0)]);
    let misses = async |missed| {
        let mark = |state: &mut ClusterState| _ = state.mark_missed("books", shard, "b", missed);
        cluster.change(mark).await.unwrap();
    };
    misses(Missed::Recorded).await;
    let found = cluster.mover.changes.newest();
    let [source, target] = ["a", "b"].map(|name| cluster.node(name).unwrap());
    let copy = || Move::new(&cluster, &source, &target, Some("books"), &shards, found);
    assert!(copy().is_wanted(shard));
    // Late requests are fenced meanwhile; an operation makes it unknown what the replica misses.
    misses(Missed::Anything).await;
    assert!(!copy().is_wanted(shard), "the ids that it was to get are forgotten");
}

#[tokio::test]
async fn a_copy_leaves_replicas_alone_that_are_not_stale_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let script =
        Script::new(|_| Reply::Answer(200, json!({"results": [], "offset": 0, "limit": 1, "total": 0})));
    let nodes = ["a", "b"].map(|name| format!("{name}=http://{name}:7700"));
    let builder = ClusterBuilder::new(folder.path()).nodes(nodes).transport(script.clone());
    let cluster = Arc::new(builder.build());
    let shards = [Shard(0), Shard(1)];
    let begin = |state: &mut ClusterState| {
        let index = Index { primary_key: Some("id".into()), ..Index::default() };
        state.indexes.insert("books".into(), index);
        shards.iter().for_each(|shard| _ = state.mark_stale(*shard, "b"));
    };
    cluster.change(begin).await.unwrap();
    let [source, target] = ["a", "b"].map(|name| cluster.node(name).unwrap());
    let found = cluster.mover.changes.newest();
    let mut copy = Copy::new(Move::new(&cluster, &source, &target, None, &shards, found));
    let all = RecordedWrites::from([("books".to_owned(), IndexChanges::All)]);
    let asked_for = |shards: &[Shard]| {
        let filter = json!(tag_filter(shards)).to_string();
        let calls = script.calls();
        calls.iter().filter(|call| String::from_utf8_lossy(&call.body).contains(&filter)).count()
    };
    copy.again(&all).await.unwrap();
    assert!(asked_for(&shards) > 0);
    let before = script.calls().len();
    cluster.change(|state| state.mark_active(Shard(0), "b")).await.unwrap();
    copy.again(&all).await.unwrap();
    assert!(asked_for(&[Shard(1)]) > 0 && asked_for(&[Shard(0)]) == 0);
    assert_eq!(asked_for(&shards), before - 1, "besides documents without a tag");
    let before = script.calls().len();
    cluster.change(|state| state.mark_active(Shard(1), "b")).await.unwrap();
    copy.again(&all).await.unwrap();
    assert_eq!(script.calls().len(), before);
}
