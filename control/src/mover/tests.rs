use super::*;
use crate::{domain::cluster_state::Missed, testing::ClusterBuilder};
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
    let begin = || Move::new(&cluster, &source, &target, None, &shards);
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
    let begin = || Move::new(&cluster, &source, &target, Some("written"), &shards);
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
    let whole = || Move::new(&cluster, &source, &target, None, &shards);
    let copy = whole();
    assert!(copy.is_wanted(shard));
    misses("other", "a", Missed::Recorded).await;
    has("other", "a").await;
    assert!(!copy.is_wanted(shard) && whole().is_wanted(shard));
}
