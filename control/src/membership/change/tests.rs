use super::*;
use std::collections::BTreeSet;

fn node(name: &str) -> NodeFile {
    NodeFile::new(name, format!("http://{name}:7700"))
}

fn cluster(nodes: &[&str], replication: usize) -> View {
    let mut view = View {
        version: 1,
        nodes: Vec::new(),
        replication,
        replicas: vec![Vec::new(); 12],
        ..View::default()
    };
    for name in nodes {
        insert(&mut view, node(name).validate("node").unwrap());
    }
    view.behind.clear();
    view.desired = view.planned();
    view.replicas = view.desired.iter().map(|nodes| nodes.iter().map(Replica::active).collect()).collect();
    view
}

/// Completes all moves: replicas are copied, and old copies are deleted.
fn settle(view: &mut View) {
    for _ in 0..3 {
        for shard in view.shards() {
            let replicas: Vec<Replica> = view.of(shard).to_vec();
            for replica in replicas {
                view.mark_active(shard, &replica.node);
                view.remove(shard, &replica.node);
                view.removed(shard, &replica.node);
            }
        }
    }
    assert!(!view.is_moving());
}

fn refused(view: &View, operation: &Operation) -> String {
    let mut changed = view.clone();
    change(&mut changed, operation).unwrap_err().join("; ")
}

fn held(view: &View, name: &str) -> usize {
    view.replicas.iter().flatten().filter(|replica| replica.node == name && replica.is_active()).count()
}

#[test]
fn a_node_comes_is_drained_and_leaves() {
    let mut view = cluster(&["a", "b"], 2);
    change(&mut view, &Operation::AddNode { node: node("c") }).unwrap();
    assert!(view.behind.contains("c") && view.is_moving());
    assert!(refused(&view, &Operation::Rebalance).contains("being moved"), "one after the other");
    settle(&mut view);
    assert_eq!([held(&view, "a"), held(&view, "b"), held(&view, "c")], [8, 8, 8]);
    assert!(refused(&view, &Operation::RemoveNode { name: "a".into() }).contains("drain a"));
    change(&mut view, &Operation::DrainNode { name: "a".into() }).unwrap();
    settle(&mut view);
    assert_eq!([held(&view, "a"), held(&view, "b"), held(&view, "c")], [0, 12, 12]);
    change(&mut view, &Operation::RemoveNode { name: "a".into() }).unwrap();
    assert!(view.member("a").unwrap().leaving);
}

#[test]
fn a_replacement_takes_what_the_old_one_had_and_nothing_else_moves() {
    let mut view = cluster(&["a", "b", "c"], 2);
    let shards = |view: &View, name: &str| -> BTreeSet<Shard> {
        view.shards().filter(|shard| view.active(*shard).any(|node| node == name)).collect()
    };
    let (of_a, of_b) = (shards(&view, "a"), shards(&view, "b"));
    change(&mut view, &Operation::ReplaceNode { name: "a".into(), node: node("d") }).unwrap();
    settle(&mut view);
    assert_eq!((shards(&view, "d"), shards(&view, "b"), held(&view, "a")), (of_a, of_b, 0));
    assert!(view.member("a").unwrap().leaving);
}

#[test]
fn new_zones_are_used_once_the_cluster_is_rebalanced() {
    let mut view = cluster(&["a", "b"], 2);
    let zoned = |name: &str, zone: &str| NodeFile { zone: Some(zone.into()), ..node(name) };
    let file = TopologyFile { replication: 2, nodes: vec![zoned("a", "x"), zoned("b", "x")] };
    change(&mut view, &Operation::Apply { topology: file }).unwrap();
    assert!(!view.is_moving(), "there is one zone");
    for name in ["c", "d"] {
        change(&mut view, &Operation::AddNode { node: zoned(name, "y") }).unwrap();
        settle(&mut view);
    }
    change(&mut view, &Operation::Rebalance).unwrap();
    settle(&mut view);
    let of_x = |shard| view.active(shard).filter(|node| ["a", "b"].contains(node)).count();
    assert!(view.shards().all(|shard| of_x(shard) == 1), "{:?}", view.desired);
    assert_eq!(["a", "b", "c", "d"].map(|name| held(&view, name)), [6; 4]);
    change(&mut view, &Operation::Rebalance).unwrap();
    assert!(!view.is_moving(), "once is enough");
}

