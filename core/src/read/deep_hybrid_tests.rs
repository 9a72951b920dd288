//! Deep pages of hybrid and vector searches, and writes between the steps of all deep pages, against nodes that behave like
//! Meilisearch.

use super::{deep_tests::topology, *};
use crate::{
    http::Callout,
    search::{MultiSearch, Search},
};
use serde_json::{Value, json};
use std::collections::VecDeque;
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

const DOCUMENTS: u64 = 2400;

/// At a semantic ratio of one half, the first thousand documents with even numbers are good enough.
fn score(document: u64) -> f64 {
    1.0 - document as f64 / 20_000.0
}

/// Documents of the last shard are nearer than all others.
fn similarity(document: u64) -> f64 {
    let near = (document * 7919 % 2401) as f64 / 2401.0;
    if document % 3 == 2 { 0.5 + near / 2.0 } else { near / 2.0 }
}

/// The documents of the query's shards (all documents if it names none), without those below `gone`.
fn held(query: &Value, gone: u64) -> impl Iterator<Item = u64> {
    let text = query["filter"].to_string();
    let asked = [0, 1, 2].map(|shard| text.contains(Shard(shard).tag().as_str()));
    let (skewed, all) = (text.contains("skewed"), !text.contains("_miroir_shard"));
    let is_held = move |document: &u64| {
        (document.is_multiple_of(3) || !skewed) && (all || asked[(document % 3) as usize])
    };
    (gone..DOCUMENTS).filter(is_held)
}

fn window(query: &Value) -> (usize, usize) {
    let number = |name: &str| query[name].as_u64().map(|it| it as usize);
    match number("hitsPerPage") {
        Some(hits) => ((number("page").unwrap_or(1) - 1) * hits, hits),
        None => (number("offset").unwrap_or(0), number("limit").unwrap_or(20)),
    }
}

/// A node's hits up to this position: each with its document, its score, and whether the vector found it.
fn hits(query: &Value, end: usize, gone: u64) -> Vec<(u64, f64, bool)> {
    let mut words: Vec<_> = held(query, gone)
        .filter(|it| query["q"].is_null() || it.is_multiple_of(2))
        .map(|it| (it, score(it), false))
        .collect();
    words.truncate(end);
    let hybrid = query["hybrid"].is_object();
    let ratio = query["hybrid"]["semanticRatio"].as_f64().unwrap_or(0.5);
    let enough = words.len() == end && words.iter().all(|(_, score, _)| score * (1.0 - ratio) >= 0.45);
    if !hybrid || (query["q"].is_string() && enough) {
        return words;
    }
    let mut near: Vec<_> = held(query, gone).map(|it| (it, similarity(it), true)).collect();
    near.sort_by(|one, other| other.1.total_cmp(&one.1));
    near.truncate(end);
    if query["q"].is_null() {
        return near;
    }
    let share = |semantic: bool| if semantic { ratio } else { 1.0 - ratio };
    near.extend(words);
    near.sort_by(|one, other| {
        (other.1 * share(other.2)).total_cmp(&(one.1 * share(one.2))).then(other.2.cmp(&one.2))
    });
    let mut seen = BTreeSet::new();
    near.retain(|(document, ..)| seen.insert(*document));
    near.truncate(end);
    near
}

/// A node's answer.
fn search(query: &Value, gone: u64) -> Value {
    let (offset, limit) = window(query);
    let found = hits(query, offset + limit, gone);
    let page = found.get(offset.min(found.len())..).unwrap_or_default();
    let shown = page.iter().map(|(document, score, semantic)| {
        let rule = if *semantic { "vectorSort" } else { "words" };
        let value = if *semantic { "similarity" } else { "score" };
        let mut hit = json!({"id": document, "_rankingScore": score,
                             "_rankingScoreDetails": {rule: {"order": 0, value: score}}});
        if query["attributesToRetrieve"].is_null() {
            hit["body"] = json!("long");
        }
        hit
    });
    let mut answer = json!({"indexUid": "movies", "hits": shown.collect::<Vec<_>>(), "query": ""});
    let members = answer.as_object_mut().unwrap();
    if query["retrieveVectors"] == true && query["hybrid"].is_object() {
        members.insert("queryVector".into(), json!([1.0]));
    }
    members.insert("processingTimeMs".into(), json!(0));
    members.insert("limit".into(), json!(limit));
    members.insert("offset".into(), json!(offset));
    members.insert("estimatedTotalHits".into(), json!(held(query, gone).count()));
    if query["hybrid"].is_object() {
        members
            .insert("semanticHitCount".into(), json!(page.iter().filter(|(.., semantic)| *semantic).count()));
    }
    answer
}

