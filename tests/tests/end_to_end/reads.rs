//! A cluster must answer as a single node with the same documents does.

use miroir_tests::{Client, Node, Sandbox, pass, wait_until};
use serde_json::{Value, json};
use std::time::Duration;

const WORDS: [&str; 12] = [
    "river", "mountain", "castle", "garden", "silver", "northern", "forest", "bridge", "harbour", "ancient",
    "crystal", "meadow",
];

/// Documents with text, facets, numbers and coordinates, some of them without some fields.
fn documents() -> Vec<Value> {
    (0..600usize)
        .map(|id| {
            let word = |step: usize| WORDS[(id * step + id / 7) % WORDS.len()];
            let mut document = json!({
                "id": id,
                "title": format!("{} {} {}", word(5), word(7), id % 40),
                "text": format!("the {} by the {} and a {}", word(1), word(11), word(3)),
                "genre": word(2),
                "tags": [word(3), word(4)],
                "rank": id * 37 % 600,
                "_geo": {"lat": 40.0 + (id % 50) as f64 / 10.0, "lng": 2.0 + (id % 70) as f64 / 10.0},
            });
            if id % 3 == 0 {
                document["price"] = json!((id * 31 % 97) as f64 / 2.0);
            }
            document
        })
        .collect()
}

fn settings() -> Value {
    json!({
        "searchableAttributes": ["title", "text"],
        // `rank` is left out, because it has more values than a facet shows.
        "filterableAttributes": ["genre", "tags", "price", "_geo"],
        "sortableAttributes": ["price", "rank", "title", "_geo"],
    })
}

/// Queries with a total order, so that answers can be compared hit by hit.
fn queries() -> Vec<Value> {
    let total = "rank:asc";
    vec![
        json!({"sort": [total]}),
        json!({"q": "river", "sort": [total]}),
        json!({"q": "montain", "sort": [total], "showRankingScore": true}),
        json!({"q": "silver castle", "sort": [total], "limit": 50, "offset": 5}),
        json!({"q": "silver castle", "sort": [total], "matchingStrategy": "all", "limit": 100}),
        json!({"q": "\"by the\"", "sort": [total], "limit": 7, "offset": 13}),
        json!({"q": "ancient", "filter": "price > 10 AND genre = river", "sort": [total]}),
        json!({"q": "", "filter": [["genre = river", "genre = castle"], "price < 30"], "sort": [total]}),
        json!({"q": "", "sort": ["price:asc", total], "limit": 250}),
        json!({"q": "", "sort": ["price:desc", total], "limit": 250}),
        json!({"q": "garden", "sort": ["title:asc", total], "attributesToRetrieve": ["title", "rank"]}),
        json!({"q": "", "sort": ["_geoPoint(42.2, 4.4):asc", total], "limit": 30}),
        json!({"q": "bridge", "sort": ["_geoPoint(42.2, 4.4):desc", total], "limit": 30}),
        json!({"q": "", "filter": "_geoRadius(42.2, 4.4, 60000)", "sort": [total], "limit": 600}),
        json!({"q": "harbour", "page": 2, "hitsPerPage": 9, "sort": [total]}),
        json!({"q": "harbour", "page": 40, "hitsPerPage": 9, "sort": [total]}),
        json!({"q": "", "hitsPerPage": 0}),
        json!({"q": "meadow", "facets": ["genre", "tags", "price"], "sort": [total]}),
        json!({"q": "", "facets": ["*"], "limit": 0}),
        json!({"q": "crystal river", "sort": [total], "attributesToHighlight": ["*"], "attributesToCrop": ["text"],
               "cropLength": 3, "showMatchesPosition": true}),
        json!({"q": "nothing at all like this"}),
    ]
}

/// An answer without times and ids of requests, which may differ.
fn comparable(mut answer: Value) -> Value {
    if let Some(answer) = answer.as_object_mut() {
        answer.remove("processingTimeMs");
        answer.remove("requestUid");
    }
    answer
}

fn fill(client: &Client, documents: &[Value]) {
    client.create("things", "id", &settings());
    for batch in documents.chunks(150) {
        client.add("things", &json!(batch));
    }
}

fn compare(cluster: &Client, node: &Client) {
    for query in queries() {
        let (one, other) = (cluster.search("things", &query), node.search("things", &query));
        assert_eq!(comparable(one), comparable(other), "{query}");
    }
}

