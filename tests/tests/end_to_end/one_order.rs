//! Many clients change the same few documents at the same time, through two gateways. In the end all copies must be the same.
//!
//! `MIROIR_ORDER_SECONDS` sets the duration (6), `MIROIR_ORDER_SEED` the seed (1).

use miroir_tests::{Answer, Client, Options, Random, Sandbox, number, tell};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

const INDEXES: [&str; 2] = ["left", "right"];
const KEYS: usize = 8;
const WRITERS: u64 = 8;

pub fn copies_are_the_same_whatever_comes_at_the_same_time() {
    let cluster = Sandbox::start(Options { gateways: 2, ..Options::default() });
    let (seed, seconds) = (number("MIROIR_ORDER_SEED", 1), number("MIROIR_ORDER_SECONDS", 6));
    let features = json!({"editDocumentsByFunction": true});
    assert_eq!(cluster.client.json("PATCH", "/experimental-features", &features).status, 200);
    for index in INDEXES {
        cluster.client.create(index, "id", &json!({"filterableAttributes": ["n", "by"]}));
    }
    let until = Instant::now() + Duration::from_secs(seconds);
    let accepted = AtomicU64::new(0);
    thread::scope(|scope| {
        for writer in 0..WRITERS {
            let client = cluster.gateway(u16::from(writer % 2 == 1));
            let accepted = &accepted;
            scope.spawn(move || {
                let mut random = Random(seed * 1_000 + writer);
                while Instant::now() < until {
                    if let Some(answer) = mutate(&client, &mut random, writer) {
                        assert_eq!(answer.status, 202, "{}", answer.body);
                        accepted.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        let client = cluster.gateway(1);
        scope.spawn(move || {
            let mut random = Random(seed * 1_000 + WRITERS);
            while Instant::now() < until {
                disturb(&client, &mut random);
                random.pause(150);
            }
        });
    });
    cluster.wait_idle();
    cluster.wait_repaired();
    let mut held = BTreeMap::new();
    for index in INDEXES {
        held.insert(index, cluster.identical(index, "id").len());
        let settings = |node| cluster.node(node).get(&format!("/indexes/{index}/settings")).body;
        for node in 1..3 {
            assert_eq!(settings(node), settings(0), "settings of `{index}` on node {node}, and on node 0");
        }
    }
    let ended = |status: &str| cluster.client.get(&format!("/tasks?statuses={status}")).body["total"].clone();
    tell!(
        "{} requests; tasks: {} succeeded, {} failed, {} canceled; documents: {held:?}",
        accepted.load(Ordering::Relaxed),
        ended("succeeded"),
        ended("failed"),
        ended("canceled")
    );
    let failed = cluster.client.get("/tasks?statuses=failed").body;
    assert_eq!(failed["total"], 0, "{failed}");
}

/// Changes a few documents. Returns the answer, if there was one.
fn mutate(client: &Client, random: &mut Random, writer: u64) -> Option<Answer> {
    let index = *random.of(&INDEXES);
    let documents = |random: &mut Random| -> Value {
        (0..1 + random.below(3))
            .map(|_| json!({"id": random.below(KEYS), "n": random.below(100), "by": writer}))
            .collect()
    };
    let path = format!("/indexes/{index}/documents");
    let answer = match random.below(12) {
        0..4 => client.json("POST", &path, &documents(random)),
        4..7 => {
            let field = format!("of-{writer}");
            client.json("PUT", &path, &json!([{"id": random.below(KEYS), field: random.below(100)}]))
        }
        7 => client.send("DELETE", &format!("{path}/{}", random.below(KEYS)), None, ""),
        8 => {
            let ids = json!([random.below(KEYS), random.below(KEYS)]);
            client.json("POST", &format!("{path}/delete-batch"), &ids)
        }
        9 => {
            let filter = json!({"filter": format!("n > {}", 50 + random.below(50))});
            client.json("POST", &format!("{path}/delete"), &filter)
        }
        10 => {
            let edit = json!({"function": "doc.n = doc.n * 7 % 100", "filter": "n EXISTS"});
            client.json("POST", &format!("{path}/edit"), &edit)
        }
        _ => {
            // A client that disconnects at once.
            let body = documents(random).to_string();
            let mut upload = miroir_tests::Upload::start(client.url(), &path, body.len());
            upload.send(body.as_bytes());
            return None;
        }
    };
    Some(answer)
}

/// Requests beside the writes: settings, swaps, cancelations, deletions of tasks and of all documents.
fn disturb(client: &Client, random: &mut Random) {
    let index = *random.of(&INDEXES);
    let answer = match random.below(10) {
        0..3 => {
            let words = json!({"synonyms": {format!("word{}", random.below(9)): ["other"]}});
            client.json("PATCH", &format!("/indexes/{index}/settings"), &words)
        }
        3..5 => client.json("POST", "/swap-indexes", &json!([{"indexes": INDEXES}])),
        5..8 => {
            let filter =
                *random.of(&["statuses=enqueued,processing", "indexUids=left", "types=documentEdition"]);
            client.send("POST", &format!("/tasks/cancel?{filter}"), None, "")
        }
        8 => client.send("DELETE", "/tasks?statuses=succeeded", None, ""),
        _ => client.send("DELETE", &format!("/indexes/{index}/documents"), None, ""),
    };
    assert!([200, 202].contains(&answer.status), "{}", answer.body);
}
