//! Which node has which shard in which row.

use super::{Moves, Placement, Problem, counts::Counts, labels};
use std::collections::{BTreeMap, VecDeque};

/// After so many rounds hardly any shard has a better node.
const ROUNDS: usize = 8;

/// Where shards have more replicas than there are rows, leaves out those of the nodes that have most for their weight.
fn leave_out(problem: &Problem, held: &mut [Vec<usize>]) {
    let all = held.to_vec();
    let step = |node: usize| problem.nodes.get(node).map_or(1.0, |node| 1.0 / node.weight);
    let mut loads: Vec<f64> = vec![0.0; problem.nodes.len()];
    let add = |loads: &mut Vec<f64>, node: usize, by: f64| {
        if let Some(load) = loads.get_mut(node) {
            *load += by * step(node);
        }
    };
    held.iter().flatten().for_each(|node| add(&mut loads, *node, 1.0));
    let load = |loads: &Vec<f64>, node: usize| loads.get(node).copied().unwrap_or(0.0);
    for nodes in held.iter_mut() {
        while nodes.len() > problem.rows {
            let fullest = nodes.iter().copied().max_by(|a, b| load(&loads, *a).total_cmp(&load(&loads, *b)));
            let Some(fullest) = fullest else { break };
            nodes.retain(|node| *node != fullest);
            add(&mut loads, fullest, -1.0);
        }
    }
    for _ in 0..ROUNDS {
        for (nodes, all) in held.iter_mut().zip(&all) {
            let others: Vec<usize> = all.iter().copied().filter(|node| !nodes.contains(node)).collect();
            for other in others {
                let emptier = |node: &&mut usize| load(&loads, **node) > load(&loads, other) + step(other);
                if let Some(node) = nodes.iter_mut().find(emptier) {
                    add(&mut loads, *node, -1.0);
                    add(&mut loads, other, 1.0);
                    *node = other;
                }
            }
        }
    }
}

/// Which node has which shard in which row.
#[derive(Clone)]
pub(super) struct Assignment<'a> {
    problem: &'a Problem,
    /// For each row and shard, the node.
    rows: Vec<Vec<Option<usize>>>,
    /// For each row and shard, the node that had it before.
    kept: Vec<Vec<Option<usize>>>,
}

impl<'a> Assignment<'a> {
    /// What nodes that are still there hold.
    pub fn of(problem: &'a Problem, previous: &Placement) -> Self {
        let known = |names: &Vec<_>| -> Vec<usize> {
            let mut held: Vec<usize> = Vec::new();
            for node in names.iter().filter_map(|name| problem.position(name)) {
                if !held.contains(&node) {
                    held.push(node);
                }
            }
            held
        };
        let mut held: Vec<Vec<usize>> =
            (0..problem.shards).map(|shard| previous.get(shard).map(known).unwrap_or_default()).collect();
        leave_out(problem, &mut held);
        let rows = labels::rows_of(&held, problem.rows, problem.nodes.len());
        Self { problem, kept: rows.clone(), rows }
    }

    pub(super) fn at(&self, row: usize, shard: usize) -> Option<usize> {
        self.rows.get(row).and_then(|shards| shards.get(shard)).copied().flatten()
    }

    pub(super) fn set(&mut self, row: usize, shard: usize, node: Option<usize>) {
        if let Some(held) = self.rows.get_mut(row).and_then(|shards| shards.get_mut(shard)) {
            *held = node;
        }
    }

    pub(super) fn row_count(&self) -> usize {
        self.problem.rows
    }

    pub(super) fn shard_count(&self) -> usize {
        self.problem.shards
    }

    /// Whether a node had the shard in this row before.
    pub(super) fn had(&self, row: usize, shard: usize, node: usize) -> bool {
        self.kept.get(row).and_then(|shards| shards.get(shard)).copied().flatten() == Some(node)
    }

    fn is_kept(&self, row: usize, shard: usize) -> bool {
        self.at(row, shard).is_some_and(|node| self.had(row, shard, node))
    }

    pub fn is_whole(&self) -> bool {
        self.rows.iter().flatten().all(Option::is_some)
    }

    /// Whether a node holds nothing, and should.
    pub fn has_empty_node(&self) -> bool {
        let counts = self.counts();
        let mut bounds = self.problem.bounds.nodes.iter().enumerate();
        bounds.any(|(node, (least, _))| *least > 0 && counts.load(node) == 0)
    }

    fn counts(&self) -> Counts {
        let mut counts = Counts::new(self.problem.nodes.len(), self.problem.rows);
        for (row, shards) in self.rows.iter().enumerate() {
            shards.iter().flatten().for_each(|node| counts.add(*node, row, 1));
        }
        counts
    }

