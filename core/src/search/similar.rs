//! `GET` and `POST /indexes/{uid}/similar`: reads the document's vector from a node that holds the document, then searches by
//! that vector.
//!
//! First a node checks the request with the client's key: the key only needs the right to search, and a tenant token must let
//! it see the document. The vector is then read with the gateway's own key.

use super::{
    hits::answer::{Hit, NodeAnswer},
    merge::{ranked, write_list},
    query::IndexQuery,
    request::{SearchRequest, paging::Paging, query_string::parameters, with_shards},
    values::document_id::DocumentId,
};
use crate::{
    http::{Reply, RequestHead},
    json::{RawObject, to_bytes, write_string},
    path::ApiPath,
    query::{last_pairs, members},
    scatter_query::{Gathered, Key, NodeRequest, Part, QuerySlice, ScatterQuery, owner, shards_of},
    shard::Shard,
    topology::Topology,
};
use serde_json::{
    Map, Value, json,
    value::{RawValue, to_raw_value},
};
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

/// The parameters that a search also accepts, with the same meaning.
const KNOWN: [&str; 9] = [
    "offset",
    "limit",
    "filter",
    "attributesToRetrieve",
    "retrieveVectors",
    "showRankingScore",
    "showRankingScoreDetails",
    "showPerformanceDetails",
    "rankingScoreThreshold",
];

/// The client's request.
#[derive(Debug)]
struct Similar {
    index: String,
    id: Value,
    embedder: String,
    parameters: BTreeMap<String, Box<RawValue>>,
    /// The document's shard.
    shard: Shard,
}

/// First step: asks a node that holds the document whether it accepts the request.
#[derive(Debug)]
struct SimilarCheck(Similar);

/// Second step: reads the document's vector.
#[derive(Debug)]
struct Vector(Similar);

/// Last step: searches for the documents near that vector.
#[derive(Debug)]
struct Near {
    query: IndexQuery,
    id: Value,
}

/// Last step for a document without a vector: counts the other documents.
#[derive(Debug)]
struct Alone(Similar);

/// Parses a request; `None` if a node would refuse it.
#[must_use]
pub fn similar(
    topology: &Topology,
    index: &str,
    head: &RequestHead,
    body: &[u8],
) -> Option<Box<dyn ScatterQuery>> {
    let mut parameters = parameters(head, body, body_of_query)?;
    let embedder = serde_json::from_str(parameters.remove("embedder")?.get()).ok()?;
    let id: Value = serde_json::from_str(parameters.remove("id")?.get()).ok()?;
    if !(id.is_string() || id.is_u64() || id.is_i64())
        || !parameters.keys().all(|name| KNOWN.contains(&name.as_str()))
    {
        return None;
    }
    SearchRequest::new(parameters.clone()).ok()?;
    let shard = Shard::of_document(&text(&id), topology.shard_count());
    Some(Box::new(SimilarCheck(Similar { index: index.to_owned(), id, embedder, parameters, shard })))
}

/// The text of an id.
fn text(id: &Value) -> String {
    id.as_str().map_or_else(|| id.to_string(), str::to_owned)
}

impl Similar {
    /// The client's request with a limit of zero hits and this filter.
    fn without_hits(&self, filter: Option<&RawValue>) -> NodeRequest {
        let own = [
            ("id", to_raw_value(&self.id).ok()),
            ("embedder", to_raw_value(&self.embedder).ok()),
            ("limit", to_raw_value(&0).ok()),
        ];
        let mut body: BTreeMap<&str, &RawValue> =
            self.parameters.iter().map(|(name, value)| (name.as_str(), &**value)).collect();
        body.extend(filter.map(|filter| ("filter", filter)));
        body.extend(own.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))));
        NodeRequest::new(ApiPath::of_index(&self.index, &["similar"]), to_bytes(&body))
    }

    fn near(&self, topology: &Topology, vector: &Value) -> Option<Box<dyn ScatterQuery>> {
        let mut parameters = self.parameters.clone();
        parameters.insert("vector".to_owned(), to_raw_value(vector).ok()?);
        let hybrid = json!({"embedder": self.embedder, "semanticRatio": 1.0});
        parameters.insert("hybrid".to_owned(), to_raw_value(&hybrid).ok()?);
        let request = SearchRequest::new(parameters).ok()?;
        let query = IndexQuery::with_distinct(self.index.clone(), topology.index(&self.index), request, None);
        Some(Box::new(Near { query, id: self.id.clone() }))
    }

    fn seeds(&self) -> Vec<u64> {
        vec![xxh3_64(self.index.as_bytes())]
    }
}

