//! HTTP as core sees it: plain data, no client and no server.

use crate::path::ApiPath;

/// A request from a client, as the filter received it. The body travels apart, since writes stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHead {
    /// Upper case, as on the wire.
    pub method: String,
    /// Path and query.
    pub path: ApiPath,
    /// Header names in lower case.
    pub headers: Vec<(String, String)>,
}

impl RequestHead {
    /// The first value of a header. `name` is lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The query's text, empty where there is none.
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

/// Names a callout inside its operation; the operation chooses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub u32);

/// A request that an operation wants sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Callout {
    /// Comes back with the answer.
    pub id: CallId,
    /// Who is asked.
    pub upstream: Upstream,
    /// Upper case.
    pub method: &'static str,
    /// Path and query.
    pub path: ApiPath,
    /// Besides `:method`, `:path` and `:authority`, which the host sets.
    pub headers: Vec<(String, String)>,
    /// Empty for none.
    pub body: Vec<u8>,
    /// How long the host waits, in milliseconds, before it gives [`Outcome::Failed`].
    pub timeout_ms: u64,
}

/// What became of a callout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An upstream answered, whatever the status.
    Answered(Answer),
    /// No whole answer came: refused, reset, timed out.
    Failed,
}

/// An upstream's whole answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Header names in lower case.
    pub headers: Vec<(String, String)>,
    /// The whole body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first value of a header. `name` is lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }
}

/// What the client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Header names in lower case.
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

/// The headers that travel from a client's read to the nodes: what a node needs to judge the request.
///
/// `read_key` stands in where the client sends no key.
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
