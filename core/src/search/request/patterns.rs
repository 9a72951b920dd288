//! Patterns of attribute names: finds the facets that a client requests by patterns, and keeps patterns from matching only the
//! shard tag.
//!
//! A node accepts a pattern that matches one of the index's filterable attributes, and refuses any other. The tag is filterable
//! on every node. If a pattern matches nothing but the tag (`_*`, `*shard`, or `*` if nothing else is filterable), its star is
//! replaced by a letter that matches nothing, so that nodes refuse it with their own message.
//!
//! Source: Meilisearch 1.50, `milli/src/attribute_patterns.rs` and `intersect_patterns` in `milli/src/filterable_attributes_rules.rs`.

use crate::{
    http::RequestHead,
    path::ApiPath,
    query::{last_pairs, members, pairs},
    route::Route,
    shard::TAG_FIELD,
    topology::{Filterable, Topology},
};
use memchr::{memchr, memmem};
use serde_json::{Map, Value};

/// Replaces the star in a pattern that must match nothing; from a private use area of Unicode.
const STAND_IN: &str = "\u{f8fe}";

/// Whether a pattern matches a name or one of the objects that contain it.
#[must_use]
pub fn fits(pattern: &str, name: &str) -> bool {
    let starred = match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(""), _) => true,
        (Some(rest), Some(_)) => name.contains(rest.strip_suffix('*').unwrap_or_default()),
        (Some(end), None) => name.ends_with(end),
        (None, Some(start)) => name.starts_with(start),
        (None, None) => pattern == name,
    };
    starred || is_parent(name, pattern)
}