#[test]
fn what_is_lost_is_made_again_from_others_even_while_something_moves() {
    let mut view = cluster(&["a", "b", "c"], 2);
    change(&mut view, &Operation::AddNode { node: node("d") }).unwrap();
    change(&mut view, &Operation::LostNode { name: "a".into(), force: false }).unwrap();
    assert!(view.member("a").is_none());
    assert!(view.shards().all(|shard| view.active(shard).count() >= 1));
    settle(&mut view);
    assert_eq!(held(&view, "b") + held(&view, "c") + held(&view, "d"), 24);
    let mut alone = cluster(&["a", "b"], 1);
    let lost = Operation::LostNode { name: "a".into(), force: false };
    assert!(refused(&alone, &lost).contains("--force"));
    change(&mut alone, &Operation::LostNode { name: "a".into(), force: true }).unwrap();
    assert!(alone.shards().all(|shard| alone.active(shard).eq(["b"])));
}

#[test]
fn what_is_wrong_is_refused_with_what_to_do() {
    let view = cluster(&["a", "b"], 2);
    let add = |node: NodeFile| refused(&view, &Operation::AddNode { node });
    assert!(add(node("a")).contains("in the cluster already, at http://a:7700/"));
    assert!(add(NodeFile::new("c", "http://a:7700")).contains("as node `a`"));
    assert!(add(NodeFile { cluster: Some("b".into()), ..node("c") }).contains("--cluster"));
    assert!(add(NodeFile::new("c d", "nonsense")).contains("node.url"));
    let drain = Operation::DrainNode { name: "a".into() };
    assert!(refused(&view, &drain).contains("1 node(s) would be left for 2 replicas"));
    assert!(refused(&view, &Operation::DrainNode { name: "x".into() }).contains("there are a, b"));
    assert!(refused(&view, &Operation::SetReplication { replicas: 3 }).contains("add a node first"));
    assert!(refused(&view, &Operation::SetReplication { replicas: 0 }).contains("at least 1"));
    let twice = TopologyFile {
        replication: 9,
        nodes: vec![
            node("a"),
            node("c"),
            NodeFile { weight: Some(0), ..node("c") },
            NodeFile::new("b", "http://x:1"),
            node("a"),
        ],
    };
    let errors = refused(&view, &Operation::Apply { topology: twice });
    for part in [
        "nodes[2].weight",
        "nodes[4].name",
        "nodes[4].url",
        "nodes[3]: `b` has another address",
        "replication: 9",
    ] {
        assert!(errors.contains(part), "{part} not in {errors}");
    }
}

#[test]
fn a_file_says_what_is_to_be() {
    let mut view = cluster(&["a", "b"], 2);
    let mut file = topology(&view);
    change(&mut view, &Operation::Apply { topology: file.clone() }).unwrap();
    assert!(!view.is_moving(), "it is already");
    file.nodes.remove(0);
    file.nodes.extend([NodeFile { weight: Some(2), ..node("c") }, node("d")]);
    change(&mut view, &Operation::Apply { topology: file.clone() }).unwrap();
    settle(&mut view);
    assert_eq!((held(&view, "a"), held(&view, "c")), (0, 12));
    assert_eq!(topology(&view).nodes.len(), 3);
    let mut view = cluster(&["a", "b", "c"], 1);
    change(&mut view, &Operation::SetReplication { replicas: 3 }).unwrap();
    settle(&mut view);
    assert_eq!([held(&view, "a"), held(&view, "b"), held(&view, "c")], [12, 12, 12]);
}
