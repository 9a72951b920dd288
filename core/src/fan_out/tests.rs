use super::*;
use crate::topology::{ReadZone, TopologyConfig};
#[cfg(not(target_arch = "wasm32"))]
use proptest::prelude::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn topology(nodes: u16, placement: Vec<Vec<u16>>, fan_out: FanOut) -> Topology {
    let names: Vec<String> = (0..nodes).map(|node| format!("n{node}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Topology::validate(TopologyConfig { fan_out, ..TopologyConfig::of(&names, placement) }).unwrap()
}

#[cfg(not(target_arch = "wasm32"))]
fn asked(plan: &FanOutPlan) -> Vec<Shard> {
    let mut shards: Vec<Shard> = plan.asks.iter().flat_map(|(_, shards)| shards.clone()).collect();
    shards.sort_unstable();
    shards
}

#[test]
fn one_node_answers_alone_where_it_holds_everything() {
    let topology = topology(3, vec![vec![0, 1, 2]; 8], FanOut::Fewest);
    let mut nodes = BTreeSet::new();
    for seed in 0..50 {
        let plan = plan(&topology, &[], topology.shards(), &BTreeSet::new(), seed);
        assert_eq!(plan.asks.len(), 1);
        nodes.insert(plan.asks[0].0);
    }
    assert_eq!(nodes.len(), 3, "many queries use all nodes");
}

#[test]
fn slow_nodes_are_asked_only_for_what_no_other_node_has() {
    let topology = topology(3, vec![vec![0, 1], vec![1, 2], vec![2, 0]], FanOut::Fewest);
    let asked = |slow: &[u16], excluded: &[u16]| {
        topology.avoid(slow.iter().copied().collect());
        let excluded = excluded.iter().copied().collect();
        let plans = (0..30).map(|seed| plan(&topology, &[], topology.shards(), &excluded, seed));
        let nodes = plans.flat_map(|plan| {
            assert!(plan.missing.is_empty());
            plan.asks.into_iter().map(|(node, _)| node)
        });
        nodes.collect::<BTreeSet<u16>>()
    };
    assert_eq!(asked(&[1], &[]), [0, 2].into());
    assert_eq!(asked(&[], &[]), [0, 1, 2].into());
    assert_eq!(asked(&[1], &[0]), [1, 2].into(), "one of two replicas has failed");
    topology.avoid([0, 1].into());
    for seed in 0..30 {
        let plan = plan(&topology, &[], topology.shards(), &BTreeSet::new(), seed);
        assert!(plan.asks.contains(&(2, vec![Shard(1), Shard(2)])), "{plan:?}");
    }
    assert_eq!(asked(&[0, 1, 2], &[]), [0, 1, 2].into());
    topology.avoid([1].into());
    let one = plan(&topology, &[], [Shard(0)], &BTreeSet::new(), 3);
    assert_eq!(one.asks, [(0, vec![Shard(0)])]);
}

#[test]
fn missing_shards_are_told() {
    let topology = topology(2, vec![vec![0, 1], vec![0], vec![]], FanOut::Fewest);
    let plan = plan(&topology, &[], topology.shards(), &BTreeSet::from([0]), 7);
    assert_eq!(plan.asks, [(1, vec![Shard(0)])]);
    assert_eq!(plan.missing, [Shard(1), Shard(2)]);
}

#[cfg(not(target_arch = "wasm32"))]
proptest! {
    #[test]
    fn every_shard_once_and_only_from_readable_replicas(
        placement in proptest::collection::vec(proptest::collection::btree_set(0u16..16, 0..4), 1..64),
        excluded in proptest::collection::btree_set(0u16..16, 0..4),
        seed: u64, spread: bool,
    ) {
        let placement: Vec<Vec<u16>> =
            placement.into_iter().map(|replicas| replicas.into_iter().collect()).collect();
        let fan_out = if spread { FanOut::Spread } else { FanOut::Fewest };
        let topology = topology(16, placement, fan_out);
        let plan = plan(&topology, &[], topology.shards(), &excluded, seed);
        let mut all = asked(&plan);
        for (node, shards) in &plan.asks {
            prop_assert!(!excluded.contains(node));
            for shard in shards {
                prop_assert!(topology.readable(*shard, &[]).any(|readable| readable == *node));
            }
        }
        all.extend(&plan.missing);
        all.sort_unstable();
        prop_assert_eq!(all, topology.shards().collect::<Vec<_>>());
    }

    #[test]
    fn a_replica_is_not_read_for_an_index_that_it_misses_something_of(
        placement in proptest::collection::vec(proptest::collection::btree_set(0u16..6, 1..4), 1..24),
        stale in proptest::collection::btree_set((0usize..2, 0u16..6, 0u16..24), 0..40),
        reads in proptest::collection::btree_set(0usize..3, 0..3),
        seed: u64,
    ) {
        const INDEXES: [&str; 3] = ["at-rest", "one", "other"];
        let placement: Vec<Vec<u16>> =
            placement.into_iter().map(|replicas| replicas.into_iter().collect()).collect();
        let mut config = topology(6, placement.clone(), FanOut::Fewest).config().clone();
        let holds = |node: u16, shard: u16| {
            placement.get(usize::from(shard)).is_some_and(|replicas| replicas.contains(&node))
        };
        for (index, node, shard) in stale.iter().filter(|(_, node, shard)| holds(*node, *shard)) {
            config.stale.insert(INDEXES[index + 1], *node, Shard(*shard));
        }
        let topology = Topology::from_json(&serde_json::to_vec(&config).unwrap()).unwrap();
        let indexes: Vec<&str> = reads.iter().map(|index| INDEXES[*index]).collect();
        let avoided = topology.config().stale.of(&indexes);
        let plan = plan(&topology, &avoided, topology.shards(), &BTreeSet::new(), seed);
        let is_stale = |node: u16, shard: Shard| {
            reads.iter().any(|read| *read > 0 && stale.contains(&(read - 1, node, shard.0)))
        };
        for (node, shards) in &plan.asks {
            for shard in shards {
                prop_assert!(holds(*node, shard.0) && !is_stale(*node, *shard));
            }
        }
        for shard in &plan.missing {
            prop_assert!((0..6).all(|node| !holds(node, shard.0) || is_stale(node, *shard)));
        }
        let mut all = asked(&plan);
        all.extend(&plan.missing);
        prop_assert_eq!(all.len(), placement.len());
    }

    #[test]
    fn few_nodes_are_asked_none_of_which_could_be_left_out(
        placement in proptest::collection::vec(proptest::collection::btree_set(0u16..6, 1..3), 1..12),
        seed: u64,
    ) {
        let placement: Vec<Vec<u16>> =
            placement.into_iter().map(|replicas| replicas.into_iter().collect()).collect();
        let topology = topology(6, placement.clone(), FanOut::Fewest);
        let plan = plan(&topology, &[], topology.shards(), &BTreeSet::new(), seed);
        let smallest = (1u32..64)
            .filter(|set| placement.iter().all(|replicas| replicas.iter().any(|node| set >> node & 1 == 1)))
            .map(u32::count_ones)
            .min()
            .unwrap();
        // A row may be a little larger than the smallest set.
        let asked: Vec<u16> = plan.asks.iter().map(|(node, _)| *node).collect();
        prop_assert!(asked.len() as u32 <= smallest + 1, "{:?}, {} would do", asked, smallest);
        for node in &asked {
            let is_on_others = |replicas: &Vec<u16>| {
                replicas.iter().any(|replica| replica != node && asked.contains(replica))
            };
            prop_assert!(!placement.iter().all(is_on_others), "{:?} without {}", asked, node);
        }
    }
}

/// Rows by position in the lists of nodes.
#[cfg(not(target_arch = "wasm32"))]
fn placed(shards: u16, replication: usize, nodes: usize) -> Topology {
    use crate::placement::{Placement, PlacementNode, place};
    let mut placement = Placement::new();
    for nodes in replication..=nodes {
        let nodes: Vec<_> = (0..nodes).map(|node| PlacementNode::new(format!("n{node}"))).collect();
        placement = place(shards, replication, &nodes, &placement);
    }
    let number = |name: &crate::node_name::NodeName| name[1..].parse().unwrap();
    let placement = placement.iter().map(|replicas| replicas.iter().map(number).collect()).collect();
    topology(u16::try_from(nodes).unwrap(), placement, FanOut::Fewest)
}

/// How many nodes a read asks at most.
#[cfg(not(target_arch = "wasm32"))]
fn nodes_asked(topology: &Topology, excluded: &BTreeSet<u16>) -> usize {
    let plans = (0..16).map(|seed| plan(topology, &[], topology.shards(), excluded, seed));
    plans.inspect(|plan| assert!(plan.missing.is_empty())).map(|plan| plan.asks.len()).max().unwrap()
}

#[test]
#[cfg(not(target_arch = "wasm32"))]
fn a_row_is_asked_and_after_a_failure_another_one() {
    for (shards, replication) in [(64, 2), (64, 3), (256, 2)] {
        for nodes in replication + 1..=30 {
            let topology = placed(shards, replication, nodes);
            let few = nodes.div_ceil(replication);
            let asked = nodes_asked(&topology, &BTreeSet::new());
            assert!(asked <= few + usize::from(replication > 2), "{asked} of {nodes} nodes are asked");
            for failed in 0..u16::try_from(nodes).unwrap() {
                let asked = nodes_asked(&topology, &BTreeSet::from([failed]));
                assert!(
                    asked <= few + 1,
                    "{shards} shards: {asked} of {nodes} nodes are asked without {failed}"
                );
            }
        }
    }
}

/// Nodes 0 to 3, of which the last two are in another zone than the gateway.
fn zoned(placement: Vec<Vec<u16>>, fan_out: FanOut) -> Topology {
    let mut config = topology(4, placement, fan_out).config().clone();
    config.read_zone = ReadZone::Prefer;
    for (node, zone) in config.nodes.iter_mut().zip(["near", "near", "far", "far"]) {
        node.zone = Some(zone.to_owned());
    }
    Topology::validate(config).unwrap().in_zone(Some("near".to_owned()))
}

#[test]
fn reads_stay_in_the_gateways_zone_as_far_as_replicas_are_there() {
    let placement = || vec![vec![0, 2], vec![1, 3], vec![0, 3], vec![1, 2]];
    let far = |topology: &Topology, excluded: &[u16], shards: &[u16]| {
        let excluded = excluded.iter().copied().collect();
        let shards = || shards.iter().copied().map(Shard);
        let plans = (0..20).map(|seed| plan(topology, &[], shards(), &excluded, seed));
        let told = |plan: FanOutPlan| {
            let far = plan.asks.iter().filter(|(node, _)| topology.is_far(*node));
            (far.map(|(_, shards)| shards.len()).sum::<usize>(), plan.missing.len())
        };
        plans.map(told).collect::<BTreeSet<_>>()
    };
    for fan_out in [FanOut::Fewest, FanOut::Spread] {
        let topology = zoned(placement(), fan_out);
        assert_eq!(far(&topology, &[], &[0, 1, 2, 3]), [(0, 0)].into(), "{fan_out:?}");
        assert_eq!(far(&topology, &[], &[2]), [(0, 0)].into(), "{fan_out:?}");
        assert_eq!(far(&topology, &[0], &[0, 1, 2, 3]), [(2, 0)].into(), "{fan_out:?}");
        assert_eq!(far(&topology, &[0, 1], &[0, 1, 2, 3]), [(4, 0)].into(), "{fan_out:?}");
        assert_eq!(far(&topology, &[0, 1], &[2]), [(1, 0)].into(), "{fan_out:?}");
    }
    let both = |topology: &Topology| {
        let plans = (0..50).map(|seed| plan(topology, &[], topology.shards(), &BTreeSet::new(), seed));
        plans.map(|plan| plan.asks[0].0).collect::<BTreeSet<_>>().len() > 1
    };
    let elsewhere = zoned(placement(), FanOut::Fewest).in_zone(Some("nowhere".to_owned()));
    let unknown = zoned(placement(), FanOut::Fewest).in_zone(None);
    assert!(both(&elsewhere) && both(&unknown), "all rows share the load");
    let mut config = zoned(placement(), FanOut::Fewest).config().clone();
    config.read_zone = ReadZone::Any;
    assert!(both(&Topology::validate(config).unwrap().in_zone(Some("near".to_owned()))));
}

#[test]
fn many_queries_are_balanced() {
    let nodes: Vec<_> = (0..5).map(|node| crate::placement::PlacementNode::new(format!("n{node}"))).collect();
    let placement: Vec<Vec<u16>> = crate::placement::place(60, 2, &nodes, &Vec::new())
        .iter()
        .map(|replicas| replicas.iter().map(|name| name[1..].parse().unwrap()).collect())
        .collect();
    for fan_out in [FanOut::Fewest, FanOut::Spread] {
        let topology = topology(5, placement.clone(), fan_out);
        let mut loads = [0usize; 5];
        for seed in 0..1000 {
            for (node, shards) in plan(&topology, &[], topology.shards(), &BTreeSet::new(), seed).asks {
                loads[usize::from(node)] += shards.len();
            }
        }
        for load in loads {
            assert!((7_000..=18_000).contains(&load), "{fan_out:?}: {loads:?}, even would be 12000");
        }
    }
}
