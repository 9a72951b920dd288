//! Writers whose documents only they write, for tests that let something happen to the cluster meanwhile.

use miroir_tests::{Client, Documents, History, Random, pass};
use serde_json::json;
use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// The number of documents per writer. Each writer has its own documents, so that their expected versions follow from its own
/// writes.
const KEYS: usize = 12;

/// A write of one document, and the answer that its client got.
#[derive(Clone, Debug)]
pub struct Written {
    key: String,
    /// `None` for a deletion.
    version: Option<u64>,
    heard: Heard,
}

/// The writers' clients, and the log of their writes.
pub struct Load {
    gateways: Vec<Client>,
    log: Mutex<Vec<Written>>,
}

impl Load {
    pub fn new(gateways: Vec<Client>) -> Self {
        Self { gateways, log: Mutex::default() }
    }

    pub fn log(self) -> Vec<Written> {
        self.log.into_inner().unwrap()
    }

    /// Writes in a loop until `over` is set.
    pub fn write(&self, writer: u64, mut random: Random, over: &AtomicBool) {
        let mut version = 0;
        while !over.load(Ordering::Relaxed) {
            version += 1;
            let key = format!("{writer}-{}", random.below(KEYS));
            let client = random.of(&self.gateways);
            let version = (!random.one_in(4)).then_some(version);
            let heard = write(client, &key, version);
            self.log.lock().unwrap().push(Written { key, version, heard });
            match heard {
                // A client that tries again later: its next write must not overtake this one, which may be on its way.
                Heard::Nothing => pass(Duration::from_millis(200)),
                _ => random.pause(30),
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Heard {
    /// 202, with the task's uid.
    Accepted(u64),
    /// An error that means that nothing was written.
    Refused(u16),
    /// No answer, or one that leaves the result open (503).
    Nothing,
}

fn write(client: &Client, key: &str, version: Option<u64>) -> Heard {
    let answer = match version {
        Some(version) => client.try_send(
            "POST",
            "/indexes/books/documents",
            Some("application/json"),
            json!([{"id": key, "v": version}]).to_string().into(),
        ),
        None => client.try_send("DELETE", &format!("/indexes/books/documents/{key}"), None, Vec::new()),
    };
    match answer {
        Ok(answer) if answer.status == 202 => Heard::Accepted(answer.body["taskUid"].as_u64().unwrap()),
        // 502 and 504 come from Envoy itself.
        Ok(answer) if [502, 503, 504].contains(&answer.status) => Heard::Nothing,
        Ok(answer) => Heard::Refused(answer.status),
        Err(_) => Heard::Nothing,
    }
}

/// Compares the documents that the cluster holds with the writers' log.
pub fn judge(client: &Client, log: &[Written], held: &Documents) -> String {
    let mut counts = BTreeMap::<&str, u32>::new();
    let mut history = History::default();
    for written in log {
        // The second value tells whether the write was certainly done.
        let end = match written.heard {
            Heard::Accepted(task) => {
                let task = client.get(&format!("/tasks/{task}")).body;
                match task["status"].as_str() {
                    Some("succeeded") => Some(true),
                    Some("failed") => None,
                    _ => panic!("{written:?}: {task}"),
                }
            }
            Heard::Refused(_) => None,
            Heard::Nothing => Some(false),
        };
        *counts
            .entry(match (end, written.heard) {
                (Some(true), _) => "succeeded",
                (Some(false), _) => "unknown",
                (None, Heard::Refused(_)) => "refused",
                (None, _) => "failed",
            })
            .or_default() += 1;
        if let Some(certain) = end {
            history.wrote(&written.key, written.version, certain);
        }
    }
    history.explains(held);
    format!("writes: {counts:?}")
}
