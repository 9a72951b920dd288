//! Placement: decides which nodes hold each shard's replicas. Replicas are placed in rows, as in RAID 10: each row holds every shard once, and
//! a search reads one row. It starts from the current placement, so that little more moves than must.

mod assignment;
mod counts;
mod flow;
mod labels;
mod partners;

use crate::node_name::NodeName;
use assignment::Assignment;
use counts::Bounds;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

/// A node that replicas can be placed on.
#[derive(Clone, Debug, PartialEq)]
pub struct PlacementNode {
    /// The node's name. Scores are hashed from it, so a node keeps its shards whatever its position.
    pub name: NodeName,
    /// Its share of the load, relative to the other nodes; zero or less means that it gets none.
    pub weight: f64,
    /// Replicas of a shard go to different zones if there are enough zones.
    pub zone: Option<String>,
}

impl PlacementNode {
    /// A node of weight 1 without a zone.
    #[must_use]
    pub fn new(name: impl Into<NodeName>) -> Self {
        Self { name: name.into(), weight: 1.0, zone: None }
    }
}

/// For each shard, the names of the nodes that hold it, by row: the first one is the node that has the shard in the first row.
pub type Placement = Vec<Vec<NodeName>>;

/// Places `replication` replicas of each of `shards` shards, after nodes have joined or left `previous`. Where none has, and no replica is
/// missing, nothing moves.
///
/// A shard has fewer replicas than requested only if there are fewer nodes of positive weight. Each node holds its share,
/// `shards * replication * weight / total weight`, rounded down or up, as far as zones allow: nodes in a small zone hold more. At most twice
/// as many replicas move as must: the others keep rows of few nodes.
#[must_use]
pub fn place(shards: u16, replication: usize, nodes: &[PlacementNode], previous: &Placement) -> Placement {
    let problem = Problem::new(shards, replication, nodes);
    let before = Assignment::of(&problem, previous);
    let is_same = before.is_whole() && !before.has_empty_node();
    let after = if is_same { before } else { before.clone().changed(&before.counts_for(Moves::Few)) };
    after.settled().into_placement()
}

/// Like [`place`], but also moves replicas when no node joined or left, and as many as the fewest nodes in rows need. Afterwards every shard's
/// replicas are in different zones if there are enough. A placement that cannot become better stays.
#[must_use]
pub fn rebalance(
    shards: u16,
    replication: usize,
    nodes: &[PlacementNode],
    previous: &Placement,
) -> Placement {
    let problem = Problem::new(shards, replication, nodes);
    let mut best = Assignment::of(&problem, previous);
    loop {
        let next = best.clone().changed(&best.counts_for(Moves::Many)).settled();
        // What does not get better stays: replicas would otherwise move back and forth on each call.
        if next.faults() >= best.faults() {
            return best.into_placement();
        }
        best = next;
    }
}

/// How many nodes a read of a row asks, on average, and at most. `None` where no row holds every shard.
#[must_use]
pub fn nodes_asked(placement: &Placement) -> Option<(f64, usize)> {
    let rows = placement.iter().map(Vec::len).min().filter(|rows| *rows > 0)?;
    let asked: Vec<usize> = (0..rows)
        .map(|row| {
            let nodes = placement.iter().filter_map(|nodes| nodes.get(row));
            nodes.collect::<std::collections::BTreeSet<_>>().len()
        })
        .collect();
    let (sum, rows) = (u32::try_from(asked.iter().sum::<usize>()).ok()?, u32::try_from(rows).ok()?);
    Some((f64::from(sum) / f64::from(rows), asked.into_iter().max()?))
}

/// How much may move.
#[derive(Clone, Copy, PartialEq)]
enum Moves {
    /// At most twice as much as must.
    Few,
    /// As much as rows of few nodes need.
    Many,
}

/// What is to be placed, and where.
struct Problem {
    shards: usize,
    /// The number of rows: that of replicas, or of nodes if there are fewer.
    rows: usize,
    /// The nodes of positive weight, those of a zone side by side. Of two that suit equally, the first one is taken.
    nodes: Vec<PlacementNode>,
    /// The zone of each node, as a number; nodes without one have their own.
    zones: Vec<usize>,
    /// Whether there are enough zones to keep replicas of a shard apart.
    has_enough_zones: bool,
    bounds: Bounds,
    /// For each shard, each node's score.
    scores: Vec<Vec<f64>>,
}

