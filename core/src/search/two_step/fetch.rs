//! The second step: the documents of pages whose hits are known.

use super::{
    page::{Fetched, Page},
    steps::InSteps,
};
use crate::{
    scatter_query::{Gathered, NodeRequest, Part, QuerySlice, ScatterQuery, owner},
    topology::Topology,
};

/// A search whose pages' hits are known, and whose documents are to be fetched.
#[derive(Debug)]
pub(in crate::search) struct Fetch<S: InSteps> {
    search: S,
    pages: Vec<Known<S::Query>>,
}

/// What is known of one page.
#[derive(Debug)]
pub(in crate::search) enum Known<Q> {
    /// All of it.
    Whole(Vec<u8>),
    /// Which hits it has.
    Hits(Page<Q>),
    /// A write has come while this was asked.
    Torn,
}

impl<S: InSteps> Fetch<S> {
    /// The second step, after these parts; the answer where nothing is to be fetched.
    pub(in crate::search) fn start(search: S, pages: Vec<Known<S::Query>>, parts: &[Part]) -> Gathered {
        let fetch = Self { search, pages };
        if fetch.pages.iter().any(|page| matches!(page, Known::Hits(page) if !page.is_empty())) {
            return Gathered::Again(Box::new(fetch));
        }
        let nothing: Vec<_> = fetch.pages.iter().map(|_| Vec::new()).collect();
        fetch.finish(&nothing, owner(parts))
    }

    /// What is to be asked of the node that a slice was asked of: the page, and the first and the number of its hits.
    fn wanted(&self, slice: &QuerySlice) -> Option<(&Page<S::Query>, u64, u64)> {
        let Known::Hits(page) = self.pages.get(slice.unit)? else { return None };
        let (offset, limit) = page.window(&slice.shards)?;
        Some((page, offset, limit))
    }

    /// The hits of each page that these parts bring, or the position of one that cannot be read.
    fn read<'a>(&self, parts: &'a [Part]) -> Result<Vec<Vec<Fetched<'a>>>, usize> {
        let mut fetched: Vec<Vec<Fetched<'_>>> = self.pages.iter().map(|_| Vec::new()).collect();
        for (position, part) in parts.iter().enumerate() {
            let asked = part.slices.iter();
            let asked = asked.filter_map(|slice| Some((slice, self.wanted(slice)?.0)));
            let asked: Vec<(&QuerySlice, &Page<S::Query>)> = asked.collect();
            let answers = self.search.split(&part.body).filter(|answers| answers.len() == asked.len());
            for ((slice, page), answer) in asked.into_iter().zip(answers.ok_or(position)?) {
                let hits = page.read(&slice.shards, answer, S::HITS).ok_or(position)?;
                fetched.get_mut(slice.unit).ok_or(position)?.push(hits);
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

impl<S: InSteps> ScatterQuery for Fetch<S> {
    fn seeds(&self) -> Vec<u64> {
        self.search.seeds()
    }

    fn indexes(&self, unit: usize) -> Vec<&str> {
        self.search.indexes(unit)
    }

    fn concerns(&self, slices: &[QuerySlice]) -> bool {
        slices.iter().any(|slice| self.wanted(slice).is_some())
    }

    fn ask(&self, slices: &[QuerySlice]) -> NodeRequest {
        let windows = slices.iter().filter_map(|slice| {
            let (page, offset, limit) = self.wanted(slice)?;
            Some(self.search.window(page.query(), &slice.shards, offset, limit))
        });
        self.search.request(windows.collect())
    }

    fn restart(self: Box<Self>) -> Option<Box<dyn ScatterQuery>> {
        Some(Box::new(self.search))
    }

    fn gather(self: Box<Self>, _: &Topology, parts: Vec<Part>) -> Gathered {
        match self.read(&parts) {
            Ok(fetched) => self.finish(&fetched, owner(&parts)),
            Err(position) => Gathered::broken(self, parts, position),
        }
    }
}
