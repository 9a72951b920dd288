//! Placement: decides which nodes hold each shard's replicas. It uses weighted rendezvous hashing with bounded load and starts
//! from the current placement, so that only what must move moves.

use crate::node_name::NodeName;
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

/// For each shard, the names of the nodes that hold it, the best one first.
pub type Placement = Vec<Vec<NodeName>>;

/// Places `replication` replicas of each of `shards` shards and keeps what `previous` says wherever possible.
///
/// A shard has fewer replicas than requested only if there are fewer nodes of positive weight. No node holds more than
/// `ceil(shards * replication * weight / total weight) + 1` replicas, as long as that leaves room for all and zones allow it:
/// nodes in a small zone may have to hold more. A node that held nothing takes its share, and nothing else moves; the replicas
/// of a node that leaves go to other nodes, and nothing else moves. If bounds or zones need more moves than that, [`rebalance`]
/// makes them.
#[must_use]
pub fn place(shards: u16, replication: usize, nodes: &[PlacementNode], previous: &Placement) -> Placement {
    let nodes: Vec<&PlacementNode> = nodes.iter().filter(|node| node.weight > 0.0).collect();
    let mut plan = Plan::new(shards, replication.min(nodes.len()), &nodes, previous);
    plan.spread(false);
    plan.fill();
    plan.level(Plan::is_moved);
    plan.into_placement()
}

/// Like [`place`], but may also move replicas when no node joined or left. Afterwards every shard's replicas are in different
/// zones if there are enough, and no node is above its bound, as far as zones and the room on other nodes allow. Replicas that
/// already satisfy this stay.
#[must_use]
pub fn rebalance(
    shards: u16,
    replication: usize,
    nodes: &[PlacementNode],
    previous: &Placement,
) -> Placement {
    let nodes: Vec<&PlacementNode> = nodes.iter().filter(|node| node.weight > 0.0).collect();
    let before = Plan::new(shards, replication.min(nodes.len()), &nodes, previous);
    let mut plan = before.clone();
    plan.spread(true);
    plan.fill();
    plan.mend_zones();
    plan.level(|_, _, _| true);
    let is_new = (0..nodes.len()).any(|node| before.load(node) == 0);
    // If zones and bounds cannot both be satisfied, replicas would otherwise move back and forth on each call.
    let plan = if is_new || plan.faults() < before.faults() { plan } else { before };
    plan.into_placement()
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
fn shares(shards: u16, replication: usize, nodes: &[&PlacementNode]) -> Vec<f64> {
    let most = f64::from(shards);
    let replicas = u32::try_from(replication).unwrap_or(u32::MAX);
    let mut zones: BTreeMap<&str, f64> = BTreeMap::new();
    for node in nodes {
        *zones.entry(node.zone.as_deref().unwrap_or(&node.name)).or_default() += node.weight;
    }
    let zone = |node: &PlacementNode| match &node.zone {
        Some(zone) if zones.len() >= replication => zone.clone(),
        _ => node.name.to_string(),
    };
    let mut open: BTreeMap<String, f64> = BTreeMap::new();
    for node in nodes {
        *open.entry(zone(node)).or_default() += node.weight;
    }
    let weights = open.clone();
    let mut left = most * f64::from(replicas);
    let mut full: BTreeMap<String, f64> = BTreeMap::new();
    loop {
        let total: f64 = open.values().sum();
        let is_full = |(_, weight): &(&String, &f64)| left * **weight / total > most;
        let Some(found) = open.iter().find(is_full).map(|(zone, _)| zone.clone()) else {
            full.extend(open.iter().map(|(zone, weight)| (zone.clone(), left * weight / total)));
            break;
        };
        open.remove(&found);
        full.insert(found, most);
        left -= most;
    }
    let of = |node: &&PlacementNode| {
        let zone = zone(node);
        let (share, weight) = (full.get(&zone), weights.get(&zone));
        share.zip(weight).map_or(0.0, |(share, weight)| share * node.weight / weight)
    };
    nodes.iter().map(of).collect()
}

#[derive(Clone)]
struct Plan<'a> {
    nodes: &'a [&'a PlacementNode],
    replication: usize,
    /// For each shard, the positions in `nodes` of its replicas.
    replicas: Vec<Vec<usize>>,
    /// The replicas of the previous placement, which only [`Plan::spread`] may move.
    kept: Vec<Vec<usize>>,
    loads: BTreeMap<usize, usize>,
    /// How many replicas each node should hold, as an exact number.
    shares: Vec<f64>,
    /// For each shard, each node's score.
    scores: Vec<Vec<f64>>,
}

/// How much a node may hold.
#[derive(Clone, Copy)]
enum Limit {
    /// Its share, rounded down: every node is filled up to this before any node gets more.
    Floor,
    /// Its share, rounded up, plus this many.
    Bound(usize),
}

