//! `POST /multi-search`: many queries for one callout a node.

use super::{
    answer::NodeAnswer,
    deep::{Deep, DeepResult},
    federated::Federated,
    merge::write_list,
    page::{Page, first_chunk},
    query::{IndexQuery, Merged},
    request::SearchRequest,
    reveal::{Revealed, Sorting},
};
use crate::{
    http::Reply,
    json::RawObject,
    read::{Gathered, NodeRequest, Part, Portion, Question},
    scrub,
    shard::Shard,
    topology::Topology,
};
use serde_json::value::RawValue;
use std::{collections::BTreeMap, sync::Arc};

/// Several searches, each with an answer of its own.
#[derive(Clone, Debug)]
pub struct MultiSearch {
    queries: Vec<IndexQuery>,
    /// It is one search, which needs more than one query of a node.
    single: bool,
    /// Shards of the cluster.
    shards: u16,
    /// Writes have come between the steps of its deep pages before.
    torn: bool,
}

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
            .map(|mut parameters| {
                // These may be null here, where those of a search of its own may not.
                parameters.retain(|name, value| {
                    !(["offset", "limit"].contains(&name.as_str()) && value.get() == "null")
                });
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
        let shards = topology.shard_count();
        Some(Box::new(Self { queries: queries.collect(), single: false, shards, torn: false }))
    }

    /// One search, by multi-searches.
    #[must_use]
    pub fn single(topology: &Topology, mut query: IndexQuery) -> Self {
        query.request.name_index(&query.index);
        Self { queries: vec![query], single: true, shards: topology.shard_count(), torn: false }
    }

    /// What to ask where writes have come between the steps of these queries: the same once more, then all their hits at once.
    pub(super) fn after_tear(&self, torn: &[bool]) -> Self {
        let queries = self.queries.iter().zip(torn).map(|(query, torn)| match torn {
            true if self.torn => query.whole(),
            _ => query.clone(),
        });
        Self { queries: queries.collect(), torn: true, ..*self }
    }

    /// The answer of these results.
    pub(super) fn reply(&self, results: &[Vec<u8>]) -> Gathered {
        let mut body = Vec::with_capacity(64 + results.iter().map(Vec::len).sum::<usize>());
        match results {
            [result] if self.single => match serde_json::from_slice::<RawObject<'_>>(result) {
                Ok(result) => result.write_filtered(&mut body, |name, value, out| {
                    name != "indexUid" && scrub::as_is(name, value, out)
                }),
                Err(_) => return Gathered::Broken(0),
            },
            _ => {
                body.extend_from_slice(b"{\"results\":");
                write_list(results, &mut body, |result, out| out.extend_from_slice(result));
                body.push(b'}');
            }
        }
        Gathered::Reply(Reply::json(200, body))
    }

    fn ask_one(&self, portion: &Portion) -> Option<Vec<Vec<u8>>> {
        let query = self.queries.get(portion.unit)?;
        if query.is_deep() {
            let hits = first_chunk(query, &portion.shards, self.shards);
            return Some(query.scan().first(&portion.shards, hits));
        }
        Some(query.for_shards(&portion.shards))
    }

    /// A deep page after its first answers, or what is to be asked instead; the position of an answer that cannot be read.
    fn page(
        &self,
        query: &IndexQuery,
        answers: &Answers<'_>,
    ) -> Result<Result<Page, Box<IndexQuery>>, usize> {
        let mut own = Vec::with_capacity(answers.own.len());
        for (position, (body, shards)) in answers.own.iter().zip(&answers.shards).enumerate() {
            let answer = NodeAnswer::read(body).map_err(|_| position)?;
            own.push((shards.clone(), first_chunk(query, shards, self.shards), answer));
        }
        let keywords = answers.keywords.iter().enumerate();
        let keywords = keywords.map(|(position, body)| NodeAnswer::read(body).map_err(|_| position));
        Ok(Page::new(query, own, keywords.collect::<Result<_, _>>()?))
    }
}

impl Sorting for MultiSearch {
    fn queries(&self) -> Vec<&IndexQuery> {
        self.queries.iter().collect()
    }

    fn with(&self, revealed: &Arc<Revealed>) -> Self {
        Self { queries: self.queries.iter().map(|query| query.with(revealed)).collect(), ..*self }
    }
}

impl Question for MultiSearch {
    fn seeds(&self) -> Vec<u64> {
        self.queries.iter().map(|query| query.seed()).collect()
    }

