//! Paths of Meilisearch's API: read once from what a client sent, and written from text that is encoded here only.
//!
//! A path that was read can be written into another request: it names what the client named, however the client spelt it, and
//! cannot name anything else.

use crate::query::{decode_segment, encode, pairs};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{
    cell::Cell,
    fmt::{self, Display, Formatter},
};

/// A path and its query, as text. It is written in one way: each segment, name and value percent-encoded, but for the
/// unreserved characters of RFC 3986; one slash between segments, none at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ApiPath {
    /// Decoded; none is empty.
    segments: Vec<String>,
    /// As it is written.
    query: String,
}

/// A request's target that is no path of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path has characters that a path cannot have")]
pub struct InvalidPath;

impl ApiPath {
    /// The path of these segments, each as text: what is in one cannot end it. Empty ones are left out, as nodes read them.
    pub fn new<'a>(segments: impl IntoIterator<Item = &'a str>) -> Self {
        let segments =
            segments.into_iter().filter(|segment| !segment.is_empty()).map(str::to_owned).collect();
        Self { segments, query: String::new() }
    }

    /// A path below an index: `/indexes/{index}/{rest}`.
    #[must_use]
    pub fn of_index(index: &str, rest: &[&str]) -> Self {
        Self::new(["indexes", index].into_iter().chain(rest.iter().copied()))
    }

    /// Reads a request's target as a node reads it: dots and backslashes are letters like others, several slashes are one,
    /// and what follows a `#` is nothing.
    ///
    /// Source: Meilisearch 1.50 with `http` 0.2 (`PathAndQuery::from_shared`), `actix-router` 0.5 (`Quoter`) and
    /// `actix-web`'s `NormalizePath`.
    ///
    /// # Errors
    /// A node's HTTP server refuses it: 400, without a body.
    pub fn parse(target: &str) -> Result<Self, InvalidPath> {
        let target = target.split('#').next().unwrap_or_default();
        let (route, query) = target.split_once('?').unwrap_or((target, ""));
        let is_text = |text: &str, refused: &[u8]| {
            text.bytes().all(|byte| matches!(byte, b'!'..=b'~') && !refused.contains(&byte))
        };
        if !route.starts_with('/') || !is_text(route, b"<>`") || !is_text(query, b"<>\"") {
            return Err(InvalidPath);
        }
        let segments = route.split('/').filter(|segment| !segment.is_empty()).map(decode_segment).collect();
        let path = Self { segments, query: String::new() };
        Ok(pairs(query).fold(path, |path, (name, value)| path.with(&name, &value)))
    }

    /// The same with one more parameter of the query.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        if !self.query.is_empty() {
            self.query.push('&');
        }
        self.query.push_str(&encode(name));
        self.query.push('=');
        self.query.push_str(&encode(value));
        self
    }

    /// The same with the query of another.
    #[must_use]
    pub fn with_query_of(mut self, other: &Self) -> Self {
        self.query.clone_from(&other.query);
        self
    }

    /// The path below these segments, with its query.
    #[must_use]
    pub fn below(mut self, parents: &Self) -> Self {
        self.segments.splice(..0, parents.segments.iter().cloned());
        self
    }

    /// The same with each segment, name and value as `rewrite` gives it, where it gives one; `None` where it gives none at all.
    #[must_use]
    pub fn rewritten(&self, rewrite: impl Fn(&str) -> Option<String>) -> Option<Self> {
        let is_rewritten = Cell::new(false);
        let text = |text: &str| match rewrite(text) {
            Some(other) => {
                is_rewritten.set(true);
                other
            }
            None => text.to_owned(),
        };
        let segments = self.segments.iter().map(|segment| text(segment)).collect();
        let path = Self { segments, query: String::new() };
        let path =
            pairs(&self.query).fold(path, |path, (name, value)| path.with(&text(&name), &text(&value)));
        is_rewritten.get().then_some(path)
    }

    /// What is below these segments, with the query: the reverse of [`Self::below`]. `None` where it is elsewhere.
    #[must_use]
    pub fn beneath(&self, parents: &Self) -> Option<Self> {
        let segments = self.segments.strip_prefix(parents.segments.as_slice())?.to_vec();
        Some(Self { segments, query: self.query.clone() })
    }

    /// The segments, decoded; none for `/`.
    #[must_use]
    pub fn segments(&self) -> Vec<&str> {
        self.segments.iter().map(String::as_str).collect()
    }

    /// The query as it is written, without its question mark; empty where there is none.
    #[must_use]
    pub fn query(&self) -> &str {
        &self.query
    }

    /// The path as it is written, without the query.
    #[must_use]
    pub fn route(&self) -> String {
        if self.segments.is_empty() {
            return "/".to_owned();
        }
        self.segments.iter().flat_map(|segment| ["/".to_owned(), encode(segment)]).collect()
    }

    /// The index that it names.
    #[must_use]
    pub fn index(&self) -> Option<&str> {
        match self.segments.as_slice() {
            [first, index, ..] if first == "indexes" => Some(index),
            _ => None,
        }
    }

    /// Whether a segment is `.` or `..`. Nodes take these for names; URL parsers resolve them, however they are encoded.
    #[must_use]
    pub fn has_dots(&self) -> bool {
        self.segments.iter().any(|segment| segment == "." || segment == "..")
    }
}

