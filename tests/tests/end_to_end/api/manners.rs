//! HTTP compatibility: unknown methods and paths, cross-origin requests, compressed answers.

use super::{INDEX, Pair, comparable, example, table::Route};
use miroir_tests::MASTER_KEY;
use serde_json::{Value, json};
use std::{collections::BTreeSet, io::Read};

/// The headers that are compared.
const HEADERS: [&str; 7] = [
    "content-type",
    "vary",
    "access-control-allow-origin",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-max-age",
    "access-control-expose-headers",
];

fn same(
    pair: &mut Pair<'_>,
    key: Option<&str>,
    method: &str,
    path: &str,
    sent: &[(&str, &str)],
    body: &Value,
) {
    let answers = pair.ask(key, method, path, sent, body);
    // The development node has a single route for all settings, and lacks some of Meilisearch's settings.
    let is_less = path.contains("/settings/") || (answers[1].status == 404 && !path.contains("nope"));
    if pair.lacks(&answers[1]) && (is_less || path.starts_with("/webhooks")) {
        return;
    }
    let told = answers.each_ref().map(|answer| {
        let mut names = HEADERS.to_vec();
        if answer.status == 405 {
            names.push("allow");
        }
        json!([comparable(answer), answer.bytes.is_empty(), answer.listed(names.iter().copied())])
    });
    let [cluster, node] = told;
    pair.check(&format!("{method} {path} {sent:?}"), cluster, node);
}

pub fn check(pair: &mut Pair<'_>, routes: &[Route]) {
    let origin = ("origin", "http://example.org");
    let paths: BTreeSet<String> = routes
        .iter()
        .filter(|route| !route.path.contains("/settings/") || route.path.ends_with("/dictionary"))
        .map(|route| example(route).0.split('?').next().unwrap().to_owned())
        .collect();
    for path in &paths {
        for method in ["HEAD", "OPTIONS", "TRACE"] {
            same(pair, Some(MASTER_KEY), method, path, &[], &Value::Null);
        }
        let there = |method: &str| {
            routes.iter().any(|route| route.method == method && example(route).0.starts_with(path))
        };
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"].into_iter().filter(|method| !there(method)) {
            same(pair, Some(MASTER_KEY), method, path, &[], &Value::Null);
            same(pair, None, method, path, &[origin], &json!({}));
        }
    }
    for path in
        ["/nope", "/indexes/films/nope", "/indexes/films/documents/1/nope", "/indexes/films/settings/nope"]
    {
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"] {
            same(pair, Some(MASTER_KEY), method, path, &[origin], &Value::Null);
        }
    }
    // Paths with additional slashes.
    for path in ["/indexes/", "//indexes//films/", "/tasks/0/", "/indexes/films/documents/1/", "/health/"] {
        same(pair, Some(MASTER_KEY), "GET", path, &[], &Value::Null);
    }
    same(pair, Some(MASTER_KEY), "POST", "/indexes//films/search/", &[], &json!({"limit": 2}));
    // Segments with escapes. An escaped slash belongs to its segment.
    for path in
        ["/indexes/%66ilms/documents/%31", "/indexes/films/documents/a%2Fb", "/indexes/films%2Fdocuments"]
    {
        same(pair, Some(MASTER_KEY), "GET", path, &[], &Value::Null);
    }
    origins(pair, routes, origin);
    compression(pair);
    metadata(pair);
}

