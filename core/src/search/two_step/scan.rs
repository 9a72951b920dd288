//! A first step that goes on where it ended: scores first, from each node a bit more than its share, and then more from those whose
//! hits are used up.

use super::{
    name::Name,
    page::{Page, Winner},
    shares::share,
};
use crate::{
    search::{
        hits::answer::{Hit, NodeAnswer},
        hybrid::Mixed,
        merge::Seen,
        query::{Decided, IndexQuery},
    },
    shard::Shard,
};
use std::{cmp::Ordering, collections::VecDeque};

/// The most scores to request from a node at once; each takes half a kilobyte.
const CHUNK: u64 = 60_000;

/// A deep page whose hits are being looked for.
#[derive(Debug)]
pub(in crate::search) struct Scan {
    /// What the page shows.
    query: IndexQuery,
    /// The same for scores.
    scan: IndexQuery,
    /// The answer without its hits.
    frame: Vec<u8>,
    sources: Vec<Source>,
    seen: Seen,
    /// Number of hits that have been ranked.
    ranked: u64,
    /// The page's hits, as far as they are known.
    winners: Vec<Winner>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// More scores are to be asked for.
    Scanning,
    /// A write has come between two answers of a node; others are still to be taken.
    Tearing,
    /// Whether a write has happened between two answers of a node.
    Torn,
    /// All hits of the page are known.
    Complete,
}

/// One node's hits.
#[derive(Debug)]
struct Source {
    shards: Vec<Shard>,
    /// Hits that are not merged yet.
    waiting: VecDeque<Scored>,
    /// Hits that are merged.
    merged: u64,
    /// Number of hits that have been requested.
    asked: u64,
    /// There are no more.
    ended: bool,
    /// The last hit that the node returned.
    last: Option<Name>,
    /// The fewest hits to ask for: with fewer, the node might take the keyword hits as good enough.
    least: u64,
}

#[derive(Debug)]
struct Scored {
    name: Name,
    mixed: Option<Mixed>,
    distinct: Vec<String>,
}

/// The number of scores that a node with these shards is first asked for.
pub(in crate::search) fn first_chunk(query: &IndexQuery, shards: &[Shard], topology_shards: u16) -> u64 {
    let end = query.end();
    // For these, the totals and the hits that a vector finds depend on the number of requested hits.
    if query.distinct.is_some() || ["rankingScoreThreshold", "hybrid"].iter().any(|it| query.request.has(it))
    {
        return end;
    }
    share(end, shards.len(), topology_shards).min(CHUNK)
}

