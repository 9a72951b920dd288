use super::{tests::cluster_state, *};
use proptest::prelude::*;

const NODES: [&str; 3] = ["a", "b", "c"];
const INDEXES: [&str; 2] = ["at-rest", "written"];

#[test]
fn a_replica_is_stale_in_the_index_that_it_missed_a_write_to() {
    let old = cluster_state(&[&["a", "b"], &["a", "b"]]);
    let mut new = old.clone();
    assert!(new.mark_missed("written", Shard(0), "b", Missed::Recorded));
    assert!(new.has_lost_since(&old) && new.has_stale());
    assert!(!new.is_whole("written", Shard(0), "b") && new.is_whole("written", Shard(1), "b"));
    assert_eq!(new.whole("at-rest", Shard(0)).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(new.writers("written", Shard(0)).collect::<Vec<_>>(), ["a"]);
    assert_eq!(new.writers("at-rest", Shard(0)).collect::<Vec<_>>(), ["a", "b"]);
    assert!(new.stale_on("b").is_empty(), "as a whole it is not stale");
    let mut again = new.clone();
    assert!(again.mark_missed("written", Shard(0), "b", Missed::Anything));
    assert!(!again.has_lost_since(&new), "nobody read it");
    assert!(again.mark_missed("written", Shard(0), "b", Missed::Recorded));
    assert_eq!(again.stale.get("written", "b", Shard(0)), Some(Missed::Anything));
    again.mark_whole("written", Shard(0), "b");
    assert_eq!(again, old);
}

#[test]
fn the_last_replica_of_an_index_stays_whatever_it_misses() {
    let mut state = cluster_state(&[&["a", "b"]]);
    assert!(state.mark_missed("written", Shard(0), "b", Missed::Recorded));
    assert!(!state.mark_missed("written", Shard(0), "a", Missed::Recorded));
    assert!(!state.mark_stale(Shard(0), "a"), "it alone has all of one index");
    assert!(state.mark_missed("at-rest", Shard(0), "a", Missed::Recorded));
    assert!(!state.mark_stale(Shard(0), "b"), "each has all of an index");
    state.mark_whole("at-rest", Shard(0), "a");
    assert!(state.mark_stale(Shard(0), "b") && state.stale.is_empty());
    assert_eq!(state.stale_on("b"), [Shard(0)]);
}

#[test]
fn an_old_copy_leaves_once_the_others_have_everything() {
    let mut state = cluster_state(&[&["a", "b"]]);
    state.set_desired(vec![vec!["b".into(), "c".into()]]);
    assert!(state.mark_missed("written", Shard(0), "b", Missed::Recorded));
    state.mark_active(Shard(0), "c");
    assert!(state.has_everything(Shard(0), "a"), "b lacks something that a and c have");
    state.mark_whole("written", Shard(0), "b");
    assert_eq!(state.active(Shard(0)).collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(state.writers("written", Shard(0)).collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn an_old_copy_that_misses_something_is_not_written_any_more() {
    let mut state = cluster_state(&[&["a", "b"]]);
    assert!(state.mark_missed("written", Shard(0), "a", Missed::Recorded));
    state.set_desired(vec![vec!["b".into()]]);
    assert_eq!(state.writers("at-rest", Shard(0)).collect::<Vec<_>>(), ["b"]);
    assert!(state.stale.is_empty() && state.has_stale());
}

#[test]
fn indexes_that_are_swapped_are_stale_together() {
    let mut state = cluster_state(&[&["a", "b"]]);
    assert!(state.mark_missed("one", Shard(0), "b", Missed::Recorded));
    let names = ["one", "other"].into();
    state.spread_stale(&names).unwrap();
    assert_eq!(state.stale.get("one", "b", Shard(0)), Some(Missed::Anything));
    assert_eq!(state.stale.get("other", "b", Shard(0)), Some(Missed::Anything));
    let mut torn = cluster_state(&[&["a", "b"]]);
    assert!(torn.mark_missed("one", Shard(0), "b", Missed::Recorded));
    assert!(torn.mark_missed("other", Shard(0), "a", Missed::Recorded));
    let before = torn.clone();
    assert!(torn.spread_stale(&names).is_err() && torn == before);
}

#[test]
fn a_node_that_is_behind_is_read_only_for_indexes_that_no_other_has_all_of() {
    let mut state = cluster_state(&[&["a", "b"]]);
    state.indexes = ["at-rest", "swapped", "written"].map(|it| (it.to_owned(), Index::default())).into();
    assert!(state.mark_missed("written", Shard(0), "b", Missed::Recorded));
    // It missed a swap of others, so that it has old documents under their names.
    state.mark_behind("a");
    for index in ["at-rest", "swapped"] {
        assert_eq!(state.whole(index, Shard(0)).collect::<Vec<_>>(), ["b"], "{index}");
    }
    assert_eq!(state.whole("written", Shard(0)).collect::<Vec<_>>(), ["a"], "nobody else has it");
    assert!(!state.mark_stale(Shard(0), "a"), "nothing is left to change");
    state.mark_whole("written", Shard(0), "b");
    assert!(state.mark_stale(Shard(0), "a") && state.stale.is_empty());
}

#[test]
fn a_node_that_is_behind_is_not_read_for_an_index_that_is_new() {
    let mut state = cluster_state(&[&["a", "b"]]);
    state.indexes = ["written", "deleted"].map(|it| (it.to_owned(), Index::default())).into();
    assert!(state.mark_missed("written", Shard(0), "b", Missed::Recorded));
    // It misses the deletion of an index, and is away while another one gets this name.
    let before = state.clone();
    state.mark_behind("a");
    state.indexes.remove("deleted");
    state.follow_catalogue(&before);
    assert_eq!(state.stale.get("deleted", "a", Shard(0)), None, "there is nothing to have of it");
    let before = state.clone();
    state.indexes.insert("deleted".to_owned(), Index::default());
    state.follow_catalogue(&before);
    state.read_others_than_behind();
    assert_eq!(state.stale.get("deleted", "a", Shard(0)), Some(Missed::Anything));
    assert_eq!(state.whole("deleted", Shard(0)).collect::<Vec<_>>(), ["b"]);
    assert_eq!(state.whole("written", Shard(0)).collect::<Vec<_>>(), ["a"]);
    // The other one gets what it has missed.
    state.mark_whole("written", Shard(0), "b");
    state.read_others_than_behind();
    assert_eq!(state.whole("written", Shard(0)).collect::<Vec<_>>(), ["b"]);
    assert_eq!(state.stale_on("a"), [Shard(0)]);
}

#[test]
fn operations_reach_a_replica_that_misses_nothing_of_their_indexes() {
    let mut state = cluster_state(&[&["a", "b"], &["a", "b"]]);
    assert!(state.mark_missed("one", Shard(1), "b", Missed::Recorded));
    let out_of_reach = |indexes: Option<&[&str]>, nodes: &[&str]| {
        let indexes = indexes.map(|indexes| indexes.iter().map(|it| (*it).to_owned()).collect());
        state.out_of_reach(indexes.as_ref(), &nodes.iter().map(|it| (*it).into()).collect())
    };
    assert_eq!(out_of_reach(Some(&["one", "other"]), &["b"]), 1);
    assert_eq!(out_of_reach(Some(&["other"]), &["b"]), 0);
    assert_eq!(out_of_reach(None, &["b"]), 1);
    assert_eq!(out_of_reach(None, &["a"]), 0);
    assert_eq!(out_of_reach(Some(&["one"]), &[]), 2);
}

#[test]
fn beyond_a_bound_replicas_are_stale_as_a_whole() {
    let mut state = cluster_state(&[&["a", "b"], &["a", "b"], &["c", "a"]]);
    for number in 0..MOST_STALE_IN_INDEXES - 1 {
        state.stale.insert(&format!("index-{number}"), "b", Shard(0), Missed::Recorded);
    }
    state.stale.insert("index-0", "a", Shard(2), Missed::Recorded);
    assert_eq!(state.stale.count(), MOST_STALE_IN_INDEXES);
    // What is known to be stale needs no room.
    assert!(state.mark_missed("index-1", Shard(0), "b", Missed::Anything));
    assert_eq!(state.stale.get("index-1", "b", Shard(0)), Some(Missed::Anything));
    // One more is stale as a whole. Where it alone has all of an index, correctness comes before the bound.
    assert!(state.mark_missed("another", Shard(1), "b", Missed::Recorded));
    assert_eq!((state.stale_on("b"), state.stale.count()), (vec![Shard(1)], MOST_STALE_IN_INDEXES));
    assert!(state.mark_missed("another", Shard(2), "c", Missed::Recorded));
    assert_eq!(state.stale.get("another", "c", Shard(2)), Some(Missed::Recorded));
    assert_eq!(state.stale.count(), MOST_STALE_IN_INDEXES + 1);
    // A replica that becomes stale as a whole gives its room back.
    assert!(state.mark_missed("another", Shard(0), "b", Missed::Recorded));
    assert_eq!((state.stale_on("b"), state.stale.count()), (vec![Shard(0), Shard(1)], 2));
}

#[test]
fn what_is_left_of_a_lost_index_is_read() {
    let mut state = cluster_state(&[&["a", "b", "c"]]);
    assert!(state.mark_missed("written", Shard(0), "a", Missed::Recorded));
    assert!(state.mark_missed("at-rest", Shard(0), "b", Missed::Recorded));
    state.replicas[0].retain(|replica| replica.node == "a");
    state.stale.retain(|_, node, _| *node == "a");
    state.accept_what_is_left();
    assert!(state.has_everything(Shard(0), "a"));
}

/// What happens to replicas of one shard.
#[derive(Clone, Debug)]
enum Step {
    /// A write to an index is acknowledged. Of its writers these nodes do not take it, unless none would.
    Write(usize, Vec<usize>),
    /// A write that was acknowledged fails on a node, after others have taken it.
    Fails(usize, usize),
    Mended(usize, usize),
    Copied(usize),
    Behind(usize),
    Desired(Vec<usize>),
    Gone(usize),
    Swap,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let node = || 0..NODES.len();
    let index = || 0..INDEXES.len();
    let nodes = move || proptest::collection::btree_set(node(), 1..3).prop_map(|it| it.into_iter().collect());
    let step = prop_oneof![
        4 => (index(), nodes()).prop_map(|(index, nodes)| Step::Write(index, nodes)),
        2 => (index(), node()).prop_map(|(index, node)| Step::Fails(index, node)),
        3 => (index(), node()).prop_map(|(index, node)| Step::Mended(index, node)),
        2 => node().prop_map(Step::Copied),
        1 => node().prop_map(Step::Behind),
        1 => nodes().prop_map(Step::Desired),
        1 => node().prop_map(Step::Gone),
        1 => Just(Step::Swap),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    /// A model in which each replica has the number of the last write to each index that it has, and of writes that it lacks.
    #[test]
    fn no_replica_is_read_for_an_index_of_which_it_misses_an_acknowledged_write(steps in steps()) {
        let shard = Shard(0);
        let mut state = cluster_state(&[&["a", "b"]]);
        state.indexes = INDEXES.map(|index| (index.to_owned(), Index::default())).into();
        // For each index and node, the writes that the node has.
        let mut has = vec![vec![BTreeSet::<u32>::new(); NODES.len()]; INDEXES.len()];
        let mut acknowledged = vec![BTreeSet::<u32>::new(); INDEXES.len()];
        let mut next = 0;
        for step in steps {
            match step {
                Step::Write(index, silent) => {
                    let name = INDEXES[index];
                    let whole: Vec<usize> = (0..3).filter(|n| state.is_whole(name, shard, NODES[*n])).collect();
                    let writers: Vec<usize> =
                        (0..3).filter(|n| state.writers(name, shard).any(|writer| *writer == NODES[*n])).collect();
                    // At least one replica that is read takes it.
                    let took: Vec<usize> = writers.iter().copied().filter(|n| !silent.contains(n)).collect();
                    if !whole.iter().any(|n| took.contains(n)) { continue; }
                    next += 1;
                    for n in &took { has[index][*n].insert(next); }
                    for n in writers.iter().filter(|n| !took.contains(n)) {
                        prop_assert!(state.mark_missed(name, shard, NODES[*n], Missed::Recorded));
                    }
                    acknowledged[index].insert(next);
                }
                Step::Fails(index, node) => {
                    let name = INDEXES[index];
                    let Some(last) = has[index][node].last().copied() else { continue };
                    let others = (0..3).any(|n| {
                        n != node && has[index][n].contains(&last) && state.is_whole(name, shard, NODES[n])
                    });
                    if others {
                        has[index][node].remove(&last);
                        state.mark_missed(name, shard, NODES[node], Missed::Anything);
                    }
                }
                Step::Mended(index, node) => {
                    let name = INDEXES[index];
                    let source = (0..3).find(|n| *n != node && state.is_whole(name, shard, NODES[*n]));
                    if let (Some(source), Some(_)) = (source, state.stale.get(name, NODES[node], shard)) {
                        has[index][node] = has[index][source].clone();
                        state.mark_whole(name, shard, NODES[node]);
                    }
                }
                Step::Copied(node) => {
                    let source = (0..3).find(|n| state.has_everything(shard, NODES[*n]));
                    if let Some(source) = source.filter(|_| !state.stale_on(NODES[node]).is_empty()) {
                        (0..INDEXES.len()).for_each(|index| has[index][node] = has[index][source].clone());
                        state.mark_active(shard, NODES[node]);
                    }
                }
                Step::Behind(node) => {
                    state.mark_behind(NODES[node]);
                    state.behind.clear();
                }
                Step::Desired(nodes) => {
                    state.set_desired(vec![nodes.iter().map(|n| NODES[*n].into()).collect()]);
                }
                Step::Gone(node) => {
                    state.remove(shard, NODES[node]);
                    let is_gone = state.replica(shard, NODES[node]).is_none_or(|it| it.state == ReplicaState::Removing);
                    if is_gone { (0..INDEXES.len()).for_each(|index| has[index][node].clear()) }
                    state.removed(shard, NODES[node]);
                }
                Step::Swap => {
                    if state.spread_stale(&INDEXES.into()).is_ok() {
                        has.swap(0, 1);
                        acknowledged.swap(0, 1);
                    }
                }
            }
            for (index, name) in INDEXES.iter().enumerate() {
                prop_assert!(state.whole(name, shard).next().is_some(), "an index is not read any more");
                for node in state.whole(name, shard) {
                    let node = NODES.iter().position(|name| *node == *name).unwrap();
                    prop_assert_eq!(&has[index][node], &acknowledged[index], "{} on {}", name, NODES[node]);
                }
            }
            for (_, node, shard, _) in state.stale.iter() {
                prop_assert!(state.replica(shard, node).is_some_and(Replica::is_active));
            }
        }
    }
}
