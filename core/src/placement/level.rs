//! The part of a rebalance that moves more than a node's arrival or departure requires: it separates replicas that share a
//! zone, and brings nodes below their bounds.

use super::{Limit, Plan};
use std::collections::{BTreeMap, VecDeque};

impl Plan<'_> {
    /// How far the plan is from its goal: the number of missing replicas, of shards with replicas in one zone although another
    /// zone is free, and of replicas above bounds.
    pub(super) fn faults(&self) -> (usize, usize, usize) {
        let shards = 0..self.replicas.len();
        let missing =
            shards.clone().map(|shard| self.replication.saturating_sub(self.held(shard).len())).sum();
        let is_mendable = |shard: usize| {
            let is_free = |node| !self.held(shard).contains(&node) && self.is_new_zone(shard, node, None);
            (0..self.nodes.len()).any(is_free)
        };
        let is_crowded = |shard: &usize| self.held(*shard).iter().any(|&node| self.is_crowded(*shard, node));
        let crowded = shards.filter(is_crowded).filter(|shard| is_mendable(*shard)).count();
        let above = |node| (0..).take_while(|slack| !self.has_room(node, Limit::Bound(slack + 2))).count();
        (missing, crowded, (0..self.nodes.len()).map(above).sum())
    }

    /// Moves replicas that share a zone with another replica of their shard to a zone that has none.
    pub(super) fn mend_zones(&mut self) {
        for shard in 0..self.replicas.len() {
            for _ in 0..self.replication {
                let crowded = self.held(shard).iter().copied().filter(|&node| self.is_crowded(shard, node));
                let Some(from) = crowded.max_by(|&a, &b| self.excess(a).total_cmp(&self.excess(b))) else {
                    break;
                };
                let is_target = |&node: &usize| {
                    !self.held(shard).contains(&node) && self.is_new_zone(shard, node, Some(from))
                };
                let targets: Vec<usize> = (0..self.nodes.len()).filter(is_target).collect();
                let limits = [Limit::Floor, Limit::Bound(0), Limit::Bound(1)];
                let roomy =
                    limits.iter().find_map(|&limit| self.candidate(shard, &targets, Some(from), limit));
                let Some(to) = roomy.or_else(|| self.emptiest(&targets)) else { break };
                self.remove(shard, from);
                self.add(shard, to);
            }
        }
    }

    /// Brings nodes above their bound back to it, by moving replicas for which `may` returns `true` from node to node.
    pub(super) fn level(&mut self, may: impl Fn(&Self, usize, usize) -> bool) {
        let mut nodes: Vec<usize> = (0..self.nodes.len()).collect();
        loop {
            let over = nodes.iter().copied().filter(|&node| !self.has_room(node, Limit::Bound(2)));
            let Some(node) = over.max_by(|&a, &b| self.excess(a).total_cmp(&self.excess(b))) else { return };
            if !self.relieve(node, &may) {
                nodes.retain(|other| *other != node);
            }
        }
    }

    /// Takes one replica from a node: each node of the shortest possible chain hands one replica to the next, and the last one
    /// has room.
    fn relieve(&mut self, node: usize, may: &impl Fn(&Self, usize, usize) -> bool) -> bool {
        // For each node, the node and the shard that it would receive a replica from and of.
        let mut giver: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
        let mut queue = VecDeque::from([node]);
        while let Some(from) = queue.pop_front() {
            let shards = self.unwanted(from);
            for to in (0..self.nodes.len()).filter(|to| *to != node) {
                let is_movable = |shard: &usize| may(self, *shard, from) && self.may_move(*shard, from, to);
                if giver.contains_key(&to) {
                    continue;
                }
                let Some(shard) = shards.iter().rev().copied().find(is_movable) else { continue };
                giver.insert(to, (from, shard));
                if self.has_room(to, Limit::Bound(0)) {
                    return self.hand_on(to, &giver);
                }
                queue.push_back(to);
            }
        }
        false
    }

    /// Makes each node of a chain hand over one replica, starting at the chain's end. Returns `false` and undoes all if one
    /// step makes a later one invalid.
    fn hand_on(&mut self, end: usize, giver: &BTreeMap<usize, (usize, usize)>) -> bool {
        let before = (self.replicas.clone(), self.loads.clone());
        let mut to = end;
        while let Some(&(from, shard)) = giver.get(&to) {
            if !self.may_move(shard, from, to) {
                (self.replicas, self.loads) = before;
                return false;
            }
            self.remove(shard, from);
            self.add(shard, to);
            to = from;
        }
        true
    }
}
