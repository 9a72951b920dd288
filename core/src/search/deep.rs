//! Deep pages of a multi-search: the scores of all of them first, then the documents of the pages only.

use super::{
    multi::{MultiSearch, multi_search, read_results},
    page::Page,
};
use crate::{
    read::{Gathered, NodeRequest, Part, Portion, Question},
    topology::Topology,
};
use std::cell::RefCell;

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

impl Deep {
    /// The rest of a multi-search with deep pages.
    pub(super) fn go_on(search: MultiSearch, results: Vec<DeepResult>) -> Gathered {
        let waits = |result: &DeepResult| match result {
            DeepResult::Page(page) => page.waits(),
            DeepResult::Done(_) => false,
        };
        if results.iter().any(waits) {
            return Gathered::Again(Box::new(Self { search, results: RefCell::new(results) }));
        }
        reply(&search, results)
    }
}

fn reply(search: &MultiSearch, results: Vec<DeepResult>) -> Gathered {
    let bodies: Vec<Option<Vec<u8>>> = results
        .into_iter()
        .map(|result| match result {
            DeepResult::Done(body) => Some(body),
            DeepResult::Page(page) => page.write(),
        })
        .collect();
    let torn: Vec<bool> = bodies.iter().map(Option::is_none).collect();
    match bodies.into_iter().collect::<Option<Vec<_>>>() {
        Some(bodies) => search.reply(&bodies),
        None => Gathered::Next(Box::new(search.after_tear(&torn)), 0),
    }
}

/// Scores come first, of all queries.
fn is_scanning(results: &[DeepResult]) -> bool {
    results.iter().any(|result| matches!(result, DeepResult::Page(page) if page.is_scanning()))
}

/// What is to be asked next of the node that a portion was asked of.
fn question(results: &[DeepResult], portion: &Portion) -> Option<Vec<u8>> {
    match results.get(portion.unit)? {
        DeepResult::Page(page) if page.is_scanning() == is_scanning(results) => {
            page.question(&portion.shards)
        }
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
