//! Checks that all copies of a shard are the same.

use crate::{Sandbox, wait_until};
use miroir_core::shard::{Shard, TAG_FIELD, tag_filter};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Documents by id.
pub type Documents = BTreeMap<String, Value>;

/// All writes of each document, in order. Each has the version (`None` for a deletion), and whether the write was certainly
/// done.
#[derive(Debug, Default)]
pub struct History<'a>(BTreeMap<&'a str, Vec<(Option<u64>, bool)>>);

impl<'a> History<'a> {
    /// Adds a write to the history.
    pub fn wrote(&mut self, id: &'a str, version: Option<u64>, certain: bool) {
        self.0.entry(id).or_default().push((version, certain));
    }

    /// Checks that the field `v` of every document is the last version that was certainly written, or a later one.
    ///
    /// # Panics
    /// A document has another version, or is held although no writer wrote it.
    pub fn explains(&self, held: &Documents) {
        for (id, writes) in &self.0 {
            let last = writes.iter().rposition(|(_, certain)| *certain);
            let since = writes.get(last.unwrap_or(0)..).unwrap_or_default();
            let found = held.get(*id).and_then(|document| document["v"].as_u64());
            let possible =
                (last.is_none() && found.is_none()) || since.iter().any(|(version, _)| *version == found);
            assert!(possible, "{id}: {found:?} is held, after {writes:?}");
        }
        for id in held.keys() {
            assert!(self.0.contains_key(id.as_str()), "nobody wrote {id}");
        }
    }
}

impl Sandbox {
    /// Like [`Self::wait_tasks_ended`], but first waits until gateways are idle: a gateway may still hold requests of clients that
    /// have disconnected.
    ///
    /// # Panics
    /// This does not happen in time.
    pub fn wait_idle(&self) {
        wait_until("gateways are idle", || self.gateways_are_idle());
        self.wait_tasks_ended();
    }

    /// Waits until no write is open, and all tasks have ended.
    ///
    /// # Panics
    /// This does not happen in time.
    pub fn wait_tasks_ended(&self) {
        wait_until("all tasks have ended", || {
            let status = self.status();
            let idle = ["openWrites", "waiting", "unsettledTasks"].iter().all(|key| status[*key] == 0);
            // Between the states counted above, a write is only in the ledger.
            idle && self.client.get("/tasks?statuses=enqueued,processing&limit=0").body["total"] == 0
        });
    }

    /// Checks that all active replicas of each shard of an index are the same. Returns the documents by id, without shard tags.
    ///
    /// # Panics
    /// Two replicas differ, or a document is misplaced.
    #[must_use]
    pub fn identical(&self, index: &str, primary_key: &str) -> Documents {
        let shards = self.miroir_json(&["shards"]);
        let mut all = Documents::new();
        for placed in shards.as_array().into_iter().flatten() {
            let number = placed["shard"].as_u64().and_then(|number| u16::try_from(number).ok());
            let shard = Shard(number.expect("a shard's number"));
            let mut first: Option<(&str, Documents)> = None;
            for node in placed["active"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                let held = self.held(node, index, primary_key, shard);
                match &first {
                    None => first = Some((node, held)),
                    Some((other, expected)) => {
                        let ids: BTreeSet<&String> = held.keys().chain(expected.keys()).collect();
                        let differing = ids.into_iter().filter(|id| held.get(*id) != expected.get(*id));
                        let differing: Vec<_> =
                            differing.map(|id| (id, held.get(id), expected.get(id))).collect();
                        assert!(
                            differing.is_empty(),
                            "shard {} of `{index}`: {node} holds the first, {other} the second: {differing:?}",
                            shard.0
                        );
                    }
                }
            }
            for (id, mut document) in first.expect("an active replica").1 {
                let count = u16::try_from(shards.as_array().map_or(0, Vec::len)).expect("at most 512");
                assert_eq!(Shard::of_document(&id, count), shard, "{document}");
                document.as_object_mut().map(|fields| fields.remove(TAG_FIELD));
                all.insert(id, document);
            }
        }
        all
    }

    /// The documents of a shard on a node.
    fn held(&self, node: &str, index: &str, primary_key: &str, shard: Shard) -> Documents {
        let number = node.strip_prefix("meili-").and_then(|number| number.parse().ok());
        let node = self.node(number.expect("a node's name"));
        let query = json!({"filter": tag_filter(&[shard]), "limit": 1_000_000, "retrieveVectors": true});
        let answer = node.json("POST", &format!("/indexes/{index}/documents/fetch"), &query);
        assert_eq!(answer.status, 200, "{}", answer.body);
        let documents = answer.body["results"].as_array().cloned().unwrap_or_default();
        let id = |document: &Value| match &document[primary_key] {
            Value::String(id) => id.clone(),
            id => id.to_string(),
        };
        documents.into_iter().map(|document| (id(&document), document)).collect()
    }
}