impl Problem {
    fn new(shards: u16, replication: usize, nodes: &[PlacementNode]) -> Self {
        let mut nodes: Vec<PlacementNode> = nodes.iter().filter(|node| node.weight > 0.0).cloned().collect();
        // The order in which nodes are given does not matter.
        nodes
            .sort_by_cached_key(|node| (node.zone.clone(), xxh3_64(node.name.as_bytes()), node.name.clone()));
        let rows = replication.min(nodes.len());
        let mut names: BTreeMap<(bool, String), usize> = BTreeMap::new();
        let zones: Vec<usize> = nodes
            .iter()
            .map(|node| {
                let name =
                    node.zone.clone().map_or_else(|| (true, node.name.to_string()), |zone| (false, zone));
                let next = names.len();
                *names.entry(name).or_insert(next)
            })
            .collect();
        let has_enough_zones = names.len() >= rows;
        let shares = shares(shards, rows, &nodes, &zones, has_enough_zones);
        let bounds = Bounds::new(usize::from(shards), &shares, has_enough_zones.then_some(&zones));
        let scores = (0..usize::from(shards))
            .map(|shard| nodes.iter().map(|node| score(shard, node)).collect())
            .collect();
        Self { shards: usize::from(shards), rows, nodes, zones, has_enough_zones, bounds, scores }
    }

    fn zone(&self, node: usize) -> Option<usize> {
        self.zones.get(node).copied()
    }

    fn score(&self, shard: usize, node: usize) -> f64 {
        self.scores.get(shard).and_then(|scores| scores.get(node)).copied().unwrap_or(0.0)
    }

    fn position(&self, name: &NodeName) -> Option<usize> {
        self.nodes.iter().position(|node| node.name == *name)
    }
}

/// How strongly a node prefers a shard: weighted rendezvous hashing, `-weight / ln(hash in (0, 1))`.
///
/// Source: Schindelhauer and Schomaker, *Weighted Distributed Hash Tables* (2005), logarithmic method.
fn score(shard: usize, node: &PlacementNode) -> f64 {
    let hash = xxh3_64(format!("{shard}/{}", node.name).as_bytes());
    // 53 bits fit a double exactly; adding a half keeps the value away from 0 and 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
    let unit = ((hash >> 11) as f64 + 0.5) / 9_007_199_254_740_992.0;
    -node.weight / unit.ln()
}

/// How many replicas each node should hold: its part by weight, but no zone and no node gets more than one replica of each
/// shard, as long as there are enough zones. The other nodes get the rest.
fn shares(
    shards: u16,
    rows: usize,
    nodes: &[PlacementNode],
    zones: &[usize],
    has_enough_zones: bool,
) -> Vec<f64> {
    let most = f64::from(shards);
    let of_node: Vec<usize> = if has_enough_zones { zones.to_vec() } else { (0..nodes.len()).collect() };
    let mut open: BTreeMap<usize, f64> = BTreeMap::new();
    for (node, zone) in nodes.iter().zip(&of_node) {
        *open.entry(*zone).or_default() += node.weight;
    }
    let weights = open.clone();
    let mut left = most * f64::from(u32::try_from(rows).unwrap_or(u32::MAX));
    let mut full: BTreeMap<usize, f64> = BTreeMap::new();
    loop {
        let total: f64 = open.values().sum();
        let is_full = |(_, weight): &(&usize, &f64)| left * **weight / total > most;
        let Some(found) = open.iter().find(is_full).map(|(zone, _)| *zone) else {
            full.extend(open.iter().map(|(zone, weight)| (*zone, left * weight / total)));
            break;
        };
        open.remove(&found);
        full.insert(found, most);
        left -= most;
    }
    let of = |(node, zone): (&PlacementNode, &usize)| {
        let (share, weight) = (full.get(zone), weights.get(zone));
        share.zip(weight).map_or(0.0, |(share, weight)| share * node.weight / weight)
    };
    nodes.iter().zip(&of_node).map(of).collect()
}

#[cfg(test)]
mod tests;
