//! A replica that missed a write to one index is read for the others, and gets what it missed as soon as its node is back.
//!
//! `MIROIR_STALE_SECONDS` sets how long processes are killed (12), `MIROIR_STALE_PAUSE_MS` the longest pause between one that is back and
//! the next kill (500), `MIROIR_STALE_SEED` the seed (1).

use miroir_tests::{Client, End, Options, Random, Sandbox, number, pass, tell, wait_until};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// The documents of each index before anything is killed.
const DOCUMENTS: u64 = 400;

/// A cluster with an index that is written and one at rest.
fn cluster(options: Options) -> Sandbox {
    let cluster = Sandbox::start(Options { shards: 16, write_timeout_ms: 2_000, ..options });
    let documents: Vec<Value> = (0..DOCUMENTS).map(|id| json!({"id": id, "v": 0})).collect();
    for index in ["written", "at-rest"] {
        cluster.client.create(index, "id", &json!({}));
        cluster.client.add(index, &json!(documents));
    }
    cluster
}

/// What clients have seen.
#[derive(Default)]
struct Seen {
    searches: AtomicU64,
    incomplete: AtomicU64,
    accepted: AtomicU64,
    /// Writes that were not accepted, by what the client got.
    refused: Mutex<BTreeMap<String, u64>>,
}

impl Seen {
    fn search(&self, client: &Client, number: u64) {
        // Each query is planned on its own.
        let body = json!({"limit": 1000, "attributesToRetrieve": ["id"], "cropMarker": number.to_string()});
        let body = body.to_string().into();
        let path = "/indexes/at-rest/search";
        let Ok(answer) = client.try_send("POST", path, Some("application/json"), body) else { return };
        self.searches.fetch_add(1, Ordering::Relaxed);
        let is_whole = answer.status == 200
            && answer.header("x-miroir-missing-shards").is_none()
            && answer.body["hits"].as_array().is_some_and(|hits| hits.len() as u64 == DOCUMENTS);
        if !is_whole {
            self.incomplete.fetch_add(1, Ordering::Relaxed);
            tell!("incomplete: {} {:?}", answer.status, answer.header("x-miroir-missing-shards"));
        }
    }

    fn write(&self, client: &Client, id: u64, version: u64) {
        let body = json!([{"id": id, "v": version}]).to_string().into();
        let answer = client.try_send("POST", "/indexes/written/documents", Some("application/json"), body);
        // Shards and tasks are numbers.
        let without_numbers = |text: String| text.replace(|it: char| it.is_ascii_digit(), "#");
        let refusal = match answer {
            Ok(answer) if answer.status == 202 => {
                self.accepted.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Ok(answer) => {
                format!("{} {}", answer.status, without_numbers(answer.body["message"].to_string()))
            }
            Err(error) => without_numbers(error.to_string()),
        };
        *self.refused.lock().unwrap().entry(refusal).or_default() += 1;
    }
}

pub fn an_index_at_rest_is_whole_while_nodes_die_one_after_the_other() {
    const VICTIMS: [&str; 5] = ["meili-0", "meili-1", "meili-2", "control", "gateway-1"];
    let cluster = cluster(Options { gateways: 2, ..Options::default() });
    let (seed, seconds) = (number("MIROIR_STALE_SEED", 1), number("MIROIR_STALE_SECONDS", 12));
    let pause = number("MIROIR_STALE_PAUSE_MS", 500);
    let (seen, over) = (Seen::default(), AtomicBool::new(false));
    let mut kills = BTreeMap::<&str, u32>::new();
    thread::scope(|scope| {
        let _end = End(&over);
        for writer in 0..3 {
            let (seen, over, gateway) = (&seen, &over, cluster.gateway(0));
            scope.spawn(move || {
                let mut random = Random(seed * 1_000 + writer);
                for version in 1.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    seen.write(&gateway, random.below(DOCUMENTS as usize) as u64, version);
                    random.pause(60);
                }
            });
        }
        let (seen, over, gateway) = (&seen, &over, cluster.gateway(0));
        scope.spawn(move || {
            for number in 0.. {
                if over.load(Ordering::Relaxed) {
                    break;
                }
                seen.search(&gateway, number);
                pass(Duration::from_millis(10));
            }
        });
        let mut random = Random(seed * 1_000 + 9);
        let until = Instant::now() + Duration::from_secs(seconds);
        let mut victims = Vec::new();
        while Instant::now() < until {
            if victims.is_empty() {
                victims = VICTIMS.to_vec();
            }
            let victim = victims.swap_remove(random.below(victims.len()));
            *kills.entry(victim).or_default() += 1;
            cluster.kill(victim);
            pass(Duration::from_millis(500));
            random.pause(1_500);
            cluster.revive(victim);
            // The next one dies as soon as Envoy uses this one again, whether it has got what it missed or not.
            cluster.wait_reachable();
            random.pause(pause);
        }
    });
    cluster.wait_repaired();
    cluster.wait_idle();
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    let (searches, incomplete) = (count(&seen.searches), count(&seen.incomplete));
    let refusals = seen.refused.into_inner().unwrap();
    let (accepted, refused) = (count(&seen.accepted), refusals.values().sum::<u64>());
    for (refusal, count) in &refusals {
        tell!("{count} writes were refused: {refusal}");
    }
    tell!(
        "kills: {kills:?}; {incomplete} of {searches} searches incomplete; {refused} of {} writes refused",
        accepted + refused
    );
    let _ = cluster.identical("written", "id");
    let _ = cluster.identical("at-rest", "id");
    assert!(searches > 10 * seconds && accepted > 0);
    assert_eq!(incomplete, 0, "an index at rest was not whole");
}

