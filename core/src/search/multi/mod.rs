//! `POST /multi-search`: sends many queries to a node in one callout.

mod deep;

use super::{
    federated::{Federated, hybrid::Decision},
    hits::answer::NodeAnswer,
    merge::write_list,
    query::{
        IndexQuery, Merged,
        hidden_values::Sorting,
        results::{Answers, multi_search, read_results},
    },
    request::SearchRequest,
    two_step::{InSteps, Name, Scan, first_chunk},
    values::document_values::DocumentValues,
};
use crate::{
    http::Reply,
    json::RawObject,
    scatter_query::{Gathered, NodeRequest, Part, QuerySlice, ScatterQuery, owner},
    scrub,
    shard::Shard,
    topology::Topology,
};
use deep::{Deep, DeepResult};
use serde_json::value::RawValue;
use std::{collections::BTreeMap, sync::Arc};

/// Several searches, each with its own answer.
#[derive(Debug)]
pub struct MultiSearch {
    queries: Vec<IndexQuery>,
    route: SearchRoute,
    /// The cluster's number of shards.
    shards: u16,
    attempt: Attempt,
}

/// Which route the client has asked by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SearchRoute {
    /// That of one search, which needs more than one query of a node.
    Search,
    /// That of several.
    MultiSearch,
}

/// How often deep pages have been tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Attempt {
    First,
    /// Writes have come between the steps before.
    AfterTear,
}

impl MultiSearch {
    /// Parses a body; `None` if a node would refuse it.
    #[must_use]
    pub fn of(topology: &Topology, body: &[u8]) -> Option<Box<dyn ScatterQuery>> {
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
                // In a multi-search these may be null; in a search route they may not.
                parameters.retain(|name, value| {
                    !(["offset", "limit"].contains(&name.as_str()) && value.get() == "null")
                });
                let index: String = serde_json::from_str(parameters.get("indexUid")?.get()).ok()?;
                Some((index, SearchRequest::new(parameters).ok()?))
            })
            .collect::<Option<Vec<_>>>()?;
        if let Some(federation) = federation {
            return Some(Decision::of(Federated::of(topology, federation, queries)?));
        }
        let queries = queries.into_iter().map(|(index, request)| {
            let config = topology.index(&index);
            IndexQuery::new(index, config, request)
        });
        let shards = topology.shard_count();
        let (route, attempt) = (SearchRoute::MultiSearch, Attempt::First);
        Some(Box::new(Self { queries: queries.collect(), route, shards, attempt }))
    }

    /// A single search, sent as a multi-search.
    #[must_use]
    pub fn single(topology: &Topology, mut query: IndexQuery) -> Self {
        query.request.name_index(&query.index);
        let (route, attempt) = (SearchRoute::Search, Attempt::First);
        Self { queries: vec![query], route, shards: topology.shard_count(), attempt }
    }

    fn ask_one(&self, slice: &QuerySlice) -> Option<Vec<Vec<u8>>> {
        let query = self.queries.get(slice.unit)?;
        if query.is_deep() {
            let hits = first_chunk(query, &slice.shards, self.shards);
            return Some(query.scan().first(&slice.shards, hits));
        }
        Some(query.for_shards(&slice.shards))
    }

    /// The nodes' answers to each query, or the position of a part that cannot be read.
    fn answers<'a>(&self, parts: &'a [Part]) -> Result<Vec<Answers<'a>>, usize> {
        let mut answers: Vec<Answers<'_>> = self.queries.iter().map(|_| Answers::default()).collect();
        for (position, part) in parts.iter().enumerate() {
            let mut results = read_results(&part.body).ok_or(position)?;
            results.reverse();
            for slice in part.slices.iter() {
                let unit = (self.queries.get(slice.unit), answers.get_mut(slice.unit));
                let (Some(query), Some(answers)) = unit else { continue };
                if !answers.take(query, &slice.shards, position, &mut results) {
                    return Err(position);
                }
            }
            if !results.is_empty() {
                return Err(position);
            }
        }
        Ok(answers)
    }

    /// What is known of each query, or what is to be asked instead; the position of a part that cannot be read.
    fn merge(&self, parts: &[Part]) -> Result<Vec<Result<DeepResult, Box<IndexQuery>>>, usize> {
        let answers = self.answers(parts)?;
        let merged = self.queries.iter().zip(&answers).map(|(query, answers)| {
            let merged = if query.is_deep() {
                self.page(query, answers).map(|page| page.map(|scan| DeepResult::Page(Box::new(scan))))
            } else {
                let merged = query.merge(&answers.own, &answers.keywords, &answers.counts);
                merged.map(|merged| match merged {
                    Merged::Body(body) => Ok(DeepResult::Done(body)),
                    Merged::Instead(query) => Err(query),
                })
            };
            merged.map_err(|position| answers.position(position))
        });
        merged.collect()
    }

    /// Starts a deep page from its first answers, or returns the query to send instead. The error is the position of an answer
    /// that cannot be parsed.
    fn page(
        &self,
        query: &IndexQuery,
        answers: &Answers<'_>,
    ) -> Result<Result<Scan, Box<IndexQuery>>, usize> {
        let mut own = Vec::with_capacity(answers.own.len());
        for (position, (body, shards)) in answers.own.iter().zip(&answers.shards).enumerate() {
            let answer = NodeAnswer::read(body).map_err(|_| position)?;
            own.push((shards.clone(), first_chunk(query, shards, self.shards), answer));
        }
        let keywords = answers.keywords.iter().enumerate();
        let keywords = keywords.map(|(position, body)| NodeAnswer::read(body).map_err(|_| position));
        Ok(Scan::new(query, own, keywords.collect::<Result<_, _>>()?))
    }
}

