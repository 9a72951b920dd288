//! Deep pages: scores first, from each node a bit more than its share, then the fields of the page's hits only.
//!
//! Each node's hits of the page stand together in the node's own order, so they are fetched by `offset` and `limit`.

use super::{
    answer::{DocumentId, Hit, NodeAnswer},
    merge::Seen,
    multi::{MultiSearch, multi_search, read_results},
    query::IndexQuery,
    rank::Rank,
};
use crate::{
    json::RawObject,
    read::{Gathered, NodeRequest, Part, Portion, Question},
    scrub,
    shard::Shard,
    topology::Topology,
};
use serde_json::value::RawValue;
use std::{cell::RefCell, cmp::Ordering, collections::VecDeque};

/// No node is asked for the scores of more hits at once: half a kilobyte each.
const CHUNK: u64 = 60_000;

/// A multi-search with deep pages, after its first answers.
#[derive(Debug)]
pub struct Deep {
    search: MultiSearch,
    results: RefCell<Vec<DeepResult>>,
}

/// What is known of one query.
#[derive(Debug)]
pub(super) enum DeepResult {
    /// Its answer.
    Done(Vec<u8>),
    /// A deep page.
    Page(Box<Page>),
}

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
    /// The page's hits: source, and position in it.
    winners: Vec<(usize, u64)>,
    /// All winners are known.
    complete: bool,
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
    /// Fields of the winners, as the node wrote them, once they are there.
    bodies: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Scored {
    rank: Rank,
    id: Option<DocumentId>,
    distinct: Vec<String>,
}

