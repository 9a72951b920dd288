use super::*;
#[cfg(not(target_arch = "wasm32"))]
use proptest::prelude::*;
use std::collections::BTreeSet;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn nodes(count: usize) -> Vec<PlacementNode> {
    (0..count).map(|number| PlacementNode::new(format!("meili-{number}"))).collect()
}

fn loads(placement: &Placement) -> BTreeMap<&str, usize> {
    let mut loads = BTreeMap::new();
    for name in placement.iter().flatten() {
        *loads.entry(name.as_str()).or_default() += 1;
    }
    loads
}

fn moved(before: &Placement, after: &Placement) -> usize {
    before.iter().zip(after).map(|(old, now)| now.iter().filter(|name| !old.contains(name)).count()).sum()
}

/// Placements of a cluster that grows by one node after the other.
fn grown(shards: u16, replication: usize, most: usize) -> Vec<Placement> {
    let mut placements = vec![place(shards, replication, &nodes(replication), &Vec::new())];
    for count in replication + 1..=most {
        let last = &placements[placements.len() - 1];
        placements.push(place(shards, replication, &nodes(count), last));
    }
    placements
}

#[test]
fn golden_placement() {
    let placement = place(4, 2, &nodes(3), &Vec::new());
    assert_eq!(place(4, 2, &nodes(3), &placement), placement, "placing twice changes nothing");
    assert_eq!(
        placement,
        GOLDEN.map(|shard| shard.map(|node| NodeName::from(format!("meili-{node}"))).to_vec())
    );
}
const GOLDEN: [[u8; 2]; 4] = [[2, 1], [2, 0], [2, 1], [0, 1]];

#[test]
fn replicas_go_to_different_zones() {
    let mut nodes = nodes(6);
    for (number, node) in nodes.iter_mut().enumerate() {
        node.zone = Some(format!("zone-{}", number % 2));
    }
    let placement = place(64, 2, &nodes, &Vec::new());
    let zone = |name: &NodeName| nodes.iter().find(|node| node.name == *name).unwrap().zone.clone().unwrap();
    let rows: BTreeSet<Vec<String>> =
        placement.iter().map(|names| names.iter().map(zone).collect()).collect();
    assert_eq!(rows.len(), 1, "each zone is a row");
    assert_eq!(rows.iter().flatten().collect::<BTreeSet<_>>().len(), 2);
    // One more node of a zone stays in its row.
    let mut more = nodes.clone();
    more.push(PlacementNode { zone: Some("zone-0".into()), ..PlacementNode::new("meili-6") });
    let after = place(64, 2, &more, &placement);
    assert_eq!(nodes_asked(&after), Some((3.5, 4)));
}

#[test]
fn too_few_nodes_give_what_there_is() {
    assert_eq!(place(1, 3, &nodes(1), &Vec::new()), [["meili-0"]]);
    assert_eq!(place(2, 1, &[], &Vec::new()), [Vec::<NodeName>::new(), Vec::new()]);
    assert_eq!(rebalance(2, 2, &[], &Vec::new()), [Vec::<NodeName>::new(), Vec::new()]);
    // More nodes than replicas: some hold nothing.
    let placement = place(2, 2, &nodes(9), &Vec::new());
    assert_eq!(loads(&placement).into_values().collect::<Vec<_>>(), [1; 4]);
    assert_eq!(rebalance(2, 2, &nodes(9), &placement), placement);
    let weightless = PlacementNode { weight: 0.0, ..PlacementNode::new("drained") };
    let none = place(4, 2, &[nodes(1), vec![weightless]].concat(), &Vec::new());
    assert_eq!(none, vec![["meili-0"]; 4]);
}

#[test]
fn a_search_asks_a_row_of_few_nodes() {
    for (shards, replication, least, each) in
        [(64, 2, 1.21, 1.5), (64, 3, 1.35, 1.7), (256, 2, 1.21, 1.6), (256, 3, 1.35, 1.7)]
    {
        let placements = grown(shards, replication, 30);
        let (mut all, mut needed) = (0.0, 0.0);
        for (count, after) in (replication..).zip(&placements) {
            let (_, most) = nodes_asked(after).unwrap();
            let few = count.div_ceil(replication) + usize::from(replication > 2);
            assert!(most <= few, "{shards} shards, {replication} replicas, {count} nodes: {most} are asked");
            let held = loads(after);
            assert!(held.values().max().unwrap() - held.values().min().unwrap() <= 1, "{held:?}");
            if let Some(before) = count.checked_sub(replication + 1).and_then(|before| placements.get(before))
            {
                let (moved, share) =
                    (moved(before, after) as f64, f64::from(shards) * replication as f64 / count as f64);
                assert!(
                    moved <= each * share + 1.0,
                    "{count}: {moved} move, the new node's share is {share}"
                );
                all += moved;
                needed += share;
            }
        }
        assert!(all <= least * needed, "{shards} {replication}: {all} have moved, {needed} had to");
    }
}

