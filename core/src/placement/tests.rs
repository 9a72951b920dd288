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
    assert_eq!(placement, GOLDEN.map(|shard| shard.map(|node| format!("meili-{node}")).to_vec()));
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
    assert_eq!(place(2, 1, &[], &Vec::new()), [Vec::<String>::new(), Vec::new()]);
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

    /// Nodes come and go, of any weight, in any zone: bounds, distinct nodes, distinct zones, and few moves, at each step.
    #[test]
    fn a_life_of_changes(
        shards in 32u16..=256,
        replication in 1usize..=3,
        first in proptest::collection::vec((1u8..=2, 0u8..4), 6..9),
        steps in proptest::collection::vec((any::<bool>(), 1u8..=2, 0u8..4, any::<proptest::sample::Index>()), 1..8),
        zoned: bool,
    ) {
        let node = |number: usize, (weight, zone): (u8, u8)| PlacementNode {
            name: format!("meili-{number}"),
            weight: f64::from(weight),
            zone: zoned.then(|| format!("zone-{zone}")),
        };
        let mut all: Vec<PlacementNode> =
            first.iter().enumerate().map(|(number, of)| node(number, *of)).collect();
        let mut next = all.len();
        let mut placement = place(shards, replication, &all, &Vec::new());
        check(shards, replication, &all, &placement)?;
        for (add, weight, zone, leaving) in steps {
            let before = placement.clone();
            if add || all.len() <= 6 {
                all.push(node(next, (weight, zone)));
                next += 1;
                placement = place(shards, replication, &all, &before);
                let new = &all[all.len() - 1].name;
                for (old, now) in before.iter().zip(&placement) {
                    prop_assert!(now.iter().all(|name| old.contains(name) || name == new), "{:?} {:?}", old, now);
                }
            } else {
                let gone = all.remove(leaving.index(all.len())).name;
                placement = place(shards, replication, &all, &before);
                for (old, now) in before.iter().zip(&placement) {
                    let stays = old.iter().filter(|name| **name != gone).all(|name| now.contains(name));
                    // A node that zones have kept above its bound may give some away now.
                    prop_assert!(zoned || stays, "{:?} {:?}", old, now);
                }
            }
            check(shards, replication, &all, &placement)?;
        }
    }
}

#[cfg(not(target_arch = "wasm32"))]
fn moved(before: &Placement, after: &Placement) -> usize {
    before.iter().zip(after).map(|(old, now)| now.iter().filter(|name| !old.contains(name)).count()).sum()
}

#[cfg(not(target_arch = "wasm32"))]
fn check(
    shards: u16,
    replication: usize,
    nodes: &[PlacementNode],
    placement: &Placement,
) -> Result<(), TestCaseError> {
    let total: f64 = nodes.iter().map(|node| node.weight).sum();
    for replicas in placement {
        let distinct: std::collections::HashSet<_> = replicas.iter().collect();
        prop_assert_eq!(distinct.len(), replication, "{:?}", replicas);
    }
    // A node whose share is more than one of each shard's replicas cannot have it: others hold the rest. And zones come
    // before loads: a zone with few nodes may have to hold more.
    let is_zoned = nodes.iter().any(|node| node.zone.is_some());
    if !is_zoned && nodes.iter().all(|node| node.weight * replication as f64 <= total) {
        for (name, load) in loads(placement) {
            let weight = nodes.iter().find(|node| node.name == name).map_or(0.0, |node| node.weight);
            let bound = (f64::from(shards) * replication as f64 * weight / total).ceil() as usize + 1;
            prop_assert!(load <= bound, "{} holds {}, bound {}", name, load, bound);
        }
    }
    Ok(())
}