impl<'a> Plan<'a> {
    fn new(shards: u16, replication: usize, nodes: &'a [&'a PlacementNode], previous: &Placement) -> Self {
        let shares = shares(shards, replication, nodes);
        let mut plan = Self {
            nodes,
            replication,
            replicas: vec![Vec::new(); usize::from(shards)],
            kept: Vec::new(),
            loads: BTreeMap::new(),
            shares,
            scores: (0..usize::from(shards))
                .map(|shard| nodes.iter().map(|node| score(shard, node)).collect())
                .collect(),
        };
        for shard in 0..plan.replicas.len() {
            let kept = previous.get(shard).into_iter().flatten();
            let kept: Vec<usize> =
                kept.filter_map(|name| nodes.iter().position(|node| &node.name == name)).collect();
            for node in kept.into_iter().take(replication) {
                plan.add(shard, node);
            }
        }
        plan.kept.clone_from(&plan.replicas);
        plan
    }

    fn held(&self, shard: usize) -> &[usize] {
        self.replicas.get(shard).map_or(&[], Vec::as_slice)
    }

    fn load(&self, node: usize) -> usize {
        self.loads.get(&node).copied().unwrap_or(0)
    }

    fn share(&self, node: usize) -> f64 {
        self.shares.get(node).copied().unwrap_or(0.0)
    }

    /// How far the node's load is above its share.
    fn excess(&self, node: usize) -> f64 {
        f64::from(u32::try_from(self.load(node)).unwrap_or(u32::MAX)) - self.share(node)
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
    fn has_room(&self, node: usize, limit: Limit) -> bool {
        let limit = match limit {
            Limit::Floor => self.share(node).floor() as usize,
            Limit::Bound(slack) => self.share(node).ceil() as usize + slack,
        };
        self.load(node) < limit
    }

    fn is_over(&self, node: usize, tolerance: usize) -> bool {
        !self.has_room(node, Limit::Bound(tolerance + 1))
    }

    fn add(&mut self, shard: usize, node: usize) {
        if let Some(held) = self.replicas.get_mut(shard)
            && !held.contains(&node)
        {
            held.push(node);
            *self.loads.entry(node).or_default() += 1;
        }
    }

    fn remove(&mut self, shard: usize, node: usize) {
        if let Some(held) = self.replicas.get_mut(shard) {
            held.retain(|other| *other != node);
            self.loads.entry(node).and_modify(|load| *load = load.saturating_sub(1));
        }
    }

    fn score(&self, shard: usize, node: usize) -> f64 {
        self.scores.get(shard).and_then(|scores| scores.get(node)).copied().unwrap_or(0.0)
    }

    /// Whether no replica of the shard, except one on `leaving`, is in this node's zone.
    fn is_new_zone(&self, shard: usize, node: usize, leaving: Option<usize>) -> bool {
        let zone = |node: usize| self.nodes.get(node).and_then(|node| node.zone.as_deref());
        let wanted = zone(node);
        wanted.is_none()
            || self.held(shard).iter().all(|&other| Some(other) == leaving || zone(other) != wanted)
    }

    /// The best of `nodes` with room for one more replica: one in a new zone first, then the one with the highest score.
    fn candidate(
        &self,
        shard: usize,
        nodes: &[usize],
        leaving: Option<usize>,
        limit: Limit,
    ) -> Option<usize> {
        let free =
            nodes.iter().filter(|node| !self.held(shard).contains(node) && self.has_room(**node, limit));
        free.copied().max_by(|&a, &b| {
            let key = |node| (self.is_new_zone(shard, node, leaving), self.score(shard, node));
            key(a).partial_cmp(&key(b)).unwrap_or(std::cmp::Ordering::Equal)
        })
    }

    /// Gives every shard its missing replicas.
    fn fill(&mut self) {
        let all: Vec<usize> = (0..self.nodes.len()).collect();
        for shard in 0..self.replicas.len() {
            while self.held(shard).len() < self.replication {
                // A node in another zone comes first, then one with room.
                let is_free =
                    |&node: &usize| !self.held(shard).contains(&node) && self.is_new_zone(shard, node, None);
                let zone: Vec<usize> = all.iter().copied().filter(is_free).collect();
                let limits = [Limit::Floor, Limit::Bound(0), Limit::Bound(1)];
                let choose = |nodes: &[usize]| {
                    limits.iter().find_map(|&limit| self.candidate(shard, nodes, None, limit))
                };
                // Zones take precedence over loads: nodes in a small zone may have to hold more.
                let found = choose(&zone).or_else(|| self.emptiest(&zone)).or_else(|| choose(&all));
                let found = found
                    .or_else(|| self.make_room(shard))
                    .or_else(|| self.candidate(shard, &all, None, Limit::Bound(usize::from(u16::MAX))));
                match found {
                    Some(node) => self.add(shard, node),
                    None => break,
                }
            }
        }
    }

    /// Makes room when the only nodes with room already hold the shard: moves another shard's replica to one of them, and
    /// returns the node that the replica left.
    fn make_room(&mut self, shard: usize) -> Option<usize> {
        let roomy: Vec<usize> =
            self.held(shard).iter().copied().filter(|&node| self.has_room(node, Limit::Bound(0))).collect();
        for other in 0..self.replicas.len() {
            let kept = self.kept.get(other).map_or(&[][..], Vec::as_slice);
            let mut movable = self.held(other).iter().copied().filter(|node| !kept.contains(node));
            let full = movable.find(|node| !self.held(shard).contains(node));
            let target = roomy.iter().copied().find(|node| !self.held(other).contains(node));
            if let (Some(full), Some(target)) = (full, target) {
                self.remove(other, full);
                self.add(other, target);
                return Some(full);
            }
        }
        None
    }

    /// Moves replicas off nodes above their bound, the lowest scores first. The targets are new nodes; if there are none and
    /// `may` is true, any node. In that last case a node may stay one above its bound.
    fn spread(&mut self, may: bool) {
        let (new, old): (Vec<usize>, Vec<usize>) =
            (0..self.nodes.len()).partition(|&node| self.load(node) == 0);
        if new.is_empty() && !may {
            return;
        }
        let (targets, tolerance) = if new.is_empty() { (&old[..], 1) } else { (&new[..], 0) };
        let mut queues: BTreeMap<usize, Vec<usize>> =
            old.iter().map(|&node| (node, self.unwanted(node))).collect();
        // The node furthest above its bound gives first: if there is not enough room for all, no node stays far above.
        while let Some(node) = self.most_over(&queues, tolerance) {
            let Some(shard) = queues.get_mut(&node).and_then(Vec::pop) else {
                queues.remove(&node);
                continue;
            };
            self.hand_over(shard, node, targets, Limit::Bound(0));
        }
        // If the bounds alone would leave a new node with little, nodes above their share give replicas too.
        let mut queues: BTreeMap<usize, Vec<usize>> =
            old.iter().map(|&node| (node, self.unwanted(node))).collect();
        for target in new {
            while self.has_room(target, Limit::Floor) {
                let above = queues.keys().copied().filter(|&node| self.excess(node) > 0.0);
                let Some(node) = above.max_by(|&a, &b| self.excess(a).total_cmp(&self.excess(b))) else {
                    break;
                };
                match queues.get_mut(&node).and_then(Vec::pop) {
                    Some(shard) => self.hand_over(shard, node, &[target], Limit::Floor),
                    None => drop(queues.remove(&node)),
                }
            }
        }
    }

    /// Moves a replica to the best of `targets`, unless zones forbid it.
    fn hand_over(&mut self, shard: usize, node: usize, targets: &[usize], limit: Limit) {
        if self.held(shard).contains(&node)
            && let Some(target) = self.candidate(shard, targets, Some(node), limit)
            && self.may_move(shard, node, target)
        {
            self.remove(shard, node);
            self.add(shard, target);
        }
    }

    /// Whether a replica can move from one node to another without adding a second replica of its shard to a zone.
    fn may_move(&self, shard: usize, from: usize, to: usize) -> bool {
        self.held(shard).contains(&from)
            && !self.held(shard).contains(&to)
            && (self.is_new_zone(shard, to, Some(from)) || self.is_crowded(shard, from))
    }

    /// Whether another replica of the shard is in this node's zone.
    fn is_crowded(&self, shard: usize, node: usize) -> bool {
        !self.is_new_zone(shard, node, Some(node))
    }

    /// Whether the replica is not part of the previous placement.
    fn is_moved(&self, shard: usize, node: usize) -> bool {
        self.kept.get(shard).is_none_or(|kept| !kept.contains(&node))
    }

    /// The node's shards, in the order in which it should keep them: by descending score, and after them those whose replica
    /// should be in another zone. Callers give away the last one first.
    fn unwanted(&self, node: usize) -> Vec<usize> {
        let mut shards: Vec<usize> =
            (0..self.replicas.len()).filter(|&shard| self.held(shard).contains(&node)).collect();
        shards.sort_by(|&a, &b| {
            let crowded = self.is_crowded(a, node).cmp(&self.is_crowded(b, node));
            crowded.then_with(|| self.score(b, node).total_cmp(&self.score(a, node)))
        });
        shards
    }

    /// The node that is furthest below its share, or least above it.
    fn emptiest(&self, nodes: &[usize]) -> Option<usize> {
        nodes.iter().copied().min_by(|&a, &b| self.excess(a).total_cmp(&self.excess(b)))
    }

    /// Of the nodes with a queue, the one furthest above its bound.
    fn most_over(&self, queues: &BTreeMap<usize, Vec<usize>>, tolerance: usize) -> Option<usize> {
        let over = queues.keys().copied().filter(|&node| self.is_over(node, tolerance));
        over.max_by(|&a, &b| self.excess(a).total_cmp(&self.excess(b)))
    }

    fn into_placement(self) -> Placement {
        let mut placement = Vec::with_capacity(self.replicas.len());
        for shard in 0..self.replicas.len() {
            let mut held = self.held(shard).to_vec();
            held.sort_by(|&a, &b| self.score(shard, b).total_cmp(&self.score(shard, a)));
            let names = held.iter().filter_map(|&node| self.nodes.get(node));
            placement.push(names.map(|node| node.name.clone()).collect());
        }
        placement
    }
}

mod level;
#[cfg(test)]
mod tests;
