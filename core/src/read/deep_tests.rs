//! Deep pages, against nodes that hold many documents.

use super::*;
use crate::{
    http::{Callout, Upstream},
    search::{DocumentList, MultiSearch, Search},
};
use serde_json::{Value, json};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const DOCUMENTS: u64 = 3000;

/// Document `n` is in shard `n % 3`. Scores fall with `n`, in steps of ten equal ones.
fn score(document: u64) -> f64 {
    1.0 - (document / 10) as f64 / 1000.0
}

/// Three nodes, three shards, two replicas of each.
pub(super) fn topology() -> Arc<Topology> {
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
    let held = |document: &u64| text.contains(Shard((document % 3) as u16).tag().as_str());
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

/// A node's answer to a federated search. Its first query finds all documents; the second finds every seventh, or with words
/// all documents of the first shard.
fn federated(body: &Value) -> Value {
    let federation = &body["federation"];
    let number = |name: &str, default: u64| federation[name].as_u64().unwrap_or(default) as usize;
    let (offset, limit) = match federation["hitsPerPage"].as_u64() {
        Some(hits) => (0, hits as usize),
        None => (number("offset", 0), number("limit", 20)),
    };
    let mut hits = Vec::new();
    for (position, query) in body["queries"].as_array().unwrap().iter().enumerate() {
        let text = query.to_string();
        let held = |document: &u64| {
            let every = if query["q"].is_string() { 3 } else { 7 };
            text.contains(Shard((document % 3) as u16).tag().as_str())
                && (position == 0 || document.is_multiple_of(every))
        };
        let weight = query["federationOptions"]["weight"].as_f64().unwrap_or(1.0);
        hits.extend((0..DOCUMENTS).filter(held).map(|document| {
            let score = score(document);
            let mut hit = json!({"id": document,
                "_rankingScoreDetails": {"words": {"order": 0, "score": score}},
                "_federation": {"indexUid": "movies", "queriesPosition": position,
                                "weightedRankingScore": score * weight}});
            if query["attributesToRetrieve"].is_null() {
                hit["body"] = json!("long");
            }
            hit
        }));
    }
    // A document that both queries find appears once, with the better of its two scores.
    let weighted = |hit: &Value| hit["_federation"]["weightedRankingScore"].as_f64().unwrap();
    hits.sort_by(|one, other| weighted(other).total_cmp(&weighted(one)));
    let mut seen = BTreeSet::new();
    hits.retain(|hit| seen.insert(hit["id"].as_u64()));
    let total = hits.len();
    let hits: Vec<Value> = hits.into_iter().skip(offset).take(limit).collect();
    json!({"hits": hits, "processingTimeMs": 0, "limit": limit, "offset": offset, "estimatedTotalHits": total})
}

/// Runs a request. The node `down.0` fails from callout number `down.1` on. Returns the answer and the requests that were sent.
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
    let (mut asked, mut bodies_moved) = (Vec::new(), 0);
    let mut queue: Vec<Callout> = Vec::new();
    loop {
        match progress {
            Progress::Done(reply) => {
                assert_eq!(reply.status, 200);
                let answer: Value = serde_json::from_slice(&reply.body).unwrap();
                if multi && body["federation"].is_object() {
                    assert!(down.is_some() || bodies_moved == ids(&answer).len(), "{bodies_moved} documents");
                }
                return (answer, asked);
            }
            Progress::Pending { machine, calls } => {
                queue.extend(calls);
                let call = queue.pop().unwrap();
                let Upstream::Node(node) = call.upstream else { panic!("a node") };
                let body: Value = serde_json::from_slice(&call.body).unwrap();
                let queries = body["queries"].as_array().unwrap().clone();
                let answer = match body["federation"].is_object() {
                    true => federated(&body),
                    false => json!({"results": queries.iter().map(search).collect::<Vec<_>>()}),
                };
                bodies_moved += answer.to_string().matches("long").count();
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
                assert_eq!(query["attributesToRetrieve"], json!(["_miroir_shard", "id"]));
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

#[test]
fn federated_pages_move_their_own_documents_only() {
    let queries =
        json!([{"indexUid": "movies", "federationOptions": {"weight": 0.5}}, {"indexUid": "movies"}]);
    let page = |offset: u64, limit: u64, down| {
        let body = json!({"federation": {"offset": offset, "limit": limit}, "queries": queries});
        let (answer, asked) = run(&body, true, down);
        let hits = answer["hits"].as_array().unwrap();
        assert!(hits.iter().all(|hit| hit["body"] == "long" && hit["_rankingScoreDetails"].is_null()));
        assert_eq!((&answer["offset"], &answer["limit"]), (&json!(offset), &json!(limit)));
        assert_eq!(answer["estimatedTotalHits"], DOCUMENTS);
        (ids(&answer), asked.len())
    };
    let all: Vec<u64> = (500..3100).step_by(100).flat_map(|offset| page(offset, 100, None).0).collect();
    let mut sorted = all.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!((all.len(), sorted.len()), (2500, 2500), "every document once on all pages");
    // The 429 hits of the second query come before all others with less than half their score.
    assert_eq!(all[0], page(500, 1, None).0[0]);
    assert_eq!(page(900, 10, None).1, 4, "two nodes, two steps");
    let expected = page(900, 10, None).0;
    let paged = json!({"federation": {"page": 91, "hitsPerPage": 10}, "queries": queries});
    assert_eq!(ids(&run(&paged, true, None).0), expected);
    assert!(page(2995, 20, None).0.len() == 5 && page(4000, 20, None).0.is_empty());
}

#[test]
fn a_node_that_dies_while_a_federated_page_is_read_is_planned_around() {
    let queries =
        json!([{"indexUid": "movies"}, {"indexUid": "movies", "federationOptions": {"weight": 0.1}}]);
    let body = json!({"federation": {"offset": 900, "limit": 10}, "queries": queries});
    for node in 0..3 {
        for from in 1..5 {
            let (answer, _) = run(&body, true, Some((node, from)));
            assert_eq!(ids(&answer), (900..910).collect::<Vec<_>>(), "node {node} from callout {from}");
        }
    }
}

#[test]
fn a_node_that_has_more_than_its_share_of_a_page_is_asked_for_more() {
    let queries = json!([{"indexUid": "movies", "federationOptions": {"weight": 0.1}},
                         {"indexUid": "movies", "q": "first shard"}]);
    let body = json!({"federation": {"offset": 900, "limit": 10}, "queries": queries});
    let (answer, asked) = run(&body, true, None);
    assert_eq!(ids(&answer), (2700..2730).step_by(3).collect::<Vec<_>>());
    assert_eq!(asked.len(), 5, "two nodes twice, and one for the page");
}

/// Reads a list of documents. If `shifted`, a document has been deleted from every node when fields are requested by offset.
/// Returns the answer, and the number of callouts and whole documents.
fn list(body: &Value, shifted: bool) -> (Value, usize, usize) {
    let head = RequestHead {
        method: "POST".into(),
        path: "/indexes/movies/documents/fetch".into(),
        headers: vec![("content-type".into(), "application/json".into())],
    };
    let mut progress =
        Read::start(topology(), head, body.to_string().into_bytes(), |topology, head, body| {
            DocumentList::of(topology, "movies", head, body)
        });
    let (mut queue, mut calls_sent, mut moved): (Vec<Callout>, usize, usize) = (Vec::new(), 0, 0);
    loop {
        match progress {
            Progress::Done(reply) => {
                return (serde_json::from_slice(&reply.body).unwrap(), calls_sent, moved);
            }
            Progress::Pending { machine, calls } => {
                queue.extend(calls);
                let call = queue.pop().unwrap();
                calls_sent += 1;
                let query: Value = serde_json::from_slice(&call.body).unwrap();
                let text = query.to_string();
                let whole = query["fields"].is_null();
                let (offset, limit) = (query["offset"].as_u64().unwrap(), query["limit"].as_u64().unwrap());
                let skipped = offset + u64::from(shifted && offset > 0);
                let held = |document: &u64| text.contains(Shard((document % 3) as u16).tag().as_str());
                let documents = (0..DOCUMENTS).filter(held).skip(skipped as usize).take(limit as usize);
                let documents = documents
                    .map(|id| if whole { json!({"id": id, "body": "long"}) } else { json!({"id": id}) });
                let results: Vec<Value> = documents.collect();
                moved += if whole { results.len() } else { 0 };
                let total = (0..DOCUMENTS).filter(held).count();
                let body = json!({"results": results, "offset": offset, "limit": limit, "total": total});
                let body = body.to_string().into_bytes();
                let outcome = Outcome::Answered(Answer { status: 200, headers: Vec::new(), body });
                progress = machine.digest(call.id, outcome);
            }
        }
    }
}

#[test]
fn deep_lists_move_their_own_documents_only() {
    let expected =
        |page: std::ops::Range<u64>| page.map(|id| json!({"id": id, "body": "long"})).collect::<Value>();
    let body = json!({"offset": 1200, "limit": 30});
    let (answer, calls, moved) = list(&body, false);
    assert_eq!(
        answer,
        json!({"results": expected(1200..1230), "offset": 1200, "limit": 30, "total": DOCUMENTS})
    );
    assert_eq!((calls, moved), (4, 30), "two nodes, two steps");
    assert_eq!(list(&json!({"offset": 2990, "limit": 30}), false).0["results"], expected(2990..3000));
    // A write between the two steps is detected: both steps are repeated once, then the list is read at once.
    let (answer, calls, moved) = list(&body, true);
    assert_eq!((&answer["results"], calls), (&expected(1200..1230), 10));
    assert!(moved > 2000, "{moved}");
}
