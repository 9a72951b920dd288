//! Sets of few nodes that together have a replica of every shard.

use std::collections::BTreeSet;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// With up to this many nodes, all sets are tried to find the smallest; with more, sets grow by the most useful node.
const EXHAUSTIVE: usize = 12;
/// At most so many sets of one size are used.
const MOST: usize = 64;

/// Nodes that together have a replica of every shard.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Cover {
    /// The row that they are.
    pub row: Option<usize>,
    /// The nodes, ascending.
    pub nodes: Vec<u16>,
}

/// Covers of which a read takes any one: the rows, where one is whole and they are nearly as small as the smallest cover, since reads that take
/// rows in turn use every node for all that it holds; or else the smallest covers. `replicas`: for each shard, its nodes, at least one.
pub(super) fn covers(rows: &[BTreeSet<u16>], replicas: &[&[u16]]) -> Vec<Cover> {
    let nodes: BTreeSet<u16> = replicas.iter().flat_map(|nodes| nodes.iter().copied()).collect();
    if nodes.is_empty() {
        return vec![Cover { row: None, nodes: Vec::new() }];
    }
    let problem = Problem::new(&nodes, replicas);
    let rows: Vec<(usize, Fitness, Vec<u16>)> = rows
        .iter()
        .enumerate()
        .map(|(row, of_row)| {
            let there: Vec<u16> = of_row.iter().copied().filter(|node| nodes.contains(node)).collect();
            let completed = problem.complete(there.clone());
            let fitness = match completed == there {
                true => Fitness::Whole,
                false if completed.iter().all(|node| there.contains(node)) => Fitness::TooMany,
                false => Fitness::Completed,
            };
            (row, fitness, completed)
        })
        .collect();
    let smallest = if nodes.len() <= EXHAUSTIVE { problem.smallest() } else { problem.grown(&rows) };
    let size = smallest.first().map_or(0, Vec::len);
    // One of two rows alone would have all of the load.
    let whole = rows.iter().filter(|(_, fitness, _)| matches!(fitness, Fitness::Whole)).count();
    let more = usize::from(whole == 1 && rows.len() == 2);
    let is_near = |fitness: Fitness, nodes: usize| match fitness {
        // Rows differ by a few nodes.
        Fitness::Whole => nodes <= size + (size / 4).max(1),
        Fitness::Completed => nodes <= size + more,
        Fitness::TooMany => false,
    };
    let near = rows.into_iter().filter(|(_, fitness, nodes)| is_near(*fitness, nodes.len()));
    let rows: BTreeSet<Cover> = near.map(|(row, _, nodes)| Cover { row: Some(row), nodes }).collect();
    if whole == 0 || rows.is_empty() {
        return smallest.into_iter().map(|nodes| Cover { row: None, nodes }).collect();
    }
    rows.into_iter().collect()
}

/// A cover of a few shards, of which not all nodes of a row are needed. Another seed may give another one.
pub(super) fn cover_of_few(replicas: &[&[u16]], seed: u64) -> Cover {
    let nodes: BTreeSet<u16> = replicas.iter().flat_map(|nodes| nodes.iter().copied()).collect();
    let problem = Problem::new(&nodes, replicas);
    let first = nodes.into_iter().min_by_key(|node| xxh3_64_with_seed(&node.to_le_bytes(), seed));
    Cover { row: None, nodes: problem.complete(first.into_iter().collect()) }
}

/// What the nodes of a row are for reads.
#[derive(Clone, Copy)]
enum Fitness {
    /// They have every shard, and none could be left out.
    Whole,
    /// Others were added, since a node has failed or a replica is stale.
    Completed,
    /// Some could be left out: the placement has no rows.
    TooMany,
}

struct Problem {
    nodes: Vec<(u16, Shards)>,
    all: Shards,
}

impl Problem {
    fn new(nodes: &BTreeSet<u16>, replicas: &[&[u16]]) -> Self {
        Self {
            nodes: nodes.iter().map(|node| (*node, Shards::of(*node, replicas))).collect(),
            all: Shards::first(replicas.len()),
        }
    }

    fn of(&self, node: u16) -> Shards {
        self.nodes
            .iter()
            .find(|(other, _)| *other == node)
            .map_or_else(Shards::default, |(_, shards)| shards.clone())
    }

    /// Whether these nodes have every shard.
    fn is_whole(&self, nodes: &[u16]) -> bool {
        let mut held = Shards::default();
        nodes.iter().for_each(|node| held.add(&self.of(*node)));
        held == self.all
    }

