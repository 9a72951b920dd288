//! The machine of a search: scatter, plan again around nodes that fail, merge.

use super::{answer::NodeAnswer, merge::merge, request::SearchRequest};
use crate::{
    error::{ApiError, Code},
    fan_out,
    http::{Answer, CallId, Callout, Outcome, Reply, RequestHead, Upstream},
    operation::{Progress, forwarded_headers},
    query, scrub,
    shard::Shard,
    topology::{OnMissingShards, Topology},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Names the shards that an answer lacks, as numbers with commas.
pub const MISSING_SHARDS_HEADER: &str = "x-miroir-missing-shards";

/// A search in one index.
#[derive(Debug)]
pub struct Search {
    topology: Arc<Topology>,
    index: String,
    head: RequestHead,
    body: Vec<u8>,
    request: Option<SearchRequest>,
    seed: u64,
    pending: BTreeMap<CallId, Ask>,
    /// Answers by the call that brought them, so that the merge does not depend on who was faster.
    parts: BTreeMap<CallId, (Ask, Vec<u8>)>,
    failed: BTreeSet<u16>,
    missing: Vec<Shard>,
    /// The answer to give if the client's own request finds no fault on a node.
    refusal: Option<Answer>,
    next_call: u32,
}

#[derive(Debug)]
enum Ask {
    /// A part of the search.
    Shards(u16, Vec<Shard>),
    /// The client's own request, for a node's own error.
    Native(u16),
}

impl Search {
    /// Starts a search. `head` and `body` are the client's; `request` is what they say, `None` where they cannot be
    /// understood, and then a node says why.
    #[must_use]
    pub fn start(
        topology: Arc<Topology>,
        index: String,
        head: RequestHead,
        body: Vec<u8>,
        request: Option<SearchRequest>,
    ) -> Progress<Self> {
        let seed = request.as_ref().map_or(0, |request| request.seed(&index, topology.version()));
        let shards: Vec<Shard> = topology.shards().collect();
        let machine = Self {
            topology,
            index,
            head,
            body,
            request,
            seed,
            pending: BTreeMap::new(),
            parts: BTreeMap::new(),
            failed: BTreeSet::new(),
            missing: Vec::new(),
            refusal: None,
            next_call: 0,
        };
        if machine.request.is_some() { machine.scatter(shards) } else { machine.ask_natively(None) }
    }

    /// Digests what became of one callout.
    #[must_use]
    pub fn digest(mut self, id: CallId, outcome: Outcome) -> Progress<Self> {
        let Some(ask) = self.pending.remove(&id) else {
            return Progress::Pending { machine: self, calls: Vec::new() };
        };
        match (ask, outcome) {
            (Ask::Native(node), outcome) => self.digest_native(node, outcome),
            (Ask::Shards(node, shards), Outcome::Answered(answer)) if answer.status == 200 => {
                self.parts.insert(id, (Ask::Shards(node, shards), answer.body));
                self.scatter(Vec::new())
            }
            (Ask::Shards(node, _), Outcome::Answered(answer)) if is_refusal(answer.status) => {
                self.refusal.get_or_insert(answer);
                self.ask_natively(Some(node))
            }
            (Ask::Shards(node, shards), _) => {
                self.failed.insert(node);
                self.scatter(shards)
            }
        }
    }

    /// Asks for these shards; merges once nothing is under way.
    fn scatter(mut self, shards: Vec<Shard>) -> Progress<Self> {
        let plan = fan_out::plan(&self.topology, shards, &self.failed, self.seed);
        self.missing.extend(plan.missing);
        let mut calls = Vec::with_capacity(plan.asks.len());
        for (node, shards) in plan.asks {
            let body = self.request.as_ref().map(|request| request.for_shards(&shards)).unwrap_or_default();
            let path = format!("/indexes/{}/search", query::encode(&self.index));
            calls.push(self.call(Ask::Shards(node, shards), "POST", path, body, true));
        }
        if self.pending.is_empty() { self.gather() } else { Progress::Pending { machine: self, calls } }
    }

    fn gather(mut self) -> Progress<Self> {
        let mut broken = None;
        let mut answers = Vec::with_capacity(self.parts.len());
        for (id, (ask, body)) in &self.parts {
            match NodeAnswer::read(body) {
                Ok(answer) => answers.push(answer),
                Err(_) => {
                    if let Ask::Shards(node, shards) = ask {
                        broken = Some((*id, *node, shards.clone()));
                    }
                }
            }
        }
        if let Some((id, node, shards)) = broken {
            drop(answers);
            self.parts.remove(&id);
            self.failed.insert(node);
            return self.scatter(shards);
        }
        let refuse = self.topology.config().on_missing_shards == OnMissingShards::Error;
        let (Some(request), false) =
            (&self.request, answers.is_empty() || (refuse && !self.missing.is_empty()))
        else {
            return Progress::Done(self.unavailable());
        };
        let reply = Reply::json(200, merge(request, &self.topology.index(&self.index), &answers));
        Progress::Done(self.with_missing(reply))
    }

    fn unavailable(&self) -> Reply {
        let error = ApiError::new(
            Code::UNAVAILABLE,
            format!(
                "No replica answers for {} of {} shards.",
                self.missing.len(),
                self.topology.shard_count()
            ),
        );
        self.with_missing(error.reply())
    }

    fn with_missing(&self, reply: Reply) -> Reply {
        if self.missing.is_empty() {
            return reply;
        }
        let mut missing: Vec<u16> = self.missing.iter().map(|shard| shard.0).collect();
        missing.sort_unstable();
        let missing: Vec<String> = missing.iter().map(u16::to_string).collect();
        reply.with_header(MISSING_SHARDS_HEADER, missing.join(","))
    }

    /// Sends the client's own request to a node, for the node's own words.
    fn ask_natively(mut self, preferred: Option<u16>) -> Progress<Self> {
        let nodes = 0..u16::try_from(self.topology.config().nodes.len()).unwrap_or(u16::MAX);
        let node = preferred.or_else(|| nodes.into_iter().find(|node| !self.failed.contains(node)));
        let Some(node) = node else {
            let error = ApiError::new(Code::UNAVAILABLE, "No node answers.");
            return Progress::Done(self.refusal.take().map_or_else(|| error.reply(), native_reply));
        };
        let method = if self.head.method == "GET" { "GET" } else { "POST" };
        let call = self.call(Ask::Native(node), method, self.head.path.clone(), self.body.clone(), false);
        Progress::Pending { machine: self, calls: vec![call] }
    }

    fn digest_native(mut self, node: u16, outcome: Outcome) -> Progress<Self> {
        match (outcome, self.refusal.take()) {
            (Outcome::Answered(answer), _) if is_refusal(answer.status) => {
                Progress::Done(native_reply(answer))
            }
            // The node took what could not be understood here: its answer would be a part of the truth only.
            (Outcome::Answered(Answer { status: 200, .. }), None) => Progress::Done(
                ApiError::new(Code::INTERNAL, "A node takes this query, but the cluster cannot read it.")
                    .reply(),
            ),
            (Outcome::Answered(Answer { status: 200, .. }), Some(refusal)) => {
                Progress::Done(native_reply(refusal))
            }
            (_, refusal) => {
                self.refusal = refusal;
                self.failed.insert(node);
                self.ask_natively(None)
            }
        }
    }

    fn call(&mut self, ask: Ask, method: &'static str, path: String, body: Vec<u8>, json: bool) -> Callout {
        let id = CallId(self.next_call);
        self.next_call += 1;
        let (Ask::Shards(node, _) | Ask::Native(node)) = ask;
        self.pending.insert(id, ask);
        let config = self.topology.config();
        let mut headers = forwarded_headers(&self.head, config.read_key.as_deref());
        let content_type = if json { Some("application/json") } else { self.head.header("content-type") };
        headers.extend(content_type.map(|value| ("content-type".to_owned(), value.to_owned())));
        let timeout_ms = config.limits.search_timeout_ms;
        Callout { id, upstream: Upstream::Node(node), method, path, headers, body, timeout_ms }
    }
}

/// Whether the node found fault with the request, not with itself.
fn is_refusal(status: u16) -> bool {
    (400..500).contains(&status) && !matches!(status, 408 | 429)
}

/// A node's error, for the client.
pub(crate) fn native_reply(answer: Answer) -> Reply {
    Reply::json(answer.status, scrub::error(&answer.body))
}

#[cfg(test)]
mod tests;
