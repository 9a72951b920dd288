//! Requests whose answers are, byte for byte, those of one node.

use miroir_tests::{Answer, Client, MASTER_KEY, Node, Sandbox, ask_raw, nodes_are_real};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

/// Members whose values differ between any two requests.
const VOLATILE: [&str; 9] = [
    "processingTimeMs",
    "requestUid",
    "enqueuedAt",
    "startedAt",
    "finishedAt",
    "duration",
    "taskUid",
    "createdAt",
    "updatedAt",
];

/// A cluster and one node that have the same documents.
struct Pair<'p> {
    clients: [&'p Client; 2],
    is_real: bool,
    wrong: Vec<String>,
    compared: usize,
}

impl<'p> Pair<'p> {
    fn new(cluster: &'p Sandbox, node: &'p Node) -> Self {
        let is_real = nodes_are_real();
        Self { clients: [&cluster.client, &node.client], is_real, wrong: Vec::new(), compared: 0 }
    }

    fn create(&self, index: &str, key: &str, settings: &Value, documents: &Value) {
        for client in self.clients {
            client.create(index, key, settings);
            client.add(index, documents);
        }
    }

    fn check(&mut self, what: &str, ask: impl Fn(&Client) -> Answer) {
        let answers = self.clients.map(|client| told(&ask(client)));
        self.compared += 1;
        if answers[0] != answers[1] {
            let [cluster, node] = answers;
            self.wrong.push(format!("{what}\n  cluster: {cluster:.900}\n  node:    {node:.900}"));
        }
    }

    fn get(&mut self, path: &str) {
        self.check(path, |client| client.get(path));
    }

    fn post(&mut self, path: &str, body: &Value) {
        self.check(&format!("{path} {body}"), |client| client.json("POST", path, body));
    }

    fn search(&mut self, index: &str, body: &Value) {
        self.post(&format!("/indexes/{index}/search"), body);
    }

    fn end(self) {
        println!("{} comparisons", self.compared);
        assert!(
            self.wrong.is_empty(),
            "{} of {}:\n{}",
            self.wrong.len(),
            self.compared,
            self.wrong.join("\n")
        );
    }
}

/// Status and body, as they came but for what is volatile.
fn told(answer: &Answer) -> String {
    let mut text = String::from_utf8_lossy(&answer.bytes).into_owned();
    for name in VOLATILE {
        let member = format!("\"{name}\":");
        let mut parts = text.split(&member);
        let mut masked = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let end = match part.strip_prefix('"') {
                Some(rest) => rest.find('"').map_or(part.len(), |end| end + 2),
                None => part.find([',', '}']).unwrap_or(part.len()),
            };
            masked.push_str(&format!("{member}?{}", &part[end..]));
        }
        text = masked;
    }
    format!("{} {text}", answer.status)
}

