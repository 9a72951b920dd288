//! What is asked, by kind.

use crate::{
    documents::{GENRES, INDEXES, WORDS},
    random::Random,
};
use serde_json::{Map, Value, json};

/// A request, and what it is compared by.
#[derive(Debug)]
pub struct Request {
    pub kind: &'static str,
    pub method: &'static str,
    pub path: String,
    pub body: Value,
}

/// Every kind of request.
pub const KINDS: [&str; 23] = [
    "placeholder",
    "plain",
    "typo",
    "phrase",
    "negative",
    "strategy",
    "attributes",
    "filter",
    "sort",
    "geo",
    "facets",
    "pages",
    "deep pages",
    "formats",
    "fields",
    "distinct",
    "threshold",
    "get",
    "multi-search",
    "federated",
    "list",
    "list sorted",
    "facet search",
];

pub fn request(kind: &'static str, random: &mut Random) -> Request {
    let index = *random.of(&INDEXES);
    let post = |path: String, body: Value| Request { kind, method: "POST", path, body };
    match kind {
        "multi-search" => {
            let queries: Vec<Value> = (0..1 + random.below(6))
                .map(|_| {
                    let kind = *random
                        .of(&["plain", "filter", "sort", "facets", "pages", "formats", "fields", "geo"]);
                    let index = *random.of(&INDEXES);
                    let mut query = query(kind, index, random);
                    query.insert("indexUid".into(), index.into());
                    Value::Object(query)
                })
                .collect();
            post("/multi-search".into(), json!({ "queries": queries }))
        }
        "federated" => post("/multi-search".into(), federated(random)),
        "list" | "list sorted" => list(kind, index, random),
        "facet search" => post(format!("/indexes/{index}/facet-search"), facet_search(random)),
        "get" => get(index, random),
        _ => post(format!("/indexes/{index}/search"), Value::Object(query(kind, index, random))),
    }
}

fn text(random: &mut Random) -> String {
    random.some(&WORDS, 3).join(" ")
}

fn mistyped(random: &mut Random) -> String {
    let mut letters: Vec<char> = WORDS[random.below(30)].chars().collect();
    let position = 1 + random.below(letters.len() - 1);
    match random.below(3) {
        0 => letters[position] = 'z',
        1 => drop(letters.remove(position)),
        _ => letters.insert(position, 'x'),
    }
    letters.into_iter().collect()
}

fn filter(random: &mut Random) -> Value {
    let one = |random: &mut Random| match random.below(9) {
        0 => format!("genre = \"{}\"", random.of(&GENRES)),
        1 => format!("price > {}", random.below(100)),
        2 => format!("rank {} TO {}", random.below(80), 80 + random.below(120)),
        3 => "price EXISTS".to_owned(),
        4 => format!("tags IN [new, {}]", random.of(&["old", "rare", "none"])),
        5 => format!("NOT group = {}", random.below(60)),
        6 => format!("nested.brand = brand-{}", random.below(14)),
        7 => "_geoRadius(42.5, 5.0, 150000)".to_owned(),
        _ => format!("genre != {} OR rank < {}", random.of(&["Drama", "horror"]), random.below(100)),
    };
    match random.below(3) {
        0 => json!(one(random)),
        1 => json!([one(random), one(random)]),
        _ => json!([[one(random), one(random)], one(random)]),
    }
}

fn query(kind: &str, index: &str, random: &mut Random) -> Map<String, Value> {
    let mut query = Map::new();
    if kind != "placeholder" && !(["filter", "sort", "facets", "geo"].contains(&kind) && random.one_in(2)) {
        query.insert("q".into(), json!(text(random)));
    }
    let mut put = |name: &str, value: Value| drop(query.insert(name.into(), value));
    let sorts: &[&str] = if index == "things" {
        &["price:asc", "price:desc", "rank:asc", "title:asc", "genre:desc", "nested.level:asc"]
    } else {
        &["price:asc", "price:desc", "rank:asc", "genre:asc", "genre:desc"]
    };
    match kind {
        "typo" => put("q", json!(mistyped(random))),
        "phrase" => {
            let words = random.some(&WORDS, 2).join(" ");
            put("q", json!(format!("\"{words}\" {}", random.of(&WORDS))));
        }
        "negative" => put("q", json!(format!("{} -{}", random.of(&WORDS), random.of(&WORDS)))),
        "strategy" => put("matchingStrategy", json!(random.of(&["all", "last"]))),
        "attributes" => put("attributesToSearchOn", json!([random.of(&["title", "text"])])),
        "filter" => put("filter", filter(random)),
        "sort" => put("sort", json!(random.some(sorts, 2))),
        "geo" => {
            let direction = random.of(&["asc", "desc"]);
            put("sort", json!([format!("_geoPoint(42.{}, 5.5):{direction}", random.below(99))]));
            if random.one_in(2) {
                put("filter", json!("_geoBoundingBox([44, 8], [41, 3])"));
            }
        }
        "facets" => {
            let facets = ["genre", "tags", "price", "rank", "nested.brand"];
            let facets = if random.one_in(4) { vec!["*"] } else { random.some(&facets, 3) };
            put("facets", json!(facets));
            if random.one_in(3) {
                put("filter", filter(random));
            }
        }
        "pages" => {
            put("page", json!(random.below(6)));
            put("hitsPerPage", json!(random.below(30)));
        }
        "deep pages" => {
            put("offset", json!(random.below(900)));
            put("limit", json!(random.below(40)));
        }
        "formats" => {
            put("attributesToHighlight", json!([random.of(&["*", "title", "text"])]));
            put("attributesToCrop", json!(["text:4"]));
            put("showMatchesPosition", json!(true));
            put("showRankingScore", json!(random.one_in(2)));
        }
        "fields" => {
            let fields = ["title", "genre", "nested.brand", "price", "id"];
            put("attributesToRetrieve", json!(random.some(&fields, 2)));
            if random.one_in(2) {
                put("attributesToHighlight", json!(["title"]));
            }
        }
        "distinct" => {
            put("distinct", json!(random.of(&["group", "genre", "nested.brand", "rank"])));
            put("attributesToRetrieve", json!(random.of(&[vec!["*"], vec!["title"], vec!["group", "id"]])));
            if random.one_in(2) {
                put("page", json!(1 + random.below(3)));
            }
        }
        "threshold" => put("rankingScoreThreshold", json!(random.below(9) as f64 / 10.0)),
        _ => {}
    }
    if kind != "pages" && kind != "deep pages" && random.one_in(2) && !query.contains_key("page") {
        query.insert("limit".into(), json!(random.below(60)));
        query.insert("offset".into(), json!(random.below(20)));
    }
    query
}