impl ScatterQuery for SimilarCheck {
    fn seeds(&self) -> Vec<u64> {
        self.0.seeds()
    }

    fn indexes(&self, _: usize) -> Vec<&str> {
        vec![&self.0.index]
    }

    fn shards(&self, _: &Topology) -> Vec<Shard> {
        vec![self.0.shard]
    }

    fn ask(&self, _: &[QuerySlice]) -> NodeRequest {
        self.0.without_hits(None)
    }

    fn gather(self: Box<Self>, _: &Topology, parts: Vec<Part>) -> Gathered {
        Gathered::Next(Box::new(Vector(self.0)), owner(&parts))
    }
}

impl ScatterQuery for Vector {
    fn seeds(&self) -> Vec<u64> {
        self.0.seeds()
    }

    fn indexes(&self, _: usize) -> Vec<&str> {
        vec![&self.0.index]
    }

    fn shards(&self, _: &Topology) -> Vec<Shard> {
        vec![self.0.shard]
    }

    fn ask(&self, _: &[QuerySlice]) -> NodeRequest {
        let body = json!({"ids": [self.0.id], "retrieveVectors": true, "limit": 1});
        let path = ApiPath::of_index(&self.0.index, &["documents", "fetch"]);
        NodeRequest { key: Key::Internal, ..NodeRequest::new(path, body.to_string().into_bytes()) }
    }

    fn gather(self: Box<Self>, topology: &Topology, parts: Vec<Part>) -> Gathered {
        let answer = parts.first().and_then(|part| serde_json::from_slice::<Value>(&part.body).ok());
        let Some(answer) = answer else { return Gathered::broken(self, parts, 0) };
        let document = answer.get("results").and_then(|results| results.get(0));
        let vectors = document.and_then(|document| document.get("_vectors")?.get(&self.0.embedder));
        let vectors = vectors.map(|vectors| vectors.get("embeddings").unwrap_or(vectors));
        let first = vectors.and_then(|vectors| vectors.get(0));
        let vector = if first.is_some_and(Value::is_array) { first } else { vectors };
        let vector = vector.filter(|vector| vector.get(0).is_some());
        match vector.and_then(|vector| self.0.near(topology, vector)) {
            Some(near) => Gathered::Next(near, owner(&parts)),
            None => Gathered::Next(Box::new(Alone(self.0)), owner(&parts)),
        }
    }
}

impl ScatterQuery for Alone {
    fn seeds(&self) -> Vec<u64> {
        self.0.seeds()
    }

    fn indexes(&self, _: usize) -> Vec<&str> {
        vec![&self.0.index]
    }

    fn ask(&self, slices: &[QuerySlice]) -> NodeRequest {
        let shards = shards_of(slices);
        let filter = with_shards(self.0.parameters.get("filter").map(|filter| &**filter), &shards);
        // The node that holds the document does not count it.
        if shards.contains(&self.0.shard) {
            return self.0.without_hits(filter.as_deref());
        }
        let body = json!({"filter": filter, "limit": 0});
        NodeRequest::new(ApiPath::of_index(&self.0.index, &["search"]), body.to_string().into_bytes())
    }

    fn gather(self: Box<Self>, topology: &Topology, parts: Vec<Part>) -> Gathered {
        match self.merge(topology, &parts) {
            Ok(Some(body)) => Gathered::Reply(Reply::json(200, body)),
            // The document's shard has no replica left.
            Ok(None) => Gathered::Native(None),
            Err(position) => Gathered::broken(self, parts, position),
        }
    }
}

impl Alone {
    /// The answer; `None` where the node is missing that has the document. The error is the position of a part that cannot be read.
    fn merge(&self, topology: &Topology, parts: &[Part]) -> Result<Option<Vec<u8>>, usize> {
        let (mut total, mut time, mut frame) = (0u64, 0, None);
        for (position, part) in parts.iter().enumerate() {
            let answer = serde_json::from_slice::<RawObject<'_>>(&part.body).ok();
            let count = answer.as_ref().and_then(|answer| answer.read::<u64>("estimatedTotalHits"));
            let (Some(answer), Some(count)) = (answer, count) else { return Err(position) };
            total = total.saturating_add(count);
            time = time.max(answer.read("processingTimeMs").unwrap_or(0));
            if answer.get("id").is_some() {
                frame = Some(answer);
            }
        }
        let Some(frame) = frame else { return Ok(None) };
        let total = total.min(topology.index(&self.0.index).max_total_hits);
        let limit = self.0.parameters.get("limit").map_or("20", |limit| limit.get());
        let mut out = Vec::new();
        frame.write_filtered(&mut out, |name, value, out| {
            let text = match name {
                "estimatedTotalHits" => total.to_string(),
                "processingTimeMs" => time.to_string(),
                "limit" => limit.to_owned(),
                _ => value.get().to_owned(),
            };
            out.extend_from_slice(text.as_bytes());
            true
        });
        Ok(Some(out))
    }
}

