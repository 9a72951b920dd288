//! What is asked, by kind.

mod federated;
mod lists;
mod search;

use super::documents::{INDEXES, SCATTERED, UNIQUE};
use federated::{federated, many_hidden_sorts};
use lists::{facet_search, list};
use miroir_tests::Random;
use search::{get, query};
use serde_json::{Value, json};

/// A request, and how its answers are compared.
#[derive(Debug)]
pub struct Request {
    pub kind: &'static str,
    pub method: &'static str,
    pub path: String,
    pub body: Value,
}

/// All kinds of requests. Hybrid searches (a `semanticRatio` between 0 and 1) are separate from `vector`.
pub const KINDS: [&str; 40] = [
    "placeholder",
    "plain",
    "typo",
    "phrase",
    "negative",
    "strategy",
    "attributes",
    "all attributes",
    "filter",
    "sort",
    "hidden sorts",
    "geo",
    "facets",
    "facets by count",
    "facets cut",
    "pages",
    "deep pages",
    "all pages",
    "formats",
    "fields",
    "scores",
    "distinct",
    "distinct setting",
    "hidden distinct",
    "distinct lists",
    "threshold",
    "locales",
    "vector",
    "near vectors",
    "tenant tokens",
    "get",
    "multi-search",
    "federated",
    "federated sorts",
    "federated distinct",
    "list",
    "list sorted",
    "insertion order",
    "facet search",
    "facet search cut",
];

/// More kinds, asked after those above.
pub const LATER: [&str; 4] = ["distinct facets", "deep vectors", "deep hybrid", "frequency"];

pub fn request(kind: &'static str, random: &mut Random) -> Request {
    let index = match kind {
        "all attributes" | "insertion order" => SCATTERED,
        "distinct setting" => UNIQUE,
        "locales" | "vector" | "deep vectors" | "deep hybrid" | "near vectors" => "things",
        "facets by count" | "hidden sorts" | "hidden distinct" => "others",
        // The order of unsorted lists is compared. Here documents have ascending ids; the kind "insertion order" covers other
        // orders.
        "list" => "things",
        // The only order of placeholder searches is that of insertion.
        "placeholder" => *random.of(&["things", "others"]),
        "attributes" | "scores" | "geo" | "formats" | "filter" | "pages" | "facet search cut"
        | "all pages" | "facets cut" | "tenant tokens" => *random.of(&["things", "others", SCATTERED]),
        _ => *random.of(&INDEXES),
    };
    let post = |path: String, body: Value| Request { kind, method: "POST", path, body };
    match kind {
        "multi-search" => {
            let queries: Vec<Value> = (0..1 + random.below(6))
                .map(|_| {
                    let kinds = ["plain", "filter", "sort", "facets", "pages", "formats", "fields", "geo"];
                    let kind = *random.of(&kinds);
                    let index = *random.of(&INDEXES);
                    let mut query = query(kind, index, random);
                    query.insert("indexUid".into(), index.into());
                    Value::Object(query)
                })
                .collect();
            post("/multi-search".into(), json!({ "queries": queries }))
        }
        "federated" | "federated sorts" | "federated distinct" => {
            post("/multi-search".into(), federated(kind, random))
        }
        "hidden sorts" if random.one_in(2) => post("/multi-search".into(), many_hidden_sorts(random)),
        "list" | "list sorted" => list(kind, index, random),
        "insertion order" if random.one_in(2) => list(kind, index, random),
        "facet search" | "facet search cut" => {
            post(format!("/indexes/{index}/facet-search"), facet_search(kind, random))
        }
        "get" => get(index, random),
        _ => post(format!("/indexes/{index}/search"), Value::Object(query(kind, index, random))),
    }
}