/// What the cluster tells of a node.
fn node(cluster: &Sandbox, name: &str) -> Value {
    let nodes = cluster.status()["nodes"].as_array().cloned().unwrap_or_default();
    nodes.into_iter().find(|node| node["name"] == name).unwrap_or_default()
}

pub fn a_node_that_was_away_for_seconds_is_whole_at_once() {
    const WRITES: u64 = 60;
    let cluster = cluster(Options::default());
    let client = &cluster.client;
    let node = |name: &str| node(&cluster, name);
    cluster.kill("meili-1");
    let mut last = None;
    for write in 0..WRITES {
        let documents: Vec<Value> = (0..5).map(|id| json!({"id": 5 * write + id, "v": 1})).collect();
        last = Some(client.json("POST", "/indexes/written/documents", &json!(documents)));
    }
    last = Some(client.json("POST", "/indexes/written/documents/delete-batch", &json!([1, 2, 3]))).or(last);
    client.succeeded(&last.unwrap());
    let away = node("meili-1");
    let stale = away["staleInIndexes"].as_object().unwrap().clone();
    assert_eq!(stale.keys().collect::<Vec<_>>(), ["written"], "the other index is whole");
    assert!(stale["written"].as_u64().unwrap() > 0 && away["behind"] == false, "{away}");
    let told = cluster.miroir_ok(&["status"]);
    assert!(told.contains("meili-1: replicas stale in written ("), "{told}");
    cluster.revive("meili-1");
    let back = Instant::now();
    wait_until("nothing is stale", || node("meili-1")["stale"] == 0);
    let took = back.elapsed();
    tell!("{} writes of {} documents were made up for in {took:?}", WRITES + 1, 5 * WRITES);
    // It takes less than a second where nothing else runs.
    assert!(took < Duration::from_secs(4), "{took:?}");
    let moved = &cluster.status()["moved"];
    assert!(moved["documents"].as_u64().unwrap() <= 5 * WRITES, "only what was missed: {moved}");
    cluster.wait_repaired();
    let held = cluster.identical("written", "id");
    assert_eq!(held.len() as u64, DOCUMENTS - 3);
    let _ = cluster.identical("at-rest", "id");
}

/// The versions of the documents of an index, as all copies have them, and as searches find them.
fn versions(cluster: &Sandbox, index: &str) -> BTreeMap<u64, u64> {
    let number = |value: &Value| value.as_u64().unwrap();
    let versions = |documents: &mut dyn Iterator<Item = &Value>| -> BTreeMap<u64, u64> {
        documents.map(|document| (number(&document["id"]), number(&document["v"]))).collect()
    };
    let found = cluster.client.search(index, &json!({"limit": 1000}));
    let found = versions(&mut found["hits"].as_array().unwrap().iter());
    let held = cluster.identical(index, "id");
    assert_eq!(found, versions(&mut held.values()), "searches of `{index}`");
    found
}

