//! What Envoy, the filter and the merge add to a search: the time through the cluster, against the slowest of the very
//! sub-requests that it makes, sent to the nodes directly. Both are taken in turns, so the machine's noise hits both.
//!
//! Then what the two fan-out policies cost the nodes: the sub-requests of many queries, sent at once as the filter does, by
//! one caller and by several. Policies take turns too.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

use miroir_core::{
    fan_out,
    search::request::{Additions, SearchRequest},
    topology::{FanOut, Topology},
};
use miroir_tests::{Client, Options, Sandbox};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

const DOCUMENTS: usize = 5_000;
const ROUNDS: usize = 60;
const WARM_UP: usize = 5;
/// For the policies: searches a turn, turns, and callers at once.
const SEARCHES: usize = 60;
const TURNS: usize = 8;
const CALLERS: [usize; 2] = [1, 8];

const WORDS: [&str; 8] = ["river", "mountain", "castle", "garden", "silver", "northern", "forest", "bridge"];

fn documents() -> Vec<Value> {
    let word = |number: usize| WORDS[number % WORDS.len()];
    let text = |id: usize| (0..60).map(|at| word(id * (at + 1) + at / 3)).collect::<Vec<_>>().join(" ");
    (0..DOCUMENTS)
        .map(|id| json!({"id": id, "title": format!("{} {}", word(id), word(id / 8)), "text": text(id), "price": id % 500}))
        .collect()
}

fn queries() -> Vec<(&'static str, Value)> {
    vec![
        ("one word", json!({"q": "river"})),
        ("two words, typo", json!({"q": "castle mountian"})),
        ("filter and sort", json!({"q": "", "filter": "price > 250", "sort": ["price:desc"]})),
        ("facets", json!({"q": "garden", "facets": ["price"]})),
        ("100 hits", json!({"q": "silver", "limit": 100})),
    ]
}

fn timed(action: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    action();
    begun.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The sub-requests of a query, as the filter makes them.
fn parts(topology: &Topology, query: &Value) -> Vec<(u16, Value)> {
    let request = SearchRequest::from_body(query.to_string().as_bytes()).unwrap();
    let seed = request.seed("places");
    let plan = fan_out::plan(topology, &[], topology.shards(), &BTreeSet::new(), seed);
    let body =
        |shards: &[_]| serde_json::from_slice(&request.for_shards(shards, Additions::default())).unwrap();
    plan.asks.iter().map(|(node, shards)| (*node, body(shards))).collect()
}

/// Sends the sub-requests of a query at once, and waits for them all.
fn search(topology: &Topology, nodes: &[Client], query: &Value) {
    std::thread::scope(|scope| {
        for (node, body) in parts(topology, query) {
            scope.spawn(move || drop(nodes[usize::from(node)].search("places", &body)));
        }
    });
}

/// How long a search takes under each policy, and how many there are in a second.
fn policies(published: &Topology, nodes: &[Client]) {
    let topologies = [FanOut::Fewest, FanOut::Spread].map(|fan_out| {
        Topology::validate(miroir_core::topology::TopologyConfig { fan_out, ..published.config().clone() })
            .unwrap()
    });
    println!("{:<10} {:>8} {:>10} {:>14}", "policy", "callers", "search ms", "searches a s");
    for callers in CALLERS {
        let mut times = [Vec::new(), Vec::new()];
        let mut spans = [Duration::ZERO; 2];
        for turn in 0..TURNS {
            for (policy, topology) in topologies.iter().enumerate() {
                let caller = |caller: usize| {
                    let search = |round: usize| {
                        // Each query another one: plans differ.
                        let price = (turn * SEARCHES + round) * callers + caller;
                        let query = json!({"q": "garden silver", "filter": format!("price != {price}")});
                        timed(|| search(topology, nodes, &query))
                    };
                    (0..SEARCHES / callers).map(search).collect::<Vec<_>>()
                };
                spans[policy] += timed(|| {
                    times[policy].extend(std::thread::scope(|scope| {
                        let callers: Vec<_> =
                            (0..callers).map(|at| scope.spawn(move || caller(at))).collect();
                        callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect::<Vec<_>>()
                    }));
                });
            }
        }
        for (policy, name) in ["fewest", "spread"].into_iter().enumerate() {
            let rate = times[policy].len() as f64 / spans[policy].as_secs_f64();
            let time = median(times[policy].clone()).as_secs_f64() * 1e3;
            println!("{name:<10} {callers:>8} {time:>10.2} {rate:>14.0}");
        }
    }
}

fn main() {
    let cluster = Sandbox::start(Options::default());
    let client = &cluster.client;
    let settings = json!({"filterableAttributes": ["price"], "sortableAttributes": ["price"]});
    client.create("places", "id", &settings);
    let documents = documents();
    let written = timed(|| client.add("places", &json!(documents)));
    println!(
        "{DOCUMENTS} documents written to two nodes each and searchable after {:.2} s",
        written.as_secs_f64()
    );

    let published: Value =
        serde_json::from_slice(&std::fs::read(cluster.published("ecds.json")).unwrap()).unwrap();
    let topology = published.pointer("/resources/0/typed_config/config/configuration/value").unwrap();
    let topology = Topology::from_json(topology.as_str().unwrap().as_bytes()).unwrap();
    let nodes: Vec<Client> = (0..3).map(|node| cluster.node(node)).collect();

    println!("{:<18} {:>10} {:>14} {:>7}", "query", "cluster ms", "slowest part ms", "ratio");
    for (name, query) in queries() {
        let parts = parts(&topology, &query);
        let mut through = Vec::new();
        let mut direct = Vec::new();
        for round in 0..ROUNDS + WARM_UP {
            let cluster = timed(|| drop(client.search("places", &query)));
            let slowest = parts
                .iter()
                .map(|(node, body)| timed(|| drop(nodes[usize::from(*node)].search("places", body))))
                .max();
            if round >= WARM_UP {
                through.push(cluster);
                direct.extend(slowest);
            }
        }
        let (through, direct) = (median(through).as_secs_f64(), median(direct).as_secs_f64());
        println!("{name:<18} {:>10.2} {:>14.2} {:>7.2}", through * 1e3, direct * 1e3, through / direct);
    }
    policies(&topology, &nodes);
}
