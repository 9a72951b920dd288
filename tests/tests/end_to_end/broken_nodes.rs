//! A node returns broken answers, or none: the gateway reads its shards from other replicas, within the same request.

use miroir_tests::{Client, Options, PATIENCE, Sandbox, pass, tell, wait_until};
use serde_json::{Value, json};
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Stall,
    Reset,
    InternalError,
    Unavailable,
    HalfABody,
    NotJson,
    AnotherAnswer,
}

/// A fake node at the address of a killed one: its health is good, but its searches fail.
struct BrokenNode {
    fault: Arc<Mutex<Fault>>,
    searches: Arc<AtomicUsize>,
}

impl BrokenNode {
    fn instead_of(cluster: &Sandbox, node: &str) -> Self {
        let address = cluster.address(node);
        cluster.kill(node);
        Self::listen(address.trim_start_matches("http://"))
    }

    fn listen(address: &str) -> Self {
        let (fault, searches) = (Arc::new(Mutex::new(Fault::Reset)), Arc::new(AtomicUsize::new(0)));
        let mut listener = None;
        wait_until("the node's port is free", || {
            listener = TcpListener::bind(address).ok();
            listener.is_some()
        });
        let node = Self { fault: Arc::clone(&fault), searches: Arc::clone(&searches) };
        std::thread::spawn(move || {
            for stream in listener.unwrap().incoming().flatten() {
                let (fault, searches) = (Arc::clone(&fault), Arc::clone(&searches));
                // A connection is served until its peer closes it.
                std::thread::spawn(move || drop(serve(&stream, &fault, &searches)));
            }
        });
        node
    }
}

fn serve(stream: &TcpStream, fault: &Mutex<Fault>, searches: &AtomicUsize) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let head = head.to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
        reader.read_exact(&mut vec![0; length])?;
        let mut answer = |status: &str, length: usize, body: &str| {
            write!(
                writer,
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
            )
        };
        if !head.contains("search") {
            let body = r#"{"status":"available"}"#;
            answer("200 OK", body.len(), body)?;
            continue;
        }
        searches.fetch_add(1, Ordering::Relaxed);
        let fault = *fault.lock().unwrap();
        match fault {
            Fault::Stall => pass(PATIENCE),
            Fault::Reset => return Ok(()),
            Fault::InternalError => answer("500 Internal Server Error", 2, "{}")?,
            Fault::Unavailable => answer("503 Service Unavailable", 0, "")?,
            Fault::HalfABody => {
                answer("200 OK", 5_000, r#"{"hits":[{"id":1,"#)?;
                return Ok(());
            }
            Fault::NotJson => answer("200 OK", 13, "<html></html>")?,
            Fault::AnotherAnswer => answer("200 OK", 13, r#"{"results":1}"#)?,
        }
    }
}

fn hits(client: &Client, query: &Value) -> (Value, Option<String>) {
    let answer = client.json("POST", "/indexes/things/search", query);
    assert_eq!(answer.status, 200, "{query}: {}", answer.body);
    let missing = answer.header("x-miroir-missing-shards").map(str::to_owned);
    (json!([answer.body["hits"], answer.body["estimatedTotalHits"]]), missing)
}

pub fn what_a_broken_node_does_not_answer_is_asked_of_other_replicas() {
    let cluster = Sandbox::start(Options::default());
    let client = &cluster.client;
    client.create("things", "id", &json!({"filterableAttributes": ["rank"]}));
    client.add("things", &json!((0..120).map(|id| json!({"id": id, "rank": id})).collect::<Vec<_>>()));
    // Different queries use different nodes: each query uses two of the three.
    let queries: Vec<Value> =
        (0..8).map(|rank| json!({"filter": format!("rank >= {rank}"), "limit": 200})).collect();
    let expected: Vec<_> = queries.iter().map(|query| hits(client, query)).collect();
    let broken = BrokenNode::instead_of(&cluster, "meili-1");
    for fault in [
        Fault::Reset,
        Fault::InternalError,
        Fault::Unavailable,
        Fault::HalfABody,
        Fault::NotJson,
        Fault::AnotherAnswer,
        Fault::Stall,
    ] {
        *broken.fault.lock().unwrap() = fault;
        let before = broken.searches.load(Ordering::Relaxed);
        // After some of these faults Envoy ejects the node for a moment. So repeat until the node was asked.
        let begun = Instant::now();
        while broken.searches.load(Ordering::Relaxed) == before {
            assert!(begun.elapsed() < PATIENCE, "{fault:?}: the node is never asked");
            for (query, expected) in queries.iter().zip(&expected) {
                let asked = Instant::now();
                assert_eq!(hits(client, query), *expected, "{fault:?}: {query}");
                // The time limit of the broken node plus that of the other node.
                assert!(asked.elapsed() < Duration::from_secs(12), "{fault:?}");
                if fault == Fault::Stall && broken.searches.load(Ordering::Relaxed) > before {
                    break;
                }
            }
        }
    }
    // Shards whose two replicas are on the broken node and a killed one have no replica left.
    *broken.fault.lock().unwrap() = Fault::NotJson;
    cluster.kill("meili-2");
    let (_, missing) = hits(client, &json!({}));
    let missing = missing.expect("a header that names the missing shards");
    assert!((1..16).contains(&missing.split(',').count()), "{missing}");
}

