//! What every phase of a read goes by: the client's request, and what is known of the nodes.

use super::{Asked, MISSING_SHARDS_HEADER, node_error_reply};
use crate::{
    error::{ApiError, Code},
    http::{Answer, CallId, Callout, Reply, RequestHead, Upstream, forwarded_headers},
    path::ApiPath,
    scatter_query::{Key, NodeRequest},
    scrub,
    search::request::patterns,
    shard::Shard,
    topology::Topology,
};
use std::{collections::BTreeSet, sync::Arc};

/// A read, but for what it waits for.
#[derive(Debug)]
pub(super) struct Context {
    pub topology: Arc<Topology>,
    /// The client's request.
    pub head: RequestHead,
    /// Its body.
    pub body: Vec<u8>,
    /// Whether the client's request mentioned the tag, so that its name must be put back into answers.
    disguised: bool,
    /// Number of hits up to the end of the page.
    hits: u64,
    /// The indexes whose settings affect the answer.
    pub indexes: Vec<String>,
    /// Nodes that have not answered, or not so that it could be read.
    pub failed: BTreeSet<u16>,
    /// Nodes that were given up. They are asked again if the others fail.
    pub late: BTreeSet<u16>,
    /// Shards that no node is left for.
    pub missing: BTreeSet<Shard>,
    /// The node that can best say what is wrong with the client's own request.
    pub owner: Option<u16>,
    next_call: u32,
}

impl Context {
    pub fn new(
        topology: Arc<Topology>,
        head: RequestHead,
        body: Vec<u8>,
        disguised: bool,
        hits: u64,
        indexes: Vec<String>,
    ) -> Self {
        Self {
            topology,
            head,
            body,
            disguised,
            hits,
            indexes,
            failed: BTreeSet::new(),
            late: BTreeSet::new(),
            missing: BTreeSet::new(),
            owner: None,
            next_call: 0,
        }
    }

    pub fn deadline_ms(&self) -> u64 {
        self.topology.config().limits.search_deadline_of(self.bytes(), self.hits)
    }

    fn bytes(&self) -> usize {
        self.head.query().len().saturating_add(self.body.len())
    }

    /// A node's slices of a scatter query.
    pub fn part(&mut self, asked: &Asked, request: NodeRequest) -> Callout {
        let NodeRequest { path, body, key } = request;
        let config = self.topology.config();
        let headers = match (key, &config.internal_key) {
            (Key::Internal, Some(key)) => vec![("authorization".to_owned(), format!("Bearer {key}"))],
            _ => forwarded_headers(&self.head, config.read_key.as_deref()),
        };
        self.call(asked.node, "POST", path, body, headers, Some("application/json".to_owned()))
    }

    /// The client's own request to a node.
    pub fn native(&mut self, node: u16) -> Callout {
        let method = if self.head.method == "GET" { "GET" } else { "POST" };
        let (path, body) = (self.head.path.clone(), self.body.clone());
        let headers = forwarded_headers(&self.head, self.topology.config().read_key.as_deref());
        // If the body could not be decoded, it is still encoded as the client sent it.
        let encoding =
            self.head.header("content-encoding").map(|it| ("content-encoding".to_owned(), it.to_owned()));
        let headers = headers.into_iter().chain(encoding).collect();
        let content_type = self.head.header("content-type").map(str::to_owned);
        self.call(node, method, path, body, headers, content_type)
    }

    fn call(
        &mut self,
        node: u16,
        method: &'static str,
        path: ApiPath,
        body: Vec<u8>,
        mut headers: Vec<(String, String)>,
        content_type: Option<String>,
    ) -> Callout {
        let id = CallId(self.next_call);
        self.next_call += 1;
        headers.extend(content_type.map(|value| ("content-type".to_owned(), value)));
        let timeout_ms = self.topology.config().limits.search_timeout_of(self.bytes(), self.hits);
        Callout {
            id,
            upstream: Upstream::Node(node),
            method,
            path,
            headers,
            body,
            timeout_ms,
            has_stand_in: false,
        }
    }

    pub fn unavailable(&self) -> Reply {
        let (missing, all) = (self.missing.len(), self.topology.shard_count());
        let message = format!("No replica answers for {missing} of {all} shards.");
        self.with_missing(ApiError::new(Code::UNAVAILABLE, message).reply())
    }

    pub fn with_missing(&self, reply: Reply) -> Reply {
        if self.missing.is_empty() {
            return reply;
        }
        let missing: Vec<String> = self.missing.iter().map(|shard| shard.0.to_string()).collect();
        reply.with_header(MISSING_SHARDS_HEADER, missing.join(","))
    }

    /// A node's error, for the client.
    pub fn refused(&self, answer: Answer) -> Reply {
        let mut reply = node_error_reply(answer);
        reply.body = scrub::hidden_attributes(reply.body, |index| {
            let only = || self.indexes.first().filter(|_| self.indexes.len() == 1).map(String::as_str);
            let filterable = self.topology.index(index.or_else(only)?).filterable?;
            Some(filterable.iter().map(|it| it.text().to_owned()).collect())
        });
        self.revealed(reply)
    }

    /// What the client sees of a reply, where its request mentioned the tag.
    pub fn revealed(&self, mut reply: Reply) -> Reply {
        if self.disguised {
            reply.body = patterns::reveal(scrub::reveal(&reply.body));
        }
        reply
    }
}
