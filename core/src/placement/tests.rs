use super::*;
#[cfg(not(target_arch = "wasm32"))]
use proptest::prelude::*;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn nodes(count: usize) -> Vec<PlacementNode> {
    (0..count).map(|number| PlacementNode::new(format!("meili-{number}"))).collect()
}

#[cfg(not(target_arch = "wasm32"))]
fn loads(placement: &Placement) -> BTreeMap<&str, usize> {
    let mut loads = BTreeMap::new();
    for name in placement.iter().flatten() {
        *loads.entry(name.as_str()).or_default() += 1;
    }
    loads
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
const GOLDEN: [[u8; 2]; 4] = [[2, 1], [2, 0], [1, 0], [1, 2]];

#[test]
fn replicas_go_to_different_zones() {
    let mut nodes = nodes(6);
    for (number, node) in nodes.iter_mut().enumerate() {
        node.zone = Some(format!("zone-{}", number % 2));
    }
    for replicas in place(64, 2, &nodes, &Vec::new()) {
        let zones: Vec<_> = replicas
            .iter()
            .map(|name| nodes.iter().find(|node| &node.name == name).unwrap().zone.clone())
            .collect();
        assert_ne!(zones[0], zones[1], "{replicas:?}");
    }
}

#[test]
fn too_few_nodes_give_what_there_is() {
    assert_eq!(place(1, 3, &nodes(1), &Vec::new()), [["meili-0"]]);
    assert_eq!(place(2, 1, &[], &Vec::new()), [Vec::<NodeName>::new(), Vec::new()]);
}

#[cfg(not(target_arch = "wasm32"))]
proptest! {
    #[test]
    fn loads_are_bounded_and_replicas_apart(
        shards in 1u16..=512, replication in 1usize..=3, count in 1usize..12,
    ) {
        let placement = place(shards, replication, &nodes(count), &Vec::new());
        let bound = (usize::from(shards) * replication.min(count)).div_ceil(count) + 1;
        for (name, load) in loads(&placement) {
            prop_assert!(load <= bound, "{} holds {}, bound {}", name, load, bound);
        }
        for replicas in &placement {
            let distinct: std::collections::HashSet<_> = replicas.iter().collect();
            prop_assert_eq!(distinct.len(), replication.min(count));
        }
    }

    #[test]
    fn a_new_node_takes_its_share_and_nothing_else_moves(
        shards in 16u16..=512, replication in 1usize..=3, count in 3usize..12,
    ) {
        let before = place(shards, replication, &nodes(count), &Vec::new());
        let after = place(shards, replication, &nodes(count + 1), &before);
        let held = loads(&before);
        let mut moved = 0;
        for (old, now) in before.iter().zip(&after) {
            for name in now.iter().filter(|name| !old.contains(name)) {
                prop_assert!(!held.contains_key(name.as_str()), "{} moved to an old node", name);
                moved += 1;
            }
        }
        let share = f64::from(shards) * replication as f64 / (count as f64 + 1.0);
        prop_assert!(f64::from(moved) <= 1.2 * share + 1.0, "{} moved, share {}", moved, share);
        let bound = (usize::from(shards) * replication).div_ceil(count + 1);
        let least = (usize::from(shards) * replication).saturating_sub(count * bound);
        prop_assert!(moved as usize >= least, "{} moved, at least {}", moved, least);
    }

    #[test]
    fn a_node_that_leaves_moves_only_its_own(
        shards in 1u16..=512, replication in 1usize..=3, count in 4usize..12, leaving in 0usize..4,
    ) {
        let all = nodes(count);
        let before = place(shards, replication, &all, &Vec::new());
        let mut rest = all.clone();
        let gone = rest.remove(leaving).name;
        let after = place(shards, replication, &rest, &before);
        for (old, now) in before.iter().zip(&after) {
            prop_assert!(!now.contains(&gone));
            let stays = old.iter().filter(|name| **name != gone).filter(|name| now.contains(name)).count();
            prop_assert_eq!(stays, old.iter().filter(|name| **name != gone).count());
        }
    }

    #[test]
    fn heavier_nodes_hold_more(shards in 128u16..=512) {
        let mut three = nodes(3);
        three[0].weight = 2.0;
        let placement = place(shards, 1, &three, &Vec::new());
        let bound = (f64::from(shards) / 2.0).ceil() as usize + 1;
        prop_assert!(loads(&placement)["meili-0"] <= bound);
        prop_assert!(loads(&placement)["meili-0"] + 2 >= bound / 2 * 2 - bound / 4);
    }

    #[test]
    fn a_new_node_takes_at_most_a_fifth_more_than_its_share(
        shards in 64u16..=512, replication in 1usize..=3, count in 3usize..12,
    ) {
        let before = place(shards, replication, &nodes(count), &Vec::new());
        let after = place(shards, replication, &nodes(count + 1), &before);
        let share = f64::from(shards) * replication as f64 / (count as f64 + 1.0);
        let moved = moved(&before, &after);
        prop_assert!(moved as f64 <= 1.2 * share, "{} moved, share {}", moved, share);
        prop_assert_eq!(loads(&after).get(&*format!("meili-{count}")).copied().unwrap_or(0), moved);
    }

    /// Nodes of any weight and zone join and leave. At each step, replicas are on different nodes, only what must move moves,
    /// and zones (or, without zones, bounds) hold if they held before; a rebalance makes both hold, and a second one changes
    /// nothing.
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
                now = Placed::new(shards, replication, &all, place(shards, replication, &all, &before.placement));
                let new = &all[all.len() - 1];
                for (old, now) in before.placement.iter().zip(&now.placement) {
                    let is_new = |name: &NodeName| old.contains(name) || before.load(name) == 0;
                    prop_assert!(now.iter().all(is_new), "{:?} {:?}", old, now);
                }
                let moved = moved(&before.placement, &now.placement) as f64;
                let share = now.share(new);
                let others_are_empty = all.iter().any(|node| node != new && before.load(&node.name) == 0);
                prop_assert!(
                    !now.is_feasible() || others_are_empty || moved <= (1.2 * share).max(share.ceil()),
                    "{} moved, share {}", moved, share
                );
            } else {
                let gone = all.remove(leaving.index(all.len())).name;
                now = Placed::new(shards, replication, &all, place(shards, replication, &all, &before.placement));
                for (old, now) in before.placement.iter().zip(&now.placement) {
                    let stays = old.iter().filter(|name| **name != gone).all(|name| now.contains(name));
                    prop_assert!(stays, "{:?} {:?}", old, now);
                }
            }
            prop_assert!(now.are_apart(), "{:?}", now);
            let was_feasible = before.is_feasible() && before.is_bounded() && before.crowded().is_empty();
            // With zones and weights, the replicas of a node that leaves may fit nowhere else unless others move too.
            let is_exact = !zoned && (!weighted || all.len() > before.nodes.len());
            prop_assert!(!was_feasible || !is_exact || now.is_bounded(), "{:?}", now);
            let crowded = now.crowded();
            let were = before.crowded();
            prop_assert!(!before.has_zones() || crowded.iter().all(|shard| were.contains(shard)), "{:?}", now);
            let again = rebalance(shards, replication, &all, &now.placement);
            let again = Placed::new(shards, replication, &all, again);
            prop_assert!(again.are_apart() && again.crowded().is_empty() && again.is_bounded(), "{:?}", again);
            let is_empty = all.iter().any(|node| again.load(&node.name) == 0);
            prop_assert!(
                is_empty || rebalance(shards, replication, &all, &again.placement) == again.placement,
                "{:?}", again
            );
            let was_good = crowded.is_empty() && now.is_feasible() && now.is_bounded();
            let was_empty = all.iter().any(|node| now.load(&node.name) == 0);
            prop_assert!(!was_good || was_empty || again.placement == now.placement, "{:?}", now);
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn moved(before: &Placement, after: &Placement) -> usize {
    before.iter().zip(after).map(|(old, now)| now.iter().filter(|name| !old.contains(name)).count()).sum()
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

    fn load(&self, name: &str) -> usize {
        self.placement.iter().flatten().filter(|node| *node == name).count()
    }

    fn total(&self) -> f64 {
        self.nodes.iter().map(|node| node.weight).sum()
    }

    fn share(&self, node: &PlacementNode) -> f64 {
        f64::from(self.shards) * self.replication as f64 * node.weight / self.total()
    }

    /// Weight by zone; a node without a zone counts as a zone of its own.
    fn zones(&self) -> BTreeMap<&str, f64> {
        let mut zones = BTreeMap::new();
        for node in &self.nodes {
            *zones.entry(node.zone.as_deref().unwrap_or(&node.name)).or_default() += node.weight;
        }
        zones
    }

    fn has_zones(&self) -> bool {
        self.zones().len() >= self.replication
    }

    /// Whether no zone's share exceeds one replica of each shard, which is the most it can hold.
    fn is_feasible(&self) -> bool {
        self.zones().values().all(|weight| weight * self.replication as f64 <= self.total())
    }

    fn are_apart(&self) -> bool {
        let are_apart = |replicas: &Vec<NodeName>| {
            let distinct: std::collections::HashSet<_> = replicas.iter().collect();
            distinct.len() == self.replication && replicas.len() == self.replication
        };
        self.placement.iter().all(are_apart)
    }

    /// Whether every node holds at most `ceil(S * R * weight / total weight) + 1` replicas, if that is possible.
    fn is_bounded(&self) -> bool {
        let is_within = |node: &PlacementNode| self.load(&node.name) <= self.share(node).ceil() as usize + 1;
        !self.is_feasible() || self.nodes.iter().all(is_within)
    }

    /// Shards with two replicas in one zone although there are enough zones.
    fn crowded(&self) -> Vec<usize> {
        let zone = |name: &NodeName| {
            let node = self.nodes.iter().find(|node| node.name == *name);
            node.map(|node| node.zone.as_deref().unwrap_or(&node.name))
        };
        let is_crowded = |replicas: &Vec<NodeName>| {
            let distinct: std::collections::HashSet<_> = replicas.iter().map(zone).collect();
            distinct.len() < replicas.len()
        };
        if !self.has_zones() {
            return Vec::new();
        }
        (0..self.placement.len()).filter(|shard| is_crowded(&self.placement[*shard])).collect()
    }
}
