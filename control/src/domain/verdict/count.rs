//! Documents that nodes count, out of their counts over several shards.

use super::{State, TrackedNodeTask};
use miroir_core::shard::Shard;
use std::collections::BTreeSet;

/// The largest number of nodes of which every combination is tried.
const COMBINED: usize = 12;

/// Sums the counts in nodes' details so that each document counts once.
///
/// Each node reports one count over all its shards. If a set of nodes holds each shard equally often, k times, then each
/// document was counted k times, and the result is exact. That is so if all replicas took part, and often if some did not.
/// Otherwise the result is a rounded mean.
pub(super) fn counted(main: &[&TrackedNodeTask], detail: &str) -> Option<u64> {
    let done = main.iter().filter(|part| part.seen.state == State::Succeeded);
    let counts: Vec<(&[Shard], u64)> = done
        .filter_map(|part| Some((&*part.shards, part.seen.details.as_ref()?.get(detail)?.as_u64()?)))
        .collect();
    if counts.is_empty() {
        return None;
    }
    // If a node has counted 0, its shards had no such documents.
    let nothing: BTreeSet<Shard> = counts
        .iter()
        .filter(|(_, count)| *count == 0)
        .flat_map(|(shards, _)| shards.iter().copied())
        .collect();
    let counts: Vec<(BTreeSet<Shard>, u64)> = counts
        .into_iter()
        .filter(|(_, count)| *count > 0)
        .map(|(shards, count)| {
            (shards.iter().filter(|shard| !nothing.contains(shard)).copied().collect(), count)
        })
        .collect();
    let shards: BTreeSet<Shard> = counts.iter().flat_map(|(shards, _)| shards.iter().copied()).collect();
    let sum = |chosen: &[&(BTreeSet<Shard>, u64)]| chosen.iter().map(|(_, count)| count).sum::<u64>();
    let all: Vec<_> = counts.iter().collect();
    if shards.is_empty() {
        return Some(sum(&all));
    }
    let exact = |chosen: &[&(BTreeSet<Shard>, u64)]| {
        let times = |shard: &Shard| chosen.iter().filter(|(shards, _)| shards.contains(shard)).count() as u64;
        let first = shards.first().map(times).filter(|times| *times > 0)?;
        shards.iter().all(|shard| times(shard) == first).then(|| sum(chosen) / first)
    };
    let some = |choice: usize| {
        let chosen = counts.iter().enumerate().filter(|(position, _)| choice >> position & 1 == 1);
        exact(&chosen.map(|(_, count)| count).collect::<Vec<_>>())
    };
    let combined = exact(&all).or_else(|| (1..1usize << counts.len().min(COMBINED)).rev().find_map(some));
    let copies: u64 = counts.iter().map(|(shards, _)| shards.len() as u64).sum();
    Some(combined.unwrap_or_else(|| (sum(&all) * shards.len() as u64 + copies / 2) / copies.max(1)))
}