impl Display for ApiPath {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.route())?;
        if self.query.is_empty() { Ok(()) } else { write!(f, "?{}", self.query) }
    }
}

/// A path that is written in the program; its text must be one.
impl From<&'static str> for ApiPath {
    fn from(text: &'static str) -> Self {
        Self::parse(text).unwrap_or_default()
    }
}

impl Serialize for ApiPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ApiPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_path_is_read_as_nodes_read_it_and_written_in_one_way() {
        for (read, written) in [
            ("/", "/"),
            ("//?q", "/?q="),
            ("//indexes///x/search//?q=a//b/", "/indexes/x/search?q=a%2F%2Fb%2F"),
            ("/%69ndexes/%78/documents/a%2fb", "/indexes/x/documents/a%2Fb"),
            (r"/indexes/alpha/documents/..\..\beta?x=1", "/indexes/alpha/documents/..%5C..%5Cbeta?x=1"),
            ("/indexes/beta%2fstats%23/..", "/indexes/beta%2Fstats%23/.."),
            ("/indexes/%2e%2E/stats", "/indexes/../stats"),
            ("/indexes/a%zz/%2", "/indexes/a%25zz/%252"),
            ("/keys/%ff", "/keys/%EF%BF%BD"),
            ("/indexes/a;b=c/stats", "/indexes/a%3Bb%3Dc/stats"),
            ("/indexes/x/search#/../keys?a", "/indexes/x/search"),
            ("/x?a=b+c&&d&e=%26%3D&a=%C3%A9", "/x?a=b%20c&d=&e=%26%3D&a=%C3%A9"),
        ] {
            let path = ApiPath::parse(read).unwrap();
            assert_eq!(path.to_string(), written, "{read}");
            assert_eq!(ApiPath::parse(written).unwrap(), path, "{read}");
        }
        for refused in [
            "",
            "x",
            "*",
            "http://a/",
            "/a b",
            "/a\nb",
            "/a\0",
            "/<x>",
            "/x?<",
            "/x?a b",
            "/é",
            "/x?é",
            "/x?\"",
            "/a`b",
        ] {
            assert_eq!(ApiPath::parse(refused), Err(InvalidPath), "{refused:?}");
        }
    }

    #[test]
    fn text_in_a_segment_stays_in_it() {
        for text in ["a/b", "..", "a?b=c", "a#b", "a%2Fb", "a\\b", "\0", "é", " "] {
            let path = ApiPath::of_index(text, &["documents"]).with("filter", text);
            let back = ApiPath::parse(&path.to_string()).unwrap();
            assert_eq!(back.segments(), ["indexes", text, "documents"]);
            assert_eq!((back.index(), &back), (Some(text), &path));
        }
        assert!(ApiPath::of_index("..", &[]).has_dots() && !ApiPath::of_index("..a", &[]).has_dots());
        let below = ApiPath::of_index("a", &["stats"]).with("x", "y").below(&"/_miroir/refusal".into());
        assert_eq!(below.to_string(), "/_miroir/refusal/indexes/a/stats?x=y");
        assert_eq!(below.beneath(&"/_miroir/refusal".into()).unwrap().to_string(), "/indexes/a/stats?x=y");
        assert_eq!(below.beneath(&"/other".into()), None);
    }
}
