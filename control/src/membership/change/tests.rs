use super::*;
use std::collections::BTreeSet;

fn node(name: &str) -> NodeFile {
    NodeFile::new(name, format!("http://{name}:7700"))
}

fn cluster(nodes: &[&str], replication: usize) -> ClusterState {
    let mut cluster_state = ClusterState {
        version: 1,
        nodes: Vec::new(),
        replication,
        replicas: vec![Vec::new(); 12],
        ..ClusterState::default()
    };
    for name in nodes {
        insert(&mut cluster_state, node(name).validate("node").unwrap());
    }
    cluster_state.behind.clear();
    cluster_state.desired = cluster_state.planned();
    cluster_state.replicas =
        cluster_state.desired.iter().map(|nodes| nodes.iter().map(Replica::active).collect()).collect();
    cluster_state
}

/// Completes all moves: replicas are copied, and old copies are deleted.
fn settle(cluster_state: &mut ClusterState) {
    for _ in 0..3 {
        for shard in cluster_state.shards() {
            let replicas: Vec<Replica> = cluster_state.of(shard).to_vec();
            for replica in replicas {
                cluster_state.mark_active(shard, &replica.node);
                cluster_state.remove(shard, &replica.node);
                cluster_state.removed(shard, &replica.node);
            }
        }
    }
    assert!(!cluster_state.is_moving());
}

fn refused(cluster_state: &ClusterState, operation: &Operation) -> String {
    let mut changed = cluster_state.clone();
    change(&mut changed, operation).unwrap_err().join("; ")
}

fn held(cluster_state: &ClusterState, name: &str) -> usize {
    cluster_state
        .replicas
        .iter()
        .flatten()
        .filter(|replica| replica.node == name && replica.is_active())
        .count()
}

#[test]
fn a_node_comes_is_drained_and_leaves() {
    let mut cluster_state = cluster(&["a", "b"], 2);
    change(&mut cluster_state, &Operation::AddNode { node: node("c") }).unwrap();
    assert!(cluster_state.behind.contains("c") && cluster_state.is_moving());
    assert!(refused(&cluster_state, &Operation::Rebalance).contains("being moved"), "one after the other");
    settle(&mut cluster_state);
    assert_eq!([held(&cluster_state, "a"), held(&cluster_state, "b"), held(&cluster_state, "c")], [8, 8, 8]);
    assert!(refused(&cluster_state, &Operation::RemoveNode { name: "a".into() }).contains("drain a"));
    change(&mut cluster_state, &Operation::DrainNode { name: "a".into() }).unwrap();
    settle(&mut cluster_state);
    assert_eq!(
        [held(&cluster_state, "a"), held(&cluster_state, "b"), held(&cluster_state, "c")],
        [0, 12, 12]
    );
    change(&mut cluster_state, &Operation::RemoveNode { name: "a".into() }).unwrap();
    assert!(cluster_state.member("a").unwrap().leaving);
}

#[test]
fn a_replacement_takes_what_the_old_one_had_and_nothing_else_moves() {
    let mut cluster_state = cluster(&["a", "b", "c"], 2);
    let shards = |cluster_state: &ClusterState, name: &str| -> BTreeSet<Shard> {
        cluster_state.shards().filter(|shard| cluster_state.active(*shard).any(|node| node == name)).collect()
    };
    let (of_a, of_b) = (shards(&cluster_state, "a"), shards(&cluster_state, "b"));
    change(&mut cluster_state, &Operation::ReplaceNode { name: "a".into(), node: node("d") }).unwrap();
    settle(&mut cluster_state);
    assert_eq!(
        (shards(&cluster_state, "d"), shards(&cluster_state, "b"), held(&cluster_state, "a")),
        (of_a, of_b, 0)
    );
    assert!(cluster_state.member("a").unwrap().leaving);
}