    fn hits(&self) -> u64 {
        self.queries.iter().map(IndexQuery::end).fold(0, u64::saturating_add)
    }

    fn ask(&self, portions: &[Portion]) -> NodeRequest {
        let queries = portions.iter().filter_map(|portion| self.ask_one(portion)).flatten();
        multi_search(&queries.collect::<Vec<_>>())
    }

    fn simpler(&self) -> Option<Box<dyn Question>> {
        self.queries.iter().find_map(IndexQuery::simpler)?;
        let queries = self.queries.iter().map(|query| query.simpler().unwrap_or_else(|| query.clone()));
        Some(Box::new(Self { queries: queries.collect(), ..*self }))
    }

    fn gather(&self, topology: &Topology, parts: &[Part<'_>]) -> Gathered {
        match self.hidden(topology, parts) {
            // The first hits of a deep page do not tell which ones are to be read.
            Some(Gathered::Again(_)) if self.queries.iter().any(IndexQuery::is_deep) => {
                let queries = self.queries.iter().map(IndexQuery::whole).collect();
                return Gathered::Next(Box::new(Self { queries, ..*self }), 0);
            }
            Some(gathered) => return gathered,
            None => {}
        }
        let mut answers: Vec<Answers<'_>> = self.queries.iter().map(|_| Answers::default()).collect();
        for (position, part) in parts.iter().enumerate() {
            let queries = part.portions.iter().map(|portion| self.queries.get(portion.unit));
            let Some(mut results) = read_results(part.body) else { return Gathered::Broken(position) };
            results.reverse();
            for (portion, query) in part.portions.iter().zip(queries) {
                let (Some(query), Some(answers)) = (query, answers.get_mut(portion.unit)) else { continue };
                if !answers.take(query, &portion.shards, position, &mut results) {
                    return Gathered::Broken(position);
                }
            }
            if !results.is_empty() {
                return Gathered::Broken(position);
            }
        }
        let mut results = Vec::with_capacity(self.queries.len());
        let mut instead: BTreeMap<usize, IndexQuery> = BTreeMap::new();
        for (unit, (query, answers)) in self.queries.iter().zip(&answers).enumerate() {
            let broken = |position: usize| answers.positions.get(position).copied().unwrap_or(0);
            if query.is_deep() {
                match self.page(query, answers) {
                    Ok(Ok(page)) => results.push(DeepResult::Page(Box::new(page))),
                    Ok(Err(query)) => drop(instead.insert(unit, *query)),
                    Err(position) => return Gathered::Broken(broken(position)),
                }
                continue;
            }
            match query.merge(&answers.own, &answers.keywords, &answers.counts) {
                Ok(Merged::Body(result)) => results.push(DeepResult::Done(result)),
                Ok(Merged::Instead(query)) => drop(instead.insert(unit, *query)),
                Err(position) => return Gathered::Broken(broken(position)),
            }
        }
        if !instead.is_empty() {
            let queries = self.queries.iter().enumerate();
            let queries = queries.map(|(unit, query)| instead.remove(&unit).unwrap_or_else(|| query.clone()));
            return Gathered::Next(Box::new(Self { queries: queries.collect(), ..*self }), 0);
        }
        Deep::go_on(self.clone(), results)
    }
}

/// What nodes answered to one query.
#[derive(Debug, Default)]
pub(super) struct Answers<'a> {
    /// To the client's query.
    pub own: Vec<&'a [u8]>,
    /// To the same by keywords only, where that is asked.
    pub keywords: Vec<&'a [u8]>,
    /// To the same for counts only, where that is asked.
    pub counts: Vec<&'a [u8]>,
    /// Which parts brought them.
    pub positions: Vec<usize>,
    /// For which shards.
    pub shards: Vec<Vec<Shard>>,
}

impl<'a> Answers<'a> {
    /// Takes a node's results of this query, which are the last ones; `false` where some are not there.
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

/// These queries for one callout.
pub(super) fn multi_search(queries: &[Vec<u8>]) -> NodeRequest {
    let mut body = b"{\"queries\":".to_vec();
    write_list(queries, &mut body, |query, out| out.extend_from_slice(query));
    body.push(b'}');
    NodeRequest::new("/multi-search", body)
}

/// The results of a multi-search.
pub(super) fn read_results(body: &[u8]) -> Option<Vec<&RawValue>> {
    serde_json::from_slice::<RawObject<'_>>(body).ok()?.read("results")
}