impl Scan {
    /// A page after its first answers, each with its shards and the number of requested hits. `keywords` are the keyword
    /// answers, if the page is hybrid and its decision is open.
    ///
    /// # Errors
    /// The query to send instead.
    pub(in crate::search) fn new(
        query: &IndexQuery,
        answers: Vec<(Vec<Shard>, u64, NodeAnswer<'_>)>,
        mut keywords: Vec<NodeAnswer<'_>>,
    ) -> Result<Self, Box<IndexQuery>> {
        let open = query.request.hybrid.filter(|_| query.asks_keywords());
        let decided = open.map(|hybrid| (hybrid, query.decide(hybrid, &keywords)));
        let by_keywords = match decided {
            Some((_, Decided::Disputed)) => return Err(Box::new(query.forced())),
            Some((_, Decided::Keywords)) => true,
            _ => false,
        };
        let mut scan = Self {
            scan: query.scan(),
            frame: Vec::new(),
            sources: Vec::new(),
            seen: Seen::new(query.distinct.as_deref()),
            ranked: 0,
            winners: Vec::new(),
            state: State::Scanning,
            query: if by_keywords { query.by_keywords() } else { query.clone() },
        };
        let mut frames = Vec::with_capacity(answers.len());
        for (source, (shards, asked, mut answer)) in answers.into_iter().enumerate() {
            let own = std::mem::take(&mut answer.hits);
            let by_words = keywords.get_mut(source).map(|answer| std::mem::take(&mut answer.hits));
            let by_words = by_words.unwrap_or_default();
            scan.sources.push(Source {
                shards,
                waiting: VecDeque::new(),
                merged: 0,
                asked: 0,
                ended: false,
                last: None,
                least: decided.filter(|_| !by_keywords).map_or(0, |(hybrid, _)| hybrid.least(&by_words)),
            });
            scan.add(source, asked, if by_keywords { by_words } else { own });
            frames.push(answer);
        }
        let merging = query.merging();
        scan.frame = match by_keywords {
            true => merging.merge_keywords(&query.request, &frames, &keywords),
            false => merging.merge(&query.request, &frames),
        };
        scan.rank();
        // Scores are requested without vectors. If the page has no hits, no later answer could return the query's vector.
        if scan.state == State::Complete
            && scan.winners.is_empty()
            && query.request.has("hybrid")
            && query.request.wants_vectors()
        {
            return Err(Box::new(query.clone().whole()));
        }
        Ok(scan)
    }

    /// The page, once all its hits are known; `None` where a write has come between two answers of a node.
    pub(in crate::search) fn page(self) -> Option<Page<IndexQuery>> {
        if self.state == State::Torn {
            return None;
        }
        let sources = self.sources.into_iter().map(|source| (source.shards, source.least));
        Some(Page::new(self.query, self.frame, self.winners, sources))
    }

    fn add(&mut self, source: usize, asked: u64, hits: Vec<Hit<'_>>) {
        let found = hits.len() as u64;
        let hybrid = self.query.request.hybrid;
        let key = self.query.config.primary_key.as_deref();
        let mut scored: VecDeque<Scored> = hits
            .iter()
            .map(|hit| Scored {
                name: Name::of(0, &hit.fields, key),
                mixed: hybrid.map(|hybrid| hybrid.mixed(hit)),
                distinct: self.seen.values(hit),
            })
            .collect();
        let end = self.query.end();
        let Some(source) = self.sources.get_mut(source) else { return };
        // Each later request overlaps the previous one by its last hit.
        if let Some(last) = &source.last
            && scored.pop_front().is_none_or(|first| first.name != *last)
        {
            self.state = State::Tearing;
        }
        source.asked += asked - u64::from(source.last.is_some());
        source.ended = found < asked || source.asked >= end;
        source.last = scored.back().map(|last| last.name.clone()).or(source.last.take());
        source.waiting.append(&mut scored);
    }

    /// Whether more scores must be requested.
    pub(in crate::search) fn is_scanning(&self) -> bool {
        matches!(self.state, State::Scanning | State::Tearing)
    }

    /// Merges as far as the available hits allow.
    pub(in crate::search) fn rank(&mut self) {
        match self.state {
            State::Scanning => {}
            State::Tearing => {
                self.state = State::Torn;
                return;
            }
            State::Torn | State::Complete => return,
        }
        let (offset, _) = self.query.request.paging.window();
        let end = self.query.end();
        while self.ranked < end {
            let mut best: Option<(usize, &Scored)> = None;
            for (position, source) in self.sources.iter().enumerate() {
                match source.waiting.front() {
                    Some(head) => {
                        if best.is_none_or(|(_, first)| head.compare(first) == Ordering::Less) {
                            best = Some((position, head));
                        }
                    }
                    None if source.ended => {}
                    None => return,
                }
            }
            let Some((position, _)) = best else { break };
            let Some(source) = self.sources.get_mut(position) else { break };
            let Some(hit) = source.waiting.pop_front() else { break };
            let at = source.merged;
            source.merged += 1;
            if self.seen.are_new(hit.distinct) {
                if self.ranked >= offset {
                    self.winners.push(Winner { address: (position, at), name: Some(hit.name) });
                }
                self.ranked += 1;
            }
        }
        self.state = State::Complete;
        self.sources.iter_mut().for_each(|source| source.waiting = VecDeque::new());
    }

    fn source(&self, shards: &[Shard]) -> Option<(usize, &Source)> {
        self.sources.iter().enumerate().find(|(_, source)| source.shards == shards)
    }

    /// The first and the number of a source's scores to ask for next.
    fn wanted(&self, source: &Source) -> Option<(u64, u64)> {
        if !self.is_scanning() || source.ended || !source.waiting.is_empty() {
            return None;
        }
        let missing = self.query.end().saturating_sub(self.ranked);
        let more = (missing / self.sources.len().max(1) as u64 + 100).min(CHUNK);
        let more = more.min(self.query.end().saturating_sub(source.asked));
        let known = u64::from(source.last.is_some());
        Some((source.asked - known, more + known))
    }

    /// The next request to the node that has these shards.
    pub(in crate::search) fn scatter_query(&self, shards: &[Shard]) -> Option<Vec<u8>> {
        let (_, source) = self.source(shards)?;
        let (offset, limit) = self.wanted(source)?;
        Some(self.scan.window(shards, offset, limit))
    }

    /// Takes the answer to [`Self::scatter_query`]; `None` if it cannot be parsed.
    pub(in crate::search) fn take(&mut self, shards: &[Shard], answer: &[u8]) -> Option<()> {
        let (position, source) = self.source(shards)?;
        let (_, asked) = self.wanted(source)?;
        let answer = NodeAnswer::read(answer).ok()?;
        self.add(position, asked, answer.hits);
        Some(())
    }
}

impl Scored {
    fn compare(&self, other: &Self) -> Ordering {
        let mixed = self.mixed.as_ref().zip(other.mixed.as_ref());
        let (name, other) = (&self.name, &other.name);
        mixed.and_then(|(one, other)| one.compare(other)).unwrap_or_else(|| {
            name.rank.compare(&other.rank).then_with(|| name.insertion.cmp(&other.insertion))
        })
    }
}