pub fn an_index_that_a_replica_misses_something_of_is_swapped_renamed_and_deleted() {
    const WRITTEN: u64 = 50;
    let cluster = cluster(Options::default());
    let client = &cluster.client;
    let expected = |version: u64| -> BTreeMap<u64, u64> {
        (0..DOCUMENTS).map(|id| (id, if id < WRITTEN { version } else { 0 })).collect()
    };
    // A node that answers and has not got yet what it missed, and one that misses the operation too.
    for (version, is_away) in [(1, false), (2, true)] {
        let operation = |method: &str, path: &str, body: &Value| {
            cluster.kill("meili-1");
            let documents: Vec<Value> = (0..WRITTEN).map(|id| json!({"id": id, "v": version})).collect();
            let written = client.json("POST", "/indexes/written/documents", &json!(documents));
            client.succeeded(&written);
            if !is_away {
                cluster.revive("meili-1");
            }
            client.succeeded(&client.json(method, path, body));
            if is_away {
                cluster.revive("meili-1");
            }
            cluster.wait_repaired();
            cluster.wait_idle();
        };
        let before = versions(&cluster, "at-rest");
        operation("POST", "/swap-indexes", &json!([{"indexes": ["written", "at-rest"]}]));
        assert_eq!(versions(&cluster, "at-rest"), expected(version));
        assert_eq!(versions(&cluster, "written"), before);
        client.succeeded(&client.json(
            "POST",
            "/swap-indexes",
            &json!([{"indexes": ["written", "at-rest"]}]),
        ));
        operation("PATCH", "/indexes/written", &json!({"uid": "renamed"}));
        assert_eq!(versions(&cluster, "renamed"), expected(version));
        client.succeeded(&client.json("PATCH", "/indexes/renamed", &json!({"uid": "written"})));
        operation("DELETE", "/indexes/written", &Value::Null);
        client.create("written", "id", &json!({}));
        client.add("written", &json!([{"id": 7, "v": 9}]));
        cluster.wait_repaired();
        cluster.wait_idle();
        assert_eq!(versions(&cluster, "written"), [(7, 9)].into(), "nothing of the deleted index is left");
        assert_eq!(versions(&cluster, "at-rest"), before);
        let documents: Vec<Value> = (0..DOCUMENTS).map(|id| json!({"id": id, "v": 0})).collect();
        client.add("written", &json!(documents));
    }
    let told = cluster.miroir(&["verify"]);
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stdout));
}

pub fn nodes_that_miss_documents_find_their_index_made_anew_or_are_lost() {
    let cluster = cluster(Options { nodes: 4, replication: 3, ..Options::default() });
    let client = &cluster.client;
    let write = |index: &str, version: u64| {
        let documents: Vec<Value> = (0..50).map(|id| json!({"id": id, "v": version})).collect();
        client.succeeded(&client.json("POST", &format!("/indexes/{index}/documents"), &json!(documents)));
    };
    let found = |index: &str| {
        let found = client.search(index, &json!({"limit": 1000}));
        let found: Vec<u64> =
            found["hits"].as_array().unwrap().iter().map(|hit| hit["v"].as_u64().unwrap()).collect();
        (found.len() as u64, found.iter().sum::<u64>())
    };
    // Each misses what the other one has not missed.
    cluster.kill("meili-1");
    write("written", 1);
    cluster.kill("meili-2");
    write("written", 2);
    assert_eq!((found("written"), found("at-rest")), ((DOCUMENTS, 100), (DOCUMENTS, 0)));
    cluster.revive("meili-1");
    wait_until("nothing is stale on the first", || node(&cluster, "meili-1")["stale"] == 0);
    assert!(node(&cluster, "meili-2")["stale"].as_u64().unwrap() > 0);
    client.succeeded(&client.json("DELETE", "/indexes/written", &Value::Null));
    client.create("written", "id", &json!({}));
    client.add("written", &json!([{"id": 7, "v": 9}]));
    assert_eq!(cluster.status()["staleInIndexes"], json!({}), "the node is behind instead");
    cluster.revive("meili-2");
    cluster.wait_repaired();
    cluster.wait_idle();
    assert_eq!(versions(&cluster, "written"), [(7, 9)].into());
    cluster.kill("meili-3");
    write("at-rest", 3);
    assert!(node(&cluster, "meili-3")["staleInIndexes"]["at-rest"].as_u64().unwrap() > 0);
    cluster.miroir_ok(&["node", "lost", "meili-3"]);
    assert_eq!(cluster.status()["staleInIndexes"], json!({}));
    cluster.wait_repaired();
    cluster.wait_idle();
    let expected = (0..DOCUMENTS).map(|id| (id, if id < 50 { 3 } else { 0 })).collect();
    assert_eq!(versions(&cluster, "at-rest"), expected);
    let told = cluster.miroir(&["verify"]);
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stdout));
}
