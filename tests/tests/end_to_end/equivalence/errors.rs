//! Requests that a node refuses, or that look as if it might refuse them: the answers must be the same, byte for byte.

use super::queries::Request;
use serde_json::{Value, json};

/// Requests that a node refuses, or that look as if it might refuse them.
pub fn errors(index: &str) -> Vec<Request> {
    let search = format!("/indexes/{index}/search");
    let list = format!("/indexes/{index}/documents/fetch");
    let facets = format!("/indexes/{index}/facet-search");
    let multi = || "/multi-search".to_owned();
    let similar = format!("/indexes/{index}/similar");
    let mut cases: Vec<(&'static str, String, Value)> = vec![
        ("POST", search.clone(), json!({"filter": "nope = 1"})),
        ("POST", search.clone(), json!({"filter": "genre ="})),
        ("POST", search.clone(), json!({"filter": "_miroir_shard = 1"})),
        ("POST", search.clone(), json!({"filter": "_miroir_shard EXISTS AND genre = x"})),
        ("POST", search.clone(), json!({"sort": ["_miroir_shard:asc"]})),
        ("POST", search.clone(), json!({"facets": ["_miroir_shard"]})),
        ("POST", search.clone(), json!({"facets": ["_miroir*"]})),
        ("POST", search.clone(), json!({"facets": ["genre", "_m*"]})),
        ("GET", format!("{search}?facets=_miroir_*"), Value::Null),
        ("POST", search.clone(), json!({"distinct": "_miroir_shard"})),
        ("POST", search.clone(), json!({"attributesToSearchOn": ["_miroir_shard"]})),
        (
            "POST",
            search.clone(),
            json!({"attributesToRetrieve": ["_miroir_shard"], "hitsPerPage": 2, "q": "river"}),
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
    for (name, values) in [
        ("q", vec![json!(3), json!(["a"])]),
        ("offset", vec![json!(-1), json!(1.5), json!("1"), json!(null)]),
        ("limit", vec![json!(null), json!(1e30), json!({})]),
        ("page", vec![json!(-1), json!("x"), json!(null)]),
        ("hitsPerPage", vec![json!(-1), json!([]), json!(null)]),
        ("attributesToRetrieve", vec![json!("title"), json!([1]), json!(null)]),
        ("attributesToCrop", vec![json!("title"), json!(["text:x"]), json!(["nope:3"])]),
        ("attributesToHighlight", vec![json!(7)]),
        ("attributesToSearchOn", vec![json!("title"), json!([])]),
        ("cropLength", vec![json!(-1), json!("x")]),
        ("cropMarker", vec![json!(1)]),
        ("highlightPreTag", vec![json!(1)]),
        ("showMatchesPosition", vec![json!("true")]),
        ("showRankingScore", vec![json!(1)]),
        ("showRankingScoreDetails", vec![json!("x")]),
        ("rankingScoreThreshold", vec![json!(-0.1), json!("x"), json!(1.01)]),
        ("matchingStrategy", vec![json!("most"), json!(1)]),
        ("facets", vec![json!("genre"), json!(["genre", "nope"]), json!(["title"]), json!([1])]),
        (
            "sort",
            vec![
                json!("rank:asc"),
                json!(["rank:up"]),
                json!(["nope:asc"]),
                json!(["_geoPoint(1,2)"]),
                json!(["_geoPoint(100,2):asc"]),
                json!(["_geoRadius(1,2,3):asc"]),
                json!(["rank:asc", 3]),
            ],
        ),
        ("distinct", vec![json!(["group"]), json!("nope")]),
        ("locales", vec![json!("fra"), json!(["french"])]),
        ("vector", vec![json!("x"), json!([1, 2, 3]), json!([])]),
        ("hybrid", vec![json!({}), json!({"embedder": "mine", "semanticRatio": 2}), json!("x")]),
        ("retrieveVectors", vec![json!(true), json!("x")]),
        (
            "filter",
            vec![
                json!(1),
                json!([[["rank > 1"]]]),
                json!("rank >"),
                json!("rank > x"),
                json!("(rank = 1"),
                json!("genre IN ["),
                json!("_geoRadius(1,2)"),
                json!("_geoRadius(100,2,3)"),
                json!("_geoBoundingBox([1,2],[3])"),
                json!("rank = 1 AND"),
                json!("title = x"),
                json!("NOT"),
                json!("genre CONTAINS x"),
                json!("genre STARTS WITH \"a"),
                json!("a=1 OR"),
                json!(["rank > 1", 2]),
                json!("_vectors EXISTS"),
                json!("group = 1 group = 2"),
            ],
        ),
    ] {
        cases.extend(values.into_iter().map(|value| ("POST", search.clone(), json!({name: value}))));
    }
    for query in [
        "offset=-1",
        "page=x",
        "hitsPerPage=",
        "showRankingScore=yes",
        "facets=nope",
        "sort=nope:asc",
        "sort=rank",
        "filter=rank%20%3E",
        "matchingStrategy=some",
        "rankingScoreThreshold=4",
        "locales=xx",
        "vector=a",
        "q=%FF",
        "distinct=title",
        "cropLength=x",
        "limit=x&limit=0",
        "limit=0&limit=x",
        "q=river&q=lantern&limit=0",
        "hybridEmbedder=none&limit=0",
        "hybridEmbedder=none&q=river",
        "limit=0&locales=",
        "q=river&page=1&&hitsPerPage=0",
        "useNetwork=true",
        "useNetwork=x",
        "personalizeUserContext=a",
        "vector=1,2,3",
    ] {
        cases.push(("GET", format!("{search}?{query}"), Value::Null));
    }
    for query in [
        "offset=-1",
        "limit=",
        "fields=nope",
        "filter=nope%20=%201",
        "sort=nope:asc",
        "ids=a%20b",
        "retrieveVectors=x",
        "unknown=1",
        "limit=1&limit=2&ids=7",
        "fields=id&fields=id,title&ids=3&ids=7",
    ] {
        cases.push(("GET", format!("/indexes/{index}/documents?{query}"), Value::Null));
    }
    for body in [
        json!({"offset": "x"}),
        json!({"ids": 3}),
        json!({"ids": ["a b"]}),
        json!({"filter": 3}),
        json!({"sort": "rank:asc"}),
        json!({"retrieveVectors": 1}),
        json!({"unknown": 1}),
        json!([]),
    ] {
        cases.push(("POST", format!("/indexes/{index}/documents/fetch"), body));
    }
    for body in [
        json!({"facetName": 1}),
        json!({"facetName": "genre", "facetQuery": 1}),
        json!([]),
        json!({"facetName": "genre", "unknown": 1}),
        json!({"facetName": "genre", "matchingStrategy": "x"}),
        json!({"facetName": "genre", "attributesToSearchOn": ["nope"]}),
    ] {
        cases.push(("POST", format!("/indexes/{index}/facet-search"), body));
    }
    for body in [
        json!({}),
        json!({"id": 1}),
        json!({"id": 1, "embedder": "none"}),
        json!({"embedder": "mine"}),
        json!({"id": "none", "embedder": "mine"}),
        json!({"id": 1, "embedder": "mine", "limit": -1}),
        json!({"id": 1, "embedder": "mine", "filter": "nope = 1"}),
        json!({"id": {}, "embedder": "mine"}),
    ] {
        cases.push(("POST", similar.clone(), body));
    }
    for path in [similar.clone(), format!("{similar}?id=1"), format!("{similar}?id=1&embedder=none")] {
        cases.push(("GET", path, Value::Null));
    }
    for federation in [
        json!({"limit": -1}),
        json!({"offset": "x"}),
        json!({"unknown": 1}),
        json!({"distinct": "nope"}),
        json!({"facetsByIndex": {"none": ["a"]}}),
        json!({"facetsByIndex": ["genre"]}),
        json!({"mergeFacets": 3}),
        json!([]),
        json!({"page": "x"}),
    ] {
        cases.push(("POST", multi(), json!({"federation": federation, "queries": [{"indexUid": index}]})));
    }
    for query in [
        json!({"indexUid": 1}),
        json!({"indexUid": "bad name"}),
        json!({"indexUid": index, "limit": "x"}),
        json!(3),
        json!({"indexUid": index, "sort": ["nope:asc"]}),
        json!({"indexUid": index, "unknown": 1}),
        json!({"indexUid": index, "limit": null, "offset": null, "page": null, "hitsPerPage": null}),
        json!({"indexUid": index, "federationOptions": null, "q": null, "filter": null}),
    ] {
        cases.push(("POST", multi(), json!({"queries": [{"indexUid": index}, query]})));
        cases.push(("POST", multi(), json!({"federation": {}, "queries": [{"indexUid": index}, query]})));
    }
    cases.into_iter().map(|(method, path, body)| Request { kind: "errors", method, path, body }).collect()
}

/// One valid request for every route.
pub fn every_route(index: &str) -> Vec<Request> {
    let queries = json!([{"indexUid": index, "q": "river"}]);
    let cases = [
        ("GET", format!("/indexes/{index}/search?q=river"), Value::Null),
        ("POST", format!("/indexes/{index}/search"), json!({"q": "river"})),
        ("POST", "/multi-search".to_owned(), json!({"queries": queries})),
        ("POST", "/multi-search".to_owned(), json!({"queries": queries, "federation": {}})),
        ("POST", format!("/indexes/{index}/facet-search"), json!({"facetName": "genre"})),
        ("POST", format!("/indexes/{index}/similar"), json!({"id": 1, "embedder": "mine"})),
        ("GET", format!("/indexes/{index}/similar?id=1&embedder=mine"), Value::Null),
        ("GET", format!("/indexes/{index}/documents"), Value::Null),
        ("POST", format!("/indexes/{index}/documents/fetch"), json!({})),
        ("GET", format!("/indexes/{index}/documents/7"), Value::Null),
    ];
    cases.into_iter().map(|(method, path, body)| Request { kind: "keys", method, path, body }).collect()
}
