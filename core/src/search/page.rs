//! A deep page: scores first, from each node a bit more than its share, then the fields of the page's hits only.
//!
//! Each node's hits of the page stand together in the node's own order, so they are fetched by `offset` and `limit`. Where
//! they are not those that the scores told of, a write has come between.

use super::{
    answer::{Hit, NodeAnswer},
    hybrid::Mixed,
    merge::Seen,
    query::{Decided, IndexQuery},
    windows::{Name, with_told},
};
use crate::{json::RawObject, scrub, shard::Shard};
use std::{cmp::Ordering, collections::VecDeque};

/// No node is asked for the scores of more hits at once: half a kilobyte each.
const CHUNK: u64 = 60_000;

/// A deep page on its way.
#[derive(Debug)]
pub(super) struct Page {
    query: IndexQuery,
    scan: IndexQuery,
    /// The answer without its hits.
    frame: Vec<u8>,
    sources: Vec<Source>,
    seen: Seen,
    /// How many hits have been counted.
    ranked: u64,
    /// The page's hits.
    winners: Vec<Winner>,
    /// All winners are known.
    complete: bool,
    /// A write has come between two answers of a node.
    torn: bool,
}

/// A hit of the page.
#[derive(Debug)]
struct Winner {
    source: usize,
    /// Its position in it.
    at: u64,
    name: Name,
    semantic: bool,
}

/// One node's hits.
#[derive(Debug)]
struct Source {
    shards: Vec<Shard>,
    /// Hits that are not merged yet.
    waiting: VecDeque<Scored>,
    /// Hits that are merged.
    merged: u64,
    /// Hits that have been asked for.
    asked: u64,
    /// There are no more.
    ended: bool,
    /// The last one that was told.
    last: Option<Name>,
    /// Asked for fewer hits, the node may find that those by keywords are good enough.
    least: u64,
    /// Its answer with the winners, once it is there.
    bodies: Vec<u8>,
}

#[derive(Debug)]
struct Scored {
    name: Name,
    mixed: Option<Mixed>,
    distinct: Vec<String>,
}

/// How many scores a node with this share of the shards is asked for at first.
pub(super) fn first_chunk(query: &IndexQuery, shards: &[Shard], topology_shards: u16) -> u64 {
    let end = query.end();
    // Totals of these depend on how many hits are asked for, and so does what is found by a vector.
    if query.distinct.is_some() || ["rankingScoreThreshold", "hybrid"].iter().any(|it| query.request.has(it))
    {
        return end;
    }
    share(end, shards.len(), topology_shards).min(CHUNK)
}

/// A bit more than the share that a node with so many of the shards has of the first `end` hits.
pub(super) fn share(end: u64, shards: usize, topology_shards: u16) -> u64 {
    let share = end.saturating_mul(shards as u64) / u64::from(topology_shards.max(1));
    (share + share / 8 + 100).min(end)
}

