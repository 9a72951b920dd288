//! Invalid settings, keys and swaps: a cluster refuses them with a node's error, and accepts what a node accepts.

use super::{Pair, comparable, table::Route};
use miroir_tests::{Answer, MASTER_KEY};
use serde_json::{Value, json};

pub fn check(pair: &mut Pair<'_>, routes: &[Route]) {
    settings(pair, routes);
    keys(pair);
    swaps(pair);
    for body in [
        json!({"nope": 1}),
        json!({"url": 7}),
        json!({"payloadSize": "x"}),
        json!({"indexes": {"a b": {}}}),
        json!({"indexes": {"a": {"nope": 1}}}),
        json!({"indexes": []}),
        json!([]),
        json!(7),
    ] {
        same(pair, "POST", "/export", &body);
    }
}

/// Sends the same request to both, and compares the answers and the ends of their tasks.
fn same(pair: &mut Pair<'_>, method: &str, path: &str, body: &Value) {
    let what = format!("{method} {path} {body:.200}");
    let answers = pair.ask(Some(MASTER_KEY), method, path, &[], body);
    if pair.lacks(&answers[1]) {
        return;
    }
    let [cluster, node] = answers.each_ref().map(comparable);
    let accepted = answers.iter().all(|answer| answer.status == 202);
    pair.check(&what, cluster, node);
    if accepted {
        let clients = pair.clients();
        let ended = [0, 1].map(|which| clients[which].ended(&answers[which]));
        let [cluster, node] = ended.map(|body| comparable(&Answer { body, ..answers[0].clone() }));
        pair.check(&format!("the task of {what}"), cluster, node);
    }
}

/// The path of a settings route for an index; `None` for other routes.
fn address(route: &Route, index: &str) -> Option<String> {
    route.path.contains("/settings").then(|| route.path.replace("{uid}", index))
}

fn settings(pair: &mut Pair<'_>, routes: &[Route]) {
    let wrong = [
        json!(7),
        json!("nope"),
        json!(true),
        json!([7]),
        json!([["nope"]]),
        json!({"nope": 1}),
        json!({"nope": {"nope": null}}),
    ];
    let writes = || routes.iter().filter(|route| ["PUT", "PATCH"].contains(&&*route.method));
    for route in writes() {
        let Some(path) = address(route, "bare") else { continue };
        for body in &wrong {
            same(pair, &route.method, &path, body);
        }
        for (kind, text) in [("application/json", "{"), ("application/json", ""), ("text/plain", "[]")] {
            let answers = pair.clients().map(|client| client.send(&route.method, &path, Some(kind), text));
            let [cluster, node] = answers.each_ref().map(comparable);
            pair.check(&format!("{} {path} {kind} {text:?}", route.method), cluster, node);
        }
    }
    for (name, values) in [
        (
            "filterableAttributes",
            vec![json!([{"attributePatterns": 7}]), json!([{"features": {}}]), json!(["_geo", 1])],
        ),
        ("rankingRules", vec![json!(["nope"]), json!(["words", "year:up"]), json!(["_geoPoint(1,2):asc"])]),
        (
            "typoTolerance",
            vec![json!({"minWordSizeForTypos": {"oneTypo": 9, "twoTypos": 3}}), json!({"enabled": 1})],
        ),
        ("faceting", vec![json!({"maxValuesPerFacet": -1}), json!({"sortFacetValuesBy": {"a": "size"}})]),
        ("pagination", vec![json!({"maxTotalHits": "all"}), json!({"maxTotalHits": 1.5})]),
        (
            "embedders",
            vec![
                json!({"a": {"source": "nope"}}),
                json!({"a": {"source": "userProvided"}}),
                json!({"a": {"source": "userProvided", "dimensions": 0}}),
                json!({"a": {"source": "userProvided", "dimensions": 2, "documentTemplate": "x"}}),
                json!({"a": {"source": "rest", "url": "no address", "request": {}, "response": {}}}),
            ],
        ),
        ("proximityPrecision", vec![json!("byLetter")]),
        ("localizedAttributes", vec![json!([{"locales": ["xx"], "attributePatterns": ["a"]}])]),
        ("searchCutoffMs", vec![json!(-1), json!("soon")]),
        ("synonyms", vec![json!({"a": "b"}), json!(["a"])]),
        ("nope", vec![json!(1)]),
    ] {
        for value in values {
            same(pair, "PATCH", "/indexes/bare/settings", &json!({ name: value }));
        }
    }
    // An index that does not exist, and one whose name is invalid.
    for route in routes {
        for index in ["nowhere", "no good!"] {
            let Some(path) = address(route, index) else { continue };
            let body =
                if ["GET", "DELETE"].contains(&&*route.method) { Value::Null } else { json!({"nope": 1}) };
            same(pair, &route.method, &path.replace(' ', "%20"), &body);
        }
    }
    same(pair, "PUT", "/indexes/made-by-settings/settings/stop-words", &json!(["of"]));
    same(pair, "GET", "/indexes/made-by-settings/settings", &Value::Null);
    same(pair, "PUT", "/indexes/bare/settings/nope", &json!(["of"]));
    same(pair, "POST", "/indexes/bare/settings/stop-words", &json!(["of"]));
    // A client with a wrong key must not learn what is wrong with its request.
    let answers = pair.ask(Some("wrong"), "PUT", "/indexes/bare/settings/stop-words", &[], &json!(7));
    let [cluster, node] = answers.each_ref().map(comparable);
    pair.check("wrong settings under a wrong key", cluster, node);
}

