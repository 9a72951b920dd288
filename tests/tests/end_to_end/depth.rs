//! Hybrid searches and deep pages, which no node can decide alone.

use miroir_tests::{Client, Node, Sandbox};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const WORDS: [&str; 10] =
    ["river", "mountain", "castle", "garden", "silver", "northern", "forest", "bridge", "harbour", "ancient"];

/// Numbers that look random and are the same in every run.
fn noise(seed: u64) -> f64 {
    let mixed = (seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x2545_F491).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    (mixed >> 11) as f64 / (1u64 << 53) as f64 - 0.5
}

fn vector(seed: u64) -> Value {
    (0..4).map(|axis| noise(seed * 4 + axis)).collect()
}

fn words(seed: u64, count: u64) -> String {
    let word = |at: u64| WORDS[((noise(seed * 31 + at) + 0.5) * 10.0) as usize % 10];
    (0..count).map(word).collect::<Vec<_>>().join(" ")
}

fn answer(client: &Client, path: &str, body: &Value) -> Value {
    let answer = client.json("POST", path, body);
    assert_eq!(answer.status, 200, "{body}: {}", answer.body);
    fn comparable(value: &mut Value) {
        match value {
            Value::Object(members) => {
                members.remove("processingTimeMs");
                members.remove("requestUid");
                members.values_mut().for_each(comparable);
            }
            Value::Array(members) => members.iter_mut().for_each(comparable),
            _ => {}
        }
    }
    let mut body = answer.body;
    comparable(&mut body);
    body
}

