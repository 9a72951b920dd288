//! Dynamic search rules pin documents to the same places in a cluster as on a single node.

use miroir_tests::{Client, MASTER_KEY, Node, Options, Random, Sandbox, nodes_are_real, number};
use serde_json::{Value, json};

const DOCUMENTS: u64 = 400;
const DIMENSIONS: usize = 10;
const GENRES: [&str; 4] = ["drama", "comedy", "crime", "western"];
const WORDS: [&str; 6] = ["river", "castle", "winter", "garden", "letter", "train"];

fn vector(random: &mut Random) -> Vec<usize> {
    (0..DIMENSIONS).map(|_| 1 + random.below(100)).collect()
}

fn document(random: &mut Random, id: u64) -> Value {
    let words = random.some(&WORDS, 5).join(" ");
    // Nodes find exactly the nearest vectors if there are not more vectors than dimensions.
    let vector = id.is_multiple_of(40).then(|| vector(random));
    json!({"id": id, "title": words, "genre": random.of(&GENRES), "year": 1950 + random.below(70),
           "_vectors": {"mine": vector}})
}

fn rule(random: &mut Random) -> Value {
    let actions: Vec<Value> = (0..1 + random.below(4))
        .map(|_| {
            let mut selector = json!({"id": random.below(DOCUMENTS as usize + 20).to_string()});
            if !random.one_in(3) {
                selector["indexUid"] = json!(random.of(&["films", "others"]));
            }
            json!({"selector": selector, "action": {"type": "pin", "position": random.below(12)}})
        })
        .collect();
    let conditions = match random.below(5) {
        0 => json!({"query": {"isEmpty": random.one_in(2)}}),
        1 => json!({"query": {"words": random.of(&WORDS)}}),
        2 => json!({"filter": {"values": {"genre": random.of(&GENRES)}}}),
        3 => json!({"time": {"start": "2020-01-01T00:00:00Z", "end": "2020-01-02T00:00:00Z"}}),
        _ => json!({}),
    };
    let mut rule = json!({"actions": actions, "conditions": conditions, "active": !random.one_in(8)});
    if random.one_in(2) {
        rule["precedence"] = json!(random.below(3));
    }
    rule
}

fn query(random: &mut Random) -> Value {
    let mut query = json!({"q": random.of(&["", "river", "castle wint", "garden letter", "train -river"])});
    match random.below(4) {
        0 => query["filter"] = json!(format!("genre = {}", random.of(&GENRES))),
        1 => query["filter"] = json!(["genre IN [drama, crime, western]", "year > 1970"]),
        _ => {}
    }
    match random.below(4) {
        0 => query["sort"] = json!(["year:desc"]),
        1 => query["facets"] = json!(["genre"]),
        2 => query["showRankingScoreDetails"] = json!(true),
        _ => {}
    }
    if random.one_in(3) {
        query["page"] = json!(1 + random.below(3));
        query["hitsPerPage"] = json!(1 + random.below(8));
    } else {
        query["offset"] = json!(random.below(15));
        query["limit"] = json!(random.below(20));
    }
    if random.one_in(6) {
        query["attributesToRetrieve"] = json!(["title"]);
    }
    if random.one_in(5) && query.get("sort").is_none() {
        query["vector"] = json!(vector(random));
        query["hybrid"] = json!({"embedder": "mine", "semanticRatio": random.of(&[0.3, 0.8, 1.0])});
    }
    query
}

/// The answer to a request, without times and ids.
fn found(client: &Client, path: &str, body: &Value) -> Value {
    let mut answer = client.json("POST", path, body);
    for name in ["processingTimeMs", "requestUid"] {
        answer.body.as_object_mut().unwrap().remove(name);
        for result in answer.body["results"].as_array_mut().into_iter().flatten() {
            result.as_object_mut().unwrap().remove(name);
        }
    }
    json!({"status": answer.status, "body": answer.body})
}

fn compare(cluster: &Sandbox, node: &Node, random: &mut Random, requests: usize) -> usize {
    let mut pinned = 0;
    for request in 0..requests {
        let (path, body) = match random.below(6) {
            0 => {
                let mut queries = vec![query(random), query(random)];
                queries[0]["indexUid"] = json!("films");
                queries[1]["indexUid"] = json!("others");
                ("/multi-search", json!({ "queries": queries }))
            }
            1 => {
                let mut positions = rising(&node.client);
                let part = |index: &str, q: &str| json!({"indexUid": index, "q": q, "showRankingScoreDetails": true});
                let (one, other) = (*random.of(&WORDS), *random.of(&WORDS));
                let queries = [part("films", one), part("others", other)];
                let federation = json!({"limit": 3 + random.below(12), "offset": random.below(4)});
                // If the positions of a rule do not rise, an action may wait for another one.
                if !positions.by_ref().all(|rises| rises) {
                    continue;
                }
                ("/multi-search", json!({"federation": federation, "queries": queries}))
            }
            _ => ("/indexes/films/search", query(random)),
        };
        let [of_cluster, of_node] = [&cluster.client, &node.client].map(|client| found(client, path, &body));
        let rules = || {
            node.client.json("POST", "/dynamic-search-rules", &json!({"limit": 100})).body["results"].take()
        };
        assert_eq!(of_cluster, of_node, "request {request}: {path} {body} with the rules {}", rules());
        pinned += usize::from(of_node.to_string().contains("\"pin\""));
    }
    pinned
}

/// For each rule of a node, whether its actions pin to rising positions.
fn rising(node: &Client) -> impl Iterator<Item = bool> + use<> {
    let rules = node.json("POST", "/dynamic-search-rules", &json!({"limit": 100})).body;
    let rules = rules["results"].as_array().unwrap().clone();
    rules.into_iter().map(|rule| {
        let positions = rule["actions"].as_array().unwrap().iter();
        positions.map(|action| action["action"]["position"].as_u64()).is_sorted()
    })
}