/// Whether `parent` is `name`, or an object that contains it.
fn is_parent(parent: &str, name: &str) -> bool {
    name.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Whether a pattern of facets matches a filterable attribute or pattern.
fn meets(facet: &str, filterable: &Filterable) -> bool {
    let text = filterable.text();
    let is_within = match filterable {
        Filterable::Name(name) => is_parent(name, facet),
        Filterable::Pattern { pattern } => fits(pattern, facet),
    };
    is_within || fits(facet, text) || is_parent(facet, text)
}

/// The replacement for a pattern that matches nothing but the tag. `filterable` is the client's setting; `None` if it is not
/// known.
fn disguised(facet: &str, filterable: Option<&[Filterable]>) -> Option<String> {
    let unknown = fits(facet, TAG_FIELD) && !filterable?.iter().any(|of| meets(facet, of));
    (unknown && facet.contains('*')).then(|| facet.replace('*', STAND_IN))
}

/// Puts the client's patterns back into the answer to a disguised request.
#[must_use]
pub fn reveal(body: Vec<u8>) -> Vec<u8> {
    if memmem::find(&body, STAND_IN.as_bytes()).is_none() {
        return body;
    }
    String::from_utf8(body)
        .map_or_else(|error| error.into_bytes(), |text| text.replace(STAND_IN, "*").into_bytes())
}

/// Replaces patterns that match only the tag in a read: returns the path and the body, each if it was changed.
#[must_use]
pub fn disguise(topology: &Topology, head: &RequestHead, body: &[u8]) -> (Option<ApiPath>, Option<Vec<u8>>) {
    let of = |index: &str, facet: &str| disguised(facet, topology.index(index).filterable.as_deref());
    match Route::of(&head.method, &head.path) {
        Route::Search { index } if head.method == "GET" => {
            (in_query(&head.path, |facet| of(&index, facet)), None)
        }
        Route::Search { .. } | Route::MultiSearch if memchr(b'*', body).is_none() => (None, None),
        Route::Search { index } => (None, in_body(body, |body| in_facets(body, |facet| of(&index, facet)))),
        Route::MultiSearch => (None, in_body(body, |body| in_multi_search(body, of))),
        _ => (None, None),
    }
}

fn in_query(path: &ApiPath, of: impl Fn(&str) -> Option<String>) -> Option<ApiPath> {
    let facets = last_pairs(path.query()).remove("facets")?;
    members(&facets).find_map(&of)?;
    let facets: Vec<String> =
        members(&facets).map(|facet| of(facet).unwrap_or_else(|| facet.to_owned())).collect();
    let others = pairs(path.query()).filter(|(name, _)| name != "facets");
    let bare = ApiPath::new(path.segments());
    let path = others.fold(bare, |path, (name, value)| path.with(&name, &value));
    Some(path.with("facets", &facets.join(",")))
}

fn in_body(body: &[u8], rewrite: impl FnOnce(&mut Map<String, Value>) -> bool) -> Option<Vec<u8>> {
    memmem::find(body, b"acet")?;
    let mut body: Map<String, Value> = serde_json::from_slice(body).ok()?;
    rewrite(&mut body).then(|| serde_json::to_vec(&body).ok())?
}

fn in_facets(query: &mut Map<String, Value>, of: impl Fn(&str) -> Option<String>) -> bool {
    query.get_mut("facets").is_some_and(|facets| in_list(facets, of))
}

fn in_list(facets: &mut Value, of: impl Fn(&str) -> Option<String>) -> bool {
    let mut is_rewritten = false;
    for facet in facets.as_array_mut().into_iter().flatten() {
        if let Some(other) = facet.as_str().and_then(&of) {
            *facet = Value::String(other);
            is_rewritten = true;
        }
    }
    is_rewritten
}

fn in_multi_search(body: &mut Map<String, Value>, of: impl Fn(&str, &str) -> Option<String>) -> bool {
    let mut is_rewritten = false;
    for query in body.get_mut("queries").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(query) = query.as_object_mut() else { continue };
        // A node refuses a query without an index, whatever its facets are.
        let index = query.get("indexUid").and_then(Value::as_str).unwrap_or("").to_owned();
        is_rewritten |= in_facets(query, |facet| of(&index, facet));
    }
    let by_index = body.get_mut("federation").and_then(|federation| federation.get_mut("facetsByIndex"));
    for (index, facets) in by_index.and_then(Value::as_object_mut).into_iter().flatten() {
        is_rewritten |= in_list(facets, |facet| of(index, facet));
    }
    is_rewritten
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn topology(filterable: &Value) -> Topology {
        let config = json!({"schema": 1, "version": 1, "nodes": [{"name": "a", "cluster": "a"}], "placement": [[0]],
            "indexes": {"i": {"filterable": filterable}, "j": {}}});
        Topology::from_json(config.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn names_fit_patterns_as_on_a_node() {
        for (pattern, name, expected) in [
            ("*", "x", true),
            ("**", "x", true),
            ("a*", "ab", true),
            ("*b", "ab", true),
            ("*b*", "abc", true),
            ("a", "a", true),
            ("a.b", "a", true),
            ("a", "a.b", false),
            ("a*", "b", false),
            ("ab", "a", false),
        ] {
            assert_eq!(fits(pattern, name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn a_pattern_that_meets_the_tag_alone_meets_nothing() {
        let of = |facet: &str, filterable: &[&str]| {
            let pattern = |it: &&str| Filterable::Pattern { pattern: (*it).to_owned() };
            disguised(facet, Some(&filterable.iter().map(pattern).collect::<Vec<_>>())).is_some()
        };
        let of_name =
            |facet: &str, name: &str| disguised(facet, Some(&[Filterable::Name(name.to_owned())])).is_some();
        assert!(
            of_name("_*", "*") && !of_name("*", "*") && !of_name("_*", "_geo") && of_name("*shard", "genre")
        );
        for facet in ["_*", "*shard", "**", "*", "*miroir*", "_miroir_shard*", "_m*"] {
            assert!(of(facet, &[]), "{facet}");
            assert!(!of(facet, &["genre", "*"]), "{facet}");
            assert_eq!(of(facet, &["genre"]), !["*", "**"].contains(&facet), "{facet}");
        }
        assert!(!of("_m*", &["_meta"]) && !of("_*", &["_geo"]) && !of("_*", &["_*"]) && !of("gen*", &[]));
        assert_eq!(disguised("_*", None), None, "nobody knows");
    }

    #[test]
    fn requests_go_with_what_nodes_refuse_and_clients_see_their_own() {
        let topology = topology(&json!(["genre"]));
        let head = |method: &str, path: &'static str| RequestHead {
            method: method.into(),
            path: path.into(),
            headers: Vec::new(),
        };
        let body = |path: &'static str, body: Value| {
            let (_, body) = disguise(&topology, &head("POST", path), body.to_string().as_bytes());
            body.map(|body| serde_json::from_slice::<Value>(&body).unwrap())
        };
        let search = json!({"q": "_*", "facets": ["genre", "_*"]});
        let sent = body("/indexes/i/search", search.clone()).unwrap();
        assert_eq!(sent, json!({"q": "_*", "facets": ["genre", "_\u{f8fe}"]}));
        assert_eq!(reveal(sent.to_string().into_bytes()), search.to_string().into_bytes());
        assert_eq!(body("/indexes/j/search", search), None, "nothing is known of it");
        assert_eq!(body("/indexes/i/search", json!({"facets": ["*"]})), None);
        let queries =
            json!([{"indexUid": "i", "facets": ["*shard"]}, {"indexUid": "j", "facets": ["*shard"]}]);
        let sent = body("/multi-search", json!({"queries": queries})).unwrap();
        assert_eq!(sent["queries"][0]["facets"], json!(["\u{f8fe}shard"]));
        assert_eq!(sent["queries"][1]["facets"], json!(["*shard"]));
        let federation = json!({"federation": {"facetsByIndex": {"i": ["_*"]}}, "queries": []});
        assert_eq!(
            body("/multi-search", federation).unwrap()["federation"]["facetsByIndex"]["i"],
            json!(["_\u{f8fe}"])
        );
        let (path, _) = disguise(&topology, &head("GET", "/indexes/i/search?facets=_*,genre&q=a"), b"");
        assert_eq!(path.unwrap().to_string(), "/indexes/i/search?q=a&facets=_%EF%A3%BE,genre");
    }
}