pub fn hybrid_searches_are_decided_over_all_nodes(cluster: &Sandbox, node: &Node) {
    let documents: Vec<Value> = (0..600u64)
        .map(|id| {
            let vector = if id % 10 == 0 { Value::Null } else { vector(id) };
            json!({"id": id, "title": words(id, 1 + id % 3), "text": words(id + 9000, 8), "_vectors": {"e": vector}})
        })
        .collect();
    for client in [&cluster.client, &node.client] {
        client.create(
            "things",
            "id",
            &json!({"embedders": {"e": {"source": "userProvided", "dimensions": 4}}}),
        );
        client.add("things", &json!(documents));
    }
    let real = miroir_tests::nodes_are_real();
    let (mut compared, mut semantic) = (0, 0);
    for seed in 0..60u64 {
        let ratio = [0.0, 0.1, 0.3, 0.5, 0.54, 0.56, 0.9, 1.0][seed as usize % 8];
        let (limit, offset) = [(1, 0), (5, 0), (20, 7), (20, 507)][seed as usize / 8 % 4];
        let query = json!({"q": words(seed + 20_000, 1 + seed % 3), "vector": vector(seed + 40_000),
            "hybrid": {"embedder": "e", "semanticRatio": ratio}, "limit": limit,
            "offset": offset, "showRankingScore": true});
        let (one, other) = (
            answer(&cluster.client, "/indexes/things/search", &query),
            answer(&node.client, "/indexes/things/search", &query),
        );
        // Ties may have any order, so only scores, counts and totals are compared: they show whether the decision and the
        // mixing are the same.
        let scores = |answer: &Value| {
            answer["hits"]
                .as_array()
                .unwrap()
                .iter()
                .map(|hit| hit["_rankingScore"].clone())
                .collect::<Vec<_>>()
        };
        // `miroir-devnode` does not always find the nearest vectors, so only results that are decided by keywords are compared.
        if !real && other["semanticHitCount"].as_u64().is_some_and(|count| count > 0) {
            continue;
        }
        assert_eq!(scores(&one), scores(&other), "{query}");
        let hits = one["hits"].as_array().unwrap();
        let ids: BTreeSet<u64> = hits.iter().map(|hit| hit["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), hits.len(), "every document once: {query}");
        assert!(hits.iter().all(|hit| hit["title"].is_string()), "{one}");
        for member in ["semanticHitCount", "estimatedTotalHits", "query", "limit", "offset"] {
            assert_eq!(one.get(member), other.get(member), "{member} of {query}");
        }
        compared += 1;
        semantic += one["semanticHitCount"].as_u64().unwrap_or(0);

        // `miroir-devnode` orders the hits of a federated hybrid query only by score.
        if !real {
            continue;
        }
        let mut query = query;
        for paging in ["limit", "offset"] {
            query.as_object_mut().unwrap().remove(paging);
        }
        query["indexUid"] = "things".into();
        let federated = json!({"federation": {"limit": 15, "offset": offset}, "queries": [query, {"indexUid": "things", "q": "river"}]});
        let (one, other) = (
            answer(&cluster.client, "/multi-search", &federated),
            answer(&node.client, "/multi-search", &federated),
        );
        assert_eq!(scores(&one), scores(&other), "{federated}");
        assert_eq!(one["semanticHitCount"], other["semanticHitCount"], "{federated}");
        assert_eq!(one["estimatedTotalHits"], other["estimatedTotalHits"], "{federated}");
    }
    assert!(compared > 10, "{compared} queries compared");
    assert!(!real || semantic > 50, "{semantic} semantic hits: queries are too easy");
}

pub fn deep_pages_of_federated_searches_and_lists_are_those_of_one_node(cluster: &Sandbox, node: &Node) {
    let document = |id: u64| {
        json!({"id": id, "title": words(id, 1 + id % 3), "text": words(id + 9000, 8), "group": id * 7 % 1300,
               "rank": id * 31 % 1999})
    };
    let documents: Vec<Value> = (0..2000).map(document).collect();
    for client in [&cluster.client, &node.client] {
        for index in ["one", "two"] {
            let settings = json!({"filterableAttributes": ["group", "rank"], "sortableAttributes": ["rank"],
                                  "pagination": {"maxTotalHits": 5000}});
            client.create(index, "id", &settings);
            client.add(index, &json!(documents));
        }
    }
    let queries = |first: Value, second: Value| {
        let mut queries = [first, second];
        for (query, index) in queries.iter_mut().zip(["one", "two"]) {
            query["indexUid"] = index.into();
        }
        queries
    };
    let kinds = [
        queries(json!({"q": "river"}), json!({"q": "silver castle", "federationOptions": {"weight": 0.8}})),
        queries(json!({"q": "forest", "filter": "group > 100"}), json!({"q": "bridge river"})),
        queries(json!({"sort": ["rank:asc"]}), json!({"sort": ["rank:asc"], "filter": "group < 900"})),
        queries(
            json!({"q": "garden", "attributesToRetrieve": ["title"]}),
            json!({"q": "garden", "showRankingScore": true}),
        ),
    ];
    for (offset, limit) in [(499, 30), (500, 30), (900, 40), (1990, 30), (2500, 3)] {
        for rest in [
            json!({}),
            json!({"sort": ["rank:desc"], "fields": ["title", "rank"]}),
            json!({"filter": "group < 1000", "fields": ["text"]}),
            json!({"sort": ["rank:asc"], "fields": ["id"], "retrieveVectors": true}),
        ] {
            let mut body = json!({"offset": offset, "limit": limit});
            body.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            let [one, other] = [&cluster.client, &node.client]
                .map(|client| answer(client, "/indexes/one/documents/fetch", &body));
            assert_eq!(one, other, "{body}");
        }
    }
    for queries in kinds {
        for (offset, limit) in [(499, 30), (500, 30), (650, 5), (900, 40), (1500, 20), (1990, 30)] {
            for federation in [
                json!({"offset": offset, "limit": limit}),
                json!({"page": offset / limit + 1, "hitsPerPage": limit}),
                json!({"offset": offset, "limit": limit, "distinct": "group"}),
                json!({"offset": offset, "limit": limit, "facetsByIndex": {"one": ["group"]}}),
            ] {
                let body = json!({"federation": federation, "queries": queries});
                let mut answers =
                    [&cluster.client, &node.client].map(|client| answer(client, "/multi-search", &body));
                if federation["distinct"].is_string() {
                    answers.iter_mut().for_each(|answer| drop(answer["estimatedTotalHits"].take()));
                }
                let [one, other] = answers;
                assert_eq!(one, other, "{body}");
            }
        }
    }
}

/// Bytes that Envoy has received from upstreams.
fn received(cluster: &Sandbox) -> u64 {
    let state = std::fs::read(cluster.data().join("playground.json")).unwrap();
    let state: Value = serde_json::from_slice(&state).unwrap();
    let admin = Client::new(format!("http://127.0.0.1:{}", state["ports"]["admin-0"]), None);
    let stats = admin.get("/stats?format=json&filter=upstream_cx_rx_bytes_total").body;
    stats["stats"].as_array().unwrap().iter().filter_map(|stat| stat["value"].as_u64()).sum()
}

pub fn a_deep_page_moves_its_own_documents_only(cluster: &Sandbox) {
    let client = &cluster.client;
    client.create(
        "long",
        "id",
        &json!({"searchableAttributes": ["id"], "sortableAttributes": ["rank"], "pagination": {"maxTotalHits": 100_000}}),
    );
    let text = "x".repeat(4000);
    let documents: Vec<Value> =
        (0..4000u64).map(|id| json!({"id": id, "rank": id * 7 % 4001, "text": text})).collect();
    client.add("long", &json!(documents));
    let mut ranks: Vec<u64> = documents.iter().map(|document| document["rank"].as_u64().unwrap()).collect();
    ranks.sort_unstable();
    let begun = received(cluster);
    let answer = client.search("long", &json!({"sort": ["rank:asc"], "offset": 3000, "limit": 10}));
    let moved = received(cluster) - begun;
    let found: Vec<u64> =
        answer["hits"].as_array().unwrap().iter().map(|hit| hit["rank"].as_u64().unwrap()).collect();
    assert_eq!(found, &ranks[3000..3010]);
    assert!(answer["hits"].as_array().unwrap().iter().all(|hit| hit["text"] == text.as_str()));
    assert_eq!(
        (&answer["offset"], &answer["limit"], &answer["estimatedTotalHits"]),
        (&json!(3000), &json!(10), &json!(4000))
    );
    assert!(answer.get("indexUid").is_none());
    assert!(moved < 2_000_000, "{moved} bytes: 3010 documents alone are 12 MB");

    // The same in a federated search whose queries find the same documents.
    let query = json!({"indexUid": "long", "sort": ["rank:asc"]});
    let begun = received(cluster);
    let federated = json!({"federation": {"offset": 3000, "limit": 10}, "queries": [query, query]});
    let answer = client.json("POST", "/multi-search", &federated).body;
    let moved = received(cluster) - begun;
    let hits = answer["hits"].as_array().unwrap();
    let found: Vec<u64> = hits.iter().map(|hit| hit["rank"].as_u64().unwrap()).collect();
    assert_eq!(found, &ranks[3000..3010], "{answer}");
    assert!(hits.iter().all(|hit| hit["text"] == text.as_str() && hit["_federation"].is_object()));
    assert_eq!((&answer["offset"], &answer["limit"]), (&json!(3000), &json!(10)));
    assert!(moved < 2_500_000, "{moved} bytes: 3010 documents alone are 12 MB");

    // The same in a list of documents.
    let begun = received(cluster);
    let list = json!({"sort": ["rank:asc"], "offset": 3000, "limit": 10});
    let answer = client.json("POST", "/indexes/long/documents/fetch", &list).body;
    let moved = received(cluster) - begun;
    let documents = answer["results"].as_array().unwrap();
    let found: Vec<u64> = documents.iter().map(|document| document["rank"].as_u64().unwrap()).collect();
    assert_eq!((found.as_slice(), &answer["total"]), (&ranks[3000..3010], &json!(4000)));
    assert!(documents.iter().all(|document| document["text"] == text.as_str()));
    assert!(moved < 500_000, "{moved} bytes: 3010 documents alone are 12 MB");

    // Checks that the pages contain every document once, also across the offset from which pages are fetched in two steps.
    let pages = (0..16).flat_map(|page| {
        let answer = client
            .search("long", &json!({"offset": page * 250, "limit": 250, "attributesToRetrieve": ["id"]}));
        answer["hits"].as_array().unwrap().iter().map(|hit| hit["id"].as_u64().unwrap()).collect::<Vec<_>>()
    });
    let mut seen: Vec<u64> = pages.collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..4000).collect::<Vec<_>>());
}

