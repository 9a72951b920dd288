//! Deep pages of a multi-search: first the scores for all queries, then only the documents of the pages.

use super::{
    query::IndexQuery,
    two_step::{Fetch, InSteps, Known, Scan},
};
use crate::{
    question::{Gathered, NodeRequest, Part, Portion, Question},
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
    fn question(&self, portion: &Portion) -> Option<Vec<u8>> {
        match self.results.get(portion.unit)? {
            DeepResult::Page(scan) => scan.question(&portion.shards),
            DeepResult::Done(_) => None,
        }
    }

    /// Takes the answers, or says the position of one that cannot be read.
    fn take(&mut self, parts: &[Part]) -> Result<(), usize> {
        for (position, part) in parts.iter().enumerate() {
            let asked = part.portions.iter().filter(|portion| self.question(portion).is_some());
            let asked: Vec<&Portion> = asked.collect();
            let answers = self.search.split(&part.body).filter(|answers| answers.len() == asked.len());
            for (portion, answer) in asked.into_iter().zip(answers.ok_or(position)?) {
                let Some(DeepResult::Page(scan)) = self.results.get_mut(portion.unit) else { continue };
                scan.take(&portion.shards, answer).ok_or(position)?;
            }
        }
        Ok(())
    }
}

impl<S: InSteps<Query = IndexQuery>> Question for Deep<S> {
    fn seeds(&self) -> Vec<u64> {
        self.search.seeds()
    }

    fn concerns(&self, portions: &[Portion]) -> bool {
        portions.iter().any(|portion| self.question(portion).is_some())
    }

    fn ask(&self, portions: &[Portion]) -> NodeRequest {
        let queries = portions.iter().filter_map(|portion| self.question(portion));
        self.search.request(queries.collect())
    }

    fn restart(self: Box<Self>) -> Option<Box<dyn Question>> {
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
