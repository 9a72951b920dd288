//! Requests that are too large, too deeply nested or not text at all: a cluster answers them as a single node does, and keeps
//! running.

use miroir_tests::{Answer, Client, Node, Sandbox, tell};
use serde_json::{Value, json};

const BIG: u64 = 1 << 63;

/// An answer without times and ids of requests, which may differ.
fn comparable(answer: Answer) -> (u16, Value) {
    let mut body = answer.body;
    let clean = |answer: &mut Value| {
        if let Some(answer) = answer.as_object_mut() {
            answer.remove("processingTimeMs");
            answer.remove("requestUid");
        }
    };
    clean(&mut body);
    body["results"].as_array_mut().into_iter().flatten().for_each(clean);
    (answer.status, body)
}

/// The body of a search with one parameter, given as text.
fn with(parameter: &str) -> Vec<u8> {
    format!("{{\"q\":\"river\",{parameter}}}").into_bytes()
}

fn searches() -> Vec<(&'static str, Vec<u8>)> {
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(10_000), close.repeat(10_000));
    let conditions = |count: usize| (0..count).map(|rank| format!("rank != {}", 1_000 + rank));
    let many_words = vec!["river"; 30_000].join(" ");
    vec![
        ("a query of 1 MB", json!({"q": "river ".repeat(175_000)}).to_string().into_bytes()),
        ("a word of 1 MB", json!({"q": "r".repeat(1 << 20)}).to_string().into_bytes()),
        ("a phrase of 30,000 words", json!({"q": format!("\"{many_words}\"")}).to_string().into_bytes()),
        ("500 filters", json!({"filter": conditions(500).collect::<Vec<_>>()}).to_string().into_bytes()),
        (
            "500 alternatives",
            json!({"filter": [conditions(500).collect::<Vec<_>>()]}).to_string().into_bytes(),
        ),
        (
            "2,000 values",
            json!({"filter": format!("rank IN [{}]", vec!["7"; 2_000].join(","))}).to_string().into(),
        ),
        ("10,000 parentheses", json!({"filter": deep("(", ")")}).to_string().into_bytes()),
        (
            "10,000 negations",
            json!({"filter": format!("{} rank = 1", "NOT ".repeat(10_000))}).to_string().into(),
        ),
        ("10,000 sorts", json!({"sort": vec!["rank:asc"; 10_000]}).to_string().into_bytes()),
        ("10,000 facets", json!({"facets": vec!["rank"; 10_000]}).to_string().into_bytes()),
        ("a filter 10,000 deep", with(&format!("\"filter\":{}", deep("[", "]")))),
        ("an unknown parameter 10,000 deep", with(&format!("\"x\":{}", deep("{\"a\":[", "]}")))),
        ("a body 10,000 deep", deep("[", "]").into_bytes()),
        ("a body that never ends", "[".repeat(10_000).into_bytes()),
        ("invalid UTF-8", b"{\"q\":\"\xff\xfe river\"}".to_vec()),
        ("invalid UTF-8 in a filter", b"{\"filter\":\"rank = \xc3\x28\"}".to_vec()),
        ("a lone surrogate", br#"{"q":"\ud800"}"#.to_vec()),
        ("a null character", br#"{"q":"\u0000river"}"#.to_vec()),
        ("limit 2^63", with(&format!("\"limit\":{BIG}"))),
        ("limit 2^64 - 1", with(&format!("\"limit\":{}", u64::MAX))),
        ("limit 2^64", with("\"limit\":18446744073709551616")),
        ("offset 2^63", with(&format!("\"offset\":{BIG}"))),
        ("offset and limit 2^63", with(&format!("\"offset\":{BIG},\"limit\":{BIG}"))),
        ("pages of 2^32", with("\"hitsPerPage\":4294967296")),
        ("page 2^32", with("\"page\":4294967296")),
        ("the reserved field", json!({"filter": "_miroir_shard EXISTS"}).to_string().into_bytes()),
        (
            "the reserved field's tags",
            json!({"filter": "_miroir_shard IN [\",,,\"]"}).to_string().into_bytes(),
        ),
        ("nothing", Vec::new()),
        ("a member twice", br#"{"q":"river","q":"sea"}"#.to_vec()),
        ("a number", b"7".to_vec()),
        ("half of a body", br#"{"q":"ri"#.to_vec()),
    ]
}

pub fn bad_input_is_answered_as_by_one_node_and_harms_nobody(cluster: &Sandbox, node: &Node) {
    let documents: Vec<Value> = (0..200).map(|id| json!({"id": id, "text": "river", "rank": id})).collect();
    for client in [&cluster.client, &node.client] {
        let settings = json!({"filterableAttributes": ["rank"], "sortableAttributes": ["rank"],
                              "rankingRules": ["words", "rank:asc"], "searchableAttributes": ["text"]});
        client.create("things", "id", &settings);
        client.add("things", &json!(documents));
    }
    let mut wrong = Vec::new();
    let mut check = |name: &str, ask: &dyn Fn(&Client) -> Answer| {
        tell!("{name}");
        let (one, other) = (comparable(ask(&cluster.client)), comparable(ask(&node.client)));
        if one != other {
            let short = |answer: (u16, Value)| {
                format!("{} {}", answer.0, answer.1.to_string().chars().take(300).collect::<String>())
            };
            wrong.push(format!("{name}:\n  cluster: {}\n  node:    {}", short(one), short(other)));
        }
        // Other requests are not affected.
        assert_eq!(
            cluster.client.search("things", &json!({"limit": 1}))["estimatedTotalHits"],
            200,
            "{name}"
        );
    };
    for (name, body) in searches() {
        check(name, &|client| {
            client.send("POST", "/indexes/things/search", Some("application/json"), body.clone())
        });
    }
    let queries = |count: usize, limit: u64| {
        let queries = (0..count)
            .map(|rank| json!({"indexUid": "things", "limit": limit, "filter": format!("rank > {rank}")}));
        json!({"queries": queries.collect::<Vec<_>>()})
    };
    check("1,000 queries", &|client| client.json("POST", "/multi-search", &queries(1_000, 2)));
    check("queries without end", &|client| client.json("POST", "/multi-search", &queries(3, BIG)));
    check("1,000 federated queries", &|client| {
        let mut body = queries(1_000, 2);
        for query in body["queries"].as_array_mut().unwrap() {
            query.as_object_mut().unwrap().remove("limit");
        }
        body["federation"] = json!({});
        client.json("POST", "/multi-search", &body)
    });
    for path in [
        "/indexes/things/search?q=%FF%FE",
        "/indexes/things/search?limit=9223372036854775808",
        "/indexes/things/search?limit=99999999999999999999",
        "/indexes/%FF/search?q=river",
        "/indexes/things/documents?limit=9223372036854775808&offset=190",
        "/indexes/things/documents?offset=9223372036854775808",
        "/indexes/things/documents/%FF",
    ] {
        check(path, &|client| client.get(path));
    }
    for (path, body) in [
        ("/indexes/things/documents/fetch", json!({"limit": BIG, "offset": 3})),
        ("/indexes/things/documents/fetch", json!({"offset": BIG})),
        ("/indexes/things/documents/fetch", json!({"filter": "_miroir_shard EXISTS"})),
        ("/indexes/things/facet-search", json!({"facetName": "rank", "facetQuery": "1".repeat(1 << 20)})),
        ("/indexes/things/similar", json!({"id": "x".repeat(1 << 20), "embedder": "none"})),
    ] {
        check(path, &|client| client.json("POST", path, &body));
    }
    // A node takes longer for this request than for usual ones.
    let filters: Vec<String> = (0..4_000).map(|rank| format!("rank != {}", 1_000 + rank)).collect();
    let filters = json!({"filter": filters, "limit": 2});
    check("4,000 filters", &|client| client.json("POST", "/indexes/things/search", &filters));
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(cluster.client.get("/health").status, 200);
}
