//! HTTP as core sees it: plain data, no client and no server.

/// A request from a client, as the filter received it. The body travels apart, since writes stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHead {
    /// Upper case, as on the wire.
    pub method: String,
    /// Path and query, percent-encoded, starting with `/`.
    pub path: String,
    /// Header names in lower case.
    pub headers: Vec<(String, String)>,
}

impl RequestHead {
    /// The first value of a header. `name` is lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        header(&self.headers, name)
    }

    /// The same with a path as nodes read it: one slash for several, none at the end.
    #[must_use]
    pub fn normalized(mut self) -> Self {
        let (route, query) = self.path.split_once('?').map_or((&*self.path, None), |(r, q)| (r, Some(q)));
        if route.contains("//") || route.ends_with('/') {
            let mut path = String::with_capacity(self.path.len());
            for segment in route.split('/').filter(|segment| !segment.is_empty()) {
                path.push('/');
                path.push_str(segment);
            }
            if path.is_empty() {
                path.push('/');
            }
            if let Some(query) = query {
                path.push('?');
                path.push_str(query);
            }
            self.path = path;
        }
        self
    }

    /// Path without the query.
    #[must_use]
    pub fn route(&self) -> &str {
        self.path.split_once('?').map_or(self.path.as_str(), |(route, _)| route)
    }

    /// The query's text, empty where there is none.
    #[must_use]
    pub fn query(&self) -> &str {
        self.path.split_once('?').map_or("", |(_, query)| query)
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
    pub path: String,
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

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn paths_as_nodes_read_them() {
        for (path, expected) in [
            ("/indexes/x/search", "/indexes/x/search"),
            ("/indexes/x/search/", "/indexes/x/search"),
            ("//indexes///x/search//?q=a//b/", "/indexes/x/search?q=a//b/"),
            ("/", "/"),
            ("//?q", "/?q"),
        ] {
            let head = RequestHead { path: path.to_owned(), ..RequestHead::default() };
            assert_eq!(head.normalized().path, expected);
        }
    }
}
