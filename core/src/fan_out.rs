//! Decides which nodes a read asks, and for which shards: every shard exactly once.

mod covers;

use crate::{
    shard::Shard,
    topology::{FanOut, StaleInIndex, Topology},
};
use covers::{Cover, cover_of_few, covers};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// How many sets of failed nodes and stale replicas plans are kept for.
const KEPT: usize = 32;

/// Which nodes are asked for which shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FanOutPlan {
    /// Nodes, by position in the topology, with their shards in ascending order.
    pub asks: Vec<(u16, Vec<Shard>)>,
    /// Shards that have no readable replica outside `excluded`, in ascending order.
    pub missing: Vec<Shard>,
}

/// Plans a read of `shards` without the nodes in `excluded`, and without the replicas that are `stale` in an index that is read. Nodes
/// that are slow ([`Topology::avoid`]) are asked only for shards that no other node has.
///
/// The same `seed` on the same topology gives the same plan; different seeds spread the load evenly.
#[must_use]
pub fn plan(
    topology: &Topology,
    stale: &[&StaleInIndex],
    shards: impl IntoIterator<Item = Shard>,
    excluded: &BTreeSet<u16>,
    seed: u64,
) -> FanOutPlan {
    plan_avoiding(topology, stale, shards, excluded, &BTreeSet::new(), seed)
}

/// Like [`plan`]; the nodes in `late` count as slow too.
#[must_use]
pub fn plan_avoiding(
    topology: &Topology,
    stale: &[&StaleInIndex],
    shards: impl IntoIterator<Item = Shard>,
    excluded: &BTreeSet<u16>,
    late: &BTreeSet<u16>,
    seed: u64,
) -> FanOutPlan {
    let shards: Vec<Shard> = shards.into_iter().collect();
    let without = Without { excluded: excluded.clone(), slow: &topology.slow() | late };
    if shards.len() < usize::from(topology.shard_count()) {
        return plan_of_few(topology, stale, &shards, &without, seed);
    }
    let plans = topology.plans().of(&without, stale, || plans(topology, stale, &shards, &without));
    let choice = xxh3_64_with_seed(&[], seed) % (plans.len().max(1) as u64);
    usize::try_from(choice).ok().and_then(|choice| plans.get(choice)).cloned().unwrap_or_default()
}

/// The nodes that a plan does without.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Without {
    /// None of them is asked.
    excluded: BTreeSet<u16>,
    /// They are asked only for what no other node has.
    slow: BTreeSet<u16>,
}

/// Whether each of these shards has a replica that can be read.
#[must_use]
pub fn can_be_read(
    topology: &Topology,
    stale: &[&StaleInIndex],
    shards: &[Shard],
    excluded: &BTreeSet<u16>,
) -> bool {
    shards.iter().all(|shard| topology.readable(*shard, stale).any(|node| !excluded.contains(&node)))
}

/// Shards with the nodes that can be asked, and those without any.
fn replicas(
    topology: &Topology,
    stale: &[&StaleInIndex],
    shards: &[Shard],
    without: &Without,
) -> (Vec<(Shard, Vec<u16>)>, Vec<Shard>) {
    let (mut wanted, mut missing) = (Vec::new(), Vec::new());
    for shard in shards {
        let replicas = topology.readable(*shard, stale);
        let mut replicas: Vec<u16> = replicas.filter(|node| !without.excluded.contains(node)).collect();
        if replicas.iter().any(|node| !without.slow.contains(node)) {
            replicas.retain(|node| !without.slow.contains(node));
        }
        if replicas.is_empty() { missing.push(*shard) } else { wanted.push((*shard, replicas)) }
    }
    (wanted, missing)
}

fn plan_of_few(
    topology: &Topology,
    stale: &[&StaleInIndex],
    shards: &[Shard],
    without: &Without,
    seed: u64,
) -> FanOutPlan {
    let (wanted, missing) = replicas(topology, stale, shards, without);
    let asks = by_zone(topology, wanted).into_iter().flat_map(|wanted| {
        let nodes = nodes(&wanted);
        let cover = match topology.config().fan_out {
            FanOut::Fewest => cover_of_few(&nodes, seed),
            FanOut::Spread => all_nodes(&nodes),
        };
        asks(&cover, &wanted, |_| None)
    });
    FanOutPlan { asks: sorted(asks), missing }
}

/// Plans of which a read takes any one.
fn plans(
    topology: &Topology,
    stale: &[&StaleInIndex],
    shards: &[Shard],
    without: &Without,
) -> Vec<FanOutPlan> {
    let (wanted, missing) = replicas(topology, stale, shards, without);
    let rows = Rows::of(topology);
    let parts = by_zone(topology, wanted).map(|wanted| {
        let nodes = nodes(&wanted);
        let covers = match topology.config().fan_out {
            FanOut::Fewest => covers(&rows.nodes(), &nodes),
            FanOut::Spread => vec![all_nodes(&nodes)],
        };
        let asks = |cover: &Cover| {
            let of_row = |shard: Shard| cover.row.and_then(|row| rows.node(row, shard));
            asks(cover, &wanted, of_row)
        };
        covers.iter().map(asks).collect::<Vec<_>>()
    });
    let count = parts.iter().map(Vec::len).max().unwrap_or(0);
    let plan = |number: usize| {
        let asks = parts.iter().filter_map(|part| part.get(number % part.len().max(1)));
        FanOutPlan { asks: sorted(asks.flatten().cloned()), missing: missing.clone() }
    };
    (0..count).map(plan).collect()
}