/// Fields that are called as what a search adds to a document.
pub fn fields_of_meilisearchs_own_names_come_back_and_sort(cluster: &Sandbox, node: &Node) {
    let mut pair = Pair::new(cluster, node);
    let names = ["_rankingScore", "_rankingScoreDetails", "_formatted", "_matchesPosition", "_geoDistance"];
    let documents: Vec<Value> = (0..30)
        .map(|id| {
            json!({"id": id, "title": format!("river {}", id % 7), "_rankingScore": (id * 7) % 10,
                "_rankingScoreDetails": {"words": {"order": 0, "score": id}}, "_formatted": {"title": "own", "_miroir_shard": 1},
                "_matchesPosition": [id], "_geoDistance": (id * 11) % 13,
                "_vectors": {"none": [[0.5]]}, "_semanticScore": id})
        })
        .collect();
    let settings = json!({"filterableAttributes": names, "sortableAttributes": ["_rankingScore", "_rankingScoreDetails", "_formatted"],
        "searchableAttributes": ["title"]});
    pair.create("own", "id", &settings, &json!(documents));
    let lists = [
        "",
        "?limit=3&offset=7",
        "?fields=_formatted,_rankingScoreDetails",
        "?retrieveVectors=true&limit=2",
        "?sort=_rankingScore:desc,id:asc&limit=4",
    ];
    for query in lists {
        pair.get(&format!("/indexes/own/documents{query}"));
    }
    pair.get("/indexes/own/documents/3");
    for body in [
        json!({}),
        json!({"q": "river"}),
        json!({"q": "river", "showRankingScore": true}),
        json!({"q": "river", "showRankingScoreDetails": true, "limit": 3}),
        json!({"q": "river", "showMatchesPosition": true, "limit": 3}),
        json!({"q": "river", "attributesToHighlight": ["*"], "limit": 3}),
        json!({"q": "river 3", "attributesToHighlight": ["title"], "attributesToRetrieve": ["title"], "limit": 3}),
        json!({"q": "river", "attributesToCrop": ["title:1"], "attributesToRetrieve": ["_formatted"], "limit": 3}),
        json!({"q": "river", "attributesToHighlight": ["title"], "showMatchesPosition": true, "showRankingScore": true,
            "showRankingScoreDetails": true, "limit": 2}),
        json!({"q": "river", "sort": ["_rankingScore:asc"]}),
        json!({"q": "river", "sort": ["_rankingScore:desc"], "showRankingScoreDetails": true, "limit": 4}),
        json!({"q": "river", "attributesToRetrieve": ["_rankingScoreDetails"]}),
        json!({"q": "river", "attributesToRetrieve": ["_rankingScore", "title"], "facets": ["_rankingScore", "_geoDistance"]}),
        json!({"filter": "_rankingScore > 4", "sort": ["_rankingScore:asc"], "facets": ["_rankingScore"]}),
        json!({"q": "river", "offset": 20}),
        json!({"q": "river", "distinct": "_rankingScore", "hitsPerPage": 20}),
    ] {
        pair.search("own", &body);
        let query = json!({"indexUid": "own"});
        let merged = query.as_object().unwrap().iter().chain(body.as_object().unwrap());
        let query: Value = merged
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect::<serde_json::Map<_, _>>()
            .into();
        pair.post("/multi-search", &json!({"queries": [query]}));
        if ["offset", "facets", "limit", "hitsPerPage"].iter().all(|name| query.get(name).is_none()) {
            pair.post("/multi-search", &json!({"federation": {"limit": 5, "offset": 1}, "queries": [query, {"indexUid": "own", "q": "3"}]}));
        }
    }
    for body in [json!([{"id": 1, "_miroir_shard": ",,,"}]), json!({"id": 1, "_miroir_shard": null})] {
        let answer = cluster.client.json("POST", "/indexes/own/documents", &body);
        assert_eq!(answer.status, 400, "{}", answer.body);
    }
    pair.end();
}