fn keys(pair: &mut Pair<'_>) {
    let uid = "6b1c6f0e-0d0c-4b6e-9d0a-0c1f3c7c4001";
    let key = |member: &str, value: Value| {
        let mut key = json!({"uid": uid, "actions": ["search"], "indexes": ["*"], "expiresAt": null});
        key[member] = value;
        key
    };
    let without = |member: &str| {
        let mut key = key(member, Value::Null);
        key.as_object_mut().unwrap().remove(member);
        key
    };
    let bad = [
        (
            "expiresAt",
            vec![
                json!("yesterday"),
                json!("2020-01-01T00:00:00Z"),
                json!("2020-01-01"),
                json!("2030-13-01"),
                json!(7),
                json!(""),
                json!("2031-02-30T00:00:00Z"),
                json!("2031-01-01 10:00"),
                json!("*"),
                json!([]),
            ],
        ),
        (
            "indexes",
            vec![
                json!(["a b"]),
                json!(["*a"]),
                json!(["a*b"]),
                json!([7]),
                json!("films"),
                json!([""]),
                json!({}),
                Value::Null,
            ],
        ),
        ("actions", vec![json!(["nope"]), json!("search"), json!([7]), json!(["search.*"]), Value::Null]),
        ("uid", vec![json!("x"), json!(7), json!("6b1c6f0e")]),
        ("name", vec![json!(7), json!([])]),
        ("description", vec![json!({}), json!(true)]),
        ("nope", vec![json!(1)]),
        ("key", vec![json!("chosen")]),
    ];
    for (member, values) in bad {
        for value in values {
            same(pair, "POST", "/keys", &key(member, value));
        }
    }
    for member in ["actions", "indexes", "expiresAt"] {
        same(pair, "POST", "/keys", &without(member));
    }
    for body in [json!([]), json!(7), json!({})] {
        same(pair, "POST", "/keys", &body);
    }
    let made = pair.ask(Some(MASTER_KEY), "POST", "/keys", &[], &key("name", json!("made")));
    assert!(made.iter().all(|answer| answer.status == 201), "{made:?}");
    for (member, value) in [
        ("actions", json!(["*"])),
        ("indexes", json!(["*"])),
        ("expiresAt", Value::Null),
        ("uid", json!(uid)),
        ("key", json!("x")),
        ("createdAt", json!("2020-01-01")),
        ("updatedAt", json!("2020-01-01")),
        ("nope", json!(1)),
        ("name", json!(7)),
        ("description", json!([])),
        ("name", Value::Null),
    ] {
        same(pair, "PATCH", &format!("/keys/{uid}"), &json!({ member: value }));
    }
    for path in ["/keys/nope", "/keys/6b1c6f0e-0d0c-4b6e-9d0a-0c1f3c7c4999"] {
        same(pair, "PATCH", path, &json!({"name": "x"}));
        same(pair, "GET", path, &Value::Null);
        same(pair, "DELETE", path, &Value::Null);
    }
    for query in ["limit=x", "offset=-1", "limit=0&nope=1"] {
        same(pair, "GET", &format!("/keys?{query}"), &Value::Null);
    }
    same(pair, "DELETE", &format!("/keys/{uid}"), &Value::Null);
}

fn swaps(pair: &mut Pair<'_>) {
    for swaps in [
        json!([{"indexes": ["films", "films"]}]),
        json!([{"indexes": ["films", "bare"]}, {"indexes": ["bare", "emptied"]}]),
        json!([{"indexes": ["films", "bare"]}, {"indexes": ["films", "bare"]}]),
        json!([{"indexes": ["films", "nowhere"]}]),
        json!([{"indexes": ["nowhere", "neither"]}]),
        json!([{"indexes": ["films", "no good!"]}]),
        json!([{"indexes": ["films"]}]),
        json!([{"indexes": ["films", "bare", "emptied"]}]),
        json!([{"indexes": "films"}]),
        json!([{"indexes": [1, 2]}]),
        json!([{"indexes": ["films", "bare"], "rename": 1}]),
        json!([{"indexes": ["films", "bare"], "rename": true}]),
        json!([{"indexes": ["nowhere", "films"], "rename": true}]),
        json!([{"indexes": ["films", "films"], "rename": true}]),
        json!([{"nope": 1}]),
        json!([{}]),
        json!([]),
        json!({}),
        json!("films"),
    ] {
        same(pair, "POST", "/swap-indexes", &swaps);
    }
}