/// Shards with their replicas in the gateway's zone; and those that have none there, with all replicas.
fn by_zone(topology: &Topology, wanted: Vec<(Shard, Vec<u16>)>) -> [Vec<(Shard, Vec<u16>)>; 2] {
    let (mut near, mut far) = (Vec::new(), Vec::new());
    for (shard, replicas) in wanted {
        let there: Vec<u16> = replicas.iter().copied().filter(|node| !topology.is_far(*node)).collect();
        if there.is_empty() { far.push((shard, replicas)) } else { near.push((shard, there)) }
    }
    [near, far]
}

fn nodes(wanted: &[(Shard, Vec<u16>)]) -> Vec<&[u16]> {
    wanted.iter().map(|(_, replicas)| replicas.as_slice()).collect()
}

fn sorted(asks: impl Iterator<Item = (u16, Vec<Shard>)>) -> Vec<(u16, Vec<Shard>)> {
    let mut asks: Vec<_> = asks.collect();
    asks.sort_unstable();
    asks
}

fn all_nodes(replicas: &[&[u16]]) -> Cover {
    let all: BTreeSet<u16> = replicas.concat().into_iter().collect();
    Cover { row: None, nodes: all.into_iter().collect() }
}

/// Of the nodes of a cover, the one that is asked for each shard: that of the row, or else one that is asked for fewest.
fn asks(
    cover: &Cover,
    wanted: &[(Shard, Vec<u16>)],
    of_row: impl Fn(Shard) -> Option<u16>,
) -> Vec<(u16, Vec<Shard>)> {
    let mut asks: BTreeMap<u16, Vec<Shard>> = BTreeMap::new();
    for (shard, replicas) in wanted {
        let load = |node: &u16| asks.get(node).map_or(0, Vec::len);
        let may = |node: &u16| replicas.contains(node) && cover.nodes.contains(node);
        let least = || cover.nodes.iter().copied().filter(may).min_by_key(load);
        if let Some(node) = of_row(*shard).filter(may).or_else(least) {
            asks.entry(node).or_default().push(*shard);
        }
    }
    asks.into_iter().collect()
}

/// The rows of a topology: the first nodes of all shards, the second ones, and so on. A shard of which not all replicas are readable does not
/// say in which rows the others are.
struct Rows<'a> {
    placement: &'a [Vec<u16>],
    count: usize,
}

impl<'a> Rows<'a> {
    fn of(topology: &'a Topology) -> Self {
        let placement = topology.config().placement.as_slice();
        let mut lengths: BTreeMap<usize, usize> = BTreeMap::new();
        placement.iter().for_each(|replicas| *lengths.entry(replicas.len()).or_default() += 1);
        // While replicas move, a shard may have more of them for some time.
        let usual = lengths.into_iter().max_by_key(|(length, shards)| (*shards, *length));
        Self { placement, count: usual.map_or(0, |(length, _)| length) }
    }

    /// The node that has a shard in a row.
    fn node(&self, row: usize, shard: Shard) -> Option<u16> {
        let replicas = self.placement.get(usize::from(shard.0))?;
        replicas.get(row).copied().filter(|_| replicas.len() == self.count)
    }

    /// The nodes of each row.
    fn nodes(&self) -> Vec<BTreeSet<u16>> {
        let shards = || (0..self.placement.len()).filter_map(|shard| u16::try_from(shard).ok()).map(Shard);
        (0..self.count).map(|row| shards().filter_map(|shard| self.node(row, shard)).collect()).collect()
    }
}

/// The plans for reads of all shards that were made by now.
#[derive(Debug, Default)]
pub struct Plans(Mutex<HashMap<Avoided, Arc<[FanOutPlan]>>>);

/// The nodes that plans do without, and the replicas that are stale in what is read.
type Avoided = (Without, Vec<StaleInIndex>);

impl Plans {
    fn of(
        &self,
        without: &Without,
        stale: &[&StaleInIndex],
        make: impl FnOnce() -> Vec<FanOutPlan>,
    ) -> Arc<[FanOutPlan]> {
        let avoided = (without.clone(), stale.iter().map(|stale| (*stale).clone()).collect());
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KEPT && !known.contains_key(&avoided) {
            known.clear();
        }
        Arc::clone(known.entry(avoided).or_insert_with(|| Arc::from(make())))
    }
}

/// They follow from the topology.
impl PartialEq for Plans {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

/// A copy makes its own.
impl Clone for Plans {
    fn clone(&self) -> Self {
        Self::default()
    }
}

#[cfg(test)]
mod tests;
