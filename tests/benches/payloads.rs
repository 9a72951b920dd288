//! Payloads of the largest size: how long one takes, and how much memory Envoy takes for one, and for ten at once.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark")]

use miroir_tests::{Client, Options, Sandbox};
use serde_json::json;
use std::{
    collections::BTreeMap,
    fmt::Write,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

/// A payload's bytes: less than the 100 MB that a node takes.
const BYTES: usize = 98_000_000;

fn payload() -> String {
    let words = ["river", "mountain", "castle", "garden", "silver", "northern", "forest", "bridge"];
    let mut payload = String::with_capacity(BYTES + 2_000);
    let mut id = 0;
    while payload.len() < BYTES {
        payload.push(if id == 0 { '[' } else { ',' });
        write!(payload, "{{\"id\":{id},\"title\":\"book {id}\",\"text\":\"").unwrap();
        (0..130).for_each(|at| write!(payload, "{} ", words[(id * (at + 1) + at / 3) % 8]).unwrap());
        payload.push_str("\"}");
        id += 1;
    }
    payload.push(']');
    payload
}

/// What the system tells of the gateway's Envoy.
struct Envoy(PathBuf);

impl Envoy {
    fn of(cluster: &Sandbox) -> Self {
        let gateway = cluster.processes().into_iter().find(|process| process["name"] == "gateway-0").unwrap();
        Self(format!("/proc/{}", gateway["pid"]).into())
    }

    /// Megabytes, by this name of the system's.
    fn memory(&self, name: &str) -> u64 {
        let status = std::fs::read_to_string(self.0.join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1_000
    }

    /// From now on the peak is another one.
    fn forget_peak(&self) {
        std::fs::write(self.0.join("clear_refs"), "5").unwrap();
    }
}

fn send(client: &Client, payload: &str) -> (u16, Duration) {
    let begun = Instant::now();
    let path = "/indexes/books/documents?primaryKey=id";
    let answer = client.try_send("POST", path, Some("application/json"), payload.to_owned().into_bytes());
    (answer.map_or(0, |answer| answer.status), begun.elapsed())
}

fn main() {
    // All of them come from one address.
    let limits = r#"{"maxBufferedBytesPerClient":268435456}"#;
    let cluster = Sandbox::start(Options { write_timeout_ms: 60_000, limits, ..Options::default() });
    cluster.client.create("books", "id", &json!({"searchableAttributes": ["title"]}));
    let (envoy, payload) = (Envoy::of(&cluster), payload());
    println!("Envoy at rest: {} MB", envoy.memory("VmRSS"));
    println!("{:>8} {:>20} {:>10} {:>8} {:>9}", "at once", "answers", "slowest s", "peak MB", "after MB");
    for at_once in [1, 10] {
        envoy.forget_peak();
        let answers: Vec<(u16, Duration)> = thread::scope(|scope| {
            let sent: Vec<_> =
                (0..at_once).map(|_| scope.spawn(|| send(&cluster.gateway(0), &payload))).collect();
            sent.into_iter().map(|sent| sent.join().unwrap()).collect()
        });
        let mut counts = BTreeMap::<u16, u32>::new();
        answers.iter().for_each(|(status, _)| *counts.entry(*status).or_default() += 1);
        let counts: Vec<String> =
            counts.iter().map(|(status, count)| format!("{count} × {status}")).collect();
        let slowest = answers.iter().map(|(_, took)| *took).max().unwrap_or_default().as_secs_f64();
        let (peak, after) = (envoy.memory("VmHWM"), envoy.memory("VmRSS"));
        println!("{at_once:>8} {:>20} {slowest:>10.1} {peak:>8} {after:>9}", counts.join(", "));
        cluster.wait_tasks_ended();
    }
}