/// How many scores a node with this share of the shards is asked for at first.
pub(super) fn first_chunk(query: &IndexQuery, shards: &[Shard], topology_shards: u16) -> u64 {
    let end = query.end();
    // Totals of these depend on how many hits are asked for.
    if query.distinct.is_some() || query.request.has("rankingScoreThreshold") {
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
    /// A page after its first answers, each with the shards that were asked for and how many hits.
    pub(super) fn new(query: &IndexQuery, answers: Vec<(Vec<Shard>, u64, NodeAnswer<'_>)>) -> Self {
        let mut page = Self {
            scan: query.scan(),
            frame: Vec::new(),
            sources: Vec::new(),
            seen: Seen::new(query.distinct.as_deref()),
            ranked: 0,
            winners: Vec::new(),
            complete: false,
            query: query.clone(),
        };
        let mut frames = Vec::with_capacity(answers.len());
        for (shards, asked, mut answer) in answers {
            let waiting = VecDeque::new();
            page.sources.push(Source {
                shards,
                waiting,
                merged: 0,
                asked: 0,
                ended: false,
                bodies: Vec::new(),
            });
            let source = page.sources.len() - 1;
            page.add(source, asked, std::mem::take(&mut answer.hits));
            frames.push(answer);
        }
        page.frame = query.merging().merge(&query.request, &frames);
        page.rank();
        page
    }

    fn add(&mut self, source: usize, asked: u64, hits: Vec<Hit<'_>>) {
        let key = self.query.config.primary_key.as_deref();
        let Some(source) = self.sources.get_mut(source) else { return };
        source.asked += asked;
        source.ended = (hits.len() as u64) < asked || source.asked >= self.query.end();
        for hit in hits {
            let id = key.and_then(|key| DocumentId::of(&hit.fields, key));
            let distinct = self.seen.values(&hit);
            source.waiting.push_back(Scored { rank: hit.rank().clone(), id, distinct });
        }
    }

    /// Merges as far as the hits that are here allow.
    fn rank(&mut self) {
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
                    self.winners.push((position, at));
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
            let mut winners = self.winners.iter().filter(|(source, _)| *source == position);
            let first = winners.next()?.1;
            let last = winners.next_back().map_or(first, |(_, last)| *last);
            return Some((first, last - first + 1));
        }
        if source.ended || !source.waiting.is_empty() {
            return None;
        }
        let missing = self.query.end().saturating_sub(self.ranked);
        let more = (missing / self.sources.len().max(1) as u64 + 100).min(CHUNK);
        Some((source.asked, more.min(self.query.end().saturating_sub(source.asked))))
    }

    fn question(&self, shards: &[Shard]) -> Option<Vec<u8>> {
        let (position, source) = self.source(shards)?;
        let (offset, limit) = self.wanted(position, source)?;
        let query = if self.complete { &self.query } else { &self.scan };
        Some(query.window(shards, offset, limit))
    }

    /// Takes the answer to [`Self::question`]; `None` where it is none.
    fn take(&mut self, shards: &[Shard], answer: &[u8]) -> Option<()> {
        let (position, source) = self.source(shards)?;
        let (_, asked) = self.wanted(position, source)?;
        if !self.complete {
            let answer = NodeAnswer::read(answer).ok()?;
            self.add(position, asked, answer.hits);
            return Some(());
        }
        let answer: RawObject<'_> = serde_json::from_slice(answer).ok()?;
        let hits: Vec<&RawValue> = answer.read("hits")?;
        self.sources.get_mut(position)?.bodies =
            hits.into_iter().map(|hit| hit.get().as_bytes().to_vec()).collect();
        Some(())
    }

    /// The answer, once the bodies are there.
    fn write(&self) -> Vec<u8> {
        let firsts: Vec<u64> = (0..self.sources.len())
            .map(|source| self.winners.iter().find(|(it, _)| *it == source).map_or(0, |(_, first)| *first))
            .collect();
        let hits = self.winners.iter().filter_map(|(source, at)| {
            let within = usize::try_from(at.checked_sub(*firsts.get(*source)?)?).ok()?;
            serde_json::from_slice::<RawObject<'_>>(self.sources.get(*source)?.bodies.get(within)?).ok()
        });
        let hits: Vec<RawObject<'_>> = hits.collect();
        let Ok(frame) = serde_json::from_slice::<RawObject<'_>>(&self.frame) else { return Vec::new() };
        let mut out = Vec::with_capacity(self.frame.len() + hits.len() * 1024);
        frame.write_filtered(&mut out, |name, value, out| {
            if name == "hits" {
                self.query.merging().write_hits(&hits.iter().collect::<Vec<_>>(), &self.query.request, out);
                return true;
            }
            scrub::as_is(name, value, out)
        });
        out
    }
}

impl Scored {
    fn compare(&self, other: &Self) -> Ordering {
        self.rank.compare(&other.rank).then_with(|| match (&self.id, &other.id) {
            (Some(one), Some(other)) => one.cmp(other),
            _ => Ordering::Equal,
        })
    }
}

impl Deep {
    /// The rest of a multi-search with deep pages.
    pub(super) fn go_on(search: MultiSearch, results: Vec<DeepResult>) -> Gathered {
        let waits = |result: &DeepResult| match result {
            DeepResult::Page(page) => !page.complete || !page.winners.is_empty(),
            DeepResult::Done(_) => false,
        };
        if results.iter().any(waits) {
            return Gathered::Again(Box::new(Self { search, results: RefCell::new(results) }));
        }
        reply(&search, results)
    }
}

fn reply(search: &MultiSearch, results: Vec<DeepResult>) -> Gathered {
    let bodies = results.into_iter().map(|result| match result {
        DeepResult::Done(body) => body,
        DeepResult::Page(page) => page.write(),
    });
    search.reply(&bodies.collect::<Vec<_>>())
}

/// Scores come first, of all queries.
fn is_scanning(results: &[DeepResult]) -> bool {
    results.iter().any(|result| matches!(result, DeepResult::Page(page) if !page.complete))
}

/// What is to be asked next of the node that a portion was asked of.
fn question(results: &[DeepResult], portion: &Portion) -> Option<Vec<u8>> {
    match results.get(portion.unit)? {
        DeepResult::Page(page) if !(page.complete && is_scanning(results)) => page.question(&portion.shards),
        _ => None,
    }
}

impl Question for Deep {
    fn seeds(&self) -> Vec<u64> {
        self.search.seeds()
    }

    fn concerns(&self, portions: &[Portion]) -> bool {
        let Ok(results) = self.results.try_borrow() else { return false };
        portions.iter().any(|portion| question(&results, portion).is_some())
    }

    fn ask(&self, portions: &[Portion]) -> NodeRequest {
        let Ok(results) = self.results.try_borrow() else { return multi_search(&[]) };
        let queries = portions.iter().filter_map(|portion| question(&results, portion));
        multi_search(&queries.collect::<Vec<_>>())
    }

    fn restart(&self) -> Option<Box<dyn Question>> {
        Some(Box::new(self.search.clone()))
    }

    fn gather(&self, _: &Topology, parts: &[Part<'_>]) -> Gathered {
        // Whatever comes of it, this question is not put again: what it knows goes on in the next one.
        let Ok(mut results) = self.results.try_borrow_mut().map(|mut it| std::mem::take(&mut *it)) else {
            return Gathered::Broken(0);
        };
        let scanning = is_scanning(&results);
        for (position, part) in parts.iter().enumerate() {
            let asked = part.portions.iter().filter(|portion| question(&results, portion).is_some());
            let asked: Vec<&Portion> = asked.collect();
            let answers = read_results(part.body).filter(|answers| answers.len() == asked.len());
            let Some(answers) = answers else { return Gathered::Broken(position) };
            for (portion, answer) in asked.into_iter().zip(answers) {
                let Some(DeepResult::Page(page)) = results.get_mut(portion.unit) else { continue };
                if page.take(&portion.shards, answer.get().as_bytes()).is_none() {
                    return Gathered::Broken(position);
                }
            }
        }
        if !scanning {
            return reply(&self.search, results);
        }
        for result in &mut results {
            if let DeepResult::Page(page) = result {
                page.rank();
            }
        }
        Self::go_on(self.search.clone(), results)
    }
}
