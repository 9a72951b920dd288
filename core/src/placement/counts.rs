//! How many replicas each node holds in each row: first those that move least, then, by exchanges between two nodes, those of fewer nodes in
//! each row.

use super::flow::Network;
use std::collections::BTreeSet;

/// A replica that stays where it is, against an edge to a node that is new in its row.
const KEPT: i64 = -16;
const NEW_IN_ROW: i64 = 1;
/// What it costs to leave a bound: more than everything that can be gained.
const OUT_OF_BOUNDS: i64 = 100_000;
/// What costs are counted in: this many for each replica that moves.
const MOVE: i64 = 16;
/// For each replica of a zone that is outside of the zone's main row.
const ASTRAY: i64 = 3;

/// How much nodes, and zones, hold.
pub(super) struct Bounds {
    pub shards: u32,
    /// For each node, the least and the most: its share, rounded down and up.
    pub nodes: Vec<(u32, u32)>,
    /// For each node, its zone; and whether a zone holds at most one replica of each shard.
    zones: Vec<usize>,
    are_zones_bounded: bool,
}

impl Bounds {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small and positive")]
    pub fn new(shards: usize, shares: &[f64], zones: Option<&Vec<usize>>) -> Self {
        // Shares are sums and quotients, and not quite exact.
        let bounds = |share: &f64| ((share + 1e-6).floor() as u32, (share - 1e-6).ceil() as u32);
        Self {
            shards: u32::try_from(shards).unwrap_or(u32::MAX),
            nodes: shares.iter().map(bounds).collect(),
            zones: zones.cloned().unwrap_or_else(|| (0..shares.len()).collect()),
            are_zones_bounded: zones.is_some(),
        }
    }

    fn of(&self, node: usize) -> (u32, u32) {
        self.nodes.get(node).copied().unwrap_or((0, 0))
    }

    fn zone(&self, node: usize) -> usize {
        self.zones.get(node).copied().unwrap_or(node)
    }

    fn members(&self, zone: usize) -> impl Iterator<Item = usize> {
        self.zones.iter().enumerate().filter(move |(_, of)| **of == zone).map(|(node, _)| node)
    }
}

/// How many replicas each node holds in each row.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Counts {
    rows: usize,
    of: Vec<Vec<u32>>,
    /// How many nodes are in each row.
    sizes: Vec<u32>,
}

impl Counts {
    pub fn new(nodes: usize, rows: usize) -> Self {
        Self { rows, of: vec![vec![0; rows]; nodes], sizes: vec![0; rows] }
    }

    pub fn at(&self, node: usize, row: usize) -> u32 {
        self.of.get(node).and_then(|counts| counts.get(row)).copied().unwrap_or(0)
    }

    pub fn add(&mut self, node: usize, row: usize, count: u32) {
        self.set(node, row, self.at(node, row).saturating_add(count));
    }

    pub fn take(&mut self, node: usize, row: usize, count: u32) {
        self.set(node, row, self.at(node, row).saturating_sub(count));
    }

    fn set(&mut self, node: usize, row: usize, count: u32) {
        let known = self.of.get_mut(node).and_then(|counts| counts.get_mut(row));
        if let (Some(known), Some(size)) = (known, self.sizes.get_mut(row)) {
            *size = *size + u32::from(count > 0) - u32::from(*known > 0);
            *known = count;
        }
    }

    pub fn load(&self, node: usize) -> u32 {
        self.of.get(node).map_or(0, |counts| counts.iter().sum())
    }

    fn nodes(&self) -> usize {
        self.of.len()
    }

    /// The rows that a node is in.
    fn memberships(&self, node: usize) -> usize {
        self.of.get(node).map_or(0, |counts| counts.iter().filter(|count| **count > 0).count())
    }

    /// In how many rows nodes are, summed over nodes.
    pub fn all_memberships(&self) -> usize {
        (0..self.nodes()).map(|node| self.memberships(node)).sum()
    }

    /// How many replicas are to be made to get here.
    pub fn moved_from(&self, before: &Self) -> u32 {
        let cells = (0..self.nodes()).flat_map(|node| (0..self.rows).map(move |row| (node, row)));
        cells.map(|(node, row)| self.at(node, row).saturating_sub(before.at(node, row))).sum()
    }

