//! Deep pages of federated searches: once scores have told which hits are the page's, their documents are read.
//!
//! Each node's hits of the page stand together in the node's own order, so they are fetched by `offset` and `limit`.

use super::{
    answer::DocumentId,
    deep::share,
    federated::Federated,
    merge::write_list,
    query::{DEEP, IndexQuery},
};
use crate::{
    http::Reply,
    json::RawObject,
    read::{Gathered, NodeRequest, Part, Portion, Question, shards_of},
    scrub,
    topology::Topology,
};
use serde_json::value::to_raw_value;

impl Federated {
    /// The same, for scores first and then the documents of the page only where that is less to move: not with vectors,
    /// since how many hits a node is asked for decides which ones it finds by them.
    pub(super) fn in_steps(mut self) -> Self {
        let (offset, limit) = self.federation.paging.window();
        let deep =
            offset >= DEEP && limit > 0 && !self.queries().iter().any(|query| query.request.has("hybrid"));
        self.scan = deep.then_some(1);
        self
    }

    /// The same, for whole documents at once.
    pub(super) fn whole(&self) -> Self {
        let mut whole = self.clone();
        whole.scan = None;
        whole
    }

    /// How many hits the node of these shards is asked for.
    pub(super) fn hits_of(&self, shards: usize) -> u64 {
        // Totals of these depend on how many hits are asked for.
        let counts =
            |query: &IndexQuery| query.distinct.is_some() || query.request.has("rankingScoreThreshold");
        match self.scan {
            Some(times) if !self.queries().iter().any(counts) => {
                share(self.hits(), shards, self.shards).saturating_mul(times).min(self.hits())
            }
            _ => self.hits(),
        }
    }

    /// The request for a node's hits from `offset` on, without facets.
    pub(super) fn window(&self, portions: &[Portion], offset: usize, limit: usize) -> NodeRequest {
        let added = [("offset", to_raw_value(&offset).ok()), ("limit", to_raw_value(&limit).ok())];
        self.whole().request(&shards_of(portions), &added, &["mergeFacets", "facetsByIndex"])
    }
}

/// A hit of the page.
#[derive(Clone, Debug)]
pub(super) struct Winner {
    /// The answer that told of it, and its position there.
    pub address: (usize, usize),
    /// The query that found it and the document's id, where it is shown.
    pub id: Option<(usize, DocumentId)>,
}

/// A page whose hits are known.
#[derive(Debug)]
pub(super) struct FederatedPage {
    federated: Federated,
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

impl FederatedPage {
    /// The page of these hits, whose scores these answers told.
    pub(super) fn new(
        federated: Federated,
        frame: Vec<u8>,
        parts: &[Part<'_>],
        winners: Vec<Winner>,
    ) -> Self {
        let sources = parts.iter().enumerate().map(|(source, part)| {
            let positions = || {
                winners.iter().map(|winner| winner.address).filter(|(it, _)| *it == source).map(|(_, at)| at)
            };
            let window = positions().min().zip(positions().max());
            let window = window.map(|(first, last)| (first, last - first + 1));
            Source { portions: part.portions.to_vec(), window }
        });
        Self { sources: sources.collect(), federated, frame, winners }
    }

    fn source(&self, portions: &[Portion]) -> Option<(usize, (usize, usize))> {
        let mut sources = self.sources.iter().enumerate();
        sources.find_map(|(at, source)| Some((at, source.window.filter(|_| source.portions == portions)?)))
    }
}

impl Question for FederatedPage {
    fn seeds(&self, topology: &Topology) -> Vec<u64> {
        self.federated.seeds(topology)
    }

    fn concerns(&self, portions: &[Portion]) -> bool {
        self.source(portions).is_some()
    }

    fn ask(&self, portions: &[Portion]) -> NodeRequest {
        let (_, (first, count)) = self.source(portions).unwrap_or_default();
        self.federated.window(portions, first, count)
    }

    fn restart(&self) -> Option<Box<dyn Question>> {
        Some(Box::new(self.federated.clone()))
    }

    fn gather(&self, _: &Topology, parts: &[Part<'_>]) -> Gathered {
        let mut bodies: Vec<Vec<RawObject<'_>>> = self.sources.iter().map(|_| Vec::new()).collect();
        for (position, part) in parts.iter().enumerate() {
            let answer = serde_json::from_slice::<RawObject<'_>>(part.body).ok();
            let hits = answer.and_then(|answer| answer.read::<Vec<RawObject<'_>>>("hits"));
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
            bodies.get(source)?.get(at.checked_sub(first)?).filter(|hit| self.federated.id(hit) == winner.id)
        };
        let Some(hits) = self.winners.iter().map(body).collect::<Option<Vec<_>>>() else {
            // A write has come between.
            return Gathered::Next(Box::new(self.federated.whole()), 0);
        };
        let Ok(frame) = serde_json::from_slice::<RawObject<'_>>(&self.frame) else {
            return Gathered::Broken(0);
        };
        let mut out = Vec::with_capacity(self.frame.len() + hits.len() * 1024);
        frame.write_filtered(&mut out, |name, value, out| {
            if name == "hits" {
                write_list(&hits, out, |hit, out| self.federated.write_hit(hit, out));
                return true;
            }
            scrub::as_is(name, value, out)
        });
        Gathered::Reply(Reply::json(200, out))
    }
}