/// A node's answer to a federated search.
fn federated(body: &Value, gone: u64) -> Value {
    let (offset, limit) = window(&body["federation"]);
    let mut lists: Vec<VecDeque<(f64, Value)>> = Vec::new();
    for (position, query) in body["queries"].as_array().unwrap().iter().enumerate() {
        let mut query = query.clone();
        query["limit"] = json!(offset + limit);
        let hits = search(&query, gone)["hits"].take();
        let hits = hits.as_array().unwrap().iter().cloned().map(|mut hit| {
            let score = hit["_rankingScore"].as_f64().unwrap();
            hit["_federation"] =
                json!({"indexUid": "movies", "queriesPosition": position, "weightedRankingScore": score});
            (score, hit)
        });
        lists.push(hits.collect());
    }
    // Each query's hits keep their order; in a hybrid query it is not the order of their scores.
    let (mut all, mut seen) = (Vec::new(), BTreeSet::new());
    loop {
        let head = |list: &VecDeque<(f64, Value)>| list.front().map_or(f64::MIN, |(score, _)| *score);
        let best = lists.iter_mut().rev().max_by(|one, other| head(one).total_cmp(&head(other)));
        let Some((_, hit)) = best.and_then(VecDeque::pop_front) else { break };
        if seen.insert(hit["id"].as_u64()) {
            all.push(hit);
        }
    }
    let hits: Vec<Value> = all.into_iter().skip(offset).take(limit).collect();
    json!({"hits": hits, "queryVectors": {"0": [1.0]}, "processingTimeMs": 0, "limit": limit, "offset": offset,
           "estimatedTotalHits": seen.len()})
}

/// The result of a run: the answer, the number of callouts, and the number of whole documents.
type Run = (Value, usize, usize);

/// Runs a request; `gone` returns how many documents have been deleted when the callout with this number is answered.
fn run(body: &Value, gone: impl Fn(usize) -> u64) -> Run {
    let head = RequestHead {
        method: "POST".into(),
        path: "/indexes/movies/search".into(),
        headers: vec![("content-type".into(), "application/json".into())],
    };
    let multi = body["queries"].is_array();
    let mut progress =
        Read::start(topology(), head, body.to_string().into_bytes(), |topology, head, body| {
            if multi { MultiSearch::of(topology, body) } else { Search::of(topology, "movies", head, body) }
        });
    let (mut sent, mut moved, mut queue) = (0, 0, Vec::new());
    loop {
        match progress {
            Progress::Done(reply) => {
                assert_eq!(reply.status, 200);
                return (serde_json::from_slice(&reply.body).unwrap(), sent, moved);
            }
            Progress::Pending { machine, calls } => {
                queue.extend(calls);
                let call: Callout = queue.remove(0);
                let body: Value = serde_json::from_slice(&call.body).unwrap();
                let queries = body["queries"].as_array().cloned().unwrap_or_default();
                let answer = match (body["federation"].is_object(), body["queries"].is_array()) {
                    (true, _) => federated(&body, gone(sent)),
                    (_, true) => {
                        json!({"results": queries.iter().map(|query| search(query, gone(sent))).collect::<Vec<_>>()})
                    }
                    _ => search(&body, gone(sent)),
                };
                sent += 1;
                moved += answer.to_string().matches("long").count();
                let body = answer.to_string().into_bytes();
                progress = machine
                    .digest(call.id, Outcome::Answered(Answer { status: 200, headers: Vec::new(), body }));
            }
        }
    }
}

fn ids(answer: &Value) -> Vec<u64> {
    answer["hits"].as_array().unwrap().iter().map(|hit| hit["id"].as_u64().unwrap()).collect()
}

