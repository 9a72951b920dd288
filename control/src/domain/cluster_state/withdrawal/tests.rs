use super::*;
use crate::domain::cluster_state::Replica;

const SHARD: Shard = Shard(0);
const INDEX: &str = "movies";

fn cluster_state(replicas: &[(&str, ReplicaState)]) -> ClusterState {
    let replicas = replicas.iter().map(|(node, state)| Replica { node: (*node).into(), state: *state });
    ClusterState {
        replicas: vec![replicas.collect()],
        desired: vec![vec!["b".into()]],
        ..ClusterState::default()
    }
}

const LEAVING: ReplicaState = ReplicaState::Leaving { since: 3, written: true };

#[test]
fn an_old_copy_that_has_a_write_takes_the_place_of_a_replica_that_lacks_it() {
    let mut moved = cluster_state(&[("a", LEAVING), ("b", ReplicaState::Active)]);
    assert!(moved.withdraw(INDEX, SHARD, |node| node == "b", Missed::Recorded));
    assert_eq!(moved.whole(INDEX, SHARD).collect::<Vec<_>>(), ["a"]);
    assert_eq!(moved.stale.get(INDEX, "b", SHARD), Some(Missed::Recorded));
    assert_eq!(moved.active(SHARD).collect::<Vec<_>>(), ["a", "b"], "of other indexes b has everything");
    // Once the new replica is complete, the old one leaves again.
    moved.mark_whole(INDEX, SHARD, "b");
    assert_eq!(moved.active(SHARD).collect::<Vec<_>>(), ["b"]);
    assert_eq!(moved.writers(INDEX, SHARD).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn nothing_changes_where_no_complete_replica_would_be_left() {
    let gone = ReplicaState::Leaving { since: 3, written: false };
    for other in [ReplicaState::Stale, ReplicaState::Removing, gone] {
        let mut state = cluster_state(&[("a", other), ("b", ReplicaState::Active)]);
        let before = state.clone();
        assert!(!state.withdraw(INDEX, SHARD, |node| node == "b", Missed::Anything));
        assert!(!state.distrust(INDEX, SHARD, "b"));
        assert_eq!(state, before);
    }
    let mut both = cluster_state(&[("a", LEAVING), ("b", ReplicaState::Active)]);
    assert!(!both.withdraw(INDEX, SHARD, |_| true, Missed::Anything));
    assert!(!both.withdraw(INDEX, Shard(7), |_| false, Missed::Anything), "there is no such shard");
}

#[test]
fn what_a_node_took_late_is_no_more_read_there() {
    let mut state = cluster_state(&[("a", ReplicaState::Active), ("b", ReplicaState::Active)]);
    assert!(state.distrust(INDEX, SHARD, "a") && state.distrust(INDEX, SHARD, "a"));
    assert_eq!(state.whole(INDEX, SHARD).collect::<Vec<_>>(), ["b"]);
    assert_eq!(state.whole("other", SHARD).collect::<Vec<_>>(), ["a", "b"]);
    assert!(state.distrust(INDEX, SHARD, "c"));
    assert_eq!(state.replica(SHARD, "c").map(|replica| replica.state), Some(ReplicaState::Removing));
}

#[test]
fn a_replica_that_is_stale_in_an_index_does_not_stand_in_for_it() {
    let mut state = cluster_state(&[("a", ReplicaState::Active), ("b", ReplicaState::Active)]);
    assert!(state.mark_missed(INDEX, SHARD, "a", Missed::Recorded));
    // The write was sent to b alone, which has failed it.
    let before = state.clone();
    assert!(!state.withdraw(INDEX, SHARD, |node| node == "b", Missed::Recorded));
    assert_eq!(state, before);
    // Of another index both have everything.
    assert!(state.withdraw("other", SHARD, |node| node == "b", Missed::Recorded));
    assert_eq!(state.whole("other", SHARD).collect::<Vec<_>>(), ["a"]);
    assert_eq!(state.whole(INDEX, SHARD).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn an_emptied_disk_takes_no_copy_with_it() {
    for other in [ReplicaState::Stale, LEAVING] {
        let mut state = cluster_state(&[("a", other), ("b", ReplicaState::Active)]);
        state.lose_disk("b");
        assert_eq!(state.active(SHARD).collect::<Vec<_>>(), ["a"], "it may lack a write, and has the others");
        assert_eq!(state.stale_on("b"), [SHARD]);
        assert!(state.behind.contains("b"));
    }
    let copies = [("a", ReplicaState::Stale), ("b", ReplicaState::Active), ("c", ReplicaState::Stale)];
    for (behind, kept) in [("a", "c"), ("c", "a")] {
        let mut state = cluster_state(&copies);
        state.mark_behind(behind);
        state.lose_disk("b");
        assert_eq!(state.active(SHARD).collect::<Vec<_>>(), [kept], "{behind} may lack more");
        state.lose_disk(kept);
        assert_eq!(state.active(SHARD).count(), 1, "of those that are left, one stays");
    }
    let mut whole = cluster_state(&[("a", ReplicaState::Active), ("b", ReplicaState::Active)]);
    whole.lose_disk("a");
    assert_eq!(whole.active(SHARD).collect::<Vec<_>>(), ["b"]);
    let mut removed = cluster_state(&[("a", ReplicaState::Removing), ("b", ReplicaState::Active)]);
    removed.lose_disk("b");
    assert_eq!(removed.active(SHARD).collect::<Vec<_>>(), ["b"], "its documents are being deleted");
}

#[test]
fn an_emptied_disk_takes_no_copy_of_an_index_with_it() {
    let active = ReplicaState::Active;
    let mut state = cluster_state(&[("a", active), ("b", active), ("c", active)]);
    assert!(state.mark_missed(INDEX, SHARD, "a", Missed::Anything));
    assert!(state.mark_missed(INDEX, SHARD, "c", Missed::Recorded));
    state.lose_disk("b");
    assert_eq!(state.whole(INDEX, SHARD).collect::<Vec<_>>(), ["c"], "it lacks less");
    assert_eq!(state.stale.get(INDEX, "a", SHARD), Some(Missed::Anything));
    assert_eq!(state.whole("other", SHARD).collect::<Vec<_>>(), ["a", "c"]);
    assert_eq!(state.stale_on("b"), [SHARD]);
    state.lose_disk("c");
    assert_eq!(state.whole(INDEX, SHARD).collect::<Vec<_>>(), ["a"]);
}