impl ScatterQuery for Near {
    fn seeds(&self) -> Vec<u64> {
        vec![self.query.seed()]
    }

    fn indexes(&self, _: usize) -> Vec<&str> {
        vec![&self.query.index]
    }

    fn ask(&self, slices: &[QuerySlice]) -> NodeRequest {
        let shards = shards_of(slices);
        // Request one more hit, because the document itself is among its neighbours.
        let mut query = self.query.clone();
        if let Paging::Offset { limit, .. } = &mut query.request.paging {
            *limit = limit.saturating_add(1);
        }
        let path = ApiPath::of_index(&self.query.index, &["search"]);
        // With a semantic ratio of 1 there is only one query.
        NodeRequest::new(path, query.for_shards(&shards).pop().unwrap_or_default())
    }

    fn gather(self: Box<Self>, topology: &Topology, parts: Vec<Part>) -> Gathered {
        match self.merge(topology, &parts) {
            Ok(body) => Gathered::Reply(Reply::json(200, body)),
            Err(position) => Gathered::broken(self, parts, position),
        }
    }
}

impl Near {
    /// The nodes' answers as one, or the position of one that cannot be read.
    fn merge(&self, topology: &Topology, parts: &[Part]) -> Result<Vec<u8>, usize> {
        let mut answers = Vec::with_capacity(parts.len());
        for (position, part) in parts.iter().enumerate() {
            match NodeAnswer::read(&part.body) {
                Ok(answer) => answers.push(answer),
                Err(_) => return Err(position),
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
            let details: Option<RawObject<'_>> =
                hit.details().and_then(|details| serde_json::from_str(details.get()).ok());
            let vector: Option<RawObject<'_>> = details.and_then(|details| details.read("vectorSort"));
            // A vector search also finds documents without a vector; they have no similarity.
            vector.is_some_and(|vector| vector.read::<f64>("similarity").is_some()) && !is_own(hit)
        };
        let lists = answers.iter().map(|answer| answer.hits.as_slice()).collect();
        let compare = |one: &Hit<'_>, other: &Hit<'_>| {
            let ranks = one.rank().compare(other.rank());
            ranks.then_with(|| one.insertion(key).cmp(other.insertion(key)))
        };
        let end = usize::try_from(offset.saturating_add(limit)).unwrap_or(usize::MAX);
        let hits = ranked(lists, end, compare, wanted);
        let hits = hits.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let sum = |name: &str| answers.iter().map(|answer| answer.number(name)).fold(0, u64::saturating_add);
        let total = sum("estimatedTotalHits").saturating_sub(own_hits).min(config.max_total_hits);
        let time = answers.iter().map(|answer| answer.number("processingTimeMs")).max().unwrap_or(0);
        let mut out = b"{\"hits\":".to_vec();
        write_list(hits, &mut out, |hit, out| {
            self.query.request.shown().write(&hit.fields, &self.query.selection, out);
        });
        out.extend_from_slice(b",\"id\":");
        write_string(&text(&self.id), &mut out);
        let rest = format!(
            ",\"processingTimeMs\":{time},\"limit\":{limit},\"offset\":{offset},\"estimatedTotalHits\":{total}"
        );
        out.extend_from_slice(rest.as_bytes());
        if let Some(details) = answers.iter().find_map(|answer| answer.member("performanceDetails")) {
            out.extend_from_slice(b",\"performanceDetails\":");
            out.extend_from_slice(details.get().as_bytes());
        }
        out.push(b'}');
        Ok(out)
    }
}

/// Converts the query string of the `GET` to the body of the `POST`.
fn body_of_query(query: &str) -> Option<Map<String, Value>> {
    let mut body = Map::new();
    for (name, text) in last_pairs(query) {
        let value = match name.as_str() {
            "id" | "embedder" => json!(text),
            "offset" | "limit" => json!(text.parse::<u64>().ok()?),
            "retrieveVectors" | "showRankingScore" | "showRankingScoreDetails" | "showPerformanceDetails" => {
                json!(text.parse::<bool>().ok()?)
            }
            "rankingScoreThreshold" => json!(text.parse::<f64>().ok()?),
            "attributesToRetrieve" => members(&text).map(Value::from).collect(),
            "filter" => serde_json::from_str(&text).unwrap_or_else(|_| json!(text)),
            _ => return None,
        };
        body.insert(name, value);
    }
    Some(body)
}
