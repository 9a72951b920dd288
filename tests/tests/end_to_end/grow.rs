//! Nodes are added, drained, replaced and killed under a mixed load of writes, deletions and searches through two gateways.
//! Clients must not notice.
//!
//! `MIROIR_GROW_SECONDS` sets the duration (15), `MIROIR_GROW_SEED` the seed (1).

use miroir_tests::{
    BOOKS_PATH, Client, Documents, End, History, Node, Options, Random, Sandbox, number, pass, tell,
    wait_until,
};
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

const WRITERS: u64 = 3;
const SEARCHERS: u64 = 2;
/// The number of documents per writer. Each writer has its own documents, so that their expected versions follow from its own
/// writes.
const KEYS: usize = 40;
/// The number of documents that are not changed: searches for them always find the same.
const FIXED: u64 = 600;

fn fixed() -> Value {
    let words = ["red", "green", "blue", "small", "large", "round", "square", "old"];
    let document = |id: u64| {
        let word = |shift: u64| words[(id / shift % words.len() as u64) as usize];
        json!({
            "id": format!("fixed-{id}"), "kind": "fixed", "title": format!("{} {} {}", word(1), word(8), word(64)),
            "year": 1900 + id % 97, "number": id
        })
    };
    (0..FIXED).map(document).collect()
}

fn queries() -> Vec<Value> {
    let words = ["", "red", "green round", "bleu", "smal larg", "old square", "\"red small\""];
    let query = |words: &str| {
        [
            json!({"q": words, "filter": "kind = fixed", "limit": 50, "sort": ["number:asc"]}),
            json!({"q": words, "filter": "kind = fixed AND year > 1950", "limit": 30, "sort": ["year:desc", "number:asc"],
                   "facets": ["year"]}),
        ]
    };
    words.into_iter().flat_map(query).collect()
}

/// The part of an answer that must be the same at any time.
fn seen(answer: &Value) -> Value {
    let hits: Vec<&Value> = answer["hits"].as_array().into_iter().flatten().collect();
    json!([hits, answer["estimatedTotalHits"], answer["facetDistribution"]])
}

/// A write of one document, and the answer that its client got.
#[derive(Clone, Debug)]
struct Written {
    key: String,
    /// `None` for a deletion.
    version: Option<u64>,
    /// The task's uid; `None` if the result is unknown (503, or a broken connection).
    task: Option<u64>,
}

struct Load<'a> {
    gateways: [Client; 2],
    log: Mutex<Vec<Written>>,
    searches: AtomicU64,
    read_back: AtomicU64,
    retryable: AtomicU64,
    over: AtomicBool,
    slowest_ms: AtomicU64,
    queries: &'a [(Value, Value)],
}

