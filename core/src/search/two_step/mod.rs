//! Pages in two steps: what merging needs of all hits up to the page's end first, then the documents of the page only.
//!
//! Each node's hits of the page stand together in the node's own order, so they are fetched by `offset` and `limit`. Where
//! they are not those that the first step told of, a write has come between, and the page is asked for again.
//!
//! The first step is a search's own: it asks each node for its share of the hits ([`shares`]), or goes on where it ended before
//! ([`scan`]). The second one is here.

mod page;
mod scan;
mod shares;

pub(super) use page::{Address, Name, Page, Winner};
pub(super) use scan::{Scan, first_chunk};
pub(super) use shares::{FirstStep, InShares, Shares};

use crate::{
    http::Reply,
    json::RawObject,
    read::{Gathered, NodeRequest, Part, Portion, Question, owner},
    shard::Shard,
    topology::Topology,
};
use page::Fetched;
use std::fmt::Debug;

/// A search whose pages can come in two steps.
pub(super) trait InSteps: Question + Sized + 'static {
    /// The member of an answer that has the hits.
    const HITS: &'static str;

    /// What tells the pages of a search from each other.
    type Query: Debug;

    /// What a node is asked for hits of a page, from `offset` on and as the client sees them.
    fn window(&self, query: &Self::Query, shards: &[Shard], offset: u64, limit: u64) -> Vec<u8>;

    /// The request for these windows.
    fn request(&self, windows: Vec<Vec<u8>>) -> NodeRequest;

    /// A node's answers, one for each window.
    fn split<'a>(&self, body: &'a [u8]) -> Option<Vec<&'a [u8]>> {
        Some(vec![body])
    }

    /// Names a hit; `None` where nothing tells it from others.
    fn name(&self, query: &Self::Query, hit: &RawObject<'_>) -> Option<Name>;

    /// Writes the hits of a page as the client sees them.
    fn write_hits(&self, query: &Self::Query, hits: &[&RawObject<'_>], out: &mut Vec<u8>);

    /// The answer of these pages.
    fn reply(&self, pages: Vec<Vec<u8>>) -> Reply {
        Reply::json(200, pages.into_iter().next().unwrap_or_default())
    }

    /// What to ask where writes have come between the steps of these pages.
    fn after_tear(self, torn: &[bool]) -> Self;
}

/// A search whose pages' hits are known, and whose documents are to be fetched.
#[derive(Debug)]
pub(super) struct Fetch<S: InSteps> {
    search: S,
    pages: Vec<Known<S::Query>>,
}

/// What is known of one page.
#[derive(Debug)]
pub(super) enum Known<Q> {
    /// All of it.
    Whole(Vec<u8>),
    /// Which hits it has.
    Hits(Page<Q>),
    /// A write has come while this was asked.
    Torn,
}

impl<S: InSteps> Fetch<S> {
    /// The second step, after these parts; the answer where nothing is to be fetched.
    pub(super) fn start(search: S, pages: Vec<Known<S::Query>>, parts: &[Part]) -> Gathered {
        let fetch = Self { search, pages };
        if fetch.pages.iter().any(|page| matches!(page, Known::Hits(page) if !page.is_empty())) {
            return Gathered::Again(Box::new(fetch));
        }
        let nothing: Vec<_> = fetch.pages.iter().map(|_| Vec::new()).collect();
        fetch.finish(&nothing, owner(parts))
    }

    /// What is to be asked of the node that a portion was asked of: the page, and the first and the number of its hits.
    fn wanted(&self, portion: &Portion) -> Option<(&Page<S::Query>, u64, u64)> {
        let Known::Hits(page) = self.pages.get(portion.unit)? else { return None };
        let (offset, limit) = page.window(&portion.shards)?;
        Some((page, offset, limit))
    }

    /// The hits of each page that these parts bring, or the position of one that cannot be read.
    fn read<'a>(&self, parts: &'a [Part]) -> Result<Vec<Vec<Fetched<'a>>>, usize> {
        let mut fetched: Vec<Vec<Fetched<'_>>> = self.pages.iter().map(|_| Vec::new()).collect();
        for (position, part) in parts.iter().enumerate() {
            let asked = part.portions.iter();
            let asked = asked.filter_map(|portion| Some((portion, self.wanted(portion)?.0)));
            let asked: Vec<(&Portion, &Page<S::Query>)> = asked.collect();
            let answers = self.search.split(&part.body).filter(|answers| answers.len() == asked.len());
            for ((portion, page), answer) in asked.into_iter().zip(answers.ok_or(position)?) {
                let hits = page.read(&portion.shards, answer, S::HITS).ok_or(position)?;
                fetched.get_mut(portion.unit).ok_or(position)?.push(hits);
            }
        }
        Ok(fetched)
    }

    fn finish(self, fetched: &[Vec<Fetched<'_>>], owner: Option<u16>) -> Gathered {
        let Self { search, pages } = self;
        let pages = pages.into_iter().zip(fetched).map(|(page, fetched)| match page {
            Known::Whole(body) => Some(body),
            Known::Hits(page) => page.write(&search, fetched),
            Known::Torn => None,
        });
        let pages: Vec<Option<Vec<u8>>> = pages.collect();
        let torn: Vec<bool> = pages.iter().map(Option::is_none).collect();
        match pages.into_iter().collect() {
            Some(pages) => Gathered::Reply(search.reply(pages)),
            None => Gathered::Next(Box::new(search.after_tear(&torn)), owner),
        }
    }
}

impl<S: InSteps> Question for Fetch<S> {
    fn seeds(&self) -> Vec<u64> {
        self.search.seeds()
    }

    fn concerns(&self, portions: &[Portion]) -> bool {
        portions.iter().any(|portion| self.wanted(portion).is_some())
    }

    fn ask(&self, portions: &[Portion]) -> NodeRequest {
        let windows = portions.iter().filter_map(|portion| {
            let (page, offset, limit) = self.wanted(portion)?;
            Some(self.search.window(page.query(), &portion.shards, offset, limit))
        });
        self.search.request(windows.collect())
    }

    fn restart(self: Box<Self>) -> Option<Box<dyn Question>> {
        Some(Box::new(self.search))
    }

    fn gather(self: Box<Self>, _: &Topology, parts: Vec<Part>) -> Gathered {
        match self.read(&parts) {
            Ok(fetched) => self.finish(&fetched, owner(&parts)),
            Err(position) => Gathered::broken(self, parts, position),
        }
    }
}
