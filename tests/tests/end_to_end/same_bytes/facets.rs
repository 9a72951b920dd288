//! Facets: patterns, long values, numbers beside strings that look like numbers.

use super::Pair;
use miroir_tests::{Node, Sandbox};
use serde_json::{Value, json};

/// Facets: patterns, long values, numbers beside strings that look like numbers.
pub fn facets_are_those_of_one_node(cluster: &Sandbox, node: &Node) {
    let mut pair = Pair::new(cluster, node);
    let document = |id: u64| {
        let code = match id % 4 {
            0 => json!(id % 9),
            1 => json!((id % 30 + 9).to_string()),
            2 => json!(format!("{}.5", id % 5)),
            _ => json!([id % 3, format!("x{}", id % 3)]),
        };
        // The difference is at the beginning: for values that differ only after the point where they are cut, the shown one
        // depends on the node.
        let long = format!("{} {}{}", id % 3, "long value ".repeat(50), id % 3);
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
                // Among values with the same count, the tree structure of the facet decides which comes first.
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