fn federated(random: &mut Random) -> Value {
    let mut queries = Vec::new();
    for _ in 0..1 + random.below(4) {
        let kind = *random.of(&["plain", "typo", "filter", "formats"]);
        let index = *random.of(&INDEXES);
        let mut query = query(kind, index, random);
        for paging in ["limit", "offset", "page", "hitsPerPage"] {
            query.remove(paging);
        }
        query.insert("indexUid".into(), index.into());
        if random.one_in(2) {
            query.insert("federationOptions".into(), json!({"weight": (1 + random.below(20)) as f64 / 10.0}));
        }
        queries.push(Value::Object(query));
    }
    let mut federation = json!({});
    match random.below(3) {
        0 => federation["limit"] = json!(random.below(50)),
        1 => {
            federation["page"] = json!(random.below(4));
            federation["hitsPerPage"] = json!(random.below(20));
        }
        _ => federation["offset"] = json!(random.below(10)),
    }
    if random.one_in(2) {
        federation["facetsByIndex"] = json!({"things": ["tags", "group"], "others": ["genre"]});
        if random.one_in(2) {
            // Facets in the order of their names: of values with the same count one node keeps any.
            federation["mergeFacets"] = json!({"maxValuesPerFacet": 5 + random.below(30)});
        }
    }
    json!({ "federation": federation, "queries": queries })
}

fn list(kind: &'static str, index: &str, random: &mut Random) -> Request {
    let sorted = kind == "list sorted";
    // One node lists in the order of insertion, which a cluster cannot know where it is not the order of the ids.
    let index = if sorted { index } else { "things" };
    if random.one_in(3) {
        let mut path =
            format!("/indexes/{index}/documents?limit={}&offset={}", random.below(50), random.below(700));
        if sorted {
            path.push_str("&sort=price:asc,_geoPoint(42,%205):asc,rank:asc");
        }
        path.push_str(random.of::<&str>(&[
            "",
            "&fields=*",
            "&fields=title,rank",
            "&filter=rank%20%3E%20100",
        ]));
        return Request { kind, method: "GET", path, body: Value::Null };
    }
    let mut body = json!({});
    if random.one_in(2) {
        body["limit"] = json!(random.below(100));
        body["offset"] = json!(random.below(500));
    }
    if random.one_in(2) {
        body["filter"] = filter(random);
    }
    if random.one_in(2) {
        body["fields"] = json!(random.some(&["title", "nested.level", "id", "genre"], 2));
    }
    if random.one_in(4) {
        body["ids"] = json!((0..30).map(|_| random.below(900).to_string()).collect::<Vec<_>>());
    }
    if sorted {
        let sorts = ["price:asc", "price:desc", "genre:asc", "_geoPoint(41.5, 4.1):desc"];
        let mut sorts = random.some(&sorts, 2);
        sorts.push("rank:desc");
        body["sort"] = json!(sorts);
    }
    Request { kind, method: "POST", path: format!("/indexes/{index}/documents/fetch"), body }
}

fn facet_search(random: &mut Random) -> Value {
    let mut body = json!({"facetName": random.of(&["genre", "tags", "nested.brand"])});
    if !random.one_in(3) {
        body["facetQuery"] = json!(random.of(&["d", "eco", "com", "brand", "rare", "x", "brand-1", "horor"]));
    }
    if random.one_in(3) {
        body["q"] = json!(text(random));
    }
    if random.one_in(3) {
        body["filter"] = filter(random);
    }
    body
}

fn get(index: &str, random: &mut Random) -> Request {
    let mut path = format!("/indexes/{index}/search?q={}", random.of(&WORDS));
    for extra in [
        "&limit=7",
        "&sort=rank:asc",
        "&facets=genre,tags",
        "&filter=rank%20%3E%2050",
        "&page=2",
        "&attributesToRetrieve=id,title",
        "&showRankingScore=true",
    ] {
        if random.one_in(3) {
            path.push_str(extra);
        }
    }
    Request { kind: "get", method: "GET", path, body: Value::Null }
}

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