/// Documents come in one order, whatever part of them is asked for, and whatever of each.
pub fn order_never_depends_on_what_is_shown(cluster: &Sandbox, node: &Node) {
    let mut pair = Pair::new(cluster, node);
    let document = |id: u64| json!({"id": id, "meta": {"ref": format!("k{id:03}")}, "title": format!("river {}", id % 5), "rank": id % 3});
    let settings = json!({"filterableAttributes": ["rank"], "sortableAttributes": ["rank"]});
    let ascending: Vec<Value> = (0..60).map(document).collect();
    pair.create("ascending", "id", &settings, &json!(ascending));
    pair.create("nested", "meta.ref", &settings, &json!(ascending));
    for index in ["ascending", "nested"] {
        for query in [
            "",
            "?fields=title",
            "?fields=title&offset=1",
            "?fields=rank&offset=30&limit=7",
            "?retrieveVectors=true&offset=5",
            "?fields=title&filter=rank=1",
            "?fields=title&sort=rank:desc&offset=3",
        ] {
            pair.get(&format!("/indexes/{index}/documents{query}"));
        }
        for shown in [
            json!({}),
            json!({"attributesToRetrieve": ["title"]}),
            json!({"attributesToRetrieve": []}),
            json!({"attributesToRetrieve": ["meta"]}),
        ] {
            for asked in [
                json!({"offset": 9}),
                json!({"q": "river 2"}),
                json!({"sort": ["rank:asc"], "limit": 50}),
                json!({"q": "river", "sort": ["rank:desc"], "page": 2}),
            ] {
                let members = shown.as_object().unwrap().iter().chain(asked.as_object().unwrap());
                let body: serde_json::Map<String, Value> =
                    members.map(|(name, value)| (name.clone(), value.clone())).collect();
                pair.search(index, &body.into());
            }
        }
    }
    // Ids in any order: not that of one node, but always the same.
    let mut shuffled: Vec<Value> = (0..60).map(|number| document(number * 37 % 61)).collect();
    shuffled.dedup();
    for (index, key, settings) in [
        ("shuffled", "id", json!({"sortableAttributes": ["rank"]})),
        ("shuffled-nested", "meta.ref", json!({"sortableAttributes": ["rank"]})),
        (
            "shuffled-hidden",
            "id",
            json!({"sortableAttributes": ["rank"], "displayedAttributes": ["title", "meta", "rank"]}),
        ),
    ] {
        let client = &cluster.client;
        client.create(index, key, &settings);
        client.add(index, &json!(shuffled));
        let refs = |answer: &Value, list: &str| -> Vec<String> {
            let documents = answer[list].as_array().unwrap_or_else(|| panic!("{answer}")).iter();
            documents.map(|document| document["title"].to_string()).collect()
        };
        let all = refs(&client.get(&format!("/indexes/{index}/documents?limit=100")).body, "results");
        for query in
            ["fields=title&limit=100", "retrieveVectors=true&limit=100", "fields=title,rank&limit=100"]
        {
            let shown = refs(&client.get(&format!("/indexes/{index}/documents?{query}")).body, "results");
            assert_eq!(shown, all, "{index} {query}");
        }
        let paged: Vec<String> = (0..7)
            .flat_map(|page| {
                let path = format!("/indexes/{index}/documents?fields=title&limit=9&offset={}", page * 9);
                refs(&client.get(&path).body, "results")
            })
            .collect();
        assert_eq!(paged, all, "{index}");
        for query in [
            json!({"limit": 100}),
            json!({"q": "river", "limit": 100}),
            json!({"sort": ["rank:asc"], "limit": 100}),
        ] {
            let all = refs(&client.search(index, &query), "hits");
            for shown in [
                json!({"attributesToRetrieve": ["title"]}),
                json!({"attributesToHighlight": ["*"]}),
                json!({"showRankingScore": true}),
                json!({"showMatchesPosition": true, "attributesToCrop": ["title"]}),
            ] {
                let members = query.as_object().unwrap().iter().chain(shown.as_object().unwrap());
                let query: serde_json::Map<String, Value> =
                    members.map(|(name, value)| (name.clone(), value.clone())).collect();
                assert_eq!(
                    refs(&client.search(index, &query.clone().into()), "hits"),
                    all,
                    "{index} {query:?}"
                );
            }
        }
    }
    pair.end();
}