#[test]
fn fewer_replicas_move_nothing() {
    for (shards, count) in [(16, 3), (64, 6), (64, 7), (128, 5)] {
        let before = place(shards, 3, &nodes(count), &Vec::new());
        let two = place(shards, 2, &nodes(count), &before);
        let one = place(shards, 1, &nodes(count), &two);
        assert_eq!((moved(&before, &two), moved(&two, &one)), (0, 0), "{shards} shards, {count} nodes");
        let held = loads(&one);
        assert!(held.values().max().unwrap() - held.values().min().unwrap() <= 3, "{held:?}");
    }
}

#[test]
fn the_names_of_nodes_decide_and_not_their_order() {
    let mut other = nodes(7);
    other.reverse();
    let before = place(32, 2, &nodes(6), &Vec::new());
    assert_eq!(place(32, 2, &nodes(7), &before), place(32, 2, &other, &before));
    assert_eq!(rebalance(32, 2, &nodes(7), &before), rebalance(32, 2, &other, &before));
}

#[test]
fn rows_are_found_again_where_their_order_is_lost() {
    for (replication, count) in [(2, 6), (2, 7), (3, 9), (3, 8)] {
        let placement = grown(64, replication, count).pop().unwrap();
        let mut sorted = placement.clone();
        sorted.iter_mut().for_each(|names| names.sort());
        let found = place(64, replication, &nodes(count), &sorted);
        assert_eq!(moved(&sorted, &found), 0);
        let (asked, found) = (nodes_asked(&placement).unwrap(), nodes_asked(&found).unwrap());
        assert!(found.0 <= asked.0 + 1.0, "{count} nodes: {asked:?}, found {found:?}");
    }
}

#[cfg(not(target_arch = "wasm32"))]
proptest! {
    #[test]
    fn loads_are_bounded_and_replicas_apart(
        shards in 1u16..=512, replication in 1usize..=3, count in 1usize..12,
    ) {
        let placement = place(shards, replication, &nodes(count), &Vec::new());
        let all = usize::from(shards) * replication.min(count);
        for (name, load) in loads(&placement) {
            prop_assert!(load <= all.div_ceil(count) && load >= all / count, "{} holds {}", name, load);
        }
        for replicas in &placement {
            let distinct: BTreeSet<_> = replicas.iter().collect();
            prop_assert_eq!(distinct.len(), replication.min(count));
        }
    }

    #[test]
    fn heavier_nodes_hold_more(shards in 128u16..=512, replication in 1usize..=2) {
        let mut five = nodes(5);
        five[0].weight = 2.0;
        let placement = place(shards, replication, &five, &Vec::new());
        let share = f64::from(shards) * replication as f64 / 3.0;
        let load = loads(&placement)["meili-0"] as f64;
        prop_assert!((share - load).abs() <= 1.0, "{} of {}", load, share);
    }

    /// What an older version has placed at random.
    #[test]
    fn a_placement_without_rows_is_kept_and_rebalanced_into_rows(
        shards in 32u16..=128, replication in 2usize..=3, count in 4usize..12, seed: u64,
    ) {
        let all = nodes(count);
        let at_random = |shard: u16| {
            let mut names: Vec<NodeName> = all.iter().map(|node| node.name.clone()).collect();
            names.sort_by_key(|name| xxhash_rust::xxh3::xxh3_64_with_seed(format!("{shard}/{name}").as_bytes(), seed));
            names.truncate(replication);
            names
        };
        let before: Placement = (0..shards).map(at_random).collect();
        if loads(&before).len() == count {
            prop_assert_eq!(moved(&before, &place(shards, replication, &all, &before)), 0);
        }
        let after = Placed::new(shards, replication, &all, rebalance(shards, replication, &all, &before));
        prop_assert!(after.are_apart() && after.is_bounded(), "{:?}", after);
        let (_, most) = nodes_asked(&after.placement).unwrap();
        prop_assert!(most <= count.div_ceil(replication) + 1, "{} of {}", most, count);
        prop_assert_eq!(&rebalance(shards, replication, &all, &after.placement), &after.placement);
    }

    /// Nodes of any weight and zone join and leave. At each step, replicas are on different nodes, at most twice as many move as must, zones are
    /// kept where there are enough, and without zones so are bounds; a rebalance makes both hold, and a second one changes nothing.
    #[test]
    fn a_life_of_changes(
        shards in 32u16..=256,
        replication in 1usize..=3,
        first in proptest::collection::vec((1u8..=3, 0u8..4), 3..9),
        steps in proptest::collection::vec((any::<bool>(), 1u8..=3, 0u8..4, any::<proptest::sample::Index>()), 1..10),
        weighted: bool,
        zoned: bool,
    ) {
        let node = |number: usize, (weight, zone): (u8, u8)| PlacementNode {
            name: format!("meili-{number}").into(),
            weight: if weighted { f64::from(weight) } else { 1.0 },
            zone: zoned.then(|| format!("zone-{zone}")),
        };
        let mut all: Vec<PlacementNode> =
            first.iter().enumerate().map(|(number, of)| node(number, *of)).collect();
        let mut next = all.len();
        let mut now = Placed::new(shards, replication, &all, place(shards, replication, &all, &Vec::new()));
        prop_assert!(now.are_apart() && now.crowded().is_empty() && now.is_bounded(), "{:?}", now);
        for (add, weight, zone, leaving) in steps {
            let before = now.clone();
            if add || all.len() <= replication + 1 {
                all.push(node(next, (weight, zone)));
                next += 1;
            } else {
                all.remove(leaving.index(all.len()));
            }
            now = Placed::new(shards, replication, &all, place(shards, replication, &all, &before.placement));
            prop_assert!(now.are_apart(), "{:?}", now);
            prop_assert!(now.crowded().is_empty(), "{:?} {:?}", now.crowded(), now);
            prop_assert!(now.is_bounded(), "{:?}", now);
            if !zoned && !weighted {
                let (_, most) = nodes_asked(&now.placement).unwrap();
                prop_assert!(most <= all.len().div_ceil(replication) + 1, "{} of {}: {:?}", most, all.len(), now);
                let share = usize::from(shards) * replication / all.len();
                let moved = moved(&before.placement, &now.placement);
                prop_assert!(moved <= 2 * (share + all.len()), "{} moved, share {}", moved, share);
            }
            let again = rebalance(shards, replication, &all, &now.placement);
            let again = Placed::new(shards, replication, &all, again);
            prop_assert!(again.are_apart() && again.crowded().is_empty() && again.is_bounded(), "{:?}", again);
            prop_assert_eq!(&rebalance(shards, replication, &all, &again.placement), &again.placement);
        }
    }
}

