use super::*;

pub(super) fn cluster_state(replicas: &[&[&str]]) -> ClusterState {
    let desired: Placement =
        replicas.iter().map(|nodes| nodes.iter().map(|node| (*node).into()).collect()).collect();
    let replicas =
        replicas.iter().map(|nodes| nodes.iter().map(|node| Replica::active(*node)).collect()).collect();
    ClusterState { replicas, desired, ..ClusterState::default() }
}

#[test]
fn the_last_active_replica_stays() {
    let mut cluster_state = cluster_state(&[&["a", "b"], &["a"]]);
    cluster_state.mark_behind("a");
    assert_eq!(cluster_state.active(Shard(0)).collect::<Vec<_>>(), ["b"]);
    assert_eq!(cluster_state.active(Shard(1)).collect::<Vec<_>>(), ["a"]);
    assert!(!cluster_state.mark_stale(Shard(0), "b"));
    assert_eq!(cluster_state.stale_on("a"), [Shard(0)]);
    cluster_state.mark_active(Shard(0), "a");
    assert!(cluster_state.stale_on("a").is_empty());
}

#[test]
fn an_old_copy_is_written_until_it_is_removed_and_gone_before_it_returns() {
    let mut cluster_state = cluster_state(&[&["a", "b"]]);
    cluster_state.version = 4;
    cluster_state.set_desired(vec![vec!["b".into(), "c".into()]]);
    assert!(cluster_state.is_moving());
    // Nothing changes for gateways until the new replica is complete.
    assert_eq!(cluster_state.active(Shard(0)).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(cluster_state.stale_on("c"), [Shard(0)]);
    cluster_state.mark_active(Shard(0), "c");
    assert_eq!(cluster_state.active(Shard(0)).collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(cluster_state.writers("movies", Shard(0)).collect::<Vec<_>>(), ["a", "b", "c"]);
    // The replica is desired again, but its old copy has to be deleted first.
    cluster_state.set_desired(vec![vec!["a".into(), "b".into()]]);
    assert!(cluster_state.stale_on("a").is_empty());
    cluster_state.remove(Shard(0), "a");
    assert_eq!((cluster_state.floor, cluster_state.writers("movies", Shard(0)).count()), (5, 2));
    cluster_state.removed(Shard(0), "a");
    assert_eq!(cluster_state.stale_on("a"), [Shard(0)]);
    cluster_state.mark_active(Shard(0), "a");
    cluster_state.remove(Shard(0), "c");
    cluster_state.removed(Shard(0), "c");
    assert!(!cluster_state.is_moving());
}

#[test]
fn only_what_is_no_replica_is_cleared_away() {
    let mut cluster_state = cluster_state(&[&["a", "b"]]);
    assert!(!cluster_state.mark_misplaced(Shard(0), "a") && !cluster_state.mark_misplaced(Shard(7), "c"));
    assert!(cluster_state.mark_misplaced(Shard(0), "c") && cluster_state.is_moving());
    assert!(!cluster_state.mark_misplaced(Shard(0), "c"), "that is under way");
    // The node should hold the shard from now on, but its misplaced documents have to be deleted first.
    cluster_state.set_desired(vec![vec!["b".into(), "c".into()]]);
    assert!(cluster_state.stale_on("c").is_empty());
    cluster_state.removed(Shard(0), "c");
    assert_eq!(cluster_state.stale_on("c"), [Shard(0)]);
}

#[test]
fn a_rule_that_is_refused_was_never_there() {
    let update =
        |uid: &str| Change::Update { uid: uid.to_owned(), body: serde_json::json!({"active": true}) };
    let mut cluster_state = cluster_state(&[&["a"]]);
    update("one").apply(&mut cluster_state.rules);
    cluster_state.changing.insert(7, Effect::Rules { change: update("two") });
    cluster_state.changing.insert(8, Effect::Rules { change: Change::Clear });
    let names = |rules: Vec<SearchRule>| rules.into_iter().map(|rule| rule.uid).collect::<Vec<_>>();
    assert_eq!(names(cluster_state.rules_in_use()), ["one", "two"]);
    cluster_state.changing.clear();
    assert_eq!(
        (names(cluster_state.rules_in_use()), names(cluster_state.rules)),
        (vec!["one".into()], vec!["one".into()])
    );
}

#[test]
fn gateways_are_told_otherwise_of_what_has_changed_for_them() {
    let mut old = cluster_state(&[&["a"]]);
    for name in ["kept", "gone", "keyed", "set", "setting"] {
        old.indexes.insert(name.into(), Index::default());
    }
    let told = |change: &dyn Fn(&mut ClusterState)| {
        let mut new = old.clone();
        change(&mut new);
        new.changed_names(&old)
    };
    assert!(told(&|_| {}).is_empty());
    let changed = told(&|cluster_state| {
        cluster_state.indexes.remove("gone");
        cluster_state.indexes.insert("new".into(), Index::default());
        cluster_state.indexes.get_mut("kept").unwrap().updated_at = 7;
        cluster_state.indexes.get_mut("keyed").unwrap().primary_key = Some("id".into());
        cluster_state.indexes.get_mut("set").unwrap().settings.insert("pagination".into(), 1.into());
        let effect = Effect::Settings { index: "setting".into(), change: None, creates: false };
        cluster_state.changing.insert(1, effect);
    });
    assert_eq!(changed, ["gone", "keyed", "new", "set", "setting"]);
    let rule = Change::Update { uid: "one".into(), body: serde_json::json!({}) };
    assert_eq!(
        told(&|cluster_state| rule.apply(&mut cluster_state.rules)),
        [crate::domain::search_rules::INDEX]
    );
}

#[test]
fn what_misses_something_or_is_gone_is_lost_and_what_leaves_is_not() {
    let old = cluster_state(&[&["a", "b"]]);
    let lost = |change: &dyn Fn(&mut ClusterState)| {
        let mut new = old.clone();
        change(&mut new);
        (new.has_lost_since(&old), new.has_stale())
    };
    assert_eq!(lost(&|cluster_state| cluster_state.mark_behind("a")), (true, true));
    assert_eq!(lost(&|cluster_state| cluster_state.replicas[0].truncate(1)), (true, false));
    assert_eq!(lost(&|cluster_state| cluster_state.set_desired(vec![vec!["b".into()]])), (false, false));
    assert_eq!(
        lost(&|cluster_state| cluster_state.set_desired(vec![vec!["b".into(), "c".into()]])),
        (false, true)
    );
    let mut leaving = old.clone();
    leaving.set_desired(vec![vec!["b".into()]]);
    let mut missed = leaving.clone();
    assert!(missed.mark_stale(Shard(0), "a"));
    assert!(missed.has_lost_since(&leaving) && missed.has_stale());
    let mut removed = leaving.clone();
    removed.remove(Shard(0), "a");
    assert!(!removed.has_lost_since(&leaving));
}

#[test]
fn an_old_copy_that_misses_a_write_is_written_no_more() {
    let mut cluster_state = cluster_state(&[&["a", "b"]]);
    cluster_state.set_desired(vec![vec!["b".into()]]);
    assert!(cluster_state.mark_stale(Shard(0), "a"));
    assert_eq!(cluster_state.writers("movies", Shard(0)).collect::<Vec<_>>(), ["b"]);
    assert!(!cluster_state.mark_stale(Shard(0), "b"), "the old copy does not count");
}