pub fn a_read_that_nobody_answers_ends_at_its_deadline() {
    let search_timeout_ms = 1_500;
    let options = Options { replication: 3, search_timeout_ms, ..Options::default() };
    let cluster = Sandbox::start(options);
    let client = &cluster.client;
    client.create("things", "id", &json!({}));
    client.add("things", &json!([{"id": 1}, {"id": 2}]));
    let broken = ["meili-0", "meili-1", "meili-2"].map(|node| BrokenNode::instead_of(&cluster, node));
    broken.iter().for_each(|broken| *broken.fault.lock().unwrap() = Fault::Stall);
    // While Envoy ejects a node, the gateway does not wait for it. So repeat until both nodes were asked.
    let asked = || broken.iter().map(|broken| broken.searches.load(Ordering::Relaxed)).sum::<usize>();
    let begun = Instant::now();
    loop {
        assert!(begun.elapsed() < PATIENCE, "two nodes are never asked");
        let (before, sent) = (asked(), Instant::now());
        let answer = client.json("POST", "/indexes/things/search", &json!({}));
        let took = sent.elapsed();
        assert_eq!(answer.status, 503, "{}", answer.body);
        // Without a deadline, the time limits of three nodes would add up.
        let deadline = Duration::from_millis(2 * search_timeout_ms);
        assert!(took < deadline + Duration::from_millis(search_timeout_ms / 2), "{took:?}");
        if asked() == before + 2 {
            assert!(took >= deadline, "{took:?}");
            return;
        }
    }
}

pub fn a_node_that_freezes_is_waited_for_moments_only(cluster: &Sandbox) {
    let client = &cluster.client;
    client.create("things", "id", &json!({"filterableAttributes": ["rank"]}));
    client.add("things", &json!((0..120).map(|id| json!({"id": id, "rank": id})).collect::<Vec<_>>()));
    let queries: Vec<Value> =
        (0..16).map(|rank| json!({"filter": format!("rank >= {rank}"), "limit": 200})).collect();
    // An earlier check may have killed a node, and Envoy notices only by its next health check that it is back.
    cluster.wait_repaired();
    let expected: Vec<_> = queries.iter().map(|query| hits(client, query)).collect();
    // Each worker knows how long nodes take usually: these clients have connections of their own.
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let client = cluster.gateway(0);
                queries.iter().cycle().take(40).for_each(|query| drop(hits(&client, query)));
            });
        }
    });
    cluster.freeze("meili-1");
    let frozen = Instant::now();
    // Two of three searches use that node. A search is sent every 100 ms, without waiting for the earlier ones.
    let slow: Vec<(Duration, Duration)> = std::thread::scope(|scope| {
        let (queries, expected) = (&queries, &expected);
        let ask = |position: u32| {
            move || {
                let at = Duration::from_millis(100) * position;
                pass(at.saturating_sub(frozen.elapsed()));
                let (since, chosen) = (frozen.elapsed(), position as usize % queries.len());
                assert_eq!(hits(client, &queries[chosen]), expected[chosen]);
                (since, frozen.elapsed() - since)
            }
        };
        let searches: Vec<_> = (0..80).map(|position| scope.spawn(ask(position))).collect();
        let taken = searches.into_iter().map(|search| search.join().unwrap());
        taken.filter(|(_, took)| *took > Duration::from_secs(1)).collect()
    });
    tell!("slow searches, when they were sent after the freeze and what they took: {slow:?}");
    cluster.thaw("meili-1");
    let counted = |name: &str| {
        let stats = cluster.admin(0).get(&format!("/stats?format=json&filter={name};node=meili-1")).body;
        stats["stats"].as_array().unwrap().iter().filter_map(|stat| stat["value"].as_u64()).sum::<u64>()
    };
    let counts = ["miroir_reads_given_up_total", "miroir_nodes_avoided_total"].map(counted);
    assert!(counts.iter().all(|count| *count > 0), "nobody asked the frozen node: {counts:?}");
    // Usually there is none. Envoy alone takes 2.6 s to find out, and a search that has waited until then takes 5 s.
    assert!(slow.len() <= 3, "{} searches waited: {slow:?}", slow.len());
}
