//! A cluster and one node, asked the same: the agreement by kind of request.
//!
//! `MIROIR_EQUIVALENCE_QUERIES` says how many requests (480), `MIROIR_EQUIVALENCE_SEED` which (1).
#![allow(missing_docs, clippy::unwrap_used, reason = "a test")]

mod compare;
mod documents;
mod queries;
mod random;

use compare::{Agreement, compare, difference};
use miroir_tests::{Client, Node, Options, Sandbox};
use queries::{KINDS, Request};
use random::Random;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// An estimate of a total: how far a node has to look into the documents to fill a page decides what it estimates, and with
/// a threshold or distinct values that is another number where documents are elsewhere. Pages have exact totals.
const ESTIMATES: &str = "estimates";

/// What sharding cannot make exact, and the least agreement that is expected of it, in percent.
const INEXACT: [(&str, u32); 1] = [(ESTIMATES, 0)];

/// By kind: requests, those that agree in everything, those that agree but for ties.
type Tally = BTreeMap<&'static str, (u32, u32, u32)>;

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

fn fill(client: &Client) {
    for index in documents::INDEXES {
        client.create(index, "id", &documents::settings(index));
        for batch in documents::documents(index, 900).chunks(300) {
            client.add(index, &json!(batch));
        }
    }
    // Without any setting.
    client.create("bare", "id", &json!({}));
    client.add("bare", &json!([{"id": 1, "a": 2}]));
}

fn ask(client: &Client, request: &Request) -> (u16, Value) {
    let answer = match request.body {
        Value::Null => client.get(&request.path),
        ref body => client.json(request.method, &request.path, body),
    };
    (answer.status, answer.body)
}

/// What the ranking rules say of each document, asked of the node alone.
fn ranks(node: &Client, request: &Request) -> BTreeMap<String, String> {
    let mut ranks = BTreeMap::new();
    let queries: Vec<(String, Value)> = match request.body["queries"].as_array() {
        Some(queries) => queries
            .iter()
            .map(|query| (format!("/indexes/{}/search", query["indexUid"].as_str().unwrap()), query.clone()))
            .collect(),
        None if request.path.ends_with("/search") && request.method == "POST" => {
            vec![(request.path.clone(), request.body.clone())]
        }
        None => Vec::new(),
    };
    for (path, mut query) in queries {
        let Some(members) = query.as_object_mut() else { continue };
        for name in ["offset", "page", "hitsPerPage", "indexUid", "federationOptions", "distinct", "facets"] {
            members.remove(name);
        }
        members.insert("limit".into(), json!(1000));
        members.insert("attributesToRetrieve".into(), json!(["*"]));
        members.insert("showRankingScoreDetails".into(), json!(true));
        let answer = node.json("POST", &path, &query).body;
        for hit in answer["hits"].as_array().into_iter().flatten() {
            ranks.insert(hit["id"].to_string(), hit["_rankingScoreDetails"].to_string());
        }
    }
    ranks
}

fn run(cluster: &Client, node: &Client, count: u64, seed: u64) -> Tally {
    let mut tally = Tally::new();
    let mut random = Random(seed);
    for position in 0..count {
        let kind = KINDS[position as usize % KINDS.len()];
        check(cluster, node, &queries::request(kind, &mut random), &mut tally);
    }
    for request in documents::INDEXES.iter().flat_map(|index| queries::errors(index)) {
        check(cluster, node, &request, &mut tally);
    }
    tally
}

fn check(cluster: &Client, node: &Client, request: &Request, tally: &mut Tally) {
    let (mut one, mut other) = (ask(cluster, request), ask(node, request));
    if ["distinct", "threshold"].contains(&request.kind) && one.1["estimatedTotalHits"].is_u64() {
        let estimates = [&mut one, &mut other].map(|answer| answer.1["estimatedTotalHits"].take());
        let entry = tally.entry(ESTIMATES).or_default();
        entry.0 += 1;
        entry.1 += u32::from(estimates[0] == estimates[1]);
    }
    let agreement = match compare(&one.1, &other.1, &|_| None) {
        _ if one.0 != other.0 => Agreement::No,
        Agreement::No => {
            let ranks = ranks(node, request);
            compare(&one.1, &other.1, &|hit| ranks.get(&hit["id"].to_string()).cloned())
        }
        agreement => agreement,
    };
    let entry = tally.entry(request.kind).or_default();
    entry.0 += 1;
    match agreement {
        Agreement::Exact => entry.1 += 1,
        Agreement::Ties => entry.2 += 1,
        Agreement::No => {
            println!("{}: {} {} {}", request.kind, request.method, request.path, request.body);
            println!("  {} {} {}", one.0, other.0, difference(&one.1, &other.1));
        }
    }
}

fn report(title: &str, tally: &Tally) -> Vec<String> {
    println!("{title}\n{:<14} {:>8} {:>8} {:>8} {:>9}", "kind", "requests", "equal", "but ties", "agreement");
    let mut wanting = Vec::new();
    for kind in KINDS.into_iter().chain(["errors", ESTIMATES]) {
        let (all, equal, ties) = tally.get(kind).copied().unwrap_or_default();
        let percent = f64::from(equal + ties) * 100.0 / f64::from(all.max(1));
        println!("{kind:<14} {all:>8} {equal:>8} {ties:>8} {percent:>8.1}%");
        let least = INEXACT.iter().find(|(inexact, _)| *inexact == kind).map_or(100, |(_, least)| *least);
        if percent < f64::from(least) {
            wanting.push(format!("{title}: {kind} {percent:.1}%"));
        }
    }
    wanting
}

#[test]
fn a_cluster_cannot_be_told_from_one_node() {
    let cluster = Sandbox::start(Options::default());
    let node = Node::start();
    fill(&cluster.client);
    fill(&node.client);
    let (count, seed) = (number("MIROIR_EQUIVALENCE_QUERIES", 480), number("MIROIR_EQUIVALENCE_SEED", 1));
    let mut wanting = report("healthy", &run(&cluster.client, &node.client, count, seed));
    cluster.kill("meili-1");
    wanting.extend(report("one node killed", &run(&cluster.client, &node.client, count / 2, seed + 1)));
    assert!(wanting.is_empty(), "{wanting:#?}");
}
