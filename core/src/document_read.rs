//! State machine that reads one document: it asks the replicas of the document's shard one after another.

use crate::{
    error::{ApiError, Code},
    fan_out,
    http::{Answer, CallId, Callout, Outcome, Reply, RequestHead, Upstream, forwarded_headers},
    progress::Progress,
    read::{lacks_known_index, node_error_reply},
    scrub,
    shard::Shard,
    topology::Topology,
};
use std::{collections::BTreeSet, sync::Arc};
use xxhash_rust::xxh3::xxh3_64;

/// `GET /indexes/{uid}/documents/{id}`.
#[derive(Debug)]
pub struct DocumentRead {
    topology: Arc<Topology>,
    head: RequestHead,
    index: String,
    shard: Shard,
    failed: BTreeSet<u16>,
    /// The node that was given up. It is asked again if the others fail.
    late: Option<u16>,
    asked: Option<u16>,
    calls: u32,
}

impl DocumentRead {
    /// Starts reading the document of an index with this id, given as text.
    #[must_use]
    pub fn start(topology: Arc<Topology>, head: RequestHead, index: &str, id: &str) -> Progress<Self> {
        let shard = Shard::of_document(id, topology.shard_count());
        let index = index.to_owned();
        Self { topology, head, index, shard, failed: BTreeSet::new(), late: None, asked: None, calls: 0 }
            .ask()
    }

    /// Handles the answer to the pending callout.
    #[must_use]
    pub fn digest(mut self, _: CallId, outcome: Outcome) -> Progress<Self> {
        match outcome {
            Outcome::Answered(Answer { status: 200, body, .. }) => {
                Progress::Done(Reply::json(200, scrub::document(&body)))
            }
            Outcome::Answered(answer)
                if answer.status < 500
                    && !(lacks_known_index(&self.topology, &answer)
                        && self.has_stand_in(self.failed.clone())) =>
            {
                Progress::Done(node_error_reply(answer))
            }
            Outcome::GivenUp => {
                self.late = self.asked.take();
                self.ask()
            }
            _ => {
                self.failed.extend(self.asked.take());
                self.ask()
            }
        }
    }

    /// The document's shard.
    #[must_use]
    pub fn shard(&self) -> Shard {
        self.shard
    }

    /// How long the read may take in total, in milliseconds.
    #[must_use]
    pub fn deadline_ms(&self) -> u64 {
        self.topology.config().limits.search_deadline_of(0, 0)
    }

    /// Whether a replica is left that was not asked, on none of these nodes.
    fn has_stand_in(&self, mut failed: BTreeSet<u16>) -> bool {
        failed.extend(self.asked);
        let stale = self.topology.config().stale.of(&[&self.index]);
        fan_out::can_be_read(&self.topology, &stale, &[self.shard], &failed)
    }

    fn ask(mut self) -> Progress<Self> {
        let seed = xxh3_64(self.head.path.to_string().as_bytes());
        let stale = self.topology.config().stale.of(&[&self.index]);
        let late = self.late.into_iter().collect();
        let plan = fan_out::plan_avoiding(&self.topology, &stale, [self.shard], &self.failed, &late, seed);
        let Some((node, _)) = plan.asks.first() else {
            let message = format!("No replica answers for shard {}.", self.shard.0);
            return Progress::Done(ApiError::new(Code::UNAVAILABLE, message).reply());
        };
        let node = *node;
        self.asked = Some(node);
        let is_first = self.failed.is_empty() && self.late.is_none();
        let has_stand_in = is_first && self.has_stand_in(self.topology.slow());
        self.calls += 1;
        let config = self.topology.config();
        let call = Callout {
            id: CallId(self.calls),
            upstream: Upstream::Node(node),
            method: "GET",
            path: self.head.path.clone(),
            headers: forwarded_headers(&self.head, config.read_key.as_deref()),
            body: Vec::new(),
            timeout_ms: config.limits.search_timeout_ms,
            has_stand_in,
        };
        Progress::Pending { machine: self, calls: vec![call] }
    }
}