/// Facets: patterns, long values, numbers beside texts that look like them.
pub fn facets_are_those_of_one_node(cluster: &Sandbox, node: &Node) {
    let mut pair = Pair::new(cluster, node);
    let document = |id: u64| {
        let code = match id % 4 {
            0 => json!(id % 9),
            1 => json!((id % 30 + 9).to_string()),
            2 => json!(format!("{}.5", id % 5)),
            _ => json!([id % 3, format!("x{}", id % 3)]),
        };
        let long = format!("{}{}", "long value ".repeat(50), id % 3);
        json!({"id": id, "genre": format!("g{}", id % 11), "code": code, "_own": id % 2, "long": long, "empty": "",
            "short": format!("{}{}", "v".repeat(400), id % 4)})
    };
    let documents: Vec<Value> = (0..120).map(document).collect();
    let rule =
        |patterns: Value, features: Value| json!({"attributePatterns": patterns, "features": features});
    let shapes = [
        ("none", json!([])),
        ("names", json!(["genre", "code", "long", "empty", "short"])),
        ("own", json!(["_own", "genre"])),
        ("all", json!(["*"])),
        (
            "rules",
            json!([
                rule(
                    json!(["g*", "*de"]),
                    json!({"facetSearch": true, "filter": {"equality": true, "comparison": false}})
                ),
                rule(json!(["long"]), json!({"filter": {"equality": false}})),
                "short"
            ]),
        ),
    ];
    for (index, filterable) in &shapes {
        let settings = json!({"filterableAttributes": filterable, "sortableAttributes": ["long", "empty", "code"],
            "faceting": {"maxValuesPerFacet": 20}});
        pair.create(index, "id", &settings, &json!(documents));
        let patterns = [
            "*",
            "**",
            "_*",
            "*shard",
            "_m*",
            "*miroir*",
            "_miroir_shard",
            "_miroir_shard*",
            "_miroir_*",
            "genre",
            "g*",
            "*e",
            "*o*",
            "long",
            "nope",
            "nope*",
            "_own",
            "_o*",
        ];
        for pattern in patterns {
            pair.search(index, &json!({"facets": [pattern], "limit": 0}));
            pair.get(&format!("/indexes/{index}/search?limit=0&facets={pattern}"));
            pair.post(
                "/multi-search",
                &json!({"queries": [{"indexUid": index, "facets": [pattern], "limit": 0}]}),
            );
            pair.post("/multi-search", &json!({"federation": {"limit": 0, "facetsByIndex": {(*index): [pattern]}}, "queries": [{"indexUid": index}]}));
            pair.post(&format!("/indexes/{index}/facet-search"), &json!({"facetName": pattern}));
        }
        for body in [
            json!({"facets": ["genre", "_*"], "limit": 0}),
            json!({"facets": ["_*", "*"], "limit": 0, "q": "_*"}),
            json!({"distinct": "nope"}),
            json!({"distinct": "_miroir_shard"}),
            json!({"filter": "nope = 1"}),
            json!({"filter": "genre > 1"}),
            json!({"filter": "long = 1"}),
            json!({"filter": "_miroir_shard = 1"}),
            json!({"filter": "_miroir_shard EXISTS OR genre = g1", "limit": 2}),
            json!({"sort": ["nope:asc"]}),
            json!({"sort": ["_miroir_shard:asc"]}),
        ] {
            pair.search(index, &body);
        }
        let path = format!("/indexes/{index}/settings/displayed-attributes");
        for client in pair.clients {
            client.succeeded(&client.json("PUT", &path, &json!(["id", "genre"])));
        }
        for body in [
            json!({"distinct": "nope"}),
            json!({"filter": "nope = 1"}),
            json!({"sort": ["nope:asc"]}),
            json!({"distinct": "long"}),
        ] {
            pair.search(index, &body);
        }
        pair.post(&format!("/indexes/{index}/facet-search"), &json!({"facetName": "nope"}));
        for client in pair.clients {
            client.succeeded(&client.send("DELETE", &path, None, ""));
        }
    }
    for limit in [100, 4, 1] {
        for by in ["alpha", "count"] {
            let faceting = json!({"maxValuesPerFacet": limit, "sortFacetValuesBy": {"*": by}});
            for client in pair.clients {
                client.succeeded(&client.json("PATCH", "/indexes/names/settings/faceting", &faceting));
            }
            for facet in ["code", "long", "empty", "short", "genre"] {
                // Of values with one count a tree of them says which comes first.
                if by == "count" && limit < 100 && facet != "long" {
                    continue;
                }
                pair.search("names", &json!({"facets": [facet], "limit": 0}));
                pair.search(
                    "names",
                    &json!({"facets": [facet], "limit": 0, "filter": "id < 40 OR genre = g1"}),
                );
                if by == "alpha" {
                    pair.search(
                        "names",
                        &json!({"facets": [facet], "limit": 0, "filter": "genre IN [g1, g2]"}),
                    );
                }
            }
        }
    }
    for sort in ["long:asc", "long:desc", "empty:asc", "code:asc", "code:desc"] {
        pair.search(
            "names",
            &json!({"sort": [sort, "code:asc"], "attributesToRetrieve": ["id"], "limit": 50}),
        );
        pair.get(&format!("/indexes/names/documents?fields=id&limit=50&sort={sort}"));
    }
    for distinct in ["long", "short"] {
        pair.search(
            "names",
            &json!({"distinct": distinct, "attributesToRetrieve": ["id"], "hitsPerPage": 50}),
        );
        for offset in 0..6 {
            let page =
                json!({"distinct": distinct, "attributesToRetrieve": ["id"], "limit": 2, "offset": offset});
            pair.search("names", &page);
        }
    }
    for client in pair.clients {
        let faceting = json!({"maxValuesPerFacet": u64::MAX});
        client.succeeded(&client.json("PATCH", "/indexes/names/settings/faceting", &faceting));
    }
    pair.get("/indexes/names/settings/faceting");
    pair.search("names", &json!({"facets": ["genre"], "limit": 0}));
    pair.end();
}