/// A placement under test.
#[cfg(not(target_arch = "wasm32"))]
#[derive(Clone, Debug)]
struct Placed {
    shards: u16,
    replication: usize,
    nodes: Vec<PlacementNode>,
    placement: Placement,
}

#[cfg(not(target_arch = "wasm32"))]
impl Placed {
    fn new(shards: u16, replication: usize, nodes: &[PlacementNode], placement: Placement) -> Self {
        Self { shards, replication, nodes: nodes.to_vec(), placement }
    }

    fn total(&self) -> f64 {
        self.nodes.iter().map(|node| node.weight).sum()
    }

    /// Weight by zone; a node without a zone counts as a zone of its own.
    fn zones(&self) -> BTreeMap<&str, f64> {
        let mut zones = BTreeMap::new();
        for node in &self.nodes {
            *zones.entry(node.zone.as_deref().unwrap_or(&node.name)).or_default() += node.weight;
        }
        zones
    }

    fn are_apart(&self) -> bool {
        let are_apart = |replicas: &Vec<NodeName>| {
            let distinct: BTreeSet<_> = replicas.iter().collect();
            distinct.len() == self.replication && replicas.len() == self.replication
        };
        self.placement.iter().all(are_apart)
    }

    /// Whether every node holds its share, `S * R * weight / total weight`, rounded down or up, if no zone's share exceeds one replica of each
    /// shard, which is the most that it can hold.
    fn is_bounded(&self) -> bool {
        let is_feasible =
            self.zones().values().all(|weight| weight * self.replication as f64 <= self.total() + 1e-9);
        let loads = loads(&self.placement);
        let is_within = |node: &PlacementNode| {
            let share = f64::from(self.shards) * self.replication as f64 * node.weight / self.total();
            let load = loads.get(node.name.as_str()).copied().unwrap_or(0) as f64;
            load <= (share - 1e-6).ceil() + 1.0 && load + 1.0 >= (share + 1e-6).floor()
        };
        !is_feasible || self.nodes.iter().all(is_within)
    }

    /// Shards with two replicas in one zone although there are enough zones.
    fn crowded(&self) -> Vec<usize> {
        let zone = |name: &NodeName| {
            let node = self.nodes.iter().find(|node| node.name == *name);
            node.map(|node| node.zone.as_deref().unwrap_or(&node.name))
        };
        let is_crowded = |replicas: &Vec<NodeName>| {
            let distinct: BTreeSet<_> = replicas.iter().map(zone).collect();
            distinct.len() < replicas.len()
        };
        if self.zones().len() < self.replication {
            return Vec::new();
        }
        (0..self.placement.len()).filter(|shard| is_crowded(&self.placement[*shard])).collect()
    }
}
