use super::*;
use crate::domain::cluster_state::Replica;

const SHARD: Shard = Shard(0);

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
    assert!(moved.withdraw(SHARD, |node| node == "b"));
    assert_eq!(moved.active(SHARD).collect::<Vec<_>>(), ["a"]);
    assert_eq!(moved.stale_on("b"), [SHARD]);
    // Once the new replica is complete, the old one leaves again.
    moved.mark_active(SHARD, "b");
    assert_eq!(moved.active(SHARD).collect::<Vec<_>>(), ["b"]);
    assert_eq!(moved.writers(SHARD).collect::<Vec<_>>(), ["a", "b"]);
}

#[test]
fn nothing_changes_where_no_complete_replica_would_be_left() {
    let gone = ReplicaState::Leaving { since: 3, written: false };
    for other in [ReplicaState::Stale, ReplicaState::Removing, gone] {
        let mut state = cluster_state(&[("a", other), ("b", ReplicaState::Active)]);
        let before = state.clone();
        assert!(!state.withdraw(SHARD, |node| node == "b"));
        assert!(!state.distrust(SHARD, "b"));
        assert_eq!(state, before);
    }
    let mut both = cluster_state(&[("a", LEAVING), ("b", ReplicaState::Active)]);
    assert!(!both.withdraw(SHARD, |_| true));
    assert!(!both.withdraw(Shard(7), |_| false), "there is no such shard");
}

#[test]
fn what_a_node_took_late_is_no_more_read_there() {
    let mut state = cluster_state(&[("a", ReplicaState::Active), ("b", ReplicaState::Active)]);
    assert!(state.distrust(SHARD, "a") && state.distrust(SHARD, "a"));
    assert_eq!(state.active(SHARD).collect::<Vec<_>>(), ["b"]);
    assert!(state.distrust(SHARD, "c"));
    assert_eq!(state.replica(SHARD, "c").map(|replica| replica.state), Some(ReplicaState::Removing));
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