#[test]
fn pages_of_hybrid_and_vector_searches_move_their_own_documents_only() {
    for (ratio, words) in [(0.3, true), (0.5, true), (0.7, true), (0.7, false), (1.0, false)] {
        for offset in [500, 985, 1600] {
            let mut query = json!({"vector": [1.0], "offset": offset, "limit": 20, "showRankingScore": true,
                                   "hybrid": {"embedder": "e", "semanticRatio": ratio}});
            if words {
                query["q"] = json!("even");
            }
            let expected = search(&query, 0);
            let (answer, sent, moved) = run(&query, |_| 0);
            assert_eq!(ids(&answer), ids(&expected), "{query}");
            assert_eq!(answer["semanticHitCount"], expected["semanticHitCount"], "{query}");
            let scored = |answer: &Value| answer["hits"][0]["_rankingScore"].as_f64().unwrap();
            assert!((scored(&answer) - scored(&expected)).abs() < 1e-9, "{query}");
            assert!(answer["hits"].as_array().unwrap().iter().all(|hit| hit["body"] == "long"));
            assert!(sent <= 4, "{query}: {sent} callouts");
            // If nodes must find keyword hits that are not good enough, they are asked for some more.
            let most = if ratio == 0.5 { 700 } else { 25 };
            assert!(moved <= most, "{query}: {moved} documents");
        }
    }
}

#[test]
fn what_only_the_second_step_tells_is_told() {
    let mut query = json!({"vector": [1.0], "offset": 900, "limit": 2, "retrieveVectors": true,
                           "hybrid": {"embedder": "e", "semanticRatio": 1.0}});
    let names = |answer: &Value| answer.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let mut expected = names(&search(&query, 0));
    expected.retain(|name| name != "indexUid");
    let (answer, _, moved) = run(&query, |_| 0);
    assert_eq!((names(&answer), moved), (expected.clone(), 2));
    query["offset"] = json!(5000);
    assert_eq!(names(&run(&query, |_| 0).0), expected, "of a page without hits, too");

    query.as_object_mut().unwrap().remove("offset");
    query.as_object_mut().unwrap().remove("limit");
    query["indexUid"] = json!("movies");
    let body = json!({"federation": {"offset": 900, "limit": 3}, "queries": [query]});
    assert_eq!(names(&run(&body, |_| 0).0), names(&federated(&body, 0)));
}

#[test]
fn federated_pages_with_vectors_move_their_own_documents_only() {
    for ratio in [0.5, 0.7] {
        for offset in [500, 1100] {
            let body = json!({"federation": {"offset": offset, "limit": 10}, "queries": [
                {"indexUid": "movies", "vector": [1.0], "hybrid": {"embedder": "e", "semanticRatio": 1.0}},
                {"indexUid": "movies", "q": "even", "vector": [1.0], "hybrid": {"embedder": "e", "semanticRatio": ratio}}]});
            let (answer, sent, moved) = run(&body, |_| 0);
            let mut found = ids(&answer);
            found.sort_unstable();
            found.dedup();
            assert_eq!(found.len(), 10);
            let decided = if ratio == 0.5 { 2 } else { 0 };
            assert!(sent <= 4 + decided && moved <= 700, "{body}: {sent} callouts, {moved} documents");
        }
    }
}

#[test]
fn a_write_between_two_steps_is_noticed() {
    let plain = json!({"offset": 700, "limit": 20});
    let near = json!({"vector": [1.0], "offset": 700, "limit": 20, "hybrid": {"embedder": "e", "semanticRatio": 1.0}});
    // The nearest documents are all on one node, so its part of the page is the whole page.
    for (query, calls) in [(plain, 4), (near, 3)] {
        // After one write, the page is requested once more in two steps, and shows the state after the write.
        let (answer, sent, moved) = run(&query, |sent| if sent < 2 { 0 } else { 12 });
        assert_eq!(ids(&answer), ids(&search(&query, 12)), "{query}");
        assert!(sent == 2 * calls && moved < 100, "{query}: {sent} callouts, {moved} documents");
        // If there is a write before every step, all hits are requested at once in the end.
        let gone = |sent: usize| 12 * (sent / calls * 2 + usize::from(sent % calls >= 2)) as u64;
        let (answer, sent, _) = run(&query, gone);
        assert_eq!((ids(&answer), sent), (ids(&search(&query, 48)), 2 * calls + 2), "{query}");
    }
}

#[test]
fn a_write_between_two_scans_is_noticed() {
    // One node has all hits, and is asked for more than its share.
    let query = json!({"offset": 700, "limit": 20, "filter": "skewed"});
    let (answer, calls, _) = run(&query, |_| 0);
    assert_eq!(ids(&answer), ids(&search(&query, 0)));
    assert!(calls > 3, "one node is asked for scores again");
    let (answer, sent, _) = run(&query, |sent| if sent < 2 { 0 } else { 12 });
    assert_eq!(ids(&answer), ids(&search(&query, 12)));
    assert!(sent > calls, "all of it once more");
}
