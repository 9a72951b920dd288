//! `GET` and `POST /indexes/{uid}/similar`: the vector of the document, from the node that owns it, then a search by it.
//!
//! The first step reads the document, so a key needs the right to get documents besides the right to search.

use super::{
    answer::{DocumentId, Hit, NodeAnswer},
    merge::{ranked, write_list},
    query::IndexQuery,
    request::{Paging, SearchRequest},
};
use crate::{
    http::{Reply, RequestHead},
    json::{RawObject, write_string},
    query::{encode, pairs},
    read::{Gathered, NodeRequest, Part, Portion, Question},
    scrub,
    shard::Shard,
    topology::Topology,
};
use serde_json::{
    Value, json,
    value::{RawValue, to_raw_value},
};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Parameters that a search takes too, in the same sense.
const KNOWN: [&str; 8] = [
    "offset",
    "limit",
    "filter",
    "attributesToRetrieve",
    "retrieveVectors",
    "showRankingScore",
    "showRankingScoreDetails",
    "rankingScoreThreshold",
];

/// Where the vector of the document is.
#[derive(Debug)]
pub struct Similar {
    index: String,
    id: Value,
    embedder: String,
    parameters: BTreeMap<String, Box<RawValue>>,
}

/// Which documents are near that vector.
#[derive(Debug)]
struct Near {
    query: IndexQuery,
    id: Value,
}

impl Similar {
    /// What a request asks; `None` where a node would refuse it.
    #[must_use]
    pub fn of(index: &str, head: &RequestHead, body: &[u8]) -> Option<Box<dyn Question>> {
        let from_query;
        let body = if head.method == "GET" {
            from_query = serde_json::to_vec(&body_of_query(head.query())?).ok()?;
            &from_query
        } else {
            body
        };
        let mut parameters: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(body).ok()?;
        let embedder = serde_json::from_str(parameters.remove("embedder")?.get()).ok()?;
        let id: Value = serde_json::from_str(parameters.remove("id")?.get()).ok()?;
        if !(id.is_string() || id.is_u64() || id.is_i64())
            || !parameters.keys().all(|name| KNOWN.contains(&name.as_str()))
        {
            return None;
        }
        SearchRequest::new(parameters.clone()).ok()?;
        Some(Box::new(Self { index: index.to_owned(), id, embedder, parameters }))
    }

    fn near(&self, topology: &Topology, vector: &Value) -> Option<Box<dyn Question>> {
        let mut parameters = self.parameters.clone();
        parameters.insert("vector".to_owned(), to_raw_value(vector).ok()?);
        let hybrid = json!({"embedder": self.embedder, "semanticRatio": 1.0});
        parameters.insert("hybrid".to_owned(), to_raw_value(&hybrid).ok()?);
        let request = SearchRequest::new(parameters).ok()?;
        let query = IndexQuery::with_distinct(self.index.clone(), topology.index(&self.index), request, None);
        Some(Box::new(Near { query, id: self.id.clone() }))
    }
}

impl Question for Similar {
    fn seeds(&self, topology: &Topology) -> Vec<u64> {
        vec![xxh3_64_with_seed(self.index.as_bytes(), topology.version())]
    }

    fn ask(&self, _: &[Portion]) -> NodeRequest {
        let body = json!({"ids": [self.id], "retrieveVectors": true, "limit": 1});
        let path = format!("/indexes/{}/documents/fetch", encode(&self.index));
        NodeRequest { path, body: body.to_string().into_bytes() }
    }

    fn gather(&self, topology: &Topology, parts: &[Part<'_>]) -> Gathered {
        let mut owner = None;
        for (position, part) in parts.iter().enumerate() {
            let Ok(answer) = serde_json::from_slice::<Value>(part.body) else {
                return Gathered::Broken(position);
            };
            let Some(document) = answer.get("results").and_then(|results| results.get(0)) else { continue };
            let vectors = document.get("_vectors").and_then(|vectors| vectors.get(&self.embedder));
            let vectors = vectors.map(|vectors| vectors.get("embeddings").unwrap_or(vectors));
            let first = vectors.and_then(|vectors| vectors.get(0));
            let vector = if first.is_some_and(Value::is_array) { first } else { vectors };
            if let Some(vector) = vector.filter(|vector| vector.get(0).is_some())
                && let Some(question) = self.near(topology, vector)
            {
                return Gathered::Next(question, position);
            }
            owner = Some(position);
        }
        Gathered::Native(owner)
    }
}

impl Question for Near {
    fn seeds(&self, topology: &Topology) -> Vec<u64> {
        vec![self.query.seed(topology.version())]
    }