/// Bodies of every type and compression, on routes of every kind.
pub fn types_and_compressions_of_bodies_are_those_of_one_node(cluster: &Sandbox, node: &Node) {
    let mut pair = Pair::new(cluster, node);
    let documents: Vec<Value> = (0..9).map(|id| json!({"id": id, "a": id % 3, "title": "river"})).collect();
    pair.create("typed", "id", &json!({"filterableAttributes": ["a"]}), &json!(documents));
    let json = json!({"q": "river"}).to_string();
    let routes: [(&str, &str, String); 17] = [
        ("POST", "/indexes/typed/search", json.clone()),
        ("POST", "/multi-search", json!({"queries": [{"indexUid": "typed"}]}).to_string()),
        ("POST", "/multi-search", json!({"federation": {}, "queries": [{"indexUid": "typed"}]}).to_string()),
        ("POST", "/indexes/typed/facet-search", json!({"facetName": "a"}).to_string()),
        ("POST", "/indexes/typed/documents/fetch", json!({"limit": 2}).to_string()),
        ("POST", "/indexes/typed/documents", json!([{"id": 1, "a": 1, "title": "river"}]).to_string()),
        ("PUT", "/indexes/typed/documents", json!([{"id": 1, "a": 1}]).to_string()),
        ("POST", "/indexes/typed/documents/delete-batch", json!([77]).to_string()),
        ("POST", "/indexes/typed/documents/delete", json!({"filter": "a = 77"}).to_string()),
        ("PATCH", "/indexes/typed/settings", json!({"stopWords": ["the"]}).to_string()),
        ("PUT", "/indexes/typed/settings/stop-words", json!(["of"]).to_string()),
        ("PATCH", "/indexes/typed/settings/pagination", json!({"maxTotalHits": 500}).to_string()),
        ("PATCH", "/indexes/typed", json!({"primaryKey": "id"}).to_string()),
        ("POST", "/indexes", json!({"uid": "typed", "primaryKey": "id"}).to_string()),
        ("PATCH", "/experimental-features", json!({"metrics": false}).to_string()),
        ("POST", "/keys", json!({"actions": ["nope"], "indexes": [], "expiresAt": null}).to_string()),
        ("POST", "/swap-indexes", json!([]).to_string()),
    ];
    let types = [
        None,
        Some("application/json; charset=utf-8"),
        Some("application/json;charset=latin1"),
        Some("application/vnd.api+json"),
        Some("text/json"),
        Some("application/json+zip"),
        Some("text/plain"),
        Some("application/json, text/plain"),
        Some("application/json ; charset=utf-8"),
        Some("application/"),
        Some(""),
    ];
    for (method, path, body) in &routes {
        for kind in types {
            pair.check(&format!("{method} {path} as {kind:?}"), |client| {
                let answer = client.send(method, path, kind, body.clone());
                if answer.status == 202 {
                    drop(client.ended(&answer));
                }
                answer
            });
        }
        let gzip = {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(body.as_bytes()).unwrap();
            encoder.finish().unwrap()
        };
        let zlib = {
            let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(body.as_bytes()).unwrap();
            encoder.finish().unwrap()
        };
        let plain = body.clone().into_bytes();
        let cut = gzip[..gzip.len() - 9].to_vec();
        let streams = [("gzip", gzip.clone()), ("deflate", zlib), ("br", brotli(body.as_bytes()))];
        let others = [
            ("GZIP", gzip.clone()),
            ("identity", plain.clone()),
            ("gzip", plain),
            ("br", gzip),
            ("gzip", cut),
        ];
        // What is no stream of its encoding, the development node refuses in words of its own.
        let others = others.into_iter().filter(|_| pair.is_real).collect::<Vec<_>>();
        for (encoding, bytes) in streams.into_iter().chain(others) {
            let whole = bytes.len();
            pair.check(&format!("{method} {path} in {encoding}, {whole} bytes"), |client| {
                let answer =
                    client.encoded(method, path, Some("application/json"), Some(encoding), bytes.clone());
                if answer.status == 202 {
                    drop(client.ended(&answer));
                }
                answer
            });
        }
    }
    pair.end();
}

