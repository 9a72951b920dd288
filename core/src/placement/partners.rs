//! Where a node is in both of two rows, its failure leaves a hole in each of them. It stays cheap to read around if what the node has in one row
//! is, in the other row, on one or two nodes.

use super::assignment::Assignment;
use std::collections::BTreeSet;

/// How many replicas more may move for each exchange.
const MORE: u8 = 2;
/// With more nodes in both rows than these, there are no rows.
const MOST_IN_BOTH: usize = 3;

/// What a node has in one row, on whom it may be in the other row, and which exchanges bring it there.
struct Gathering {
    /// How many shards stay elsewhere.
    astray: usize,
    /// Shards that the node gives, and those that it gets for them, all of this row.
    exchanges: Vec<(usize, usize)>,
    /// How many replicas more move by them.
    moved: usize,
    row: usize,
}

impl Assignment<'_> {
    /// Exchanges shards, so that the failure of a node in both rows needs few other nodes. At most `most` replicas more move.
    pub(super) fn gather_partners(&mut self, mut most: usize) {
        if self.row_count() != 2 {
            return;
        }
        let nodes = |row: usize| -> BTreeSet<usize> {
            (0..self.shard_count()).filter_map(|shard| self.at(row, shard)).collect()
        };
        let both: Vec<usize> = nodes(0).intersection(&nodes(1)).copied().collect();
        // Placements of an older version have no rows.
        if both.len() > MOST_IN_BOTH {
            return;
        }
        for node in both {
            // With few more replicas that move, if all of it comes together then.
            let best = (0..=MORE).filter_map(|more| {
                let ways = [(0, 1), (1, 0)].map(|(row, other)| self.gathering(node, row, other, more));
                let best = ways.into_iter().flatten().min_by_key(|way| (way.astray, way.exchanges.len()))?;
                let moved = best.moved;
                (moved <= most && (more == 0 || best.astray == 0)).then_some((moved, best))
            });
            let Some((moved, best)) = best.min_by_key(|(_, way)| way.astray) else { continue };
            most -= moved;
            for (given, got) in best.exchanges {
                let with = self.at(best.row, got);
                self.set(best.row, got, Some(node));
                self.set(best.row, given, with);
            }
        }
    }

    /// The best way to have what a node has in `row` on one or two nodes of the `other` row.
    fn gathering(&self, node: usize, row: usize, other: usize, more: u8) -> Option<Gathering> {
        let held: Vec<usize> =
            (0..self.shard_count()).filter(|shard| self.at(row, *shard) == Some(node)).collect();
        let partners: BTreeSet<usize> = (0..self.shard_count())
            .filter_map(|shard| self.at(other, shard))
            .filter(|it| *it != node)
            .collect();
        let pairs = partners.iter().flat_map(|one| partners.range(one..).map(move |two| [*one, *two]));
        let with = |pair: [usize; 2]| {
            let is_with = |shard: &usize| self.at(other, *shard).is_some_and(|it| pair.contains(&it));
            let mut free: Vec<usize> = (0..self.shard_count())
                .filter(|shard| self.at(row, *shard) != Some(node) && is_with(shard))
                .collect();
            let mut exchanges = Vec::new();
            let (mut astray, mut moved) = (0, 0);
            for given in held.iter().filter(|shard| !is_with(shard)) {
                let costs = free.iter().enumerate();
                let costs = costs.filter_map(|(at, got)| Some((self.exchange(row, *given, *got)?, at)));
                match costs.filter(|(cost, _)| *cost <= more).min() {
                    Some((cost, position)) => {
                        moved += usize::from(cost);
                        exchanges.push((*given, free.swap_remove(position)));
                    }
                    None => astray += 1,
                }
            }
            Gathering { astray, exchanges, moved, row }
        };
        pairs.map(with).min_by_key(|way| (way.astray, way.exchanges.len()))
    }

    /// How many replicas more move if the nodes of two shards exchange them; `None` if they cannot.
    fn exchange(&self, row: usize, one: usize, two: usize) -> Option<u8> {
        let (a, b) = (self.at(row, one)?, self.at(row, two)?);
        let moved = |shard: usize, node: usize| u8::from(!self.had(row, shard, node));
        let more = (moved(one, b) + moved(two, a)).saturating_sub(moved(one, a) + moved(two, b));
        (self.suits(row, one, b) && self.suits(row, two, a)).then_some(more)
    }
}
