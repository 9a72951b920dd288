//! The first request to an index decides how it is created: empty payloads, settings, and requests that fail.

use miroir_tests::{Client, Node, Sandbox};
use serde_json::{Map, Value, json};

/// A request to the case's own index: method, route below `/indexes/{uid}`, body.
type Step = (&'static str, &'static str, Value);

/// The answers to a sequence of requests, and the state of the index after each.
fn told(client: &Client, index: &str, steps: &[Step]) -> Vec<Value> {
    let step = |(method, route, body): &Step| {
        let answer = client.json(method, &format!("/indexes/{index}{route}"), body);
        let said = match answer.status {
            202 => {
                let task = client.ended(&answer);
                json!([task["status"], task["error"], task["details"]])
            }
            status => json!([status, answer.body]),
        };
        let mut known = client.get(&format!("/indexes/{index}"));
        for name in ["createdAt", "updatedAt"] {
            known.body.as_object_mut().and_then(|known| known.remove(name));
        }
        let search = |query: Value| {
            let mut answer = client.json("POST", &format!("/indexes/{index}/search"), &query);
            for name in ["processingTimeMs", "requestUid"] {
                answer.body.as_object_mut().and_then(|body| body.remove(name));
            }
            json!([answer.status, answer.body])
        };
        json!([said, known.status, known.body, search(json!({})), search(json!({"filter": "a = 1"}))])
    };
    steps.iter().map(step).collect()
}

pub fn what_comes_first_decides_as_on_one_node(cluster: &Sandbox, node: &Node) {
    const ADD: &str = "/documents";
    let keyed = |key: &str| -> &'static str {
        match key {
            "a" => "/documents?primaryKey=a",
            _ => "/documents?primaryKey=b",
        }
    };
    let (one, two) = (json!([{"a": 1, "b": 2}]), json!([{"a": 2, "b": 1}]));
    let embedder = json!({"source": "userProvided", "dimensions": 1});
    let too_many: Map<String, Value> =
        (0..300).map(|number| (format!("x{number}"), embedder.clone())).collect();
    let sequences: Vec<Vec<Step>> = vec![
        vec![("POST", ADD, json!([])), ("POST", keyed("a"), one.clone())],
        vec![("POST", ADD, json!([])), ("POST", ADD, one.clone()), ("POST", keyed("b"), one.clone())],
        vec![
            ("POST", keyed("a"), json!([])),
            ("POST", keyed("b"), one.clone()),
            ("POST", keyed("a"), two.clone()),
        ],
        vec![("PUT", keyed("a"), json!([])), ("PUT", ADD, one.clone())],
        vec![
            ("POST", ADD, one.clone()),
            ("POST", keyed("a"), one.clone()),
            ("POST", keyed("b"), two.clone()),
        ],
        vec![
            ("PATCH", "/settings", json!({"filterableAttributes": ["a"]})),
            ("POST", keyed("a"), one.clone()),
        ],
        vec![("PATCH", "/settings", json!({"stopWords": ["x"]})), ("POST", keyed("a"), one.clone())],
        vec![
            ("PUT", "/settings/ranking-rules", json!(["words", "a:asc"])),
            ("POST", keyed("a"), one.clone()),
        ],
        // The first settings fail, but the index is created.
        vec![
            (
                "PATCH",
                "/settings",
                json!({"filterableAttributes": ["a"], "stopWords": ["x"], "embedders": too_many}),
            ),
            ("POST", keyed("a"), one.clone()),
            ("PATCH", "/settings", json!({"filterableAttributes": ["a"]})),
        ],
        vec![
            (
                "PATCH",
                "/settings",
                json!({"localizedAttributes": [{"attributePatterns": ["a"], "locales": ["eng"]}], "distinctAttribute": "a"}),
            ),
            ("POST", keyed("a"), one.clone()),
        ],
        vec![("DELETE", "/settings", Value::Null), ("POST", keyed("a"), one.clone())],
        vec![("DELETE", "/documents", Value::Null), ("POST", keyed("a"), one.clone())],
        vec![("PATCH", "", json!({"primaryKey": "a"})), ("POST", ADD, one.clone())],
    ];
    for (number, steps) in sequences.iter().enumerate() {
        let index = format!("first-{number}");
        let (alone, together) = (told(&node.client, &index, steps), told(&cluster.client, &index, steps));
        for (step, (alone, together)) in steps.iter().zip(alone.iter().zip(&together)) {
            assert_eq!(together, alone, "sequence {number}, {step:?}");
        }
    }
}
