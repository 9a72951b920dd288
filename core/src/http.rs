//! HTTP as core sees it: plain data, without a client or a server.

use crate::path::ApiPath;

/// A client's request, as the filter received it. The body is not part of it, because bodies of writes are streamed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHead {
    /// In upper case, as on the wire.
    pub method: String,
    /// Path and query.
    pub path: ApiPath,
    /// Headers, with names in lower case.
    pub headers: Vec<(String, String)>,
}

impl RequestHead {
    /// The first value of a header. `name` must be in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The query string; empty if there is none.
    #[must_use]
    pub fn query(&self) -> &str {
        self.path.query()
    }
}

/// Where a callout goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Upstream {
    /// A Meilisearch node, by its position in the topology.
    Node(u16),
    /// The control plane.
    Control,
}

/// Identifies a callout within its operation, which chooses the id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub u32);

/// A request that an operation wants sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callout {
    /// Returned with the answer.
    pub id: CallId,
    /// Where the request goes.
    pub upstream: Upstream,
    /// In upper case.
    pub method: &'static str,
    /// Path and query.
    pub path: ApiPath,
    /// The headers besides `:method`, `:path` and `:authority`, which the host sets.
    pub headers: Vec<(String, String)>,
    /// Empty if there is no body.
    pub body: Vec<u8>,
    /// How long the host waits, in milliseconds, before it reports [`Outcome::Failed`].
    pub timeout_ms: u64,
    /// Whether other nodes can be asked for the same: then the host may report [`Outcome::GivenUp`] sooner.
    pub has_stand_in: bool,
}

/// The result of a callout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The upstream answered, with any status.
    Answered(Answer),
    /// No complete answer came: the connection was refused or reset, or the request timed out.
    Failed,
    /// No answer came soon, and others can be asked: see [`Callout::has_stand_in`]. Had the host waited, one might have come.
    GivenUp,
}

/// An upstream's complete answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Headers, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first value of a header. `name` must be in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

/// The answer that the client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers, with names in lower case.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Reply {
    /// A JSON answer.
    #[must_use]
    pub fn json(status: u16, body: Vec<u8>) -> Self {
        Self { status, headers: vec![("content-type".into(), "application/json".into())], body }
    }

    /// The same answer with one more header.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }
}

fn header<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// The headers of a client's read that are forwarded to nodes: those that a node needs to judge the request.
///
/// `read_key` is used if the client sends no key.
#[must_use]
pub fn forwarded_headers(head: &RequestHead, read_key: Option<&str>) -> Vec<(String, String)> {
    const FORWARDED: [&str; 5] = [
        "authorization",
        "meili-include-metadata",
        "x-meilisearch-client",
        "x-meilisearch-api-key",
        "user-agent",
    ];
    let is_forwarded = |name: &str| FORWARDED.contains(&name);
    let mut headers: Vec<(String, String)> =
        head.headers.iter().filter(|(name, _)| is_forwarded(name)).cloned().collect();
    if let (None, Some(key)) = (head.header("authorization"), read_key) {
        headers.push(("authorization".to_owned(), format!("Bearer {key}")));
    }
    headers
}