impl Load<'_> {
    fn write(&self, writer: u64, mut random: Random) {
        let mut version = 0;
        while !self.over.load(Ordering::Relaxed) {
            version += 1;
            let key = format!("w{writer}-{}", random.below(KEYS));
            let client = random.of(&self.gateways).clone();
            let version = (!random.one_in(4)).then_some(version);
            let begun = Instant::now();
            let answer = match version {
                Some(version) => {
                    let body = json!([{"id": key, "kind": "written", "v": version, "title": "red green"}]);
                    client.try_send("POST", BOOKS_PATH, Some("application/json"), body.to_string().into())
                }
                None => client.try_send("DELETE", &format!("{BOOKS_PATH}/{key}"), None, Vec::new()),
            };
            let answer = answer.unwrap_or_else(|error| panic!("a write got no answer: {error}"));
            let took = u64::try_from(begun.elapsed().as_millis()).unwrap();
            self.slowest_ms.fetch_max(took, Ordering::Relaxed);
            let task = match answer.status {
                202 => answer.body["taskUid"].as_u64(),
                503 => {
                    assert!(answer.header("retry-after").is_some(), "{:?}: {}", answer.headers, answer.body);
                    self.retryable.fetch_add(1, Ordering::Relaxed);
                    // A client that tries again later, as it is told to: its next write must not overtake this one, which may be on its way.
                    pass(Duration::from_secs(1));
                    None
                }
                status => panic!("a write got {status}: {}", answer.body),
            };
            self.log.lock().unwrap().push(Written { key: key.clone(), version, task });
            // Wait for some tasks, so that nodes' queues stay short: a move cannot hand over behind a long queue.
            if task.is_some() && random.one_in(2) {
                self.read_back(&client, &answer, &key, version, &mut random);
            }
            random.pause(40);
        }
    }

    /// Checks that a written document is found through any gateway once its task has succeeded.
    fn read_back(
        &self,
        client: &Client,
        accepted: &miroir_tests::Answer,
        key: &str,
        version: Option<u64>,
        random: &mut Random,
    ) {
        let task = client.ended(accepted);
        assert_eq!(task["status"], "succeeded", "{task}");
        let query = json!({"filter": format!("id = {key}"), "limit": 5});
        let answer = random.of(&self.gateways).json("POST", "/indexes/books/search", &query);
        let found = answer.body["hits"][0]["v"].as_u64();
        assert_eq!((answer.status, found), (200, version), "{key}: {}", answer.body);
        self.read_back.fetch_add(1, Ordering::Relaxed);
    }

    fn search(&self, mut random: Random) {
        while !self.over.load(Ordering::Relaxed) {
            let (query, expected) = random.of(self.queries);
            let answer = random.of(&self.gateways).json("POST", "/indexes/books/search", query);
            assert_eq!(answer.status, 200, "{query}: {}", answer.body);
            assert_eq!(answer.header("x-miroir-missing-shards"), None, "{query}");
            assert_eq!(&seen(&answer.body), expected, "{query}");
            self.searches.fetch_add(1, Ordering::Relaxed);
            random.pause(20);
        }
    }
}

/// Runs operations, and kills nodes. With two replicas, only one node may be down at a time.
fn operate(cluster: &Sandbox, random: &mut Random, until: Instant) -> BTreeMap<&'static str, u32> {
    let mut done = BTreeMap::new();
    let mut inside: Vec<String> = (0..3).map(|node| format!("meili-{node}")).collect();
    let mut outside: Vec<String> = Vec::new();
    let mut steps = vec!["kill", "drain", "kill while it moves", "replace", "add"];
    while Instant::now() < until {
        let Some(step) = steps.pop() else {
            steps = vec!["add", "kill", "drain", "replace", "kill while it moves", "lose", "rebalance"];
            continue;
        };
        let spare = |outside: &mut Vec<String>| outside.pop().unwrap_or_else(|| cluster.add_node());
        let victim = inside[random.below(inside.len())].clone();
        match step {
            "add" | "kill while it moves" if inside.len() < 5 => {
                let node = spare(&mut outside);
                cluster.miroir_ok(&["node", "add", &cluster.named(&node), "--no-wait"]);
                if step != "add" {
                    random.pause(1_500);
                    cluster.kill(&victim);
                    random.pause(1_500);
                    cluster.revive(&victim);
                }
                inside.push(node);
            }
            "drain" if inside.len() > 3 => {
                cluster.miroir_ok(&["node", "drain", &victim]);
                cluster.miroir_ok(&["node", "remove", &victim]);
                inside.retain(|node| *node != victim);
                leave(cluster, victim, &mut outside);
            }
            "replace" => {
                let node = spare(&mut outside);
                cluster.miroir_ok(&["node", "replace", &victim, &cluster.named(&node)]);
                inside.retain(|node| *node != victim);
                inside.push(node);
                leave(cluster, victim, &mut outside);
            }
            "kill" => {
                cluster.kill(&victim);
                random.pause(2_000);
                cluster.revive(&victim);
            }
            "lose" if inside.len() > 3 => {
                cluster.kill(&victim);
                wait_until("the control plane sees that the node is down", || {
                    cluster.member(&victim)["up"] == false
                });
                cluster.miroir_ok(&["node", "lost", &victim]);
                inside.retain(|node| *node != victim);
            }
            "rebalance" => drop(cluster.miroir_ok(&["rebalance"])),
            _ => continue,
        }
        *done.entry(step).or_default() += 1;
        settle(cluster);
    }
    done
}