    /// The counts within bounds to which least must move from these.
    pub fn nearest(&self, bounds: &Bounds) -> Self {
        let (nodes, rows) = (self.nodes(), self.rows);
        let zones = bounds.zones.iter().max().map_or(0, |zone| zone + 1);
        let zone_at = |zone: usize| 2 + zone;
        let node_at = |node: usize| 2 + zones + node;
        let row_at = |row: usize| 2 + zones + nodes + row;
        let mut network = Network::new(2 + zones + nodes + rows);
        let all = bounds.shards.saturating_mul(u32::try_from(rows).unwrap_or(u32::MAX));
        for zone in 0..zones {
            network.edge(0, zone_at(zone), if bounds.are_zones_bounded { bounds.shards } else { all }, 0);
            network.edge(0, zone_at(zone), all, OUT_OF_BOUNDS);
        }
        let mut cells = Vec::new();
        for node in 0..nodes {
            let (least, most) = bounds.of(node);
            let from = zone_at(bounds.zone(node));
            network.edge(from, node_at(node), least, -OUT_OF_BOUNDS);
            network.edge(from, node_at(node), most.saturating_sub(least), 0);
            network.edge(from, node_at(node), bounds.shards.saturating_sub(most), OUT_OF_BOUNDS);
            for row in 0..rows {
                let held = self.at(node, row);
                let kept = network.edge(node_at(node), row_at(row), held, KEPT);
                let more = network.edge(
                    node_at(node),
                    row_at(row),
                    bounds.shards.saturating_sub(held),
                    if held == 0 { NEW_IN_ROW } else { 0 },
                );
                cells.push((node, row, kept, more));
            }
        }
        for row in 0..rows {
            network.edge(row_at(row), 1, bounds.shards, 0);
        }
        network.send(0, 1);
        let mut counts = Self::new(nodes, rows);
        for (node, row, kept, more) in cells {
            counts.add(node, row, network.sent(kept) + network.sent(more));
        }
        counts
    }

    /// Exchanges replicas between rows and nodes as long as that brings fewer nodes into rows, for at most `most` more replicas that move from
    /// `before`, and `each` for each row that a node leaves.
    pub fn in_fewer_rows(mut self, before: &Self, bounds: &Bounds, each: u32, most: u32) -> Self {
        let most = self.moved_from(before).saturating_add(most);
        let search = Search { before, bounds, membership: 2 * i64::from(each) * MOVE, ramp: each };
        // First what moves least for what it brings.
        for patience in [each.min(1), each / 8, each / 4, each / 2, each, each.saturating_mul(2)] {
            while search.sweep(&mut self, patience, most) {}
        }
        self
    }
}

/// A part of an exchange: this many replicas leave a row of a node, or come to it.
type Step = (usize, usize, bool, u32);

struct Search<'a> {
    before: &'a Counts,
    bounds: &'a Bounds,
    /// What it costs that a node is in a row, from so many replicas on.
    membership: i64,
    ramp: u32,
}