/// A stream of brotli that stores these bytes as they are. Source: RFC 7932, 9.2.
fn brotli(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len() - 1).unwrap();
    assert!(length < 1 << 16);
    // WBITS 16 (one bit, 0); not the last block, four nibbles of length less one, not compressed.
    let bits = u64::from(length) << 4 | 1 << 20;
    let mut stream = bits.to_le_bytes()[..3].to_vec();
    stream.extend_from_slice(bytes);
    // The last block, which is empty.
    stream.push(3);
    stream
}

/// Queries of tasks, pages beyond all ends, paths and protocols of other times.
pub fn edges_of_requests_are_those_of_one_node(cluster: &Sandbox, node: &Node) {
    let mut pair = Pair::new(cluster, node);
    let documents: Vec<Value> = (0..50).map(|id| json!({"id": id, "title": "river"})).collect();
    pair.create("edge", "id", &json!({}), &json!(documents));
    for query in [
        "indexUids=nothing,",
        "indexUids=,nothing",
        "indexUids=",
        "indexUids=a,,b c",
        "indexUids=,",
        "uids=,7777777",
        "uids=7777777,x,y",
        "uids=7777777,%20x",
        "uids=",
        "statuses=,",
        "statuses=failed,&indexUids=nothing",
        "types=",
        "types=nope,",
        "canceledBy=7777777,",
        "limit=",
        "from=-1",
        "limit=99999999999",
    ] {
        pair.get(&format!("/tasks?{query}"));
        pair.check(&format!("cancel {query}"), |client| {
            let answer = client.send("POST", &format!("/tasks/cancel?{query}"), None, "");
            // What is matched by everything is not compared.
            Answer { bytes: if answer.status < 300 { Vec::new() } else { answer.bytes.clone() }, ..answer }
        });
    }
    let huge = u64::MAX;
    for (page, per_page) in [
        (0, 5),
        (1, 0),
        (huge, 0),
        (huge, 1),
        (huge, huge),
        (1, huge),
        (2, huge),
        ((1 << 63) + 1, 2),
        (1 << 32, 1 << 32),
        ((1 << 32) + 1, 1 << 32),
        (3, 20),
        (4, 20),
        (1000, 20),
    ] {
        // `miroir-devnode` adds an offset and a limit without wrapping.
        if !pair.is_real && (page, per_page) == (huge, huge) {
            continue;
        }
        let body = json!({"page": page, "hitsPerPage": per_page, "attributesToRetrieve": ["id"]});
        pair.search("edge", &body);
        pair.search(
            "edge",
            &json!({"q": "river", "page": page, "hitsPerPage": per_page, "attributesToRetrieve": ["id"]}),
        );
        pair.post(
            "/multi-search",
            &json!({"queries": [{"indexUid": "edge", "page": page, "hitsPerPage": per_page}]}),
        );
    }
    for (offset, limit) in
        [(0, huge), (20, huge), (huge, 20), (huge, huge), (49, 2), (50, 2), (1 << 63, 1 << 63)]
    {
        let body = json!({"offset": offset, "limit": limit, "attributesToRetrieve": ["id"]});
        if pair.is_real || (offset, limit) != (20, huge) {
            pair.search("edge", &body);
        }
        pair.get(&format!("/indexes/edge/documents?fields=id&offset={offset}&limit={limit}"));
    }
    for target in [
        "/indexes/edge#/stats",
        "/indexes/edge/documents/1#x",
        "/indexes/edge/documents?limit=1#&limit=2",
        "/indexes/./edge/documents/1",
        "/indexes/edge/./documents/1",
        "/indexes/edge/documents/../documents/1",
        "/indexes/edge/documents/.",
        "/indexes/edge/documents/..",
        "/./indexes/edge",
        "/indexes/%2e/documents/1",
        r"/indexes/edge\documents",
        "/indexes//edge///documents/1/",
        "/health#",
        "/health/./",
    ] {
        pair.check(target, |client| {
            ask_raw(client.url(), Some(MASTER_KEY), "GET", target, &[], b"").unwrap()
        });
    }
    for host in ["", "host: x\r\n"] {
        for (method, path) in [
            ("GET", "/health"),
            ("GET", "/indexes/edge/documents/1"),
            ("GET", "/indexes/edge/search?limit=1"),
            ("GET", "/nope"),
        ] {
            pair.check(&format!("HTTP/1.0 {method} {path} {host:?}"), |client| {
                old(client, &format!("{method} {path} HTTP/1.0\r\n{host}"))
            });
        }
    }
    if pair.is_real {
        cross_origin(&mut pair);
    }
    pair.end();
}

