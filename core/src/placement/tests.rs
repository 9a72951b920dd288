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
const GOLDEN: [[u8; 2]; 4] = [[2, 1], [2, 0], [1, 2], [1, 0]];

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
}
