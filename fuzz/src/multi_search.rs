//! Multi-searches, including federated ones: whatever clients ask and nodes answer, each node is asked only for its shards by
//! their tags, and no answer contains a tag.

use crate::{Input, mentions_tag};
use miroir_core::{
    http::CallId,
    scatter_query::{Broken, Gathered, Part, QuerySlice, ScatterQuery},
    scrub,
    search::MultiSearch,
    shard::{Shard, tag_filter},
    topology::Topology,
};
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// The most rounds that a scatter query may take: steps of deep pages, hidden values, hybrid decisions, and writes between
/// them.
const ROUNDS: usize = 40;

static TOPOLOGY: LazyLock<Topology> = LazyLock::new(|| {
    let config = json!({
        "schema": 1, "version": 1,
        "nodes": [{"name": "a", "cluster": "a"}, {"name": "b", "cluster": "b"}],
        "placement": [[0], [0], [1], [1]],
        "indexes": {
            "films": {"primaryKey": "id", "rankingRules": ["words", "price:asc"]},
            "books": {"primaryKey": "id", "distinctAttribute": "title",
                      "sortFacetValuesBy": {"*": "count"}, "pins": [{"id": "1", "position": 1}]}
        }
    });
    Topology::from_json(config.to_string().as_bytes()).expect("a valid topology")
});

/// Runs a multi-search and answers for two nodes.
///
/// # Panics
/// A node is asked for other shards than its own, or the client sees the tag.
pub fn check(data: &[u8]) {
    let mut input = Input::new(data);
    let mut body = body(&mut input).to_string().into_bytes();
    input.broken(&mut body);
    let body = scrub::disguise(&body).unwrap_or(body);
    let Some(mut question) = MultiSearch::of(&TOPOLOGY, &body) else { return };
    // Numbers out of range are passed on, and nodes refuse them.
    if serde_json::from_slice::<Value>(&body).is_err() {
        return;
    }
    let shown = String::from_utf8_lossy(&body).into_owned();
    let mut asked = split(&mut input, question.as_ref());
    for _ in 0..ROUNDS {
        let mut answers = Vec::new();
        for slices in asked.iter().filter(|slices| question.concerns(slices)) {
            let request = question.ask(slices);
            let asks: Value = serde_json::from_slice(&request.body)
                .unwrap_or_else(|error| panic!("{shown}: a request to a node is not JSON: {error}"));
            filtered(&asks, slices, &shown);
            answers.push((slices, answer(&mut input, &request.path.route(), &asks)));
        }
        let parts: Vec<Part> = answers
            .into_iter()
            .zip(0..)
            .map(|((slices, answer), call)| Part {
                call: CallId(call),
                node: 0,
                slices: slices.as_slice().into(),
                body: answer.to_string().into_bytes(),
            })
            .collect();
        let count = parts.len();
        match question.gather(&TOPOLOGY, parts) {
            Gathered::Reply(reply) => {
                let told = String::from_utf8_lossy(&reply.body).into_owned();
                assert!(!mentions_tag(&reply.body), "{shown}: {told}");
                assert!(serde_json::from_slice::<Value>(&reply.body).is_ok(), "{shown}: {told}");
                return;
            }
            Gathered::Broken(Broken { parts, position, .. }) => {
                assert!(position < count && parts.len() == count, "{shown}: there is no part {position}");
                return;
            }
            Gathered::Native(_) => return,
            Gathered::Next(next, _) => {
                question = next;
                asked = split(&mut input, question.as_ref());
            }
            Gathered::Again(next) => question = next,
        }
    }
    panic!("{shown}: the query does not end");
}

/// Two nodes with half of the shards each, or one node with all.
fn split(input: &mut Input<'_>, question: &dyn ScatterQuery) -> Vec<Vec<QuerySlice>> {
    let shards: Vec<Shard> = TOPOLOGY.shards().collect();
    let parts = match input.of(&[2, 4]) {
        2 => vec![shards[..2].to_vec(), shards[2..].to_vec()],
        _ => vec![shards],
    };
    let units = question.seeds().len();
    let slices =
        |shards: Vec<Shard>| (0..units).map(|unit| QuerySlice { unit, shards: shards.clone() }).collect();
    parts.into_iter().map(slices).collect()
}