fn origins(pair: &mut Pair<'_>, routes: &[Route], origin: (&str, &str)) {
    for route in routes.iter().filter(|route| route.method == "GET" || route.path.ends_with("search")) {
        let (path, body) = example(route);
        if ["/batches", "/stats", "/keys"].iter().any(|part| path.contains(part)) || route.refused {
            continue;
        }
        same(pair, Some(MASTER_KEY), &route.method, &path, &[origin], &body);
        same(pair, None, &route.method, &path, &[origin], &body);
    }
    let wanted = |method| ("access-control-request-method", method);
    let names = ("access-control-request-headers", "authorization,content-type");
    for path in ["/health", "/indexes/films/search", "/multi-search", "/indexes/films/documents", "/nope"] {
        same(pair, None, "OPTIONS", path, &[origin, wanted("POST"), names], &Value::Null);
        same(pair, None, "OPTIONS", path, &[origin, wanted("DELETE")], &Value::Null);
    }
    // Independent of the kind of node: a web page may search with a key.
    let headers = [origin, wanted("POST"), names];
    let answer = pair.sandbox.client.under(None).ask("OPTIONS", "/indexes/films/search", &headers, "");
    pair.check(
        "a preflight",
        json!(answer.header("access-control-allow-headers")),
        json!("authorization,content-type"),
    );
}

/// Answers, also errors, are compressed as the client accepts it.
fn compression(pair: &mut Pair<'_>) {
    let path = format!("/indexes/{INDEX}/search");
    for (accepted, expected) in [
        ("gzip", Some("gzip")),
        ("br", Some("br")),
        ("gzip, br", Some("br")),
        ("br;q=0.1, gzip", Some("gzip")),
        ("zstd", None),
    ] {
        let asked = [("accept-encoding", accepted)];
        let answers = pair.ask(Some(MASTER_KEY), "POST", &path, &asked, &json!({"q": "film"}));
        let [cluster, node] = answers.each_ref().map(|answer| json!(answer.header("content-encoding")));
        pair.check(&format!("an answer in {accepted}"), cluster.clone(), node);
        pair.check(&format!("an answer in {accepted}"), cluster, json!(expected));
        if accepted == "gzip" {
            let texts = answers.map(|answer| {
                let mut text = String::new();
                flate2::read::GzDecoder::new(answer.bytes.as_slice()).read_to_string(&mut text).unwrap();
                serde_json::from_str::<Value>(&text).unwrap()["hits"].take()
            });
            let [cluster, node] = texts;
            pair.check("a compressed answer", cluster, node);
        }
    }
    for path in ["/indexes/none/search", "/indexes/none", "/tasks/99999"] {
        let answers = pair.ask(Some(MASTER_KEY), "GET", path, &[("accept-encoding", "gzip")], &Value::Null);
        let [cluster, node] = answers.map(|answer| json!([answer.status, answer.header("content-encoding")]));
        pair.check(&format!("{path} in gzip"), cluster, node);
    }
}

/// Checks which uids an answer contains, and where.
fn metadata(pair: &mut Pair<'_>) {
    let queries = json!([{"indexUid": INDEX, "limit": 1}, {"indexUid": "emptied"}]);
    let cases = [
        ("/indexes/films/search", json!({"limit": 1})),
        ("/indexes/films/search", json!({"limit": 1, "offset": 700})),
        ("/multi-search", json!({"queries": queries})),
        (
            "/multi-search",
            json!({"federation": {}, "queries": [{"indexUid": INDEX}, {"indexUid": "emptied"}]}),
        ),
        ("/indexes/films/facet-search", json!({"facetName": "genre"})),
        ("/indexes/films/similar", json!({"id": 1, "embedder": "mine"})),
    ];
    for value in ["true", "1", "TRUE", "no"] {
        for (path, body) in &cases {
            let answers =
                pair.ask(Some(MASTER_KEY), "POST", path, &[("meili-include-metadata", value)], body);
            let [cluster, node] = answers.map(|answer| uids(&answer.body));
            pair.check(&format!("metadata of {path} {body}"), cluster, node);
        }
    }
}

/// The value with each uid replaced by a word.
fn uids(value: &Value) -> Value {
    match value {
        Value::Object(members) => {
            let told = members.iter().map(|(name, value)| {
                let is_uid = name.ends_with("Uid") && value.as_str().is_some_and(|text| text.len() == 36);
                let value = if is_uid { json!("a uid") } else { uids(value) };
                (name.clone(), if name == "processingTimeMs" { json!(0) } else { value })
            });
            Value::Object(told.collect())
        }
        Value::Array(members) => members.iter().map(uids).collect(),
        value => value.clone(),
    }
}
