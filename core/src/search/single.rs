//! Searches in one index: `GET` and `POST /indexes/{uid}/search`.

use super::{
    hits::answer::NodeAnswer,
    multi::MultiSearch,
    query::{IndexQuery, Merged, hidden_values::Sorting},
    request::{
        SearchRequest,
        query_string::{body_of_query, parameters},
    },
    values::document_values::DocumentValues,
};
use crate::{
    http::{Reply, RequestHead},
    path::ApiPath,
    scatter_query::{Gathered, NodeRequest, Part, QuerySlice, ScatterQuery, owner, shards_of},
    topology::Topology,
};
use std::sync::Arc;

/// A search in one index.
#[derive(Debug)]
pub struct Search(IndexQuery);

impl Search {
    /// Parses a request; `None` if a node would refuse it.
    #[must_use]
    pub fn of(
        topology: &Topology,
        index: &str,
        head: &RequestHead,
        body: &[u8],
    ) -> Option<Box<dyn ScatterQuery>> {
        let request = SearchRequest::new(parameters(head, body, body_of_query)?).ok()?;
        let query = IndexQuery::new(index.to_owned(), topology.index(index), request);
        if query.asks_keywords() || query.is_deep() || query.counts() {
            return Some(Box::new(MultiSearch::single(topology, query)));
        }
        Some(Box::new(Self(query)))
    }
}

impl Sorting for Search {
    fn queries(&self) -> Vec<&IndexQuery> {
        vec![&self.0]
    }

    fn with(self, revealed: &Arc<DocumentValues>) -> Self {
        Self(self.0.with(revealed))
    }

    fn unreadable(&self, parts: &[Part]) -> Option<usize> {
        parts.iter().position(|part| NodeAnswer::read(&part.body).is_err())
    }
}

impl ScatterQuery for Search {
    fn seeds(&self) -> Vec<u64> {
        vec![self.0.seed()]
    }

    fn indexes(&self, _: usize) -> Vec<&str> {
        vec![&self.0.index]
    }

    fn hits(&self) -> u64 {
        self.0.end()
    }

    fn ask(&self, slices: &[QuerySlice]) -> NodeRequest {
        let shards = shards_of(slices);
        let path = ApiPath::of_index(&self.0.index, &["search"]);
        NodeRequest::new(path, self.0.for_shards(&shards).pop().unwrap_or_default())
    }

    fn simpler(self: Box<Self>) -> Option<Box<dyn ScatterQuery>> {
        Some(Box::new(Self(self.0.simpler()?)))
    }

    fn gather(self: Box<Self>, _: &Topology, parts: Vec<Part>) -> Gathered {
        let (search, parts) = match self.revealed(parts) {
            Ok(revealed) => revealed,
            Err(gathered) => return gathered,
        };
        let bodies: Vec<&[u8]> = parts.iter().map(|part| part.body.as_slice()).collect();
        match search.0.merge(&bodies, &[], &[]) {
            Ok(Merged::Body(body)) => Gathered::Reply(Reply::json(200, body)),
            Ok(Merged::Instead(query)) => Gathered::Next(Box::new(Self(*query)), owner(&parts)),
            Err(position) => Gathered::broken(search, parts, position),
        }
    }
}
