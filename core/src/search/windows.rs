//! Pages in two steps: what merging needs of all hits up to the page's end first, then the documents of the page only.
//!
//! Each node's hits of the page stand together in the node's own order, so they are fetched by `offset` and `limit`. Where
//! they are not those that the first step told of, a write has come between, and all of it is asked again.

use super::{insertion::Insertion, merge::write_list, page::share, rank::Rank};
use crate::{
    http::Reply,
    json::RawObject,
    read::{Gathered, NodeRequest, Part, Portion, Question, shards_of},
    scrub,
    topology::Topology,
};

/// How the first step asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Scan {
    /// Each node is asked for its share of the hits, so many times.
    pub times: u64,
    /// Shards of the cluster.
    pub shards: u16,
    /// A write has come between the two steps before.
    pub torn: bool,
}

impl Scan {
    /// The first one.
    pub(super) fn new(shards: u16) -> Self {
        Self { times: 1, shards, torn: false }
    }
}

/// A question whose pages can come in two steps.
pub(super) trait InSteps: Question + Clone + 'static {
    /// The member of an answer that has the hits.
    const HITS: &'static str;

    /// Set in the first of two steps.
    fn scan(&self) -> Option<Scan>;

    /// The same in the first of two steps, or at once.
    fn with(&self, scan: Option<Scan>) -> Self;

    /// How many hits there are up to the page's end.
    fn end(&self) -> u64;

    /// Whether what an answer says besides its hits depends on how many are asked for.
    fn needs_all(&self) -> bool;

    /// The request for a node's hits from `offset` on, as the client sees them.
    fn window(&self, portions: &[Portion], offset: usize, limit: usize) -> NodeRequest;

    /// Names a hit; `None` where it is none.
    fn name(&self, hit: &RawObject<'_>) -> Option<Name>;

    /// Writes a hit as the client sees it.
    fn write_hit(&self, hit: &RawObject<'_>, out: &mut Vec<u8>);

    /// How many hits the node of these portions is asked for.
    fn hits_of(&self, portions: &[Portion]) -> u64 {
        match self.scan() {
            Some(Scan { times, shards, .. }) if !self.needs_all() => {
                let share = share(self.end(), shards_of(portions).len(), shards);
                share.saturating_mul(times).min(self.end())
            }
            _ => self.end(),
        }
    }

    /// What to ask instead where a node that told of so many hits may have more of the first ones, whose addresses these are.
    fn more(
        &self,
        parts: &[Part<'_>],
        found: &[usize],
        first: impl Iterator<Item = Address> + Clone,
    ) -> Option<Gathered> {
        let scan = self.scan()?;
        let may_have_more = |(source, (part, found)): (usize, (&Part<'_>, &usize))| {
            let asked = self.hits_of(part.portions);
            let last = (source, found.saturating_sub(1));
            asked < self.end() && *found as u64 >= asked && first.clone().any(|address| address == last)
        };
        let more = parts.iter().zip(found).enumerate().any(may_have_more);
        more.then(|| {
            let scan = Scan { times: scan.times.saturating_mul(4), ..scan };
            Gathered::Next(Box::new(self.with(Some(scan))), 0)
        })
    }

    /// The second step, after an answer without its hits; `None` where the page is empty.
    fn second(&self, frame: &[u8], parts: &[Part<'_>], winners: Vec<Winner>) -> Option<Gathered> {
        self.scan().filter(|_| !winners.is_empty())?;
        Some(Gathered::Again(Box::new(Page::new(self, frame, parts, winners))))
    }
}

/// The answer that told of a hit, and its position there.
pub(super) type Address = (usize, usize);

/// A hit of the page.
#[derive(Clone, Debug)]
pub(super) struct Winner {
    /// Where it is.
    pub address: Address,
    /// What it is.
    pub name: Option<Name>,
}

/// What tells a hit from others, and from itself after it has been written again.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Name {
    /// The query that found it.
    pub query: usize,
    /// When its document came.
    pub insertion: Insertion,
    /// What the ranking rules say of it.
    pub rank: Rank,
}

/// A page whose hits are known.
#[derive(Debug)]
struct Page<S> {
    /// The search at once, and how it is put in steps.
    search: S,
    scan: Option<Scan>,
    /// The answer without its hits.
    frame: Vec<u8>,
    winners: Vec<Winner>,
    sources: Vec<Source>,
}

/// A node's part of the page.
#[derive(Debug)]
struct Source {
    portions: Vec<Portion>,
    /// The position of its first hit, and how many there are to its last one.
    window: Option<(usize, usize)>,
}

/// An answer with what only its second step tells: the vector that was searched by, and how long things took.
pub(super) fn with_told<'a>(mut frame: RawObject<'a>, second: Option<&RawObject<'a>>) -> RawObject<'a> {
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

impl<S: InSteps> Page<S> {
    fn new(search: &S, frame: &[u8], parts: &[Part<'_>], winners: Vec<Winner>) -> Self {
        let sources = parts.iter().enumerate().map(|(source, part)| {
            let positions = || {
                winners.iter().map(|winner| winner.address).filter(|(it, _)| *it == source).map(|(_, at)| at)
            };
            let window = positions().min().zip(positions().max());
            let window = window.map(|(first, last)| (first, last - first + 1));
            Source { portions: part.portions.to_vec(), window }
        });
        Self {
            search: search.with(None),
            scan: search.scan(),
            frame: frame.to_vec(),
            sources: sources.collect(),
            winners,
        }
    }

    fn source(&self, portions: &[Portion]) -> Option<(usize, (usize, usize))> {
        let mut sources = self.sources.iter().enumerate();
        sources.find_map(|(at, source)| Some((at, source.window.filter(|_| source.portions == portions)?)))
    }
}

impl<S: InSteps> Question for Page<S> {
    fn seeds(&self) -> Vec<u64> {
        self.search.seeds()
    }

    fn concerns(&self, portions: &[Portion]) -> bool {
        self.source(portions).is_some()
    }

    fn ask(&self, portions: &[Portion]) -> NodeRequest {
        let (_, (first, count)) = self.source(portions).unwrap_or_default();
        self.search.window(portions, first, count)
    }

    fn restart(&self) -> Option<Box<dyn Question>> {
        Some(Box::new(self.search.with(self.scan)))
    }

    fn gather(&self, _: &Topology, parts: &[Part<'_>]) -> Gathered {
        let mut bodies: Vec<Vec<RawObject<'_>>> = self.sources.iter().map(|_| Vec::new()).collect();
        let mut told: Option<RawObject<'_>> = None;
        for (position, part) in parts.iter().enumerate() {
            let answer = serde_json::from_slice::<RawObject<'_>>(part.body).ok();
            let hits = answer.as_ref().and_then(|answer| answer.read::<Vec<RawObject<'_>>>(S::HITS));
            told = told.or(answer);
            let (Some(hits), Some((source, _))) = (hits, self.source(part.portions)) else {
                return Gathered::Broken(position);
            };
            if let Some(bodies) = bodies.get_mut(source) {
                *bodies = hits;
            }
        }
        let body = |winner: &Winner| {
            let (source, at) = winner.address;
            let (first, _) = self.sources.get(source)?.window?;
            bodies.get(source)?.get(at.checked_sub(first)?).filter(|hit| self.search.name(hit) == winner.name)
        };
        let Some(hits) = self.winners.iter().map(body).collect::<Option<Vec<_>>>() else {
            // Once more, then all hits at once.
            let again = self.scan.filter(|scan| !scan.torn).map(|scan| Scan { torn: true, ..scan });
            return Gathered::Next(Box::new(self.search.with(again)), 0);
        };
        let Ok(frame) = serde_json::from_slice::<RawObject<'_>>(&self.frame) else {
            return Gathered::Broken(0);
        };
        let frame = with_told(frame, told.as_ref());
        let mut out = Vec::with_capacity(self.frame.len() + hits.len() * 1024);
        frame.write_filtered(&mut out, |name, value, out| {
            if name == S::HITS {
                write_list(&hits, out, |hit, out| self.search.write_hit(hit, out));
                return true;
            }
            scrub::as_is(name, value, out)
        });
        Gathered::Reply(Reply::json(200, out))
    }
}