/// Checks that every query is restricted to the slice's shards.
fn filtered(asks: &Value, slices: &[QuerySlice], shown: &str) {
    let Some(queries) = asks.get("queries").and_then(Value::as_array) else { return };
    let Some(slice) = slices.first() else { return };
    let wanted = Value::String(tag_filter(&slice.shards)).to_string();
    for query in queries {
        let filter = query["filter"].to_string();
        assert!(filter.contains(wanted.trim_matches('"')), "{shown}: a node is asked {query}");
    }
}

fn body(input: &mut Input<'_>) -> Value {
    let is_federated = input.one_in(2);
    let queries: Vec<Value> = (0..input.below(4)).map(|_| query(input, is_federated)).collect();
    let mut body = json!({ "queries": queries });
    if is_federated {
        let mut federation = Map::new();
        some(
            input,
            &mut federation,
            &[
                ("limit", json!(2)),
                ("offset", json!(1)),
                ("offset", json!(5_000)),
                ("page", json!(1)),
                ("hitsPerPage", json!(2)),
                ("facetsByIndex", json!({"films": ["price"], "books": null})),
                ("facetsByIndex", json!({"films": ["*"], "books": ["title"]})),
                ("mergeFacets", json!({"maxValuesPerFacet": 2})),
                ("mergeFacets", json!({})),
                ("distinct", json!("title")),
                ("showPerformanceDetails", json!(true)),
            ],
        );
        body["federation"] = federation.into();
    }
    if input.one_in(16) {
        body[input.name()] = input.value(1);
    }
    body
}

fn query(input: &mut Input<'_>, is_federated: bool) -> Value {
    let mut query = Map::new();
    query.insert("indexUid".to_owned(), input.of(&["films", "books", "others"]).into());
    some(
        input,
        &mut query,
        &[
            ("q", json!("castle")),
            ("filter", json!("price > 3")),
            ("filter", json!([["a = 1", "b = 2"], "c EXISTS"])),
            ("facets", json!(["*"])),
            ("facets", json!(["price", "title"])),
            ("sort", json!(["price:asc", "title:desc"])),
            ("sort", json!(["_geoPoint(1, 2):asc"])),
            ("hybrid", json!({"embedder": "e", "semanticRatio": 0.5})),
            ("vector", json!([1, 0.5])),
            ("distinct", json!("title")),
            ("attributesToRetrieve", json!(["title"])),
            ("attributesToHighlight", json!(["*"])),
            ("showRankingScore", json!(true)),
            ("showRankingScoreDetails", json!(true)),
            ("rankingScoreThreshold", json!(0.3)),
            ("retrieveVectors", json!(true)),
        ],
    );
    let paging =
        [("limit", 2), ("limit", 0), ("offset", 1), ("offset", 5_000), ("page", 2), ("hitsPerPage", 2)];
    if is_federated {
        some(input, &mut query, &[("federationOptions", json!({"weight": 0.5, "queryPosition": 1}))]);
    } else {
        some(input, &mut query, &paging.map(|(name, value)| (name, json!(value))));
    }
    if input.one_in(8) {
        query.insert(input.name().to_owned(), input.value(1));
    }
    query.into()
}

fn some(input: &mut Input<'_>, object: &mut Map<String, Value>, members: &[(&str, Value)]) {
    for (name, value) in members {
        if input.one_in(4) {
            let value = if input.one_in(10) { input.value(1) } else { value.clone() };
            object.insert((*name).to_owned(), value);
        }
    }
}

