//! `POST /multi-search`: many queries for one callout a node.

use super::{
    federated::Federated,
    merge::write_list,
    query::{IndexQuery, Merged},
    request::SearchRequest,
};
use crate::{
    http::Reply,
    json::RawObject,
    read::{Gathered, NodeRequest, Part, Portion, Question},
    topology::Topology,
};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// Several searches, each with an answer of its own.
#[derive(Debug)]
pub struct MultiSearch(Vec<IndexQuery>);

impl MultiSearch {
    /// What a body asks; `None` where a node would refuse it.
    #[must_use]
    pub fn of(topology: &Topology, body: &[u8]) -> Option<Box<dyn Question>> {
        let RawObject(members) = serde_json::from_slice(body).ok()?;
        let mut queries: Option<Vec<BTreeMap<String, Box<RawValue>>>> = None;
        let mut federation = None;
        for (name, value) in members {
            match name.as_ref() {
                "queries" => queries = Some(serde_json::from_str(value.get()).ok()?),
                "federation" => federation = Some(value).filter(|value| value.get() != "null"),
                _ => return None,
            }
        }
        let queries = queries?
            .into_iter()
            .map(|parameters| {
                let index: String = serde_json::from_str(parameters.get("indexUid")?.get()).ok()?;
                Some((index, SearchRequest::new(parameters).ok()?))
            })
            .collect::<Option<Vec<_>>>()?;
        if let Some(federation) = federation {
            return Federated::of(topology, federation, queries);
        }
        let queries = queries.into_iter().map(|(index, request)| {
            let config = topology.index(&index);
            IndexQuery::new(index, config, request)
        });
        Some(Box::new(Self(queries.collect())))
    }
}

impl Question for MultiSearch {
    fn seeds(&self, topology: &Topology) -> Vec<u64> {
        self.0.iter().map(|query| query.seed(topology.version())).collect()
    }

    fn ask(&self, portions: &[Portion]) -> NodeRequest {
        let queries =
            portions.iter().filter_map(|it| Some(self.0.get(it.unit)?.for_shards(&it.shards))).flatten();
        multi_search(&queries.collect::<Vec<_>>())
    }

    fn simpler(&self) -> Option<Box<dyn Question>> {
        self.0.iter().find_map(IndexQuery::simpler)?;
        let queries = self.0.iter().map(|query| query.simpler().unwrap_or_else(|| query.clone()));
        Some(Box::new(Self(queries.collect())))
    }

    fn gather(&self, _: &Topology, parts: &[Part<'_>]) -> Gathered {
        let mut answers: Vec<Answers<'_>> = self.0.iter().map(|_| Answers::default()).collect();
        for (position, part) in parts.iter().enumerate() {
            let queries = part.portions.iter().map(|portion| self.0.get(portion.unit));
            let Some(mut results) = results(part.body) else { return Gathered::Broken(position) };
            results.reverse();
            for (portion, query) in part.portions.iter().zip(queries) {
                let (Some(query), Some(answers)) = (query, answers.get_mut(portion.unit)) else { continue };
                if !answers.take(query, position, &mut results) {
                    return Gathered::Broken(position);
                }
            }
            if !results.is_empty() {
                return Gathered::Broken(position);
            }
        }
        let mut body = b"{\"results\":[".to_vec();
        let mut instead: BTreeMap<usize, IndexQuery> = BTreeMap::new();
        for (unit, (query, answers)) in self.0.iter().zip(&answers).enumerate() {
            if unit > 0 {
                body.push(b',');
            }
            match query.merge(&answers.own, &answers.keywords) {
                Ok(Merged::Body(result)) => body.extend(result),
                Ok(Merged::Instead(query)) => drop(instead.insert(unit, *query)),
                Err(broken) => return Gathered::Broken(answers.positions.get(broken).copied().unwrap_or(0)),
            }
        }
        if !instead.is_empty() {
            let queries = self.0.iter().enumerate();
            let queries = queries.map(|(unit, query)| instead.remove(&unit).unwrap_or_else(|| query.clone()));
            return Gathered::Next(Box::new(Self(queries.collect())), 0);
        }
        body.extend_from_slice(b"]}");
        Gathered::Reply(Reply::json(200, body))
    }
}

/// What nodes answered to one query.
#[derive(Debug, Default)]
pub(super) struct Answers<'a> {
    /// To the client's query.
    pub own: Vec<&'a [u8]>,
    /// To the same by keywords only, where that is asked.
    pub keywords: Vec<&'a [u8]>,
    /// Which parts brought them.
    pub positions: Vec<usize>,
}

impl<'a> Answers<'a> {
    /// Takes a node's results of this query, which are the last ones; `false` where some are not there.
    pub fn take(&mut self, query: &IndexQuery, position: usize, results: &mut Vec<&'a RawValue>) -> bool {
        let mut next = || results.pop().map(|result| result.get().as_bytes());
        self.positions.push(position);
        self.own.extend(next());
        if query.asks_keywords() {
            self.keywords.extend(next());
        }
        let wanted = self.positions.len();
        self.own.len() == wanted && (self.keywords.len() == wanted || !query.asks_keywords())
    }
}

/// These queries for one callout.
pub(super) fn multi_search(queries: &[Vec<u8>]) -> NodeRequest {
    let mut body = b"{\"queries\":".to_vec();
    write_list(queries, &mut body, |query, out| out.extend_from_slice(query));
    body.push(b'}');
    NodeRequest { path: "/multi-search".to_owned(), body }
}

/// The results of a multi-search.
pub(super) fn results(body: &[u8]) -> Option<Vec<&RawValue>> {
    serde_json::from_slice::<RawObject<'_>>(body).ok()?.read("results")
}