fn leave(cluster: &Sandbox, node: String, outside: &mut Vec<String>) {
    let number = node.strip_prefix("meili-").unwrap().parse().unwrap();
    wait_until("it has forgotten the cluster", || cluster.node(number).get("/indexes").body["total"] == 0);
    outside.push(node);
}

/// Waits until any one node may fail: every replica is complete, on its desired node, and gateways reach all nodes.
fn settle(cluster: &Sandbox) {
    wait_until("every replica is complete, on its desired node", || {
        let status = cluster.status();
        status["moving"] == false && status["replicasMissing"] == 0 && cluster.is_repaired()
    });
    cluster.wait_reachable();
}

pub fn nobody_notices() {
    let (seed, seconds) = (number("MIROIR_GROW_SEED", 1), number("MIROIR_GROW_SECONDS", 15));
    let options =
        Options { gateways: 2, shards: 16, lease_ms: 1_000, write_timeout_ms: 2_000, ..Options::default() };
    let cluster = Sandbox::start(options);
    let settings = json!({
        "searchableAttributes": ["title"], "filterableAttributes": ["id", "kind", "year"],
        "sortableAttributes": ["year", "number"]
    });
    let single = Node::start();
    for client in [&cluster.client, &single.client] {
        client.create("books", "id", &settings);
        client.add("books", &fixed());
    }
    let queries: Vec<(Value, Value)> = queries()
        .into_iter()
        .map(|query| {
            let expected = seen(&single.client.search("books", &query));
            (query, expected)
        })
        .collect();
    drop(single);
    let load = Load {
        gateways: [cluster.gateway(0), cluster.gateway(1)],
        log: Mutex::default(),
        searches: AtomicU64::new(0),
        read_back: AtomicU64::new(0),
        retryable: AtomicU64::new(0),
        over: AtomicBool::new(false),
        slowest_ms: AtomicU64::new(0),
        queries: &queries,
    };
    let done = thread::scope(|scope| {
        for writer in 0..WRITERS {
            let load = &load;
            scope.spawn(move || load.write(writer, Random(seed * 1_000 + writer)));
        }
        for searcher in 0..SEARCHERS {
            let load = &load;
            scope.spawn(move || load.search(Random(seed * 1_000 + 100 + searcher)));
        }
        // Ends the other threads, even if this one panics.
        let _end = End(&load.over);
        let until = Instant::now() + Duration::from_secs(seconds);
        operate(&cluster, &mut Random(seed), until)
    });
    cluster.wait_tasks_ended();
    cluster.wait_repaired();
    let log = load.log.into_inner().unwrap();
    let held = cluster.identical("books", "id");
    judge(&cluster.client, &log, held);
    cluster.miroir_ok(&["verify"]);
    let status = cluster.status();
    tell!(
        "{done:?}; {} writes, {} retryable, the slowest {} ms; {} read back; {} searches; moved {}",
        log.len(),
        load.retryable.load(Ordering::Relaxed),
        load.slowest_ms.load(Ordering::Relaxed),
        load.read_back.load(Ordering::Relaxed),
        load.searches.load(Ordering::Relaxed),
        status["moved"]
    );
    assert!(status["moved"]["longestPauseMs"].as_u64().unwrap() <= 2_000, "{}", status["moved"]);
    assert!(log.len() as u64 > seconds, "writers were held up: {}", log.len());
}

/// Compares the documents that the cluster holds with the writers' log. Checks that no task has failed.
fn judge(client: &Client, log: &[Written], mut held: Documents) {
    let mut history = History::default();
    for written in log {
        if let Some(task) = written.task {
            let task = client.get(&format!("/tasks/{task}")).body;
            assert_eq!(task["status"], "succeeded", "{written:?}: {task}");
        }
        history.wrote(&written.key, written.version, written.task.is_some());
    }
    for document in fixed().as_array().unwrap() {
        let mut found = held.remove(document["id"].as_str().unwrap()).unwrap_or_default();
        found.as_object_mut().map(|found| found.remove("_vectors"));
        assert_eq!(&found, document, "a document that no writer changes has changed");
    }
    history.explains(&held);
}