impl Page {
    /// A page after its first answers, each with the shards that were asked for and how many hits; where it is a hybrid one
    /// whose decision is open, after those by keywords too.
    ///
    /// # Errors
    /// What is to be asked instead.
    pub(super) fn new(
        query: &IndexQuery,
        answers: Vec<(Vec<Shard>, u64, NodeAnswer<'_>)>,
        mut keywords: Vec<NodeAnswer<'_>>,
    ) -> Result<Self, Box<IndexQuery>> {
        let open = query.request.hybrid.filter(|_| query.asks_keywords());
        let decided = open.map(|hybrid| (hybrid, query.decide(hybrid, &keywords)));
        let by_keywords = match decided {
            Some((_, Decided::Disputed)) => return Err(Box::new(query.forced().whole())),
            Some((_, Decided::Keywords)) => true,
            _ => false,
        };
        let mut page = Self {
            scan: query.scan(),
            frame: Vec::new(),
            sources: Vec::new(),
            seen: Seen::new(query.distinct.as_deref()),
            ranked: 0,
            winners: Vec::new(),
            complete: false,
            torn: false,
            query: if by_keywords { query.by_keywords() } else { query.clone() },
        };
        let mut frames = Vec::with_capacity(answers.len());
        for (source, (shards, asked, mut answer)) in answers.into_iter().enumerate() {
            let own = std::mem::take(&mut answer.hits);
            let by_words = keywords.get_mut(source).map(|answer| std::mem::take(&mut answer.hits));
            let by_words = by_words.unwrap_or_default();
            page.sources.push(Source {
                shards,
                waiting: VecDeque::new(),
                merged: 0,
                asked: 0,
                ended: false,
                last: None,
                least: decided.filter(|_| !by_keywords).map_or(0, |(hybrid, _)| hybrid.least(&by_words)),
                bodies: Vec::new(),
            });
            page.add(source, asked, if by_keywords { by_words } else { own });
            frames.push(answer);
        }
        let merging = query.merging();
        page.frame = match by_keywords {
            true => merging.merge_keywords(&query.request, &frames, &keywords),
            false => merging.merge(&query.request, &frames),
        };
        page.rank();
        // Scores are told without vectors: a page without hits has nowhere else to take the query's from.
        if page.complete
            && page.winners.is_empty()
            && query.request.has("hybrid")
            && query.request.wants_vectors()
        {
            return Err(Box::new(query.whole()));
        }
        Ok(page)
    }

    /// Whether anything is to be asked still.
    pub(super) fn waits(&self) -> bool {
        !self.complete || !self.winners.is_empty()
    }

    fn name(&self, hit: &Hit<'_>) -> Name {
        let key = self.query.config.primary_key.as_deref();
        Name { query: 0, insertion: hit.insertion(key).clone(), rank: hit.rank().clone() }
    }

    fn add(&mut self, source: usize, asked: u64, hits: Vec<Hit<'_>>) {
        let found = hits.len() as u64;
        let hybrid = self.query.request.hybrid;
        let mut scored: VecDeque<Scored> = hits
            .iter()
            .map(|hit| Scored {
                name: self.name(hit),
                mixed: hybrid.map(|hybrid| hybrid.mixed(hit)),
                distinct: self.seen.values(hit),
            })
            .collect();
        let end = self.query.end();
        let Some(source) = self.sources.get_mut(source) else { return };
        // What is asked for later begins with the last one that is known.
        if let Some(last) = &source.last {
            self.torn |= scored.pop_front().is_none_or(|first| first.name != *last);
        }
        source.asked += asked - u64::from(source.last.is_some());
        source.ended = found < asked || source.asked >= end;
        source.last = scored.back().map(|last| last.name.clone()).or(source.last.take());
        source.waiting.append(&mut scored);
    }

    /// Whether scores are to be asked for still.
    pub(super) fn is_scanning(&self) -> bool {
        !self.complete
    }

    /// Merges as far as the hits that are here allow.
    pub(super) fn rank(&mut self) {
        if self.torn {
            self.complete = true;
            self.winners.clear();
        }
        if self.complete {
            return;
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
                    let semantic = hit.name.rank.is_semantic();
                    self.winners.push(Winner { source: position, at, name: hit.name, semantic });
                }
                self.ranked += 1;
            }
        }
        self.complete = true;
        self.sources.iter_mut().for_each(|source| source.waiting = VecDeque::new());
    }

    fn source(&self, shards: &[Shard]) -> Option<(usize, &Source)> {
        self.sources.iter().enumerate().find(|(_, source)| source.shards == shards)
    }

    /// The first and the number of a source's hits to fetch next.
    fn wanted(&self, position: usize, source: &Source) -> Option<(u64, u64)> {
        if self.complete {
            let mut winners = self.winners.iter().filter(|winner| winner.source == position);
            let first = winners.next()?.at;
            let last = winners.next_back().map_or(first, |winner| winner.at);
            return Some((first, (last + 1).max(source.least) - first));
        }
        if source.ended || !source.waiting.is_empty() {
            return None;
        }
        let missing = self.query.end().saturating_sub(self.ranked);
        let more = (missing / self.sources.len().max(1) as u64 + 100).min(CHUNK);
        let more = more.min(self.query.end().saturating_sub(source.asked));
        let known = u64::from(source.last.is_some());
        Some((source.asked - known, more + known))
    }

    /// What is to be asked next of the node that was asked for these shards.
    pub(super) fn question(&self, shards: &[Shard]) -> Option<Vec<u8>> {
        let (position, source) = self.source(shards)?;
        let (offset, limit) = self.wanted(position, source)?;
        let query = if self.complete { &self.query } else { &self.scan };
        Some(query.window(shards, offset, limit))
    }

    /// Takes the answer to [`Self::question`]; `None` where it is none.
    pub(super) fn take(&mut self, shards: &[Shard], answer: &[u8]) -> Option<()> {
        let (position, source) = self.source(shards)?;
        let (_, asked) = self.wanted(position, source)?;
        if !self.complete {
            let answer = NodeAnswer::read(answer).ok()?;
            self.add(position, asked, answer.hits);
            return Some(());
        }
        serde_json::from_slice::<RawObject<'_>>(answer).ok()?.get("hits")?;
        self.sources.get_mut(position)?.bodies = answer.to_vec();
        Some(())
    }

    /// The answer, once the bodies are there; `None` where they are not those of the winners.
    pub(super) fn write(&self) -> Option<Vec<u8>> {
        if self.torn {
            return None;
        }
        let mut bodies: Vec<(RawObject<'_>, Vec<RawObject<'_>>)> = Vec::with_capacity(self.sources.len());
        for source in &self.sources {
            let answer: RawObject<'_> = serde_json::from_slice(&source.bodies).unwrap_or_default();
            let hits = answer.read("hits").unwrap_or_default();
            bodies.push((answer, hits));
        }
        let mut firsts: Vec<Option<u64>> = vec![None; self.sources.len()];
        let mut hits = Vec::with_capacity(self.winners.len());
        for winner in &self.winners {
            let first = *firsts.get_mut(winner.source)?.get_or_insert(winner.at);
            let within = usize::try_from(winner.at.checked_sub(first)?).ok()?;
            let list = &mut bodies.get_mut(winner.source)?.1;
            let hit = Hit::new(std::mem::take(list.get_mut(within)?));
            if self.name(&hit) != winner.name {
                return None;
            }
            hits.push(hit);
        }
        let frame: RawObject<'_> = serde_json::from_slice(&self.frame).ok()?;
        let told =
            self.winners.first().and_then(|winner| bodies.get(winner.source)).map(|(answer, _)| answer);
        let frame = with_told(frame, told);
        let mut out = Vec::with_capacity(self.frame.len() + hits.len() * 1024);
        frame.write_filtered(&mut out, |name, value, out| {
            match name {
                "hits" => {
                    let hits: Vec<&RawObject<'_>> = hits.iter().map(|hit| &hit.fields).collect();
                    self.query.merging().write_hits(&hits, &self.query.request, out);
                }
                "semanticHitCount" => {
                    let semantic = self.winners.iter().filter(|winner| winner.semantic).count();
                    out.extend_from_slice(semantic.to_string().as_bytes());
                }
                _ => return scrub::as_is(name, value, out),
            }
            true
        });
        Some(out)
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
