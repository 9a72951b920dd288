//! `GET` and `POST /indexes/{uid}/search`.

use super::{
    multi::{Answers, multi_search, results},
    query::{IndexQuery, Merged},
    query_string::body_of_query,
    request::SearchRequest,
};
use crate::{
    http::{Reply, RequestHead},
    json::RawObject,
    query::encode,
    read::{Gathered, NodeRequest, Part, Portion, Question},
    scrub::as_is,
    shard::Shard,
    topology::Topology,
};

/// A search in one index.
#[derive(Debug)]
pub struct Search {
    query: IndexQuery,
    /// Nodes are asked by multi-searches, since there is more than one query, or was.
    multi: bool,
}

impl Search {
    /// What a request asks; `None` where a node would refuse it.
    #[must_use]
    pub fn of(
        topology: &Topology,
        index: &str,
        head: &RequestHead,
        body: &[u8],
    ) -> Option<Box<dyn Question>> {
        let request = if head.method == "GET" {
            body_of_query(head.query()).and_then(SearchRequest::try_from)
        } else {
            SearchRequest::from_body(body)
        };
        let mut query = IndexQuery::new(index.to_owned(), topology.index(index), request.ok()?);
        let multi = query.asks_keywords();
        if multi {
            query.request.name_index(index);
        }
        Some(Box::new(Self { query, multi }))
    }
}

impl Question for Search {
    fn seeds(&self, topology: &Topology) -> Vec<u64> {
        vec![self.query.seed(topology.version())]
    }

    fn ask(&self, portions: &[Portion]) -> NodeRequest {
        let shards: Vec<Shard> = portions.iter().flat_map(|portion| portion.shards.clone()).collect();
        let mut queries = self.query.for_shards(&shards);
        match queries.pop() {
            Some(body) if queries.is_empty() && !self.multi => {
                NodeRequest { path: format!("/indexes/{}/search", encode(&self.query.index)), body }
            }
            last => {
                queries.extend(last);
                multi_search(&queries)
            }
        }
    }

    fn simpler(&self) -> Option<Box<dyn Question>> {
        Some(Box::new(Self { query: self.query.simpler()?, multi: self.multi }))
    }

    fn gather(&self, _: &Topology, parts: &[Part<'_>]) -> Gathered {
        let mut answers = Answers::default();
        for (position, part) in parts.iter().enumerate() {
            if !self.multi {
                answers.own.push(part.body);
                answers.positions.push(position);
            } else if !results(part.body).is_some_and(|mut results| {
                results.reverse();
                answers.take(&self.query, position, &mut results)
            }) {
                return Gathered::Broken(position);
            }
        }
        match self.query.merge(&answers.own, &answers.keywords) {
            Ok(Merged::Body(body)) => Gathered::Reply(Reply::json(200, self.without_index(body))),
            Ok(Merged::Instead(query)) => {
                Gathered::Next(Box::new(Self { query: *query, multi: self.multi }), 0)
            }
            Err(position) => Gathered::Broken(position),
        }
    }
}

impl Search {
    /// A result of a multi-search as a search answers it.
    fn without_index(&self, body: Vec<u8>) -> Vec<u8> {
        if !self.multi {
            return body;
        }
        let Ok(answer) = serde_json::from_slice::<RawObject<'_>>(&body) else { return body };
        let mut out = Vec::with_capacity(body.len());
        answer.write_filtered(&mut out, |name, value, out| name != "indexUid" && as_is(name, value, out));
        out
    }
}