pub fn pinned_documents_are_where_one_node_has_them() {
    if !nodes_are_real() {
        // The development node does not support rules; the filter's part has unit tests.
        return;
    }
    let mut random = Random(number("MIROIR_SEED", 1));
    let requests = number("MIROIR_REQUESTS", 120) as usize;
    let cluster = Sandbox::start(Options::default());
    let node = Node::start_with_key(MASTER_KEY);
    let both = [&cluster.client, &node.client];
    let documents: Vec<Value> = (0..DOCUMENTS).map(|id| document(&mut random, id)).collect();
    let more: Vec<Value> = (0..DOCUMENTS).map(|id| document(&mut random, id)).collect();
    for client in both {
        let on = json!({"dynamicSearchRules": true, "network": true, "chatCompletions": true, "getTaskDocumentsRoute": true});
        assert_eq!(client.json("PATCH", "/experimental-features", &on).status, 200);
        let settings = json!({
            "filterableAttributes": ["genre", "year"], "sortableAttributes": ["year"],
            "embedders": {"mine": {"source": "userProvided", "dimensions": DIMENSIONS}},
        });
        for (index, documents) in [("films", &documents), ("others", &more)] {
            client.create(index, "id", &settings);
            client.add(index, &json!(documents));
        }
    }
    let change = |random: &mut Random| {
        let (method, path, body) = match random.below(8) {
            0 => ("DELETE", format!("/dynamic-search-rules/r{}", random.below(6)), Value::Null),
            _ => ("PATCH", format!("/dynamic-search-rules/r{}", random.below(6)), rule(random)),
        };
        let accepted = both.map(|client| match &body {
            Value::Null => client.send(method, &path, None, ""),
            body => client.json(method, &path, body),
        });
        for (client, accepted) in both.iter().zip(&accepted) {
            client.succeeded(accepted);
        }
    };
    let mut pinned = 0;
    for _ in 0..6 {
        (0..3).for_each(|_| change(&mut random));
        pinned += compare(&cluster, &node, &mut random, requests / 6);
    }
    assert!(pinned > requests / 40, "{pinned} of {requests} requests show what is pinned");

    // A refused rule has no effect.
    let wrong = json!({"actions": [{"selector": {"id": "1"}, "action": {"type": "pin"}}]});
    let refused = both.map(|client| client.json("PATCH", "/dynamic-search-rules/wrong", &wrong));
    assert_eq!((refused[0].status, &refused[0].body), (400, &refused[1].body));

    // A node that was unreachable gets the rules that it missed, and the instance settings too.
    cluster.kill("meili-1");
    (0..4).for_each(|_| change(&mut random));
    for client in both {
        let network = json!({"self": "here", "remotes": {"there": {"url": "http://127.0.0.1:9"}}});
        assert_eq!(client.json("PATCH", "/network", &network).status, 200);
        let settings = json!({"apiKey": "the key of a model", "prompts": {"system": "Be kind."}});
        assert_eq!(client.json("PATCH", "/chats/kind/settings", &settings).status, 200);
    }
    compare(&cluster, &node, &mut random, requests / 6);
    cluster.revive("meili-1");
    cluster.wait_repaired();
    cluster.wait_published();
    cluster.kill("meili-0");
    compare(&cluster, &node, &mut random, requests / 6);
    let [mut of_cluster, mut of_node] = both.map(|client| client.get("/network").body);
    of_cluster["version"].take();
    of_node["version"].take();
    assert_eq!(of_cluster, of_node);
    let [of_cluster, of_node] = both.map(|client| client.get("/chats/kind/settings").body);
    assert_eq!(of_cluster, of_node);
    assert_eq!(of_node["apiKey"], "thXXXX...", "{of_node}");

    // The server accepts its own name, but refuses to search other servers.
    let own = json!({"federation": {"limit": 5}, "queries": [{"indexUid": "films", "federationOptions": {"remote": "here"}}]});
    let [of_cluster, of_node] = both.map(|client| found(client, "/multi-search", &own));
    assert_eq!((&of_cluster, &of_node["body"]["remoteErrors"]), (&of_node, &json!({})));
    let refused = cluster.client.json("POST", "/indexes/films/search", &json!({"useNetwork": true}));
    assert_eq!((refused.status, &refused.body["code"]), (400, &json!("bad_request")), "{}", refused.body);

    let cleared = both.map(|client| client.send("DELETE", "/dynamic-search-rules", None, ""));
    let details = [0, 1].map(|which| both[which].succeeded(&cleared[which])["details"].clone());
    assert_eq!(details[0], details[1]);
    assert_eq!(compare(&cluster, &node, &mut random, requests / 6), 0);

    // The documents of a task that nodes have not started yet.
    let waiting: Vec<Value> = (1000..3000).map(|id| json!({"id": id, "title": "more of them"})).collect();
    let accepted = cluster.client.json("POST", "/indexes/plain/documents", &json!(waiting));
    let told = cluster.client.get(&format!("/tasks/{}/documents", accepted.body["taskUid"]));
    assert_eq!(told.status, 200, "{}", told.body);
    let told = serde_json::Deserializer::from_slice(&told.bytes).into_iter::<Value>();
    let mut told: Vec<Value> = told.collect::<Result<_, _>>().unwrap();
    told.sort_by_key(|document| document["id"].as_u64());
    assert_eq!(told, waiting);
    cluster.client.succeeded(&accepted);
    let gone = cluster.client.get(&format!("/tasks/{}/documents", accepted.body["taskUid"]));
    assert_eq!((gone.status, &gone.body["code"]), (404, &json!("task_file_not_found")), "{}", gone.body);
}