    fn ask(&self, portions: &[Portion]) -> NodeRequest {
        let shards: Vec<Shard> = portions.iter().flat_map(|portion| portion.shards.clone()).collect();
        // One more: the document itself is among its neighbours.
        let mut query = self.query.clone();
        if let Paging::Offset { limit, .. } = &mut query.request.paging {
            *limit = limit.saturating_add(1);
        }
        let path = format!("/indexes/{}/search", encode(&self.query.index));
        // Its ratio is 1: there is one query.
        NodeRequest { path, body: query.for_shards(&shards).pop().unwrap_or_default() }
    }

    fn gather(&self, topology: &Topology, parts: &[Part<'_>]) -> Gathered {
        let mut answers = Vec::with_capacity(parts.len());
        for (position, part) in parts.iter().enumerate() {
            match NodeAnswer::read(part.body) {
                Ok(answer) => answers.push(answer),
                Err(_) => return Gathered::Broken(position),
            }
        }
        let config = topology.index(&self.query.index);
        let key = config.primary_key.as_deref();
        let own = DocumentId::of_value(&self.id);
        let (offset, limit) = self.query.request.paging.window();
        let is_own = |hit: &Hit<'_>| key.and_then(|key| DocumentId::of(&hit.fields, key)) == own;
        let own_hits =
            answers.iter().flat_map(|answer| &answer.hits).filter(|hit| is_own(hit)).count() as u64;
        let wanted = |hit: &Hit<'_>| {
            let details: Option<RawObject<'_>> = hit.fields.read("_rankingScoreDetails");
            let vector: Option<RawObject<'_>> = details.and_then(|details| details.read("vectorSort"));
            // A document without a vector is found, and has no similarity.
            vector.is_some_and(|vector| vector.read::<f64>("similarity").is_some()) && !is_own(hit)
        };
        let lists = answers.iter().map(|answer| answer.hits.as_slice()).collect();
        let compare = |one: &Hit<'_>, other: &Hit<'_>| {
            one.rank().compare(other.rank()).then_with(|| one.compare_ids(other, key))
        };
        let end = usize::try_from(offset.saturating_add(limit)).unwrap_or(usize::MAX);
        let hits = ranked(lists, end, compare, wanted);
        let hits = hits.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let sum = |name: &str| answers.iter().map(|answer| answer.number(name)).fold(0, u64::saturating_add);
        let total = sum("estimatedTotalHits").saturating_sub(own_hits).min(config.max_total_hits);
        let time = answers.iter().map(|answer| answer.number("processingTimeMs")).max().unwrap_or(0);
        let mut out = b"{\"hits\":".to_vec();
        write_list(hits, &mut out, |hit, out| {
            scrub::write_hit(&hit.fields, self.query.request.show_details, out, |name, value, out| {
                self.query.selection.write(name, value, out)
            });
        });
        out.extend_from_slice(b",\"id\":");
        write_string(self.id.as_str().unwrap_or(&self.id.to_string()), &mut out);
        let rest = format!(
            ",\"processingTimeMs\":{time},\"limit\":{limit},\"offset\":{offset},\"estimatedTotalHits\":{total}}}"
        );
        out.extend_from_slice(rest.as_bytes());
        Gathered::Reply(Reply::json(200, out))
    }
}

/// The query string of the `GET` as the body of the `POST`.
fn body_of_query(query: &str) -> Option<Value> {
    let mut body = serde_json::Map::new();
    for (name, text) in pairs(query) {
        let value = match name.as_str() {
            "id" | "embedder" => json!(text),
            "offset" | "limit" => json!(text.parse::<u64>().ok()?),
            "retrieveVectors" | "showRankingScore" | "showRankingScoreDetails" => {
                json!(text.parse::<bool>().ok()?)
            }
            "rankingScoreThreshold" => json!(text.parse::<f64>().ok()?),
            "attributesToRetrieve" => text.split(',').map(Value::from).collect(),
            "filter" => serde_json::from_str(&text).unwrap_or_else(|_| json!(text)),
            _ => return None,
        };
        if body.insert(name, value).is_some() {
            return None;
        }
    }
    Some(Value::Object(body))
}
