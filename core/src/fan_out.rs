//! Decides which nodes a read asks, and for which shards: every shard exactly once.

use crate::{
    shard::Shard,
    topology::{FanOut, StaleInIndex, Topology},
};
use std::collections::{BTreeMap, BTreeSet};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// With up to this many nodes, all sets are tried to find the smallest; with more, a greedy search takes the most useful node
/// each time.
const EXHAUSTIVE: usize = 12;

/// Which nodes are asked for which shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FanOutPlan {
    /// Nodes, by position in the topology, with their shards in ascending order.
    pub asks: Vec<(u16, Vec<Shard>)>,
    /// Shards that have no readable replica outside `excluded`, in ascending order.
    pub missing: Vec<Shard>,
}

/// Plans a read of `shards` that avoids the nodes in `excluded`, and the replicas that are `stale` in an index that is read.
///
/// The same `seed` on the same topology gives the same plan; different seeds spread the load evenly.
#[must_use]
pub fn plan(
    topology: &Topology,
    stale: &[&StaleInIndex],
    shards: impl IntoIterator<Item = Shard>,
    excluded: &BTreeSet<u16>,
    seed: u64,
) -> FanOutPlan {
    let mut missing = Vec::new();
    let mut wanted: Vec<(Shard, Vec<u16>)> = Vec::new();
    for shard in shards {
        let replicas = topology.readable(shard, stale);
        let replicas: Vec<u16> = replicas.filter(|node| !excluded.contains(node)).collect();
        if replicas.is_empty() { missing.push(shard) } else { wanted.push((shard, replicas)) }
    }
    let nodes: BTreeSet<u16> = wanted.iter().flat_map(|(_, replicas)| replicas.iter().copied()).collect();
    let mut nodes: Vec<u16> = nodes.into_iter().collect();
    nodes.sort_by_key(|node| xxh3_64_with_seed(&node.to_le_bytes(), seed));
    let chosen = match topology.config().fan_out {
        FanOut::Fewest => fewest(&nodes, &wanted),
        FanOut::Spread => nodes,
    };
    let mut asks: BTreeMap<u16, Vec<Shard>> = BTreeMap::new();
    for (shard, replicas) in &wanted {
        let load = |node: &u16| asks.get(node).map_or(0, Vec::len);
        let least = chosen.iter().filter(|node| replicas.contains(node)).min_by_key(|node| load(node));
        if let Some(node) = least.copied() {
            asks.entry(node).or_default().push(*shard);
        }
    }
    FanOutPlan { asks: asks.into_iter().collect(), missing }
}

/// The smallest set of nodes that has a replica of every shard; of several such sets, the first in the order of `nodes`.
fn fewest(nodes: &[u16], wanted: &[(Shard, Vec<u16>)]) -> Vec<u16> {
    let covers =
        |set: &[u16]| wanted.iter().all(|(_, replicas)| replicas.iter().any(|node| set.contains(node)));
    if nodes.len() <= EXHAUSTIVE {
        for size in 1..=nodes.len() {
            let mut set = Vec::with_capacity(size);
            if choose(nodes, size, &mut set, &covers) {
                return set;
            }
        }
    }
    let mut chosen: Vec<u16> = Vec::new();
    while !covers(&chosen) {
        let gain = |node: u16| {
            let open =
                wanted.iter().filter(|(_, replicas)| !replicas.iter().any(|other| chosen.contains(other)));
            open.filter(|(_, replicas)| replicas.contains(&node)).count()
        };
        // `max_by_key` returns the last of equal elements; the iterator is reversed so that the first in the given order wins.
        match nodes.iter().rev().copied().max_by_key(|node| gain(*node)) {
            Some(best) if gain(best) > 0 => chosen.push(best),
            _ => break,
        }
    }
    chosen
}

/// Extends `set` by `size` of `nodes` until it covers all shards.
fn choose(nodes: &[u16], size: usize, set: &mut Vec<u16>, covers: &impl Fn(&[u16]) -> bool) -> bool {
    if size == 0 {
        return covers(set);
    }
    for (position, node) in nodes.iter().enumerate() {
        set.push(*node);
        if choose(nodes.get(position + 1..).unwrap_or_default(), size - 1, set, covers) {
            return true;
        }
        set.pop();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::TopologyConfig;
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
        fn fewest_is_the_smallest_cover(
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
                .min();
            prop_assert_eq!(Some(plan.asks.len() as u32), smallest);
        }
    }

    #[test]
    fn many_queries_are_balanced() {
        let nodes: Vec<_> =
            (0..5).map(|node| crate::placement::PlacementNode::new(format!("n{node}"))).collect();
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
}
