//! Clients of a cluster that something happens to: writers, readers, and one that changes whole indexes.

use super::history::History;
use miroir_tests::{
    Answer, Client, Random,
    model::{Action, Change},
    pass,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Nothing happens to this index but writes of documents and settings, so that writers can read what they have written.
pub const STEADY: &str = "steady";
/// These two are swapped.
pub const SWAPPED: [&str; 2] = ["left", "right"];
/// It is deleted and created.
pub const PASSING: &str = "passing";
/// Nobody writes to it.
pub const AT_REST: &str = "at-rest";
/// How many documents it has.
pub const RESTING: u64 = 60;

/// The number of documents of each writer in each index.
const KEYS: usize = 12;

/// How long a client waits for an answer. A frozen gateway may take the request afterwards.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// What a client heard of an operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Heard {
    /// 202, with the task's uid.
    Accepted(u64),
    /// An error that means that nothing was done.
    Refused(u16),
    /// No answer, or one that leaves the result open.
    Nothing,
}

impl Heard {
    fn of(answer: anyhow::Result<Answer>) -> Self {
        match answer {
            Ok(answer) if answer.status == 202 => match answer.body["taskUid"].as_u64() {
                Some(uid) => Self::Accepted(uid),
                None => Self::Nothing,
            },
            Ok(answer) if answer.status < 500 => Self::Refused(answer.status),
            _ => Self::Nothing,
        }
    }
}

/// An operation that a client sent.
#[derive(Clone, Debug)]
pub struct Sent {
    pub change: Change,
    pub heard: Heard,
}

/// The clients, and what they have sent and heard.
pub struct Clients<'a> {
    pub gateways: Vec<Client>,
    pub history: &'a History,
    pub over: &'a AtomicBool,
    /// By their number, which is their task's `customMetadata` where the route has one.
    pub sent: Mutex<BTreeMap<u64, Sent>>,
    next: AtomicU64,
    pub counts: Mutex<BTreeMap<&'static str, u64>>,
}

impl<'a> Clients<'a> {
    pub fn new(gateways: Vec<Client>, history: &'a History, over: &'a AtomicBool) -> Self {
        let (sent, next, counts) = (Mutex::default(), AtomicU64::new(1), Mutex::default());
        Self { gateways, history, over, sent, next, counts }
    }

    fn count(&self, what: &'static str) {
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
    }

