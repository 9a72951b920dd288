//! Deep pages, with nodes that hold many documents.

use super::*;
use crate::search::{MultiSearch, Search};
use serde_json::{Value, json};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const DOCUMENTS: u64 = 3000;

/// Document `n` is in shard `n % 3`; its score falls with it, in steps of ten equal ones.
fn score(document: u64) -> f64 {
    1.0 - (document / 10) as f64 / 1000.0
}

/// Three nodes, three shards, two replicas each.
fn topology() -> Arc<Topology> {
    let config = json!({
        "schema": 1, "version": 1,
        "nodes": [{"name":"a","cluster":"a"},{"name":"b","cluster":"b"},{"name":"c","cluster":"c"}],
        "placement": [[0,1],[1,2],[2,0]], "onMissingShards": "error",
        "indexes": {"movies": {"primaryKey": "id", "maxTotalHits": 100_000}},
    });
    Arc::new(Topology::validate(serde_json::from_value(config).unwrap()).unwrap())
}

fn search(query: &Value) -> Value {
    let text = query.to_string();
    let number = |name: &str| query[name].as_u64();
    let held = |document: &u64| text.contains(&Shard((document % 3) as u16).tag());
    let (offset, limit) = match number("hitsPerPage") {
        Some(hits) => ((number("page").unwrap() - 1) * hits, hits),
        None => (number("offset").unwrap_or(0), number("limit").unwrap()),
    };
    let shows_body = query["attributesToRetrieve"].is_null();
    let hits = (0..DOCUMENTS).filter(held).skip(offset as usize).take(limit as usize).map(|document| {
        let mut hit = json!({"id": document, "_rankingScoreDetails": {"words": {"order": 0, "score": score(document)}}});
        if shows_body {
            hit["body"] = json!("long");
        }
        hit
    });
    let hits: Vec<Value> = hits.collect();
    json!({"indexUid": "movies", "hits": hits, "query": "", "limit": limit, "offset": offset,
           "estimatedTotalHits": (0..DOCUMENTS).filter(held).count(), "processingTimeMs": 0})
}

/// Runs a request; `down` fails from the callout with this number on. Gives the answer and what was asked.
fn run(body: &Value, multi: bool, down: Option<(u16, usize)>) -> (Value, Vec<(u16, Vec<Value>)>) {
    let head = RequestHead {
        method: "POST".into(),
        path: "/indexes/movies/search".into(),
        headers: vec![("content-type".into(), "application/json".into())],
    };
    let mut progress =
        Read::start(topology(), head, body.to_string().into_bytes(), |topology, head, body| {
            if multi { MultiSearch::of(topology, body) } else { Search::of(topology, "movies", head, body) }
        });
    let mut asked = Vec::new();
    let mut queue: Vec<Callout> = Vec::new();
    loop {
        match progress {
            Progress::Done(reply) => {
                assert_eq!(reply.status, 200);
                return (serde_json::from_slice(&reply.body).unwrap(), asked);
            }
            Progress::Pending { machine, calls } => {
                queue.extend(calls);
                let call = queue.pop().unwrap();
                let Upstream::Node(node) = call.upstream else { panic!("a node") };
                let body: Value = serde_json::from_slice(&call.body).unwrap();
                let queries = body["queries"].as_array().unwrap().clone();
                let answer = json!({"results": queries.iter().map(search).collect::<Vec<_>>()});
                asked.push((node, queries));
                let failed = down.is_some_and(|(dead, from)| node == dead && asked.len() >= from);
                let body = answer.to_string().into_bytes();
                let outcome = if failed {
                    Outcome::Failed
                } else {
                    Outcome::Answered(Answer { status: 200, headers: Vec::new(), body })
                };
                progress = machine.digest(call.id, outcome);
            }
        }
    }
}

fn ids(answer: &Value) -> Vec<u64> {
    answer["hits"].as_array().unwrap().iter().map(|hit| hit["id"].as_u64().unwrap()).collect()
}

#[test]
fn scores_come_first_and_then_the_pages_own_fields() {
    let (answer, asked) =
        run(&json!({"offset": 1505, "limit": 20, "attributesToHighlight": ["*"]}), false, None);
    assert_eq!(ids(&answer), (1505..1525).collect::<Vec<_>>());
    assert_eq!((&answer["offset"], &answer["limit"]), (&json!(1505), &json!(20)));
    assert_eq!((&answer["estimatedTotalHits"], &answer["indexUid"]), (&json!(3000), &Value::Null));
    assert!(answer["hits"].as_array().unwrap().iter().all(|hit| hit["body"] == "long"), "{answer}");
    assert!(answer["hits"][0].get("_rankingScoreDetails").is_none());
    let (mut scores, mut bodies) = (0, 0);
    for (_, queries) in &asked {
        for query in queries {
            let hits = search(query)["hits"].as_array().unwrap().len();
            if query["attributesToRetrieve"].is_null() {
                assert_eq!(query["attributesToHighlight"], json!(["*"]));
                bodies += hits;
            } else {
                assert_eq!(query["attributesToRetrieve"], json!(["id"]));
                assert_eq!(query["attributesToHighlight"], Value::Null);
                scores += hits;
            }
        }
    }
    assert_eq!(bodies, 20, "no other document's fields travel");
    assert!((1525..2200).contains(&scores), "{scores}: about as many scores as the page's end says");
}

#[test]
fn every_document_is_once_on_all_pages() {
    let all: Vec<u64> = (500..3100)
        .step_by(50)
        .flat_map(|offset| ids(&run(&json!({"offset": offset, "limit": 50}), false, None).0))
        .collect();
    assert_eq!(all, (500..3000).collect::<Vec<_>>());
    let page = run(&json!({"page": 40, "hitsPerPage": 30}), false, None).0;
    assert_eq!(ids(&page), (1170..1200).collect::<Vec<_>>());
}

#[test]
fn a_node_that_dies_between_the_steps_is_planned_around() {
    for node in 0..3 {
        for from in 1..5 {
            let (answer, _) = run(&json!({"offset": 900, "limit": 10}), false, Some((node, from)));
            assert_eq!(ids(&answer), (900..910).collect::<Vec<_>>(), "node {node} from callout {from}");
        }
    }
}

#[test]
fn deep_and_shallow_queries_go_together() {
    let queries = json!({"queries": [{"indexUid": "movies", "limit": 2},
                                     {"indexUid": "movies", "offset": 700, "limit": 3},
                                     {"indexUid": "movies", "offset": 2998, "limit": 3}]});
    let (answer, asked) = run(&queries, true, None);
    let pages: Vec<Vec<u64>> = answer["results"].as_array().unwrap().iter().map(ids).collect();
    assert_eq!(pages, [vec![0, 1], vec![700, 701, 702], vec![2998, 2999]]);
    assert_eq!(answer["results"][1]["indexUid"], "movies");
    assert!(asked.len() <= 9, "{}: three rounds at most", asked.len());
}
