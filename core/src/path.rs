//! Paths of Meilisearch's API: parsed once from what a client sent, and encoded in this module only.
//!
//! A parsed path can be written into another request: it names what the client named, however the client encoded it, and cannot
//! name anything else.

use crate::query::{decode_segment, encode, encode_value, pairs};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{
    cell::Cell,
    fmt::{self, Display, Formatter},
};

/// A path with its query. It has one written form: each segment, name and value is percent-encoded, except for the unreserved
/// characters of RFC 3986, and for commas in values; there is one slash between segments and none at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ApiPath {
    /// Decoded; no segment is empty.
    segments: Vec<String>,
    /// In written form.
    query: String,
}

/// The longest request target that a node takes, in bytes.
const LONGEST_TARGET: usize = 65_534;

/// A request target that is not a valid HTTP path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the path has characters that are not allowed in a path, or is too long")]
pub struct InvalidPath;

impl ApiPath {
    /// Builds a path from segments, each given as text: no text can break out of its segment. Empty segments are left out, as
    /// nodes do.
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

    /// Parses a request's target as a node does: dots and backslashes are ordinary characters, repeated slashes count as one,
    /// and a `#` with all that follows it is dropped.
    ///
    /// Source: Meilisearch 1.50 with `http` 0.2 (`PathAndQuery::from_shared`), `actix-router` 0.5 (`Quoter`) and
    /// `actix-web`'s `NormalizePath`.
    ///
    /// # Errors
    /// A node's HTTP server would refuse the target with 400 and no body.
    pub fn parse(target: &str) -> Result<Self, InvalidPath> {
        if target.len() > LONGEST_TARGET {
            return Err(InvalidPath);
        }
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

    /// The same path with one more query parameter.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        if !self.query.is_empty() {
            self.query.push('&');
        }
        self.query.push_str(&encode(name));
        self.query.push('=');
        self.query.push_str(&encode_value(value));
        self
    }

    /// The same path with the query of another one.
    #[must_use]
    pub fn with_query_of(mut self, other: &Self) -> Self {
        self.query.clone_from(&other.query);
        self
    }

    /// The path without the parameters of this name.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        let query = std::mem::take(&mut self.query);
        pairs(&query)
            .filter(|(found, _)| found != name)
            .fold(self, |path, (name, value)| path.with(&name, &value))
    }

    /// The path with these segments put before its own; it keeps its query.
    #[must_use]
    pub fn below(mut self, parents: &Self) -> Self {
        self.segments.splice(..0, parents.segments.iter().cloned());
        self
    }

    /// The path with each segment, name and value replaced where `rewrite` returns a replacement; `None` if it returns none at
    /// all.
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

    /// The path without these leading segments, with its query: the reverse of [`Self::below`]. `None` if the path does not
    /// begin with them.
    #[must_use]
    pub fn beneath(&self, parents: &Self) -> Option<Self> {
        let segments = self.segments.strip_prefix(parents.segments.as_slice())?.to_vec();
        Some(Self { segments, query: self.query.clone() })
    }

    /// The decoded segments; none for `/`.
    #[must_use]
    pub fn segments(&self) -> Vec<&str> {
        self.segments.iter().map(String::as_str).collect()
    }

    /// The query in written form, without the question mark; empty if there is none.
    #[must_use]
    pub fn query(&self) -> &str {
        &self.query
    }

    /// The path in written form, without the query.
    #[must_use]
    pub fn route(&self) -> String {
        if self.segments.is_empty() {
            return "/".to_owned();
        }
        self.segments.iter().flat_map(|segment| ["/".to_owned(), encode(segment)]).collect()
    }

    /// The index that the path names.
    #[must_use]
    pub fn index(&self) -> Option<&str> {
        match self.segments.as_slice() {
            [first, index, ..] if first == "indexes" => Some(index),
            _ => None,
        }
    }

    /// Whether a segment is `.` or `..`. Nodes take these as names, but URL parsers resolve them, even if they are encoded.
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

/// A path that is written in the source code; its text must be valid.
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
            ("/tasks?uids=1,2%2C3", "/tasks?uids=1,2,3"),
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
    fn a_target_may_be_as_long_as_nodes_take_it() {
        let target = |length: usize| format!("/tasks?uids={}", "1".repeat(length - "/tasks?uids=".len()));
        assert!(ApiPath::parse(&target(LONGEST_TARGET)).is_ok());
        assert_eq!(ApiPath::parse(&target(LONGEST_TARGET + 1)), Err(InvalidPath));
    }

    #[test]
    fn a_parameter_is_left_out_however_it_was_written() {
        let path = ApiPath::parse("/x?a=1&%62=2&b=3&c&b").unwrap();
        assert_eq!(path.without("b").to_string(), "/x?a=1&c=");
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
