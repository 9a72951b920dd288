//! Paths and routes: core parses a target as a node does, and nodes parse what core writes as it was meant.
//!
//! The node is represented by its own router, `actix-router`, with Meilisearch's routes for documents and searches.

use crate::Input;
use actix_router::{Path, PathDeserializer, ResourceDef, Url};
use http::uri::PathAndQuery;
use miroir_core::{
    path::ApiPath,
    route::{Route, WriteKind},
};
use serde::Deserialize;

/// Parts that targets are made of.
const PARTS: [&str; 40] = [
    "/",
    "/",
    "/",
    "//",
    "indexes",
    "indexes",
    "documents",
    "search",
    "similar",
    "facet-search",
    "fetch",
    "delete",
    "delete-batch",
    "edit",
    "multi-search",
    "_miroir",
    "keys",
    "settings",
    "a",
    "B-_9",
    ".",
    "..",
    "\\",
    ";",
    "%2f",
    "%2F",
    "%5c",
    "%2e",
    "%25",
    "%",
    "%zz",
    "%69",
    "%00",
    "%ff",
    "%e2%82%ac",
    "%e2",
    "+",
    "?",
    "#",
    "é",
];

/// Meilisearch's routes for documents and searches, in the order in which a node tries them.
const PATTERNS: [&str; 10] = [
    "/indexes/{index_uid}/documents",
    "/indexes/{index_uid}/documents/delete-batch",
    "/indexes/{index_uid}/documents/delete",
    "/indexes/{index_uid}/documents/edit",
    "/indexes/{index_uid}/documents/fetch",
    "/indexes/{index_uid}/documents/{document_id}",
    "/indexes/{index_uid}/facet-search",
    "/indexes/{index_uid}/similar",
    "/indexes/{index_uid}/search",
    "/multi-search",
];

const METHODS: [&str; 5] = ["GET", "POST", "PUT", "DELETE", "PATCH"];

/// A target, mostly made of meaningful parts.
fn target(input: &mut Input<'_>) -> String {
    let mut target = "/".to_owned();
    if input.one_in(2) {
        target.push_str("indexes/");
    }
    for _ in 0..input.below(9) {
        match input.below(12) {
            0 => target.push_str(&String::from_utf8_lossy(input.bytes(3))),
            _ => target.push_str(input.of(&PARTS)),
        }
        if input.one_in(2) {
            target.push('/');
        }
    }
    target
}

/// How a node reads a target: the pattern that matches, and the decoded names. `None` if the node's server refuses the target.
fn node(target: &str) -> Option<Option<(&'static str, Vec<String>)>> {
    let target = target.parse::<PathAndQuery>().ok()?;
    let mut path = target.path().trim_end_matches('/').to_owned();
    while path.contains("//") {
        path = path.replace("//", "/");
    }
    let path = if path.is_empty() { "/".to_owned() } else { path };
    let url = Url::new(path.parse().ok()?);
    for pattern in PATTERNS {
        let mut path = Path::new(url.clone());
        if ResourceDef::new(pattern).capture_match_info(&mut path) {
            let names = match path.segment_count() {
                0 => Vec::new(),
                1 => vec![String::deserialize(PathDeserializer::new(&path)).ok()?],
                _ => <[String; 2]>::deserialize(PathDeserializer::new(&path)).ok()?.to_vec(),
            };
            return Some(Some((pattern, names)));
        }
    }
    Some(None)
}

/// The route that a node has for a method and a parsed path.
fn expected(method: &str, found: Option<(&'static str, Vec<String>)>, path: &ApiPath) -> Route {
    if path.segments().first() == Some(&"_miroir") {
        return Route::Internal;
    }
    let Some((pattern, mut names)) = found else { return Route::ControlPlane };
    let id = if names.len() > 1 { names.pop().unwrap_or_default() } else { String::new() };
    let index = names.pop().unwrap_or_default();
    let write = |kind| Route::Write { index: index.clone(), kind };
    match (method, pattern.strip_prefix("/indexes/{index_uid}").unwrap_or(pattern)) {
        ("GET" | "POST", "/search") => Route::Search { index },
        ("POST", "/multi-search") => Route::MultiSearch,
        ("GET" | "POST", "/similar") => Route::Similar { index },
        ("POST", "/facet-search") => Route::FacetSearch { index },
        ("GET", "/documents") | ("POST", "/documents/fetch") => Route::DocumentList { index },
        ("POST", "/documents") => write(WriteKind::Add { update: false }),
        ("PUT", "/documents") => write(WriteKind::Add { update: true }),
        ("DELETE", "/documents") => write(WriteKind::DeleteAll),
        ("POST", "/documents/delete-batch") => write(WriteKind::DeleteBatch),
        ("POST", "/documents/delete") => write(WriteKind::DeleteByFilter),
        ("POST", "/documents/edit") => write(WriteKind::Edit),
        ("GET", "/documents/{document_id}") => Route::DocumentRead { index, id },
        ("DELETE", "/documents/{document_id}") => write(WriteKind::DeleteOne { id }),
        _ => Route::ControlPlane,
    }
}

/// Core reads each target as a node does, what core writes reads the same to a node, and no text can end its segment early.
///
/// # Panics
/// A property does not hold.
pub fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (method, target) = (input.of(&METHODS), target(&mut input));
    let (found, path) = (node(&target), ApiPath::parse(&target));
    assert_eq!(found.is_some(), path.is_ok(), "{target:?}: {found:?}, {path:?}");
    let (Some(found), Ok(path)) = (found, path) else { return };
    let written = path.to_string();
    assert_eq!(
        Route::of(method, &path),
        expected(method, found.clone(), &path),
        "{method} {target:?} as {written}"
    );
    assert_eq!(node(&written), Some(found), "{target:?} written as {written}");
    assert_eq!(ApiPath::parse(&written).as_ref(), Ok(&path), "{target:?} written as {written}");
    // Text that a client chose stays in its segment, wherever the segment stands.
    let text = target.trim_matches('/');
    if !text.is_empty() {
        let own = ApiPath::of_index(text, &["documents"]);
        let read = node(&own.to_string());
        assert_eq!(read, Some(Some((PATTERNS[0], vec![text.to_owned()]))), "{text:?} as {own}");
    }
}