/// What browsers look at. The development node's library has its own way.
fn cross_origin(pair: &mut Pair<'_>) {
    let origin = ("origin", "http://example.org");
    let method = |name: &'static str| ("access-control-request-method", name);
    let cases: [(&str, Vec<(&str, &str)>); 12] = [
        ("OPTIONS", vec![origin, method("POST")]),
        ("OPTIONS", vec![method("POST")]),
        ("OPTIONS", vec![origin, method("post")]),
        ("OPTIONS", vec![origin, method("NOPE")]),
        ("OPTIONS", vec![origin, method("A B")]),
        ("OPTIONS", vec![origin, method("")]),
        ("OPTIONS", vec![origin, method("PATCH"), ("access-control-request-headers", "x-one, X-Two")]),
        ("OPTIONS", vec![origin, method("PATCH"), ("access-control-request-private-network", "true")]),
        ("OPTIONS", vec![origin]),
        ("GET", vec![origin]),
        ("GET", vec![]),
        ("GET", vec![origin, ("accept-encoding", "gzip")]),
    ];
    for path in
        ["/indexes/edge/documents/1", "/indexes/edge", "/health", "/nope", "/indexes/edge/documents/none"]
    {
        for (method, headers) in &cases {
            let ask = |client: &Client| {
                let answer = client.ask(method, path, headers, "");
                let names = [
                    "vary",
                    "access-control-allow-origin",
                    "access-control-allow-methods",
                    "access-control-allow-headers",
                    "access-control-max-age",
                    "access-control-expose-headers",
                    "access-control-allow-private-network",
                    "allow",
                    "content-type",
                ];
                let told = json!(answer.listed(names));
                Answer { bytes: told.to_string().into_bytes(), ..answer }
            };
            pair.check(&format!("{method} {path} {headers:?}"), ask);
        }
    }
}

/// A request of HTTP/1.0, whose answer ends with the connection.
fn old(client: &Client, head: &str) -> Answer {
    let address = client.url().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(format!("{head}authorization: Bearer {MASTER_KEY}\r\n\r\n").as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, headers: Vec::new(), body: Value::Null, bytes: body.as_bytes().to_vec() }
}