    /// What nodes should hold, and how many replicas more may move than that needs.
    pub fn counts_for(&self, moves: Moves) -> (Counts, usize) {
        let (before, bounds) = (self.counts(), &self.problem.bounds);
        let nearest = before.nearest(bounds);
        let nodes = u32::try_from(self.problem.nodes.len().max(1)).unwrap_or(u32::MAX);
        let share = (bounds.shards.saturating_mul(u32::try_from(self.problem.rows).unwrap_or(u32::MAX)))
            .div_ceil(nodes);
        let (each, most) = match moves {
            Moves::Few => (share.div_ceil(2), nearest.moved_from(&before)),
            Moves::Many => (share.saturating_mul(4), u32::MAX / 2),
        };
        let least = nearest.moved_from(&before);
        let counts = nearest.in_fewer_rows(&before, bounds, each, most);
        let left = (least + most).saturating_sub(counts.moved_from(&before));
        (counts, usize::try_from(left).unwrap_or(usize::MAX))
    }

    /// How far it is from its goal: missing replicas, shards that have two of them in a zone, replicas beyond what nodes should hold and one, and
    /// nodes in rows.
    pub fn faults(&self) -> (usize, usize, u32, usize) {
        let missing = self.rows.iter().flatten().filter(|node| node.is_none()).count();
        let counts = self.counts();
        let beyond = |(node, (least, most)): (usize, &(u32, u32))| {
            let load = counts.load(node);
            load.saturating_sub(most + 1)
                + least.saturating_sub(load + 1)
                + u32::from(*least > 0 && load == 0)
        };
        let beyond = self.problem.bounds.nodes.iter().enumerate().map(beyond).sum();
        (missing, self.crowded().len(), beyond, counts.all_memberships())
    }

    /// The replicas, as rows and shards, whose zone has another one of the same shard.
    fn crowded(&self) -> Vec<(usize, usize)> {
        if !self.problem.has_enough_zones {
            return Vec::new();
        }
        let all =
            (0..self.problem.rows).flat_map(|row| (0..self.problem.shards).map(move |shard| (row, shard)));
        let is_crowded = |(row, shard): &(usize, usize)| {
            self.at(*row, *shard).is_some_and(|node| !self.is_apart(*row, *shard, node))
        };
        all.filter(is_crowded).collect()
    }

    /// Whether a node that gets a shard in a row does not hold it in another one.
    fn may_hold(&self, row: usize, shard: usize, node: usize) -> bool {
        (0..self.problem.rows).filter(|other| *other != row).all(|other| self.at(other, shard) != Some(node))
    }

    /// Whether no other row has the shard in this node's zone.
    fn is_apart(&self, row: usize, shard: usize, node: usize) -> bool {
        let zone = self.problem.zone(node);
        let others = (0..self.problem.rows).filter(|other| *other != row);
        others.filter_map(|other| self.at(other, shard)).all(|other| self.problem.zone(other) != zone)
    }

    pub(super) fn suits(&self, row: usize, shard: usize, node: usize) -> bool {
        self.may_hold(row, shard, node) && (!self.problem.has_enough_zones || self.is_apart(row, shard, node))
    }

    /// The same replicas, all of which are where they were before.
    pub fn settled(self) -> Self {
        Self::of(self.problem, &self.into_placement())
    }

    /// Moves as few replicas as these counts need.
    pub fn changed(mut self, (counts, left): &(Counts, usize)) -> Self {
        let mut room = counts.clone();
        for row in 0..self.problem.rows {
            let mut held: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
            for shard in 0..self.problem.shards {
                if let Some(node) = self.at(row, shard) {
                    held.entry(node).or_default().push(shard);
                }
            }
            for (node, mut shards) in held {
                // The one that the node wants least comes last.
                shards.sort_by(|a, b| {
                    let suits = |shard: usize| self.suits(row, shard, node);
                    let score = |shard: usize| self.problem.score(shard, node);
                    suits(*b).cmp(&suits(*a)).then_with(|| score(*b).total_cmp(&score(*a)))
                });
                let stay = usize::try_from(counts.at(node, row)).unwrap_or(usize::MAX).min(shards.len());
                for shard in shards.split_off(stay) {
                    self.set(row, shard, None);
                }
                room.take(node, row, u32::try_from(stay).unwrap_or(u32::MAX));
            }
        }
        for row in 0..self.problem.rows {
            for shard in 0..self.problem.shards {
                if self.at(row, shard).is_none() {
                    self.fill(row, shard, &mut room);
                }
            }
        }
        self.mend_zones();
        self.gather_partners(*left);
        self
    }

    /// Gives a shard a node in a row: one with room, or one that hands another shard on.
    fn fill(&mut self, row: usize, shard: usize, room: &mut Counts) {
        let nodes = 0..self.problem.nodes.len();
        let free = nodes.clone().filter(|node| room.at(*node, row) > 0 && self.suits(row, shard, *node));
        let best = free.max_by(|a, b| {
            let key = |node: usize| (self.is_apart(row, shard, node), self.problem.score(shard, node));
            key(*a).partial_cmp(&key(*b)).unwrap_or(std::cmp::Ordering::Equal)
        });
        if let Some(node) = best {
            self.set(row, shard, Some(node));
            room.take(node, row, 1);
            return;
        }
        if self.is_handed_on(row, shard, room) || self.is_exchanged(row, shard, room) {
            return;
        }
        // Zones, then counts, cannot be kept.
        let holders = nodes.filter(|node| self.may_hold(row, shard, *node));
        let last = holders.max_by(|a, b| {
            let key = |node: usize| {
                (room.at(node, row) > 0, self.suits(row, shard, node), self.problem.score(shard, node))
            };
            key(*a).partial_cmp(&key(*b)).unwrap_or(std::cmp::Ordering::Equal)
        });
        if let Some(node) = last {
            self.set(row, shard, Some(node));
            room.take(node, row, 1);
        }
    }

