//! Requests that a node refuses, or that look as if it might: the answers are to be the same, byte for byte.

use crate::queries::Request;
use serde_json::{Value, json};

/// Requests that a node refuses, or that look as if it might.
pub fn errors(index: &str) -> Vec<Request> {
    let search = format!("/indexes/{index}/search");
    let list = format!("/indexes/{index}/documents/fetch");
    let facets = format!("/indexes/{index}/facet-search");
    let multi = || "/multi-search".to_owned();
    let cases: Vec<(&'static str, String, Value)> = vec![
        ("POST", search.clone(), json!({"filter": "nope = 1"})),
        ("POST", search.clone(), json!({"filter": "genre ="})),
        ("POST", search.clone(), json!({"filter": "_miroir_shard = 1"})),
        ("POST", search.clone(), json!({"filter": "_miroir_shard EXISTS AND genre = x"})),
        ("POST", search.clone(), json!({"sort": ["_miroir_shard:asc"]})),
        ("POST", search.clone(), json!({"facets": ["_miroir_shard"]})),
        ("POST", search.clone(), json!({"distinct": "_miroir_shard"})),
        ("POST", search.clone(), json!({"attributesToSearchOn": ["_miroir_shard"]})),
        (
            "POST",
            search.clone(),
            json!({"attributesToRetrieve": ["_miroir_shard"], "limit": 2, "q": "river"}),
        ),
        ("POST", search.clone(), json!({"sort": ["text:asc"]})),
        ("POST", search.clone(), json!({"sort": ["rank"]})),
        ("POST", search.clone(), json!({"facets": ["nope"]})),
        ("POST", search.clone(), json!({"distinct": "title"})),
        ("POST", search.clone(), json!({"attributesToSearchOn": ["price", "nope"]})),
        ("POST", search.clone(), json!({"limit": -1})),
        ("POST", search.clone(), json!({"limit": "three"})),
        ("POST", search.clone(), json!({"unknown": 1})),
        ("POST", search.clone(), json!({"hybrid": {"embedder": "none"}, "q": "x"})),
        ("POST", search.clone(), json!({"rankingScoreThreshold": 3})),
        ("POST", search.clone(), json!({"locales": ["xx"]})),
        ("POST", search.clone(), json!([1])),
        ("POST", search.clone(), json!({"limit": 9_223_372_036_854_775_808_u64, "q": "river lantern"})),
        ("POST", "/indexes/bare/search".into(), json!({"filter": "a = 1"})),
        ("POST", "/indexes/bare/search".into(), json!({"facets": ["a"]})),
        ("POST", "/indexes/bare/search".into(), json!({"distinct": "a"})),
        ("POST", "/indexes/bare/search".into(), json!({"sort": ["a:asc"]})),
        ("POST", "/indexes/bare/facet-search".into(), json!({"facetName": "a"})),
        ("POST", "/indexes/bare/documents/fetch".into(), json!({"filter": "a = 1"})),
        ("POST", "/indexes/none/search".into(), json!({})),
        ("POST", "/indexes/bad%20name/search".into(), json!({})),
        ("GET", format!("{search}?limit=x"), Value::Null),
        ("GET", format!("{search}?filter=_miroir_shard%20%3D%201"), Value::Null),
        ("GET", format!("{search}?filter=%5Fmiroir%5Fshard%20%3D%201"), Value::Null),
        ("GET", format!("{search}?unknown=1"), Value::Null),
        (
            "POST",
            multi(),
            json!({"queries": [{"indexUid": index, "filter": "nope = 1"}, {"indexUid": index}]}),
        ),
        ("POST", multi(), json!({"queries": [{"indexUid": index}, {"indexUid": "none"}]})),
        ("POST", multi(), json!({"queries": [{"q": "x"}]})),
        ("POST", multi(), json!({"queries": []})),
        ("POST", multi(), json!({})),
        ("POST", multi(), json!({"federation": {}, "queries": []})),
        ("POST", multi(), json!({"queries": [{"indexUid": index, "federationOptions": {"weight": 2}}]})),
        ("POST", multi(), json!({"federation": {}, "queries": [{"indexUid": index, "limit": 3}]})),
        ("POST", multi(), json!({"federation": {}, "queries": [{"indexUid": index, "facets": ["genre"]}]})),
        (
            "POST",
            multi(),
            json!({"federation": {"facetsByIndex": {"things": ["nope"]}}, "queries": [{"indexUid": "things"}]}),
        ),
        (
            "POST",
            multi(),
            json!({"federation": {"facetsByIndex": {"things": ["genre"], "others": ["tags", "genre", "rank"]}, "mergeFacets": {}},
                                 "queries": [{"indexUid": "things"}, {"indexUid": "others"}]}),
        ),
        (
            "POST",
            multi(),
            json!({"federation": {"facetsByIndex": {"things": ["rank"], "others": ["rank"]}, "mergeFacets": {}},
                                 "queries": [{"indexUid": "things"}, {"indexUid": "others"}]}),
        ),
        ("POST", list.clone(), json!({"filter": "nope = 1"})),
        ("POST", list.clone(), json!({"sort": ["nope:asc"]})),
        ("POST", list.clone(), json!({"sort": ["rank"]})),
        ("POST", list.clone(), json!({"limit": "x"})),
        ("POST", list.clone(), json!({"fields": "title"})),
        ("POST", list.clone(), json!({"filter": "_miroir_shard EXISTS"})),
        ("POST", list, json!({"fields": ["_miroir_shard", "id"], "ids": [7]})),
        ("GET", format!("/indexes/{index}/documents?limit=x"), Value::Null),
        ("GET", "/indexes/none/documents".into(), Value::Null),
        ("POST", facets.clone(), json!({"facetName": "title"})),
        ("POST", facets.clone(), json!({"facetName": "nope"})),
        ("POST", facets.clone(), json!({})),
        ("POST", facets.clone(), json!({"facetName": "_miroir_shard"})),
        ("POST", facets, json!({"facetName": "genre", "filter": "nope = 1"})),
        ("GET", format!("/indexes/{index}/documents/none"), Value::Null),
    ];
    cases.into_iter().map(|(method, path, body)| Request { kind: "errors", method, path, body }).collect()
}
