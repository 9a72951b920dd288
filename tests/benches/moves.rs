//! How fast replicas move: a node is added to two, drained again, under no load and under a writer; documents a second, bytes, and
//! how long writers wait at a hand-over.
//!
//! `MIROIR_BENCH_DOCUMENTS` says how many documents (50,000).
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

use miroir_tests::{Client, Options, Sandbox, number};
use serde_json::{Value, json};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// Documents a payload.
const PAYLOAD: u64 = 10_000;

fn documents(ids: std::ops::Range<u64>) -> Value {
    let words = ["river", "mountain", "castle", "garden", "silver", "northern", "forest", "bridge"];
    let text = |id: u64| {
        (0..120).map(|at| words[((id * (at + 1) + at / 3) % 8) as usize]).collect::<Vec<_>>().join(" ")
    };
    ids.map(|id| json!({"id": id, "title": format!("book {id}"), "text": text(id), "price": id % 500}))
        .collect()
}

/// Writes one document after the other, and gives the slowest acknowledgement.
fn write(client: &Client, over: &AtomicBool) -> (u64, Duration) {
    let (mut count, mut slowest) = (0, Duration::ZERO);
    while !over.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let document = json!([{"id": count % 1_000, "title": "written"}]);
        assert_eq!(client.json("POST", "/indexes/books/documents", &document).status, 202);
        slowest = slowest.max(begun.elapsed());
        count += 1;
        thread::sleep(Duration::from_millis(100));
    }
    (count, slowest)
}

fn operation(cluster: &Sandbox, what: &str, arguments: &[&str], loaded: bool) {
    let before = cluster.status()["moved"].clone();
    let over = AtomicBool::new(false);
    let ((writes, slowest), took) = thread::scope(|scope| {
        let writer = loaded.then(|| scope.spawn(|| write(&cluster.client, &over)));
        let begun = Instant::now();
        cluster.miroir_ok(arguments);
        let took = begun.elapsed();
        over.store(true, Ordering::Relaxed);
        (writer.map(|writer| writer.join().unwrap()).unwrap_or_default(), took)
    });
    let moved = cluster.status()["moved"].clone();
    let grown = |key: &str| (moved[key].as_u64().unwrap() - before[key].as_u64().unwrap()) as f64;
    let (documents, hand_overs) = (grown("documents"), grown("handOvers"));
    println!(
        "| {what} | {} | {documents} | {:.1} | {:.0} | {:.1} | {:.0} | {} | {:.0} |",
        grown("replicas"),
        took.as_secs_f64(),
        documents / took.as_secs_f64(),
        grown("bytes") / 1e6,
        grown("pausesMs") / hand_overs.max(1.0),
        moved["longestPauseMs"],
        if writes > 0 { slowest.as_secs_f64() * 1e3 } else { 0.0 }
    );
}

fn main() {
    let count = number("MIROIR_BENCH_DOCUMENTS", 50_000);
    let cluster = Sandbox::start(Options { nodes: 2, shards: 64, lease_ms: 1_000, ..Options::default() });
    cluster.client.create("books", "id", &json!({}));
    for start in (0..count).step_by(usize::try_from(PAYLOAD).unwrap()) {
        cluster.client.add("books", &documents(start..(start + PAYLOAD).min(count)));
    }
    let node = cluster.add_node();
    println!("{count} documents of about 1 KB, two replicas, 64 shards:\n");
    println!(
        "| what | replicas | documents | s | documents/s | MB read and written | mean pause, ms | longest pause so far, ms | slowest write, ms |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    operation(&cluster, "a third node is added", &["node", "add", &cluster.named(&node)], false);
    operation(&cluster, "it is drained, under a writer", &["node", "drain", &node], true);
    cluster.miroir_ok(&["verify"]);
}
