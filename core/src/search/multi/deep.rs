//! Deep pages of a multi-search: first the scores for all queries, then only the documents of the pages.

use crate::{
    scatter_query::{Gathered, NodeRequest, Part, QuerySlice, ScatterQuery},
    search::{
        query::IndexQuery,
        two_step::{Fetch, InSteps, Known, Scan},
    },
    topology::Topology,
};

/// A multi-search with deep pages, after its first answers: more scores are asked for.
#[derive(Debug)]
pub(super) struct Deep<S> {
    search: S,
    results: Vec<DeepResult>,
}

/// The state of one query.
#[derive(Debug)]
pub(super) enum DeepResult {
    /// Its complete answer.
    Done(Vec<u8>),
    /// A deep page.
    Page(Box<Scan>),
}

impl<S: InSteps<Query = IndexQuery>> Deep<S> {
    /// The rest of a multi-search with deep pages, after these parts.
    pub(super) fn go_on(search: S, results: Vec<DeepResult>, parts: &[Part]) -> Gathered {
        if results.iter().any(|result| matches!(result, DeepResult::Page(scan) if scan.is_scanning())) {
            return Gathered::Again(Box::new(Self { search, results }));
        }
        let pages = results.into_iter().map(|result| match result {
            DeepResult::Done(body) => Known::Whole(body),
            DeepResult::Page(scan) => scan.page().map_or(Known::Torn, Known::Hits),
        });
        let pages = pages.collect();
        Fetch::start(search, pages, parts)
    }

    /// The next request to the node that has this slice.
    fn scatter_query(&self, slice: &QuerySlice) -> Option<Vec<u8>> {
        match self.results.get(slice.unit)? {
            DeepResult::Page(scan) => scan.scatter_query(&slice.shards),
            DeepResult::Done(_) => None,
        }
    }

    /// Takes the answers, or says the position of one that cannot be read.
    fn take(&mut self, parts: &[Part]) -> Result<(), usize> {
        for (position, part) in parts.iter().enumerate() {
            let asked = part.slices.iter().filter(|slice| self.scatter_query(slice).is_some());
            let asked: Vec<&QuerySlice> = asked.collect();
            let answers = self.search.split(&part.body).filter(|answers| answers.len() == asked.len());
            for (slice, answer) in asked.into_iter().zip(answers.ok_or(position)?) {
                let Some(DeepResult::Page(scan)) = self.results.get_mut(slice.unit) else { continue };
                scan.take(&slice.shards, answer).ok_or(position)?;
            }
        }
        Ok(())
    }
}

impl<S: InSteps<Query = IndexQuery>> ScatterQuery for Deep<S> {
    fn seeds(&self) -> Vec<u64> {
        self.search.seeds()
    }

    fn indexes(&self, unit: usize) -> Vec<&str> {
        self.search.indexes(unit)
    }

    fn concerns(&self, slices: &[QuerySlice]) -> bool {
        slices.iter().any(|slice| self.scatter_query(slice).is_some())
    }

    fn ask(&self, slices: &[QuerySlice]) -> NodeRequest {
        let queries = slices.iter().filter_map(|slice| self.scatter_query(slice));
        self.search.request(queries.collect())
    }

    fn restart(self: Box<Self>) -> Option<Box<dyn ScatterQuery>> {
        Some(Box::new(self.search))
    }

    fn gather(mut self: Box<Self>, _: &Topology, parts: Vec<Part>) -> Gathered {
        // Where an answer cannot be read all is asked from the start, whatever has been taken.
        if let Err(position) = self.take(&parts) {
            return Gathered::broken(self, parts, position);
        }
        for result in &mut self.results {
            if let DeepResult::Page(scan) = result {
                scan.rank();
            }
        }
        Self::go_on(self.search, self.results, &parts)
    }
}
