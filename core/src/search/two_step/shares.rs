//! First steps that ask each node for its share of the hits at once, and for more of them where that was not enough.

use super::{
    fetch::{Fetch, Known},
    page::{Address, Page, Winner},
    steps::InSteps,
};
use crate::{
    http::Reply,
    scatter_query::{Gathered, Part, QuerySlice, owner, shards_of},
};

/// How the first step asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::search) struct Shares {
    /// Each node is asked for its share of the hits, multiplied by this.
    times: u64,
    /// Shards of the cluster.
    shards: u16,
    /// Whether a write has already been detected between the two steps.
    torn: bool,
}

impl Shares {
    /// The first time.
    pub(in crate::search) fn new(shards: u16) -> Self {
        Self { times: 1, shards, torn: false }
    }

    /// What to do after a write between the two steps: once more, then all hits at once.
    pub(in crate::search) fn after_tear(self) -> Option<Self> {
        (!self.torn).then_some(Self { torn: true, ..self })
    }

    fn more(self) -> Self {
        Self { times: self.times.saturating_mul(4), ..self }
    }
}

/// A bit more than the share of the first `end` hits that a node with this many shards has.
pub(super) fn share(end: u64, shards: usize, topology_shards: u16) -> u64 {
    let share = end.saturating_mul(shards as u64) / u64::from(topology_shards.max(1));
    (share + share / 8 + 100).min(end)
}

/// A search of one page that asks so.
pub(in crate::search) trait InShares: InSteps<Query = ()> {
    /// Set if this is the first of two steps.
    fn shares(&self) -> Option<Shares>;

    /// The same query as the first of two steps, or in one step.
    fn with(self, shares: Option<Shares>) -> Self;

    /// The number of hits up to the page's end.
    fn end(&self) -> u64;

    /// Whether the rest of an answer depends on the number of requested hits.
    fn needs_all(&self) -> bool {
        false
    }

    /// How many hits nodes are to be asked for at least in the second step, from the first one on.
    fn least(&self) -> u64 {
        0
    }

    /// The number of hits to request from the node with these slices.
    fn hits_of(&self, slices: &[QuerySlice]) -> u64 {
        match self.shares() {
            Some(Shares { times, shards, .. }) if !self.needs_all() => {
                let share = share(self.end(), shards_of(slices).len(), shards);
                share.saturating_mul(times).min(self.end())
            }
            _ => self.end(),
        }
    }

    /// Whether a node that told of so many hits may have more of the first ones, whose addresses these are.
    fn wants_more(
        &self,
        parts: &[Part],
        found: &[usize],
        first: impl Iterator<Item = Address> + Clone,
    ) -> bool {
        let may_have_more = |(source, (part, found)): (usize, (&Part, &usize))| {
            let (asked, found) = (self.hits_of(&part.slices), *found as u64);
            let last = (source, found.saturating_sub(1));
            asked < self.end() && found >= asked && first.clone().any(|address| address == last)
        };
        self.shares().is_some() && parts.iter().zip(found).enumerate().any(may_have_more)
    }
}

/// What the answers to a search in shares come to.
#[derive(Debug)]
pub(in crate::search) enum FirstStep {
    /// Nodes may have more of the first hits: they are to be asked for more.
    More,
    /// All is to be asked for at once: there are no hits to fetch, whose answers would tell what these do not.
    AtOnce,
    /// The answer; in the first of two steps without its hits, which are these.
    Answer {
        /// The answer.
        frame: Vec<u8>,
        /// The page's hits.
        winners: Vec<Winner>,
    },
}

impl FirstStep {
    /// What comes after these parts.
    pub(in crate::search) fn gathered(self, search: impl InShares, parts: &[Part]) -> Gathered {
        match (self, search.shares()) {
            (Self::More, shares) => {
                let more = shares.map(Shares::more);
                Gathered::Next(Box::new(search.with(more)), owner(parts))
            }
            (Self::AtOnce, _) => Gathered::Next(Box::new(search.with(None)), owner(parts)),
            (Self::Answer { frame, winners }, Some(_)) if !winners.is_empty() => {
                let sources = parts.iter().map(|part| (shards_of(&part.slices), search.least()));
                let page = Page::new((), frame, winners, sources);
                Fetch::start(search, vec![Known::Hits(page)], parts)
            }
            (Self::Answer { frame, .. }, _) => Gathered::Reply(Reply::json(200, frame)),
        }
    }
}