impl Search<'_> {
    /// Makes every exchange that costs less than nothing and moves at most `patience` replicas more, and no more than `most` in all. Returns
    /// whether there were any.
    fn sweep(&self, counts: &mut Counts, patience: u32, most: u32) -> bool {
        let mut moved = i64::from(counts.moved_from(self.before));
        let mut has_changed = false;
        let mut make = |counts: &mut Counts, exchanges: Vec<Vec<Step>>| {
            for steps in exchanges {
                let Some((cost, more)) = self.value(counts, &steps) else { continue };
                let is_within = more <= i64::from(patience) && moved + more <= i64::from(most);
                if cost < 0 && (is_within || more <= 0) {
                    apply(counts, &steps);
                    moved += more;
                    has_changed = true;
                    // The others were computed from what was there before.
                    return;
                }
            }
        };
        for first in 0..counts.nodes() {
            for second in (0..counts.nodes()).filter(|second| *second != first) {
                for (row, other) in pairs(counts.rows) {
                    let exchanges = self.exchanges(counts, first, second, row, other);
                    make(counts, exchanges);
                }
            }
            for (row, other) in pairs(counts.rows).filter(|(row, other)| row != other) {
                if counts.at(first, row) > 0 {
                    let exchanges = self.departure(counts, first, row, other);
                    make(counts, exchanges.into_iter().collect());
                }
            }
        }
        has_changed
    }

    /// A node leaves a row: others take what it has there, and give it as much of another row, one by one.
    fn departure(&self, counts: &Counts, node: usize, row: usize, other: usize) -> Option<Vec<Step>> {
        let mut now = counts.clone();
        let mut steps = Vec::new();
        let others = || (0..counts.nodes()).filter(|other| *other != node);
        for _ in 0..counts.at(node, row) {
            let has_room = |taker: &usize| now.load(*taker) < self.bounds.of(*taker).1;
            let taker = others().filter(has_room).min_by_key(|taker| {
                let held = now.at(*taker, row);
                (held == 0, held >= self.before.at(*taker, row), now.load(*taker))
            })?;
            let step = [(node, row, false, 1), (taker, row, true, 1)];
            apply(&mut now, &step);
            steps.extend(step);
            let can_give =
                |giver: &usize| now.load(*giver) > self.bounds.of(*giver).0 && now.at(*giver, other) > 0;
            let giver = others().filter(can_give).max_by_key(|giver| {
                let held = now.at(*giver, other);
                (held > self.before.at(*giver, other), now.load(*giver))
            })?;
            let step = [(giver, other, false, 1), (node, other, true, 1)];
            apply(&mut now, &step);
            steps.extend(step);
        }
        Some(steps)
    }

    /// Two nodes exchange rows; or one gives replicas of its row to the other one.
    fn exchanges(
        &self,
        counts: &Counts,
        first: usize,
        second: usize,
        row: usize,
        other: usize,
    ) -> Vec<Vec<Step>> {
        let mut all = Vec::new();
        if row != other {
            let room = counts.at(first, row).min(counts.at(second, other));
            for count in
                self.amounts(counts, [(first, row), (second, other)], [(first, other), (second, row)], room)
            {
                all.push(vec![
                    (first, row, false, count),
                    (first, other, true, count),
                    (second, other, false, count),
                    (second, row, true, count),
                ]);
            }
            return all;
        }
        let (least, most) = (self.bounds.of(first).0, self.bounds.of(second).1);
        let spare = counts.load(first).saturating_sub(least);
        let room = spare.min(most.saturating_sub(counts.load(second))).min(counts.at(first, row));
        for count in self.amounts(counts, [(first, row); 2], [(second, row); 2], room) {
            all.push(vec![(first, row, false, count), (second, row, true, count)]);
        }
        all
    }

    /// The amounts at which costs change: until a node has left a row, or has as much as before.
    fn amounts(
        &self,
        counts: &Counts,
        from: [(usize, usize); 2],
        to: [(usize, usize); 2],
        room: u32,
    ) -> BTreeSet<u32> {
        let above =
            |(node, row): (usize, usize)| counts.at(node, row).saturating_sub(self.before.at(node, row));
        let below =
            |(node, row): (usize, usize)| self.before.at(node, row).saturating_sub(counts.at(node, row));
        let amounts = from.map(above).into_iter().chain(to.map(below)).chain([room]);
        amounts.filter(|amount| (1..=room).contains(amount)).collect()
    }

    /// What an exchange costs, and how many replicas more move by it. `None` if it leaves bounds.
    fn value(&self, counts: &mut Counts, steps: &[Step]) -> Option<(i64, i64)> {
        let nodes: BTreeSet<usize> = steps.iter().map(|(node, ..)| *node).collect();
        let zones: BTreeSet<usize> = nodes.iter().map(|node| self.bounds.zone(*node)).collect();
        let before = (self.cost(counts, &nodes, &zones), self.moved(counts, &nodes));
        apply(counts, steps);
        let after = (self.cost(counts, &nodes, &zones), self.moved(counts, &nodes));
        let is_bounded = zones.iter().all(|zone| self.is_bounded(counts, *zone));
        let back: Vec<Step> =
            steps.iter().map(|(node, row, comes, count)| (*node, *row, !comes, *count)).collect();
        apply(counts, &back);
        is_bounded.then_some((after.0 - before.0, after.1 - before.1))
    }

    fn moved(&self, counts: &Counts, nodes: &BTreeSet<usize>) -> i64 {
        let cells = nodes.iter().flat_map(|node| (0..counts.rows).map(move |row| (*node, row)));
        cells
            .map(|(node, row)| i64::from(counts.at(node, row).saturating_sub(self.before.at(node, row))))
            .sum()
    }

    fn cost(&self, counts: &Counts, nodes: &BTreeSet<usize>, zones: &BTreeSet<usize>) -> i64 {
        let mut cost = self.moved(counts, nodes) * MOVE;
        for node in nodes {
            let rows = counts.memberships(*node);
            // If it fails, some row must be whole.
            let is_everywhere = rows == counts.rows && rows > 2;
            cost += self.membership * 2 * i64::from(is_everywhere);
            cost += (0..counts.rows).map(|row| self.ramp(counts.at(*node, row))).sum::<i64>();
        }
        // Rows of the same size: the largest one counts where another one has failed.
        cost += counts.sizes.iter().map(|size| i64::from(size * size)).sum::<i64>() * self.membership / 4;
        if self.bounds.are_zones_bounded {
            cost += zones.iter().map(|zone| self.astray(counts, *zone)).sum::<i64>() * ASTRAY;
        }
        cost
    }

    /// What it costs that a node has so many replicas in a row. It is cheaper to have few, so that the last ones go one by one.
    fn ramp(&self, count: u32) -> i64 {
        let full = i64::from(self.ramp.max(1));
        let count = i64::from(count).min(full);
        if count == 0 { 0 } else { self.membership / 2 + self.membership * count / (2 * full) }
    }

    /// How many replicas of a zone are not in the row where most of them are.
    fn astray(&self, counts: &Counts, zone: usize) -> i64 {
        let of_row = |row: usize| self.bounds.members(zone).map(|node| counts.at(node, row)).sum::<u32>();
        let of_rows: Vec<u32> = (0..counts.rows).map(of_row).collect();
        i64::from(of_rows.iter().sum::<u32>() - of_rows.iter().max().copied().unwrap_or(0))
    }

    fn is_bounded(&self, counts: &Counts, zone: usize) -> bool {
        !self.bounds.are_zones_bounded
            || self.bounds.members(zone).map(|node| counts.load(node)).sum::<u32>() <= self.bounds.shards
    }
}

/// All pairs of rows, those of a row with itself too.
fn pairs(rows: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..rows).flat_map(move |row| (0..rows).map(move |other| (row, other)))
}

fn apply(counts: &mut Counts, steps: &[Step]) {
    // What leaves goes first: nothing is cut off then.
    for (node, row, comes, count) in steps {
        match comes {
            true => counts.add(*node, *row, *count),
            false => counts.take(*node, *row, *count),
        }
    }
}
