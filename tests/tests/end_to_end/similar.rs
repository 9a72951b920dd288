//! `similar`: a key needs only the right to search, and the document must be visible for the tenant token.

use crate::token::tenant_token;
use miroir_tests::{Answer, Client, Node, Sandbox};
use serde_json::{Value, json};

const KEY: &str = "5a1c6f0e-0d0c-4b6e-9d0a-0c1f3c7c2a31";

/// If an index has more vectors than dimensions, a node splits them into a tree, and may miss near ones.
const DIMENSIONS: usize = 40;

/// The number of hits over all bodies of the test: for clients that may see all documents, and for those that may see only
/// ranks below 15.
const FOUND: [usize; 2] = [101, 47];

/// Clients with the master key, a key that may only search, tenant tokens, and a key that may not search.
fn clients(client: &Client) -> Vec<Client> {
    let settings = json!({"filterableAttributes": ["rank"],
                          "embedders": {"mine": {"source": "userProvided", "dimensions": DIMENSIONS}}});
    client.create("things", "id", &settings);
    let document = |id: u32| {
        let angle = f64::from(id) * 0.09;
        let mut vector = vec![0.0; DIMENSIONS];
        (vector[0], vector[1]) = (angle.cos(), angle.sin());
        let vector = json!({ "mine": vector });
        json!({"id": id, "rank": id, "_vectors": if id % 10 == 9 { json!({"mine": null}) } else { vector }})
    };
    client.add("things", &json!((0..30).map(document).collect::<Vec<_>>()));
    let key = |uid: &str, action: &str| {
        let key = json!({"uid": uid, "actions": [action], "indexes": ["*"], "expiresAt": null});
        client.json("POST", "/keys", &key).body["key"].as_str().unwrap().to_owned()
    };
    let searches = key(KEY, "search");
    let reads = key("5a1c6f0e-0d0c-4b6e-9d0a-0c1f3c7c2a32", "documents.get");
    let some = tenant_token(KEY, &searches, &json!({"*": {"filter": "rank < 15"}}));
    let none = tenant_token(KEY, &searches, &json!(["elsewhere"]));
    let mut clients = vec![client.clone(), client.under(None)];
    clients.extend([searches, reads, some, none].map(|key| client.under(Some(&key))));
    clients
}

fn comparable(answer: Answer) -> (u16, Value) {
    let mut body = answer.body;
    if let Some(body) = body.as_object_mut() {
        body.remove("processingTimeMs");
    }
    (answer.status, body)
}

pub fn similar_needs_the_right_to_search_only(cluster: &Sandbox, node: &Node) {
    let pairs: Vec<(Client, Client)> =
        clients(&cluster.client).into_iter().zip(clients(&node.client)).collect();
    let mut bodies = Vec::new();
    for id in [json!(1), json!("14"), json!(9), json!(22), json!(29), json!(77), json!("a b")] {
        for rest in [
            json!({}),
            json!({"limit": 3, "offset": 2, "attributesToRetrieve": ["rank"], "showRankingScore": true}),
            json!({"filter": "rank > 5", "limit": 2}),
            json!({"filter": ["rank > 5", "rank < 25"], "rankingScoreThreshold": 0.9}),
            json!({"filter": "nope = 1"}),
            json!({"filter": null, "retrieveVectors": true, "limit": 1}),
            json!({"embedder": "none"}),
            json!({"limit": 0}),
        ] {
            let mut body = json!({"id": id, "embedder": "mine"});
            body.as_object_mut().unwrap().extend(rest.as_object().unwrap().clone());
            bodies.push(body);
        }
    }
    let (mut found, mut wrong) = (0, Vec::new());
    for (who, (one, other)) in pairs.iter().enumerate() {
        for body in &bodies {
            let ask = |client: &Client| comparable(client.json("POST", "/indexes/things/similar", body));
            let (one, other) = (ask(one), ask(other));
            found += one.1["hits"].as_array().map_or(0, Vec::len);
            if one != other {
                wrong.push(format!("client {who} {body}:\n  cluster: {one:?}\n  node:    {other:?}"));
            }
        }
        for query in
            ["id=1&embedder=mine", "id=2&id=3&embedder=mine&limit=2", "id=1", "id=9&embedder=mine&limit=x"]
        {
            let ask = |client: &Client| comparable(client.get(&format!("/indexes/things/similar?{query}")));
            let (one, other) = (ask(one), ask(other));
            if one != other {
                wrong.push(format!("client {who} {query}:\n  cluster: {one:?}\n  node:    {other:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong.join("\n"));
    // With the master key, and with the key that may search.
    assert_eq!(found, 2 * FOUND[0] + FOUND[1]);
    // Clients must not see the internal key with which gateways read documents for them.
    let keys = cluster.client.get("/keys").body.to_string();
    assert!(!keys.contains("miroir"), "{keys}");
}