pub fn a_deep_page_of_vectors_moves_its_own_documents_only(cluster: &Sandbox) {
    let client = &cluster.client;
    let embedders = json!({"e": {"source": "userProvided", "dimensions": 4}});
    client.create("near", "id", &json!({"searchableAttributes": ["title"], "embedders": embedders}));
    let real = miroir_tests::nodes_are_real();
    let text = "x".repeat(6000);
    let document = |id: u64| json!({"id": id, "title": words(id, 1 + id % 3), "text": text, "_vectors": {"e": vector(id)}});
    client.add("near", &(0..900).map(document).collect());
    let hybrid = |ratio: f64| json!({"embedder": "e", "semanticRatio": ratio});
    for query in [
        json!({"vector": vector(5000), "hybrid": hybrid(1.0)}),
        json!({"q": "river", "vector": vector(6000), "hybrid": hybrid(0.7)}),
        json!({"q": "silver castle", "vector": vector(7000), "hybrid": hybrid(0.5)}),
    ] {
        let mut single = query.clone();
        single["offset"] = json!(700);
        single["limit"] = json!(10);
        let mut of_federation = query;
        of_federation["indexUid"] = json!("near");
        let federated = json!({"federation": {"offset": 700, "limit": 10}, "queries": [of_federation]});
        for (path, query) in [("/indexes/near/search", single), ("/multi-search", federated)] {
            let begun = received(cluster);
            let answer = client.json("POST", path, &query).body;
            let moved = received(cluster) - begun;
            let hits = answer["hits"].as_array().unwrap();
            let ids: BTreeSet<u64> = hits.iter().map(|hit| hit["id"].as_u64().unwrap()).collect();
            assert_eq!(ids.len(), 10, "{answer}");
            assert!(hits.iter().all(|hit| hit["text"] == text.as_str()), "{answer}");
            // For `miroir-devnode` the first neighbours change with the number of wanted neighbours, so that the gateway has to
            // request all hits at once in the end.
            assert!(!real || moved < 1_500_000, "{moved} bytes: 710 documents alone are 4.3 MB: {query}");
        }
    }
}
