//! Several queries of a node for one callout, and its results.

use super::IndexQuery;
use crate::{json::RawObject, scatter_query::NodeRequest, search::merge::write_list, shard::Shard};
use serde_json::value::RawValue;

/// The nodes' answers to one query.
#[derive(Debug, Default)]
pub(in crate::search) struct Answers<'a> {
    /// Answers to the client's query.
    pub own: Vec<&'a [u8]>,
    /// Answers to its keyword query, if it was sent.
    pub keywords: Vec<&'a [u8]>,
    /// Answers to its counting query, if it was sent.
    pub counts: Vec<&'a [u8]>,
    /// The positions of the parts that brought the answers.
    pub positions: Vec<usize>,
    /// The shards that each answer is for.
    pub shards: Vec<Vec<Shard>>,
}

impl<'a> Answers<'a> {
    /// The part that brought the answer at this position.
    pub fn position(&self, answer: usize) -> usize {
        self.positions.get(answer).copied().unwrap_or(0)
    }

    /// Takes a node's results for this query from the end of `results`; `false` if some are missing.
    pub fn take(
        &mut self,
        query: &IndexQuery,
        shards: &[Shard],
        position: usize,
        results: &mut Vec<&'a RawValue>,
    ) -> bool {
        let mut next = || results.pop().map(|result| result.get().as_bytes());
        self.positions.push(position);
        self.shards.push(shards.to_vec());
        self.own.extend(next());
        if query.asks_keywords() {
            self.keywords.extend(next());
        }
        if query.counts() {
            self.counts.extend(next());
        }
        let wanted = self.positions.len();
        self.own.len() == wanted
            && (self.keywords.len() == wanted || !query.asks_keywords())
            && (self.counts.len() == wanted || !query.counts())
    }
}

/// Combines these queries into one callout.
pub(in crate::search) fn multi_search(queries: &[Vec<u8>]) -> NodeRequest {
    let mut body = b"{\"queries\":".to_vec();
    write_list(queries, &mut body, |query, out| out.extend_from_slice(query));
    body.push(b'}');
    NodeRequest::new("/multi-search", body)
}

/// Parses the results of a multi-search.
pub(in crate::search) fn read_results(body: &[u8]) -> Option<Vec<&RawValue>> {
    serde_json::from_slice::<RawObject<'_>>(body).ok()?.read("results")
}
