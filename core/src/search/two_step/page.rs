//! A page whose hits are known: which node has them, at which positions, and what they are.

use super::{name::Name, steps::InSteps};
use crate::{json::RawObject, scrub, shard::Shard};

/// The answer that told of a hit, and its position among that node's hits.
pub(in crate::search) type Address = (usize, u64);

/// A hit of the page.
#[derive(Clone, Debug)]
pub(in crate::search) struct Winner {
    /// Where it is.
    pub address: Address,
    /// What it is.
    pub name: Option<Name>,
}

/// The second step of a page, whose hits are known.
#[derive(Debug)]
pub(in crate::search) struct Page<Q> {
    query: Q,
    /// The answer without its hits.
    frame: Vec<u8>,
    winners: Vec<Winner>,
    sources: Vec<Source>,
}

/// One node's part of the page.
#[derive(Debug)]
struct Source {
    shards: Vec<Shard>,
    /// The position of its first hit, and how many there are to the last one that it is asked for.
    window: Option<(u64, u64)>,
}

/// A node's answer with its hits of the page.
#[derive(Debug)]
pub(super) struct Fetched<'a> {
    source: usize,
    members: RawObject<'a>,
    hits: Vec<RawObject<'a>>,
}

impl<Q> Page<Q> {
    /// A page of these hits. `sources` are the answers that told of them: for which shards, and how many hits the node is to be asked for
    /// at least, from the first one on.
    pub(in crate::search) fn new(
        query: Q,
        frame: Vec<u8>,
        winners: Vec<Winner>,
        sources: impl Iterator<Item = (Vec<Shard>, u64)>,
    ) -> Self {
        let source = |(source, (shards, least)): (usize, (Vec<Shard>, u64))| {
            let addresses = || winners.iter().map(|winner| winner.address).filter(|(it, _)| *it == source);
            let (first, last) = (addresses().map(|(_, at)| at).min(), addresses().map(|(_, at)| at).max());
            let window = first.zip(last).map(|(first, last)| (first, (last + 1).max(least) - first));
            Source { shards, window }
        };
        let sources = sources.enumerate().map(source).collect();
        Self { query, frame, winners, sources }
    }

    /// What the page is of.
    pub(super) fn query(&self) -> &Q {
        &self.query
    }

    /// Whether it has no hits.
    pub(super) fn is_empty(&self) -> bool {
        self.winners.is_empty()
    }

    /// The first and the number of the hits to fetch from the node that was asked for these shards.
    pub(super) fn window(&self, shards: &[Shard]) -> Option<(u64, u64)> {
        self.sources.iter().find(|source| source.shards == shards)?.window
    }

    /// Reads the answer of the node that was asked for these shards.
    pub(super) fn read<'a>(&self, shards: &[Shard], answer: &'a [u8], hits: &str) -> Option<Fetched<'a>> {
        let source = self.sources.iter().position(|source| source.shards == shards)?;
        let members: RawObject<'a> = serde_json::from_slice(answer).ok()?;
        Some(Fetched { source, hits: members.read(hits)?, members })
    }

    /// The answer; `None` where nodes have other hits now.
    pub(super) fn write<S: InSteps<Query = Q>>(
        &self,
        search: &S,
        fetched: &[Fetched<'_>],
    ) -> Option<Vec<u8>> {
        let of = |source: usize| fetched.iter().find(|fetched| fetched.source == source);
        let hit = |winner: &Winner| {
            let (source, at) = winner.address;
            let (first, _) = self.sources.get(source)?.window?;
            let hit = of(source)?.hits.get(usize::try_from(at.checked_sub(first)?).ok()?);
            hit.filter(|hit| search.name(&self.query, hit) == winner.name)
        };
        let hits: Vec<&RawObject<'_>> = self.winners.iter().map(hit).collect::<Option<_>>()?;
        let frame: RawObject<'_> = serde_json::from_slice(&self.frame).ok()?;
        let second = self.winners.first().and_then(|winner| of(winner.address.0));
        let frame = with_second_answer(frame, second.map(|second| &second.members));
        let mut out = Vec::with_capacity(self.frame.len() + hits.len() * 1024);
        frame.write_filtered(&mut out, |name, value, out| {
            match name {
                _ if name == S::HITS => search.write_hits(&self.query, &hits, out),
                "semanticHitCount" => {
                    let names = self.winners.iter().filter_map(|winner| winner.name.as_ref());
                    let semantic = names.filter(|name| name.rank.is_semantic()).count();
                    out.extend_from_slice(semantic.to_string().as_bytes());
                }
                _ => return scrub::as_is(name, value, out),
            }
            true
        });
        Some(out)
    }
}

/// Adds the members that only the second step's answer has: the vector that the search used, and performance details.
fn with_second_answer<'a>(mut frame: RawObject<'a>, second: Option<&RawObject<'a>>) -> RawObject<'a> {
    let mut before: Option<&str> = None;
    for (name, value) in second.iter().flat_map(|second| &second.0) {
        let missing = ["queryVector", "queryVectors", "performanceDetails"].contains(&&**name)
            && frame.get(name).is_none();
        if missing {
            let after = frame.0.iter().position(|(name, _)| Some(&**name) == before);
            let position = after.map_or(frame.0.len(), |after| after + 1);
            frame.0.insert(position, (name.clone(), value));
        }
        before = Some(name);
    }
    frame
}