/// The cluster has more hits than `maxTotalHits`, but no single node has.
pub fn totals_stop_where_those_of_one_node_do(cluster: &Sandbox, node: &Node) {
    let documents: Vec<Value> = (0..60).map(|id| json!({"id": id, "title": WORDS[id % 3]})).collect();
    let clients = [&cluster.client, &node.client];
    for client in clients {
        client.create("many", "id", &json!({"pagination": {"maxTotalHits": 50}}));
        client.add("many", &json!(documents));
    }
    let totals = |client: &Client| -> Vec<Value> {
        let pages = json!({"hitsPerPage": 7, "page": 7});
        let many = json!({"queries": [{"indexUid": "many", "hitsPerPage": 7}]});
        let one = client.json("POST", "/indexes/many/search", &json!({"offset": 45})).body;
        let pages = client.json("POST", "/indexes/many/search", &pages).body;
        let many = client.json("POST", "/multi-search", &many).body["results"][0].take();
        let hits = |answer: &Value| json!(answer["hits"].as_array().unwrap().len());
        let tell = |answer: &Value| {
            ["estimatedTotalHits", "totalHits", "totalPages"].map(|name| answer[name].clone())
        };
        [&one, &pages, &many]
            .into_iter()
            .flat_map(|answer| [hits(answer)].into_iter().chain(tell(answer)))
            .collect()
    };
    let mut told = Vec::new();
    for legacy in [true, false] {
        for client in clients {
            let answer = client.json("PATCH", "/experimental-features", &json!({"legacySearch": legacy}));
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
        let wanted = totals(&node.client);
        wait_until("gateways count as nodes do", || totals(&cluster.client) == wanted);
        told.push(wanted);
    }
    assert_ne!(told[0], told[1], "the limit changes the totals");
}

pub fn a_cluster_answers_as_one_node_does_and_goes_on_when_a_node_dies(cluster: &Sandbox, node: &Node) {
    let documents = documents();
    fill(&cluster.client, &documents);
    fill(&node.client, &documents);
    compare(&cluster.client, &node.client);

    // The same with GET.
    for query in [
        "q=river&sort=rank:asc&limit=5&facets=genre",
        "q=castle&sort=_geoPoint(42.2,%204.4):asc,rank:asc&filter=price%20%3E%203&page=1&hitsPerPage=3",
    ] {
        let path = format!("/indexes/things/search?{query}");
        assert_eq!(
            comparable(cluster.client.get(&path).body),
            comparable(node.client.get(&path).body),
            "{query}"
        );
    }

    // A document, some fields of a document, and a document that does not exist.
    for path in [
        "/indexes/things/documents/77",
        "/indexes/things/documents/77?fields=title,rank",
        "/indexes/things/documents/none",
    ] {
        let (one, other) = (cluster.client.get(path), node.client.get(path));
        assert_eq!((one.status, one.body), (other.status, other.body), "{path}");
    }

    // Errors are those of a node.
    for body in [
        json!({"filter": "nope = 1"}),
        json!({"filter": "genre ="}),
        json!({"sort": ["genre:asc"]}),
        json!({"limit": "three"}),
        json!({"unknown": 1}),
        json!({"facets": ["nope"]}),
    ] {
        let ask = |client: &Client| client.json("POST", "/indexes/things/search", &body);
        let (one, other) = (ask(&cluster.client), ask(&node.client));
        assert_eq!((one.status, one.body), (other.status, other.body), "{body}");
    }
    for path in ["/indexes/none/search", "/indexes/things/search?limit=x", "/indexes/none/documents/1"] {
        let (one, other) = (cluster.client.get(path), node.client.get(path));
        assert_eq!((one.status, one.body), (other.status, other.body), "{path}");
    }
    for key in [None, Some("wrong")] {
        let ask = |client: &Client| client.under(key).json("POST", "/indexes/things/search", &json!({}));
        let (one, other) = (ask(&cluster.client), ask(&node.client));
        assert_eq!((one.status, one.body), (other.status, other.body), "{key:?}");
    }

    // The result does not depend on any one node.
    for name in ["meili-0", "meili-1", "meili-2"] {
        cluster.kill(name);
        compare(&cluster.client, &node.client);
        cluster.revive(name);
        cluster.wait_repaired();
    }
}

pub fn all_pages_of_a_query_hold_every_document_once_whatever_the_ties(cluster: &Sandbox) {
    let client = &cluster.client;
    client.add(
        "ties",
        &json!((0..200).map(|id| json!({"id": id, "text": "all the same"})).collect::<Vec<_>>()),
    );
    // If another replica stands in for a page, the page has that replica's order.
    let changes_of_replicas = || {
        let filter = "miroir_(retries|nodes_avoided)_total";
        let stats = cluster.admin(0).get(&format!("/stats?format=json&filter={filter}")).body;
        let stats = stats["stats"].as_array().into_iter().flatten();
        stats.filter_map(|stat| stat["value"].as_u64()).sum::<u64>()
    };
    for query in ["", "same"] {
        let mut seen: Vec<u64> = Vec::new();
        wait_until("no node fails while the pages are read", || {
            // After a second, no node is avoided any more.
            pass(Duration::from_millis(1_200));
            let before = changes_of_replicas();
            let pages = (0..10).flat_map(|page| {
                let answer = client.search("ties", &json!({"q": query, "offset": page * 20, "limit": 20}));
                assert_eq!(answer["estimatedTotalHits"], 200);
                let hits = answer["hits"].as_array().unwrap();
                hits.iter().map(|hit| hit["id"].as_u64().unwrap()).collect::<Vec<_>>()
            });
            seen = pages.collect();
            changes_of_replicas() == before
        });
        seen.sort_unstable();
        assert_eq!(seen, (0..200).collect::<Vec<_>>(), "{query:?}");
    }
}