    fn is_handed_on(&mut self, row: usize, shard: usize, room: &mut Counts) -> bool {
        self.hand_on(row, shard, room, false) || self.hand_on(row, shard, room, true)
    }

    /// Takes a node that has the shard in another row, if that one can be filled instead.
    fn is_exchanged(&mut self, row: usize, shard: usize, room: &mut Counts) -> bool {
        for other in (0..self.problem.rows).filter(|other| *other != row) {
            let Some(node) = self.at(other, shard).filter(|node| room.at(*node, row) > 0) else { continue };
            let before = (self.clone(), room.clone());
            self.set(row, shard, Some(node));
            room.take(node, row, 1);
            self.set(other, shard, None);
            room.add(node, other, 1);
            if self.is_handed_on(other, shard, room) {
                return true;
            }
            (*self, *room) = before;
        }
        false
    }

    /// Makes room for a shard along the shortest chain of nodes, each of which hands a shard of this row on to the next, until one has room. Replicas
    /// that were there before are handed on only if `all` is true.
    fn hand_on(&mut self, row: usize, shard: usize, room: &mut Counts, all: bool) -> bool {
        let nodes = 0..self.problem.nodes.len();
        let mut came: BTreeMap<usize, Option<(usize, usize)>> = BTreeMap::new();
        let mut queue: VecDeque<usize> = nodes.clone().filter(|node| self.suits(row, shard, *node)).collect();
        came.extend(queue.iter().map(|node| (*node, None)));
        if let Some(node) = queue.iter().copied().find(|node| room.at(*node, row) > 0) {
            self.set(row, shard, Some(node));
            room.take(node, row, 1);
            return true;
        }
        let mut end = None;
        'search: while let Some(node) = queue.pop_front() {
            for given in 0..self.problem.shards {
                if self.at(row, given) != Some(node) || (!all && self.is_kept(row, given)) {
                    continue;
                }
                for next in nodes.clone() {
                    if came.contains_key(&next) || !self.suits(row, given, next) {
                        continue;
                    }
                    came.insert(next, Some((node, given)));
                    if room.at(next, row) > 0 {
                        end = Some(next);
                        break 'search;
                    }
                    queue.push_back(next);
                }
            }
        }
        let Some(mut node) = end else { return false };
        room.take(node, row, 1);
        while let Some((from, given)) = came.get(&node).copied().flatten() {
            self.set(row, given, Some(node));
            node = from;
        }
        self.set(row, shard, Some(node));
        true
    }

    /// Moves replicas that share a zone with another one of their shard to a node that has room, or exchanges them for others of their row.
    fn mend_zones(&mut self) {
        for (row, shard) in self.crowded() {
            let Some(node) = self.at(row, shard).filter(|node| !self.suits(row, shard, *node)) else {
                continue;
            };
            let counts = self.counts();
            let has_room = |node: &usize| {
                let most = self.problem.bounds.nodes.get(*node).map_or(0, |(_, most)| *most);
                counts.load(*node) < most && self.suits(row, shard, *node)
            };
            let roomy = (0..self.problem.nodes.len()).filter(has_room);
            let roomy =
                roomy.max_by(|a, b| self.problem.score(shard, *a).total_cmp(&self.problem.score(shard, *b)));
            if roomy.is_some() {
                self.set(row, shard, roomy);
                continue;
            }
            let others = (0..self.problem.shards).filter(|other| *other != shard);
            let exchange = others.filter_map(|other| {
                let with = self.at(row, other)?;
                let is_fit = with != node && self.suits(row, shard, with) && self.suits(row, other, node);
                is_fit.then_some((other, with))
            });
            let best = exchange.max_by(|(a, _), (b, _)| {
                self.problem.score(*a, node).total_cmp(&self.problem.score(*b, node))
            });
            if let Some((other, with)) = best {
                self.set(row, shard, Some(with));
                self.set(row, other, Some(node));
            }
        }
    }

    /// The lists of nodes by shard, in the order of rows.
    pub fn into_placement(self) -> Placement {
        let of_shard = |shard: usize| {
            let nodes = (0..self.problem.rows).filter_map(|row| self.at(row, shard));
            nodes.filter_map(|node| self.problem.nodes.get(node)).map(|node| node.name.clone()).collect()
        };
        (0..self.problem.shards).map(of_shard).collect()
    }
}