/// A node's answer.
fn answer(input: &mut Input<'_>, path: &str, asks: &Value) -> Value {
    if path.ends_with("/documents/fetch") {
        let documents: Vec<Value> = (0..input.below(4)).map(|_| document(input).into()).collect();
        return json!({"results": documents, "offset": 0, "limit": documents.len(), "total": 9});
    }
    let empty = Vec::new();
    let queries = asks.get("queries").and_then(Value::as_array).unwrap_or(&empty);
    if let Some(federation) = asks.get("federation") {
        let mut answer = result(input, federation);
        let Some(members) = answer.as_object_mut() else { return answer };
        for hit in members.get_mut("hits").and_then(Value::as_array_mut).into_iter().flatten() {
            let position = input.below(queries.len());
            let index = queries.get(position).map(|query| query["indexUid"].clone());
            let place = json!({
                "indexUid": index, "queriesPosition": position, "weightedRankingScore": input.below(5) as f64 / 4.0
            });
            if let Some(hit) = hit.as_object_mut() {
                hit.insert("_federation".to_owned(), place);
            }
        }
        members.insert("facetsByIndex".to_owned(), json!({"films": facets(input), "books": facets(input)}));
        return answer;
    }
    if asks.get("queries").is_some() {
        let results: Vec<Value> = queries
            .iter()
            .map(|query| {
                let mut result = result(input, query);
                if let Some(result) = result.as_object_mut() {
                    result.insert("indexUid".to_owned(), query["indexUid"].clone());
                }
                result
            })
            .collect();
        return json!({ "results": results });
    }
    result(input, asks)
}

fn result(input: &mut Input<'_>, asks: &Value) -> Value {
    let at_most = asks["limit"].as_u64().or(asks["hitsPerPage"].as_u64()).unwrap_or(20).min(4) as usize;
    let hits: Vec<Value> = (0..input.below(at_most + 1)).map(|_| hit(input, asks)).collect();
    let mut result = json!({
        "hits": hits, "query": asks["q"].as_str().unwrap_or_default(), "processingTimeMs": input.below(9),
        "limit": asks["limit"].as_u64().unwrap_or(20), "offset": asks["offset"].as_u64().unwrap_or(0),
        "estimatedTotalHits": input.below(9)
    });
    if asks.get("page").is_some() || asks.get("hitsPerPage").is_some() {
        result = json!({
            "hits": result["hits"].take(), "query": "", "processingTimeMs": 1, "hitsPerPage": 2, "page": 1,
            "totalPages": input.below(4), "totalHits": input.below(9)
        });
    }
    if asks.get("facets").is_some() {
        let facets = facets(input);
        result["facetDistribution"] = facets["distribution"].clone();
        result["facetStats"] = facets["stats"].clone();
    }
    if input.one_in(3) {
        result["semanticHitCount"] = json!(input.below(3));
    }
    if input.one_in(40) {
        result = input.value(2);
    }
    result
}

fn facets(input: &mut Input<'_>) -> Value {
    let mut distribution = Map::new();
    for name in ["_miroir_shard", "price", "title"] {
        if input.one_in(2) {
            let values = (0..input.below(3)).map(|_| (input.text(), json!(input.below(4) + 1)));
            distribution.insert(name.to_owned(), Value::Object(values.collect()));
        }
    }
    json!({"distribution": distribution, "stats": {"price": {"min": 1, "max": input.below(9) + 1}}})
}

fn document(input: &mut Input<'_>) -> Map<String, Value> {
    let mut document = Map::new();
    document.insert("id".to_owned(), json!(input.below(6)));
    document.insert("title".to_owned(), json!(input.of(&["a", "b", "c"])));
    if input.one_in(2) {
        document.insert("price".to_owned(), input.number());
    }
    if input.one_in(4) {
        document.insert(input.name().to_owned(), input.value(1));
    }
    document.insert("_miroir_shard".to_owned(), json!(input.of(&[",,,", ",,;", ",;,"])));
    document
}

fn hit(input: &mut Input<'_>, asks: &Value) -> Value {
    let mut hit = document(input);
    // A node adds `_formatted` only if it was asked to; otherwise `_formatted` is a field of the document, which contains no
    // tag.
    if input.one_in(2) && asks.get("attributesToHighlight").is_some_and(|it| !it.is_null()) {
        let formatted = document(input);
        hit.insert("_formatted".to_owned(), formatted.into());
    }
    let score = input.below(5) as f64 / 4.0;
    hit.insert("_rankingScore".to_owned(), json!(score));
    if !input.one_in(8) {
        let hidden = if input.one_in(4) { "<hidden-rule-1>" } else { "price:asc" };
        let details = json!({
            "words": {"order": 0, "matchingWords": input.below(3), "maxMatchingWords": 2, "score": score},
            (hidden): {"order": 1, "value": input.number()},
        });
        hit.insert("_rankingScoreDetails".to_owned(), details);
    }
    hit.into()
}
