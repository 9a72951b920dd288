//! The machine of every read that concerns many shards: scatter, plan again around nodes that fail, gather.

mod asking;
pub mod begin;
mod context;
mod estimate;
mod native;
mod refusals;

pub(crate) use estimate::too_large;
pub use estimate::{Estimate, SMALL};

use crate::{
    content_type::ContentType,
    http::{Answer, CallId, Outcome, Reply, RequestHead},
    progress::Progress,
    question::{Portion, Question},
    route::Route,
    scrub,
    search::{patterns, remotes},
    settings_changes::indexes_of,
    shard::Shard,
    topology::Topology,
};
use asking::Asking;
use context::Context;
use native::{Native, Why};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Names the shards that an answer lacks, as numbers with commas.
pub const MISSING_SHARDS_HEADER: &str = "x-miroir-missing-shards";

/// A read.
#[derive(Debug)]
pub struct Read {
    context: Context,
    phase: Phase,
}

/// What a read waits for.
#[derive(Debug)]
enum Phase {
    /// Nodes' answers to their portions of a question.
    Asking(Asking),
    /// One node's answer to the client's own request.
    Native(Native),
}

impl Read {
    /// Starts a read. `head` and `body` are the client's; `understand` says what they mean, `None` where they cannot be
    /// understood, and then a node says why.
    #[must_use]
    pub fn start(
        topology: Arc<Topology>,
        mut head: RequestHead,
        mut body: Vec<u8>,
        understand: impl FnOnce(&Topology, &RequestHead, &[u8]) -> Option<Box<dyn Question>>,
    ) -> Progress<Self> {
        let (plain_path, plain_body) = (scrub::disguise_path(&head.path), scrub::disguise(&body));
        let disguised = plain_path.is_some() || plain_body.is_some();
        head.path = plain_path.unwrap_or(head.path);
        body = plain_body.unwrap_or(body);
        let (path, patterns) = patterns::disguise(&topology, &head, &body);
        let disguised = disguised || path.is_some() || patterns.is_some();
        head.path = path.unwrap_or(head.path);
        body = patterns.unwrap_or(body);
        // A node judges other types of bodies; what it is asked here is always JSON.
        let readable = head.method == "GET" || ContentType::of(head.header("content-type")).is_json();
        let own = topology.config().server_name.as_deref();
        let readable = readable && !remotes::are_asked(&head, &body, own);
        let question = if readable { understand(&topology, &head, &body) } else { None };
        let indexes = indexes_of(&Route::of(&head.method, &head.path), &body);
        let hits = question.as_ref().map_or(0, |question| question.hits());
        let context = Context::new(topology, head, body, disguised, hits, indexes);
        match question {
            // There is nothing to ask; a node says whether the client may ask it.
            Some(question) if question.seeds().is_empty() => {
                Native::ask(context, Why::Answer, None, BTreeMap::new())
            }
            Some(question) => Asking::put(context, question),
            None => Native::ask(context, Why::Unread, None, BTreeMap::new()),
        }
    }

    /// Digests what became of one callout.
    #[must_use]
    pub fn digest(self, id: CallId, outcome: Outcome) -> Progress<Self> {
        match self.phase {
            Phase::Asking(asking) => asking.digest(self.context, id, outcome),
            Phase::Native(native) => native.digest(self.context, id, outcome),
        }
    }

    /// How long it may take in all, milliseconds.
    #[must_use]
    pub fn deadline_ms(&self) -> u64 {
        self.context.deadline_ms()
    }

    /// The shards that a callout under way asks for; none where it is the client's own request.
    #[must_use]
    pub fn asked_for(&self, id: CallId) -> Vec<Shard> {
        let asked = match &self.phase {
            Phase::Asking(asking) => asking.asked(id),
            Phase::Native(native) => native.asked(id),
        };
        let portions = asked.into_iter().flat_map(|asked| asked.portions.iter());
        let shards: BTreeSet<Shard> = portions.flat_map(|portion| portion.shards.iter().copied()).collect();
        shards.into_iter().collect()
    }

    /// The indexes whose settings matter to the answer.
    #[must_use]
    pub fn indexes(&self) -> &[String] {
        &self.context.indexes
    }
}

/// What a node was asked for.
#[derive(Clone, Debug)]
struct Asked {
    node: u16,
    portions: Arc<[Portion]>,
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
mod deep_hybrid_tests;
#[cfg(test)]
mod deep_tests;
#[cfg(test)]
mod tests;
