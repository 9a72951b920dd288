//! Documents: fields with names that Meilisearch uses itself, and an order that does not depend on what is shown.

use super::Pair;
use miroir_tests::{Node, Sandbox};
use serde_json::{Value, json};

/// Fields with the names of members that a search adds to a document.
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

/// Documents have the same order, whichever page and whichever fields are requested.
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
    // Ids in random order: the order may differ from that of one node, but must always be the same.
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