    fn are_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Sends an operation. Notes what was heard of it.
    fn send(&self, client: &Client, change: Change, method: &str, path: &str, body: &Value) -> Heard {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        // Only routes of documents have it; the others ignore unknown parameters or refuse them.
        let path = match change.action {
            Action::Put(_) | Action::Update(_) => format!("{path}?primaryKey=id&customMetadata={number}"),
            Action::Delete(_) | Action::Edit => format!("{path}?customMetadata={number}"),
            _ => path.to_owned(),
        };
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        // Whatever happens to the client's process, the operation may have been sent.
        let sent = Sent { change, heard: Heard::Nothing };
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).insert(number, sent.clone());
        let begun = Instant::now();
        let heard = Heard::of(client.try_send(method, &path, Some("application/json"), body));
        self.history.note_change(
            &sent.change,
            &format!("{number} {:?}: {heard:?} after {:?}", sent.change, begun.elapsed()),
        );
        if let Some(sent) = self.sent.lock().unwrap_or_else(PoisonError::into_inner).get_mut(&number) {
            sent.heard = heard.clone();
        }
        self.count(match heard {
            Heard::Accepted(_) => "accepted",
            Heard::Refused(_) => "refused",
            Heard::Nothing => "unknown",
        });
        heard
    }

    /// How a task has ended; `None` if it has not, or nobody says.
    fn end(&self, client: &Client, uid: u64) -> Option<String> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until && !self.are_over() {
            let task = client.try_send("GET", &format!("/tasks/{uid}"), None, Vec::new());
            let status = task.ok().and_then(|task| task.body["status"].as_str().map(str::to_owned));
            if let Some(status) = status.filter(|status| status == "succeeded" || status == "failed") {
                return Some(status);
            }
            pass(Duration::from_millis(50));
        }
        None
    }

    /// Writes its own documents until all is over.
    pub fn write(&self, writer: u64, mut random: Random) {
        let mut version = 0;
        // A document of whose last write nothing was heard is left alone: that write may come later than the next one.
        let mut generations = BTreeMap::<usize, u64>::new();
        while !self.are_over() {
            version += 1;
            let index = *random.of(&[STEADY, STEADY, SWAPPED[0], SWAPPED[1], PASSING]);
            let keys = if random.one_in(6) { 3 } else { 1 };
            let first = random.below(KEYS);
            let keys: Vec<usize> = (first..first + keys).map(|key| key % KEYS).collect();
            let id = |key: &usize| {
                let generation = generations.get(key).copied().unwrap_or(0);
                format!("{index}-{writer}-{key}-{generation}")
            };
            let ids: Vec<String> = keys.iter().map(id).collect();
            let documents: Vec<(String, u64)> = ids.iter().map(|id| (id.clone(), version)).collect();
            let client = random.of(&self.gateways).clone();
            let path = format!("/indexes/{index}/documents");
            let whole: Value = ids.iter().map(|id| json!({"id": id, "v": version, "n": 0})).collect();
            let part: Value = ids.iter().map(|id| json!({"id": id, "v": version})).collect();
            let (heard, is_there) = match random.below(20) {
                0..12 => {
                    let change = Action::Put(documents).on(index);
                    (self.send(&client, change, "POST", &path, &whole), true)
                }
                12..16 => {
                    let change = Action::Update(documents).on(index);
                    (self.send(&client, change, "PUT", &path, &part), true)
                }
                _ => {
                    let change = Action::Delete(ids.clone()).on(index);
                    (self.send(&client, change, "POST", &format!("{path}/delete-batch"), &json!(ids)), false)
                }
            };
            match heard {
                Heard::Accepted(uid) => {
                    if index == STEADY && random.one_in(3) {
                        self.read_back(
                            &random.of(&self.gateways).clone(),
                            uid,
                            &ids,
                            is_there.then_some(version),
                        );
                    }
                    random.pause(60);
                }
                Heard::Refused(_) => random.pause(60),
                Heard::Nothing => {
                    for key in keys {
                        *generations.entry(key).or_default() += 1;
                    }
                    pass(Duration::from_millis(100));
                }
            }
        }
    }

    /// Reads documents that nobody else writes, once their last write has succeeded.
    fn read_back(&self, client: &Client, uid: u64, ids: &[String], version: Option<u64>) {
        if self.end(client, uid).as_deref() != Some("succeeded") {
            return;
        }
        for id in ids {
            let path = format!("/indexes/{STEADY}/documents/{id}");
            let Ok(answer) = client.try_send("GET", &path, None, Vec::new()) else { continue };
            let found = match answer.status {
                200 => answer.body["v"].as_u64(),
                404 if answer.body["code"] == "document_not_found" => None,
                _ => {
                    self.count("reads without an answer");
                    continue;
                }
            };
            self.count("documents read back");
            if found != version {
                let what =
                    format!("after task {uid} {found:?} is read instead of {version:?} at {}", client.url());
                self.history.is_wrong(id, &what);
            }
        }
    }

    /// Searches the index that nobody writes to until all is over.
    pub fn search(&self, mut random: Random) {
        while !self.are_over() {
            let client = random.of(&self.gateways);
            let body = json!({"limit": 1000}).to_string().into_bytes();
            let path = format!("/indexes/{AT_REST}/search");
            let answer = client.try_send("POST", &path, Some("application/json"), body);
            match answer {
                Ok(answer) if answer.status == 200 => {
                    let found = answer.body["hits"].as_array().map_or(0, Vec::len);
                    if found as u64 == RESTING {
                        self.count("searches at rest: whole");
                    } else if answer.header("x-miroir-missing-shards").is_some() {
                        self.count("searches at rest: incomplete");
                    } else if answer.header("x-miroir-control-lost").is_some() {
                        // Copies that its gateway knows may have been emptied.
                        self.count("searches at rest: by an old topology");
                    } else {
                        let hits = &answer.body["hits"];
                        let what =
                            format!("{found} documents at {}: {:?} {hits}", client.url(), answer.headers);
                        self.history.is_wrong(AT_REST, &what);
                    }
                }
                _ => self.count("searches at rest: no answer"),
            }
            random.pause(100);
        }
    }

    /// Changes whole indexes until all is over.
    pub fn operate(&self, mut random: Random) {
        let mut round = 0;
        while !self.are_over() {
            round += 1;
            let client = random.of(&self.gateways).clone();
            let heard = match random.below(10) {
                0..3 => {
                    let swap = Action::Swap(SWAPPED[1].to_owned()).on(SWAPPED[0]);
                    let body = json!([{"indexes": SWAPPED}]);
                    self.send(&client, swap, "POST", "/swap-indexes", &body)
                }
                3..5 => {
                    let path = format!("/indexes/{PASSING}");
                    let remove = Action::Remove.on(PASSING);
                    let heard = self.send(&client, remove, "DELETE", &path, &Value::Null);
                    if let (Heard::Accepted(uid), true) = (&heard, random.one_in(2)) {
                        let _ = self.end(&client, *uid);
                    }
                    let create = Action::Create.on(PASSING);
                    let body = json!({"uid": PASSING, "primaryKey": "id"});
                    self.send(&client, create, "POST", "/indexes", &body)
                }
                5..8 => {
                    let index = random.of(&[STEADY, SWAPPED[0], SWAPPED[1], PASSING]).to_string();
                    let path = format!("/indexes/{index}/settings");
                    let synonym = format!("synonym{round}");
                    let body = json!({"synonyms": {"word": [synonym]}});
                    self.send(&client, Action::Settings(synonym).on(&index), "PATCH", &path, &body)
                }
                _ => {
                    let index = random.of(&[STEADY, SWAPPED[0], SWAPPED[1]]).to_string();
                    let path = format!("/indexes/{index}/documents/edit");
                    let body = json!({"function": "doc.n = if doc.n == () { 1 } else { doc.n + 1 }"});
                    self.send(&client, Action::Edit.on(&index), "POST", &path, &body)
                }
            };
            if let (Heard::Accepted(uid), true) = (heard, random.one_in(2)) {
                let _ = self.end(&client, uid);
            }
            random.pause(1_500);
        }
    }
}