    /// Adds the nodes that a set lacks, the most useful one first, and removes those that it does not need. The nodes ascend.
    fn complete(&self, mut set: Vec<u16>) -> Vec<u16> {
        let mut held = Shards::default();
        set.iter().for_each(|node| held.add(&self.of(*node)));
        while held != self.all {
            let gain = |shards: &Shards| shards.count_beyond(&held);
            let best = self.nodes.iter().max_by_key(|(node, shards)| (gain(shards), order(*node)));
            let Some((node, shards)) = best.filter(|(_, shards)| gain(shards) > 0) else { break };
            set.push(*node);
            held.add(shards);
        }
        // Those that hold least go first.
        set.sort_by_key(|node| (self.of(*node).count_beyond(&Shards::default()), order(*node)));
        for node in set.clone() {
            let others: Vec<u16> = set.iter().copied().filter(|other| *other != node).collect();
            if self.is_whole(&others) {
                set = others;
            }
        }
        set.sort_unstable();
        set
    }

    /// The smallest sets among the rows and those that grow from one node.
    fn grown(&self, rows: &[(usize, Fitness, Vec<u16>)]) -> Vec<Vec<u16>> {
        let grown = self.nodes.iter().take(MOST).map(|(node, _)| self.complete(vec![*node]));
        let sets: BTreeSet<Vec<u16>> = rows.iter().map(|(_, _, row)| row.clone()).chain(grown).collect();
        let size = sets.iter().map(Vec::len).min().unwrap_or(0);
        sets.into_iter().filter(|set| set.len() == size).collect()
    }

    /// The smallest sets of all.
    fn smallest(&self) -> Vec<Vec<u16>> {
        for size in 1..=self.nodes.len() {
            let mut found = Vec::new();
            self.choose(0, size, &mut Vec::with_capacity(size), &Shards::default(), &mut found);
            if !found.is_empty() {
                return found;
            }
        }
        Vec::new()
    }

    /// Extends a set by `size` of the nodes from this position on, and collects those that have every shard.
    fn choose(&self, from: usize, size: usize, set: &mut Vec<u16>, held: &Shards, found: &mut Vec<Vec<u16>>) {
        if found.len() >= MOST {
            return;
        }
        if size == 0 {
            if *held == self.all {
                found.push(set.clone());
            }
            return;
        }
        for (position, (node, shards)) in self.nodes.iter().enumerate().skip(from) {
            let mut with = held.clone();
            with.add(shards);
            set.push(*node);
            self.choose(position + 1, size - 1, set, &with, found);
            set.pop();
        }
    }
}

/// The order of nodes that are as good.
fn order(node: u16) -> u64 {
    xxh3_64(&node.to_le_bytes())
}

/// A set of shards, by their positions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shards([u64; 8]);

impl Shards {
    fn insert(&mut self, position: usize) {
        if let Some(word) = self.0.get_mut(position / 64) {
            *word |= 1 << (position % 64);
        }
    }

    /// The first `count` positions.
    fn first(count: usize) -> Self {
        let mut shards = Self::default();
        (0..count).for_each(|position| shards.insert(position));
        shards
    }

    /// Those of a node.
    fn of(node: u16, replicas: &[&[u16]]) -> Self {
        let mut shards = Self::default();
        let held = replicas.iter().enumerate().filter(|(_, nodes)| nodes.contains(&node));
        held.for_each(|(position, _)| shards.insert(position));
        shards
    }

    fn add(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(word, other)| *word |= other);
    }

    /// How many of these are not in `other`.
    fn count_beyond(&self, other: &Self) -> u32 {
        self.0.iter().zip(&other.0).map(|(word, other)| (word & !other).count_ones()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn where_no_row_is_whole_all_smallest_sets_share_the_load() {
        let rows = [BTreeSet::from([0, 1]), BTreeSet::from([2, 3])];
        // No row has the third shard.
        let of = |replicas: &[&[u16]]| covers(&rows, replicas).into_iter().map(|cover| cover.nodes).collect();
        let found: BTreeSet<Vec<u16>> = of(&[&[0, 2], &[1, 3], &[4]]);
        assert_eq!(found, [[0, 1, 4], [0, 3, 4], [1, 2, 4], [2, 3, 4]].map(Vec::from).into());
        let found: BTreeSet<Vec<u16>> = of(&[&[0, 2], &[1, 3]]);
        assert_eq!(found, [[0, 1], [2, 3]].map(Vec::from).into(), "whole rows");
    }
}
