use super::*;

fn view(replicas: &[&[&str]]) -> View {
    let desired: Placement =
        replicas.iter().map(|nodes| nodes.iter().map(|node| (*node).to_owned()).collect()).collect();
    let replicas =
        replicas.iter().map(|nodes| nodes.iter().map(|node| Replica::active(*node)).collect()).collect();
    View { replicas, desired, ..View::default() }
}

#[test]
fn the_last_active_replica_stays() {
    let mut view = view(&[&["a", "b"], &["a"]]);
    view.mark_behind("a");
    assert_eq!(view.active(Shard(0)).collect::<Vec<_>>(), ["b"]);
    assert_eq!(view.active(Shard(1)).collect::<Vec<_>>(), ["a"]);
    assert!(!view.mark_stale(Shard(0), "b"));
    assert_eq!(view.stale_on("a"), [Shard(0)]);
    view.mark_active(Shard(0), "a");
    assert!(view.stale_on("a").is_empty());
}

#[test]
fn an_old_copy_is_written_until_it_is_removed_and_gone_before_it_returns() {
    let mut view = view(&[&["a", "b"]]);
    view.version = 4;
    view.set_desired(vec![vec!["b".into(), "c".into()]]);
    assert!(view.is_moving());
    // Nothing changes for gateways until the new replica is complete.
    assert_eq!(view.active(Shard(0)).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(view.stale_on("c"), [Shard(0)]);
    view.mark_active(Shard(0), "c");
    assert_eq!(view.active(Shard(0)).collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(view.writers(Shard(0)).collect::<Vec<_>>(), ["a", "b", "c"]);
    // The replica is desired again, but its old copy has to be deleted first.
    view.set_desired(vec![vec!["a".into(), "b".into()]]);
    assert!(view.stale_on("a").is_empty());
    view.remove(Shard(0), "a");
    assert_eq!((view.floor, view.writers(Shard(0)).count()), (5, 2));
    view.removed(Shard(0), "a");
    assert_eq!(view.stale_on("a"), [Shard(0)]);
    view.mark_active(Shard(0), "a");
    view.remove(Shard(0), "c");
    view.removed(Shard(0), "c");
    assert!(!view.is_moving());
}

#[test]
fn only_what_is_no_replica_is_cleared_away() {
    let mut view = view(&[&["a", "b"]]);
    assert!(!view.clear_away(Shard(0), "a") && !view.clear_away(Shard(7), "c"));
    assert!(view.clear_away(Shard(0), "c") && view.is_moving());
    assert!(!view.clear_away(Shard(0), "c"), "that is under way");
    // The node should hold the shard from now on, but its misplaced documents have to be deleted first.
    view.set_desired(vec![vec!["b".into(), "c".into()]]);
    assert!(view.stale_on("c").is_empty());
    view.removed(Shard(0), "c");
    assert_eq!(view.stale_on("c"), [Shard(0)]);
}

#[test]
fn a_rule_that_is_refused_was_never_there() {
    let update =
        |uid: &str| Change::Update { uid: uid.to_owned(), body: serde_json::json!({"active": true}) };
    let mut view = view(&[&["a"]]);
    update("one").apply(&mut view.rules);
    view.changing.insert(7, Effect::Rules { change: update("two") });
    view.changing.insert(8, Effect::Rules { change: Change::Clear });
    let names = |rules: Vec<Rule>| rules.into_iter().map(|rule| rule.uid).collect::<Vec<_>>();
    assert_eq!(names(view.rules_in_use()), ["one", "two"]);
    view.changing.clear();
    assert_eq!((names(view.rules_in_use()), names(view.rules)), (vec!["one".into()], vec!["one".into()]));
}

#[test]
fn gateways_are_told_otherwise_of_what_has_changed_for_them() {
    let mut old = view(&[&["a"]]);
    for name in ["kept", "gone", "keyed", "set", "setting"] {
        old.indexes.insert(name.into(), Index::default());
    }
    let told = |change: &dyn Fn(&mut View)| {
        let mut new = old.clone();
        change(&mut new);
        new.told_otherwise(&old)
    };
    assert!(told(&|_| {}).is_empty());
    let changed = told(&|view| {
        view.indexes.remove("gone");
        view.indexes.insert("new".into(), Index::default());
        view.indexes.get_mut("kept").unwrap().updated_at = 7;
        view.indexes.get_mut("keyed").unwrap().primary_key = Some("id".into());
        view.indexes.get_mut("set").unwrap().settings.insert("pagination".into(), 1.into());
        let effect = Effect::Settings { index: "setting".into(), change: None, creates: false };
        view.changing.insert(1, effect);
    });
    assert_eq!(changed, ["gone", "keyed", "new", "set", "setting"]);
    let rule = Change::Update { uid: "one".into(), body: serde_json::json!({}) };
    assert_eq!(told(&|view| rule.apply(&mut view.rules)), [crate::domain::search_rules::INDEX]);
}

#[test]
fn what_misses_something_or_is_gone_is_lost_and_what_leaves_is_not() {
    let old = view(&[&["a", "b"]]);
    let lost = |change: &dyn Fn(&mut View)| {
        let mut new = old.clone();
        change(&mut new);
        (new.has_lost_since(&old), new.has_stale())
    };
    assert_eq!(lost(&|view| view.mark_behind("a")), (true, true));
    assert_eq!(lost(&|view| view.replicas[0].truncate(1)), (true, false));
    assert_eq!(lost(&|view| view.set_desired(vec![vec!["b".into()]])), (false, false));
    assert_eq!(lost(&|view| view.set_desired(vec![vec!["b".into(), "c".into()]])), (false, true));
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
    let mut view = view(&[&["a", "b"]]);
    view.set_desired(vec![vec!["b".into()]]);
    assert!(view.mark_stale(Shard(0), "a"));
    assert_eq!(view.writers(Shard(0)).collect::<Vec<_>>(), ["b"]);
    assert!(!view.mark_stale(Shard(0), "b"), "the old copy does not count");
}