impl InSteps for MultiSearch {
    const HITS: &'static str = "hits";

    /// The query as its page is shown: by keywords only, where these were good enough.
    type Query = IndexQuery;

    fn window(&self, query: &IndexQuery, shards: &[Shard], offset: u64, limit: u64) -> Vec<u8> {
        query.window(shards, offset, limit)
    }

    fn request(&self, windows: Vec<Vec<u8>>) -> NodeRequest {
        multi_search(&windows)
    }

    fn split<'a>(&self, body: &'a [u8]) -> Option<Vec<&'a [u8]>> {
        Some(read_results(body)?.into_iter().map(|result| result.get().as_bytes()).collect())
    }

    fn name(&self, query: &IndexQuery, hit: &RawObject<'_>) -> Option<Name> {
        Some(Name::of(0, hit, query.config.primary_key.as_deref()))
    }

    fn write_hits(&self, query: &IndexQuery, hits: &[&RawObject<'_>], out: &mut Vec<u8>) {
        query.merging().write_hits(hits, &query.request, out);
    }

    fn reply(&self, results: Vec<Vec<u8>>) -> Reply {
        let mut body = Vec::with_capacity(64 + results.iter().map(Vec::len).sum::<usize>());
        let one: Option<RawObject<'_>> = match (self.route, results.as_slice()) {
            (SearchRoute::Search, [result]) => serde_json::from_slice(result).ok(),
            _ => None,
        };
        match one {
            Some(result) => result.write_filtered(&mut body, |name, value, out| {
                name != "indexUid" && scrub::as_is(name, value, out)
            }),
            None => {
                body.extend_from_slice(b"{\"results\":");
                write_list(&results, &mut body, |result, out| out.extend_from_slice(result));
                body.push(b'}');
            }
        }
        Reply::json(200, body)
    }

    /// The same once more, then all hits of these queries at once.
    fn after_tear(self, torn: &[bool]) -> Self {
        let queries = self.queries.into_iter().zip(torn).map(|(query, torn)| match (torn, self.attempt) {
            (true, Attempt::AfterTear) => query.whole(),
            _ => query,
        });
        Self { queries: queries.collect(), attempt: Attempt::AfterTear, ..self }
    }
}

impl Sorting for MultiSearch {
    fn queries(&self) -> Vec<&IndexQuery> {
        self.queries.iter().collect()
    }

    fn with(self, revealed: &Arc<DocumentValues>) -> Self {
        Self { queries: self.queries.into_iter().map(|query| query.with(revealed)).collect(), ..self }
    }

    fn unreadable(&self, parts: &[Part]) -> Option<usize> {
        let answers = match self.answers(parts) {
            Ok(answers) => answers,
            Err(position) => return Some(position),
        };
        answers.iter().find_map(|answers| {
            let all = [&answers.own, &answers.keywords, &answers.counts].into_iter();
            let position = all.flat_map(|bodies| bodies.iter().enumerate());
            let mut unreadable = position.filter(|(_, body)| NodeAnswer::read(body).is_err());
            unreadable.next().map(|(position, _)| answers.position(position))
        })
    }

    fn is_in_steps(&self) -> bool {
        self.queries.iter().any(IndexQuery::is_deep)
    }

    fn at_once(self) -> Self {
        Self { queries: self.queries.into_iter().map(IndexQuery::whole).collect(), ..self }
    }
}

impl ScatterQuery for MultiSearch {
    fn seeds(&self) -> Vec<u64> {
        self.queries.iter().map(|query| query.seed()).collect()
    }

    fn indexes(&self, unit: usize) -> Vec<&str> {
        self.queries.get(unit).map(|query| query.index.as_str()).into_iter().collect()
    }

    fn hits(&self) -> u64 {
        self.queries.iter().map(IndexQuery::end).fold(0, u64::saturating_add)
    }

    fn ask(&self, slices: &[QuerySlice]) -> NodeRequest {
        let queries = slices.iter().filter_map(|slice| self.ask_one(slice)).flatten();
        multi_search(&queries.collect::<Vec<_>>())
    }

    fn simpler(self: Box<Self>) -> Option<Box<dyn ScatterQuery>> {
        self.queries.iter().any(IndexQuery::has_additions).then_some(())?;
        let queries = self.queries.into_iter().map(IndexQuery::without_additions);
        Some(Box::new(Self { queries: queries.collect(), ..*self }))
    }

    fn gather(self: Box<Self>, _: &Topology, parts: Vec<Part>) -> Gathered {
        let (search, parts) = match self.revealed(parts) {
            Ok(revealed) => revealed,
            Err(gathered) => return gathered,
        };
        let merged = match search.merge(&parts) {
            Ok(merged) => merged,
            Err(position) => return Gathered::broken(search, parts, position),
        };
        if merged.iter().all(Result::is_ok) {
            return Deep::go_on(*search, merged.into_iter().flatten().collect(), &parts);
        }
        let queries = search.queries.into_iter().zip(merged);
        let queries = queries.map(|(query, merged)| merged.err().map_or(query, |instead| *instead));
        Gathered::Next(Box::new(Self { queries: queries.collect(), ..*search }), owner(&parts))
    }
}