#[test]
fn new_zones_are_used_once_the_cluster_is_rebalanced() {
    let mut cluster_state = cluster(&["a", "b"], 2);
    let zoned = |name: &str, zone: &str| NodeFile { zone: Some(zone.into()), ..node(name) };
    let file = TopologyFile { replication: 2, nodes: vec![zoned("a", "x"), zoned("b", "x")] };
    change(&mut cluster_state, &Operation::Apply { topology: file }).unwrap();
    assert!(!cluster_state.is_moving(), "there is one zone");
    for name in ["c", "d"] {
        change(&mut cluster_state, &Operation::AddNode { node: zoned(name, "y") }).unwrap();
        settle(&mut cluster_state);
    }
    change(&mut cluster_state, &Operation::Rebalance).unwrap();
    settle(&mut cluster_state);
    let of_x = |shard| cluster_state.active(shard).filter(|node| ["a", "b"].contains(&node.as_str())).count();
    assert!(cluster_state.shards().all(|shard| of_x(shard) == 1), "{:?}", cluster_state.desired);
    assert_eq!(["a", "b", "c", "d"].map(|name| held(&cluster_state, name)), [6; 4]);
    change(&mut cluster_state, &Operation::Rebalance).unwrap();
    assert!(!cluster_state.is_moving(), "once is enough");
}

#[test]
fn what_is_lost_is_made_again_from_others_even_while_something_moves() {
    let mut cluster_state = cluster(&["a", "b", "c"], 2);
    change(&mut cluster_state, &Operation::AddNode { node: node("d") }).unwrap();
    change(&mut cluster_state, &Operation::LostNode { name: "a".into(), force: false }).unwrap();
    assert!(cluster_state.member("a").is_none());
    assert!(cluster_state.shards().all(|shard| cluster_state.active(shard).count() >= 1));
    settle(&mut cluster_state);
    assert_eq!(held(&cluster_state, "b") + held(&cluster_state, "c") + held(&cluster_state, "d"), 24);
    let mut alone = cluster(&["a", "b"], 1);
    let lost = Operation::LostNode { name: "a".into(), force: false };
    assert!(refused(&alone, &lost).contains("--force"));
    change(&mut alone, &Operation::LostNode { name: "a".into(), force: true }).unwrap();
    assert!(alone.shards().all(|shard| alone.active(shard).eq(["b"])));
}

#[test]
fn what_is_wrong_is_refused_with_what_to_do() {
    let cluster_state = cluster(&["a", "b"], 2);
    let add = |node: NodeFile| refused(&cluster_state, &Operation::AddNode { node });
    assert!(add(node("a")).contains("in the cluster already, at http://a:7700/"));
    assert!(add(NodeFile::new("c", "http://a:7700")).contains("as node `a`"));
    assert!(add(NodeFile { cluster: Some("b".into()), ..node("c") }).contains("--cluster"));
    assert!(add(NodeFile::new("c d", "nonsense")).contains("node.url"));
    let drain = Operation::DrainNode { name: "a".into() };
    assert!(refused(&cluster_state, &drain).contains("1 node(s) would be left for 2 replicas"));
    assert!(refused(&cluster_state, &Operation::DrainNode { name: "x".into() }).contains("there are a, b"));
    assert!(refused(&cluster_state, &Operation::SetReplication { replicas: 3 }).contains("add a node first"));
    assert!(refused(&cluster_state, &Operation::SetReplication { replicas: 0 }).contains("at least 1"));
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
    let errors = refused(&cluster_state, &Operation::Apply { topology: twice });
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
    let mut cluster_state = cluster(&["a", "b"], 2);
    let mut file = topology(&cluster_state);
    change(&mut cluster_state, &Operation::Apply { topology: file.clone() }).unwrap();
    assert!(!cluster_state.is_moving(), "it is already");
    file.nodes.remove(0);
    file.nodes.extend([NodeFile { weight: Some(2), ..node("c") }, node("d")]);
    change(&mut cluster_state, &Operation::Apply { topology: file.clone() }).unwrap();
    settle(&mut cluster_state);
    assert_eq!((held(&cluster_state, "a"), held(&cluster_state, "c")), (0, 12));
    assert_eq!(topology(&cluster_state).nodes.len(), 3);
    let mut cluster_state = cluster(&["a", "b", "c"], 1);
    change(&mut cluster_state, &Operation::SetReplication { replicas: 3 }).unwrap();
    settle(&mut cluster_state);
    assert_eq!(
        [held(&cluster_state, "a"), held(&cluster_state, "b"), held(&cluster_state, "c")],
        [12, 12, 12]
    );
}
