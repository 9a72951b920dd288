//! The state machine of every read that concerns many shards: it scatters the query, replans around nodes that fail, and
//! gathers the answers.

mod asking;
pub mod begin;
mod context;
mod diagnosis;
mod estimate;
mod native;

pub(crate) use estimate::too_large;
pub use estimate::{Estimate, SMALL};

use crate::{
    content_type::ContentType,
    error::{Code, ErrorBody},
    http::{Answer, CallId, Outcome, Reply, RequestHead},
    progress::Progress,
    route::Route,
    scatter_query::{QuerySlice, ScatterQuery},
    scrub,
    search::request::{patterns, remotes},
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

/// Response header that lists the shards missing from an answer, as comma-separated numbers.
pub const MISSING_SHARDS_HEADER: &str = "x-miroir-missing-shards";

/// A read of many shards.
#[derive(Debug)]
pub struct Read {
    context: Context,
    phase: Phase,
}

/// What a read waits for.
#[derive(Debug)]
enum Phase {
    /// Nodes' answers to their slices of a scatter query.
    Asking(Asking),
    /// One node's answer to the client's own request.
    Native(Native),
}

impl Read {
    /// Starts a read. `head` and `body` are the client's. `understand` parses them, and returns `None` if it cannot; then a
    /// node says why.
    #[must_use]
    pub fn start(
        topology: Arc<Topology>,
        mut head: RequestHead,
        mut body: Vec<u8>,
        understand: impl FnOnce(&Topology, &RequestHead, &[u8]) -> Option<Box<dyn ScatterQuery>>,
    ) -> Progress<Self> {
        let (plain_path, plain_body) = (scrub::disguise_path(&head.path), scrub::disguise(&body));
        let disguised = plain_path.is_some() || plain_body.is_some();
        head.path = plain_path.unwrap_or(head.path);
        body = plain_body.unwrap_or(body);
        let (path, patterns) = patterns::disguise(&topology, &head, &body);
        let disguised = disguised || path.is_some() || patterns.is_some();
        head.path = path.unwrap_or(head.path);
        body = patterns.unwrap_or(body);
        // Nodes judge bodies of other types; requests that are made here always have JSON bodies.
        let readable = head.method == "GET" || ContentType::of(head.header("content-type")).is_json();
        let own = topology.config().server_name.as_deref();
        let readable = readable && !remotes::are_asked(&head, &body, own);
        let scatter_query = if readable { understand(&topology, &head, &body) } else { None };
        let indexes = indexes_of(&Route::of(&head.method, &head.path), &body);
        let hits = scatter_query.as_ref().map_or(0, |scatter_query| scatter_query.hits());
        let context = Context::new(topology, head, body, disguised, hits, indexes);
        match scatter_query {
            // There is nothing to ask nodes for; a node says whether the client may send the request.
            Some(scatter_query) if scatter_query.seeds().is_empty() => {
                Native::ask(context, Why::Answer, None, BTreeMap::new())
            }
            Some(scatter_query) => Asking::put(context, scatter_query),
            None => Native::ask(context, Why::Unread, None, BTreeMap::new()),
        }
    }

    /// Handles the result of one callout.
    #[must_use]
    pub fn digest(self, id: CallId, outcome: Outcome) -> Progress<Self> {
        match self.phase {
            Phase::Asking(asking) => asking.digest(self.context, id, outcome),
            Phase::Native(native) => native.digest(self.context, id, outcome),
        }
    }

    /// How long the read may take in total, in milliseconds.
    #[must_use]
    pub fn deadline_ms(&self) -> u64 {
        self.context.deadline_ms()
    }

    /// The shards that a pending callout asks for; none if it is the client's own request.
    #[must_use]
    pub fn asked_for(&self, id: CallId) -> Vec<Shard> {
        let asked = match &self.phase {
            Phase::Asking(asking) => asking.asked(id),
            Phase::Native(native) => native.asked(id),
        };
        let slices = asked.into_iter().flat_map(|asked| asked.slices.iter());
        let shards: BTreeSet<Shard> = slices.flat_map(|slice| slice.shards.iter().copied()).collect();
        shards.into_iter().collect()
    }

    /// The indexes whose settings affect the answer.
    #[must_use]
    pub fn indexes(&self) -> &[String] {
        &self.context.indexes
    }
}

/// What a node was asked for.
#[derive(Clone, Debug)]
struct Asked {
    node: u16,
    slices: Arc<[QuerySlice]>,
}

/// Whether the status reports a fault of the request, not of the node.
fn is_refusal(status: u16) -> bool {
    (400..500).contains(&status) && !matches!(status, 408 | 429)
}

/// Whether a node says that it does not have an index of the catalogue: it has lost its disk, and the control plane does not know it yet.
pub(crate) fn lacks_known_index(topology: &Topology, answer: &Answer) -> bool {
    let is_known = |error: ErrorBody| {
        let named = error.message.split_once("Index `").and_then(|(_, rest)| rest.split('`').next());
        error.code == Code::INDEX_NOT_FOUND.name()
            && named.is_some_and(|name| topology.config().indexes.contains_key(name))
    };
    answer.status == 404 && serde_json::from_slice(&answer.body).is_ok_and(is_known)
}

/// A node's error, for the client.
pub(crate) fn node_error_reply(answer: Answer) -> Reply {
    Reply::json(answer.status, scrub::error(&answer.body))
}

#[cfg(test)]
mod deep_hybrid_tests;
#[cfg(test)]
mod deep_tests;
#[cfg(test)]
mod stale_tests;
#[cfg(test)]
mod stand_in_tests;
#[cfg(test)]
mod tests;
