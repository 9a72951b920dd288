//! Attacks by clients with a restricted key, or without a key: none of them has an effect on any node, through any entry point.

use crate::mesh::{Envoy, bootstrap};
use miroir_tests::{Answer, MASTER_KEY, Sandbox, ask_raw, wait_until};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// An Envoy that resolves dots and backslashes in paths.
fn with_normalization(cluster: &Sandbox) -> Envoy {
    let envoy = Envoy::start(|listen, admin, _| {
        let text = bootstrap(cluster, "normalizing", (listen, admin), &[]);
        assert!(text.contains("normalize_path: false"), "{text}");
        text.replace("normalize_path: false", "normalize_path: true")
    });
    envoy.wait_ready();
    envoy
}

/// The entry points: Envoy with the sample configuration, an Envoy that normalizes paths, and the control plane's own port.
fn doors(cluster: &Sandbox, envoy: &Envoy) -> [String; 3] {
    [cluster.client.url().to_owned(), envoy.client.url().to_owned(), cluster.address("control")]
}

fn small_key(cluster: &Sandbox, actions: &[&str], index: &str) -> String {
    let body = json!({"actions": actions, "indexes": [index], "expiresAt": null});
    let made = cluster.client.json("POST", "/keys", &body);
    assert_eq!(made.status, 201, "{}", made.body);
    made.body["key"].as_str().unwrap().to_owned()
}

fn ask(door: &str, key: Option<&str>, method: &str, target: &str, body: &str) -> Answer {
    let headers: &[_] = if body.is_empty() { &[] } else { &[("content-type", "application/json")] };
    ask_raw(door, key, method, target, headers, body.as_bytes())
        .unwrap_or_else(|error| panic!("{method} {target} at {door}: {error}"))
}

pub fn a_path_leads_nowhere_that_a_key_may_not_go(cluster: &Sandbox) {
    let client = &cluster.client;
    for index in ["alpha", "beta"] {
        client.add(index, &json!([{"id": 1, "name": index}, {"id": 2, "name": index}]));
    }
    let deleter = small_key(cluster, &["documents.delete"], "alpha");
    let counter = small_key(cluster, &["stats.get"], "alpha");
    let setter = small_key(cluster, &["settings.*", "indexes.update"], "alpha");
    let envoy = with_normalization(cluster);
    let victims = || -> Vec<Value> {
        let of_node = |number| {
            let node = cluster.node(number);
            let tell = |path: &str| node.get(path).body;
            let keys = tell("/keys?limit=1000");
            let mut keys: Vec<String> = keys["results"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|key| !key["name"].as_str().unwrap_or_default().starts_with("miroir:"))
                .map(|key| key["uid"].to_string())
                .collect();
            keys.sort_unstable();
            let indexes = tell("/indexes?limit=100");
            json!([tell("/indexes/beta/documents"), tell("/indexes/beta/settings"), keys, indexes["total"]])
        };
        (0..3).map(of_node).collect()
    };
    let before = victims();
    let key_uid = client.get("/keys").body["results"][0]["uid"].as_str().unwrap().to_owned();
    for door in doors(cluster, &envoy) {
        for target in [
            r"/indexes/alpha/documents/..\..\beta?x=1",
            r"/indexes/alpha/documents/..\..\beta",
            r"/indexes/alpha/documents/..\..\beta\documents?x=1",
            r"/indexes/alpha/documents/..\..\beta\settings?x=1",
            &format!(r"/indexes/alpha/documents/..\..\..\keys\{key_uid}?x=1"),
            "/indexes/alpha/documents/..%5c..%5cbeta?x=1",
            "/indexes/alpha/documents/..%2f..%2fbeta?x=1",
            "/indexes/alpha/documents/../../beta?x=1",
            "/indexes/alpha/documents/%2e%2e/%2e%2e/beta?x=1",
            r"/indexes/alpha/documents/..\..\..\tasks?uids=0&x=1",
            "/indexes/beta%3f/../alpha/documents/1?x=1",
            r"/indexes/beta%23\..\alpha/documents/1?x=1",
        ] {
            let answer = ask(&door, Some(&deleter), "DELETE", target, "");
            assert!(
                answer.status >= 400 || answer.body["indexUid"] == "alpha",
                "{door} {target}: {answer:?}"
            );
        }
        for target in [
            r"/indexes/beta%2fstats%23\..\alpha/stats",
            r"/indexes/beta\stats#\..\alpha/stats",
            "/indexes/beta%2fstats%3f/../alpha/stats",
        ] {
            let answer = ask(&door, Some(&counter), "GET", target, "");
            let is_alphas = answer.status == 200 && door == envoy.client.url();
            assert!(answer.status >= 400 || is_alphas, "{door} {target}: {answer:?}");
        }
        for (method, target, body) in [
            ("DELETE", "/indexes/alpha/settings/..%2f..%2fbeta", ""),
            ("DELETE", r"/indexes/alpha/settings/..\..\beta", ""),
            ("PUT", r"/indexes/alpha/settings/..\..\beta\settings\stop-words", r#"["name"]"#),
            ("PATCH", "/indexes/alpha%2f..%2fbeta", r#"{"uid":"gone"}"#),
            ("PATCH", r"/indexes/alpha\..\beta", r#"{"uid":"gone"}"#),
        ] {
            let answer = ask(&door, Some(&setter), method, target, body);
            assert!(answer.status >= 400, "{door} {method} {target}: {answer:?}");
        }
        // The master key allows these requests, but a document without a shard tag would not belong to any shard.
        for target in [
            r"/indexes/raw\documents",
            "/indexes/raw%5cdocuments",
            "/indexes/raw%2fdocuments",
            "/indexes%2fraw%2fdocuments",
        ] {
            let answer = ask(&door, Some(MASTER_KEY), "POST", target, r#"[{"id":1}]"#);
            assert!(answer.status >= 400 || door == envoy.client.url(), "{door} {target}: {answer:?}");
        }
        for target in [r"/indexes/x\..\..\keys", "/indexes/x%2f..%2f..%2fkeys", r"/indexes/x/..\..\keys"] {
            let answer = ask(&door, Some(MASTER_KEY), "GET", target, "");
            assert!(!answer.body.to_string().contains("miroir:"), "{door} {target}: {answer:?}");
        }
    }
    // An Envoy that normalizes paths turns backslashes into slashes; then the request is an ordinary write.
    wait_until("all replicas have the document", || cluster.copies("raw") == 2);
    for number in 0..3 {
        let documents = cluster.node(number).get("/indexes/raw/documents").body;
        for document in documents["results"].as_array().unwrap() {
            assert!(document["_miroir_shard"].is_array(), "{document}");
        }
    }
    client.succeeded(&client.send("DELETE", "/indexes/raw", None, ""));
    assert_eq!(client.get("/indexes/gone").status, 404);
    assert_eq!(victims(), before);
}

pub fn names_of_the_clusters_own_keys_are_refused(cluster: &Sandbox) {
    let client = &cluster.client;
    let key = |name: &str| json!({"name": name, "actions": ["search"], "indexes": ["*"], "expiresAt": null});
    let refused = client.json("POST", "/keys", &key("miroir:hidden"));
    assert_eq!((refused.status, refused.body["code"].as_str()), (400, Some("invalid_api_key_name")));
    let made = client.json("POST", "/keys", &key("mine"));
    assert_eq!(made.status, 201, "{}", made.body);
    let path = format!("/keys/{}", made.body["uid"].as_str().unwrap());
    assert_eq!(client.json("PATCH", &path, &json!({"name": "miroir:epoch"})).status, 400);
    assert_eq!(client.get(&path).body["name"], "mine");
    // Clients can neither see nor change nor delete internal keys.
    let all = cluster.node(0).get("/keys?limit=1000").body;
    let is_own = |key: &&Value| key["name"].as_str().unwrap_or_default().starts_with("miroir:");
    let own =
        all["results"].as_array().unwrap().iter().find(is_own).expect("a key of the cluster's own").clone();
    for name in ["uid", "key"] {
        let path = format!("/keys/{}", own[name].as_str().unwrap());
        assert_eq!(client.get(&path).body["code"], "api_key_not_found");
        assert_eq!(client.json("PATCH", &path, &json!({"name": "taken"})).status, 404);
        assert_eq!(client.send("DELETE", &path, None, "").status, 404);
    }
    assert_eq!(cluster.node(0).get(&format!("/keys/{}", own["uid"].as_str().unwrap())).status, 200);
}

pub fn the_tag_is_out_of_reach_however_it_is_spelt(cluster: &Sandbox) {
    let client = &cluster.client;
    client.create("tagged", "id", &json!({"filterableAttributes": ["n"]}));
    client.add("tagged", &json!((0..20).map(|id| json!({"id": id, "n": id})).collect::<Vec<_>>()));
    let status =
        client.json("PATCH", "/experimental-features", &json!({"editDocumentsByFunction": true})).status;
    assert_eq!(status, 200);
    let door = client.url();
    let spellings = [
        "_miroir_shard",
        "%5fmiroir_shard",
        "_%6diroir_shard",
        "_miroir%5Fshard",
        "%5F%6D%69%72%6F%69%72%5F%73%68%61%72%64",
    ];
    for spelt in spellings {
        for target in [
            format!("/indexes/tagged/search?filter={spelt}%20EXISTS"),
            format!("/indexes/tagged/documents?filter={spelt}%20EXISTS"),
            format!("/indexes/tagged/search?facets={spelt}"),
        ] {
            let answer = ask(door, Some(MASTER_KEY), "GET", &target, "");
            assert_eq!(answer.status, 400, "{target}: {}", answer.body);
        }
    }
    // A filter in a query string may be JSON, in which letters may be escaped.
    for json in
        ["%22%5Cu005fmiroir_shard%20EXISTS%22", "%5B%5B%22%5Cu005fmiroir_sh%5Cu0061rd%20EXISTS%22%5D%5D"]
    {
        for route in ["search", "documents"] {
            let answer =
                ask(door, Some(MASTER_KEY), "GET", &format!("/indexes/tagged/{route}?filter={json}"), "");
            assert_eq!(answer.status, 400, "{route} {json}: {}", answer.body);
        }
    }
    let bodies = [
        ("/search", r#"{"q":"_miroir_shard","filter":"\u005fmiroir_shard EXISTS"}"#),
        ("/search", r#"{"q":"_miroir_shard","facets":["\u005fmiroir\u005fshard"]}"#),
        ("/documents/fetch", r#"{"fields":["_miroir_shard"],"filter":"\u005f\u006diroir_shard EXISTS"}"#),
        ("/documents/delete", r#"{"filter":"_miroir_shard EXISTS"}"#),
        ("/documents/delete", r#"{"filter":["\u005fmiroir_shard EXISTS"]}"#),
        ("/documents/edit", r#"{"function":"doc.n = 0","filter":"_miroir_shard EXISTS"}"#),
    ];
    for (route, body) in bodies {
        let answer = client.send("POST", &format!("/indexes/tagged{route}"), Some("application/json"), body);
        if answer.status == 202 {
            let task = client.ended(&answer);
            assert_eq!(task["status"], "failed", "{body}: {task}");
            continue;
        }
        assert_eq!(answer.status, 400, "{body}: {}", answer.body);
    }
    let all = |number: u64| {
        assert_eq!(client.search("tagged", &json!({"limit": 0}))["estimatedTotalHits"], number);
        assert_eq!(client.count("tagged"), number);
        assert_eq!(cluster.copies("tagged"), 2 * number);
    };
    all(20);
    for function in [
        "doc.n += 1; exit(); doc.n = 0",
        "exit()",
        "doc.n += 1 /* open",
        "doc._miroir_shard = \",,,\"",
        "_miroir_shard = \",,,\"",
        "let _miroir_shard = \",,,\";",
        "doc[\"_miroir\" + \"_shard\"] = \",,,\"",
        "fn type_of(x) { \"no\" } doc.n += 1",
        "doc.clear(); doc.id = 0",
        "try { exit() } catch (e) { eval(e + \" = 1\") }",
        "try { Fn(\"ex\" + \"it\").call() } catch (e) { doc.n = eval(e) }",
    ] {
        let answer = client.json("POST", "/indexes/tagged/documents/edit", &json!({ "function": function }));
        if answer.status == 202 {
            let task = client.ended(&answer).to_string();
            assert!(!task.contains("kept_"), "{task}");
        }
        all(20);
        let documents = client.get("/indexes/tagged/documents?limit=100").body.to_string();
        assert!(!documents.contains("miroir_shard"), "{function}: {documents}");
    }
    for function in ["fn remove(x) { } doc.n = 1", "fn exit() { }", "fn f() { } /* open"] {
        let answer = client.json("POST", "/indexes/tagged/documents/edit", &json!({ "function": function }));
        assert_eq!(answer.status, 400, "{function}: {}", answer.body);
    }
    assert_eq!(client.search("tagged", &json!({"filter": "n EXISTS", "limit": 0}))["estimatedTotalHits"], 20);
    // Settings that name the shard tag refer to an attribute that no document has, and are shown as they were set.
    let settings = json!({"distinctAttribute": "_miroir_shard", "rankingRules": ["_miroir_shard:asc", "words"],
        "searchableAttributes": ["n", "_miroir_shard"], "sortableAttributes": ["_miroir_shard"]});
    client.succeeded(&client.json("PATCH", "/indexes/tagged/settings", &settings));
    let found = client.search("tagged", &json!({"showRankingScoreDetails": true, "limit": 3}));
    assert_eq!(found["estimatedTotalHits"], 20, "{found}");
    let tag =
        cluster.node(0).get("/indexes/tagged/documents?limit=1").body["results"][0]["_miroir_shard"].clone();
    let texts: Vec<&str> = tag.as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(texts.len() == 2 && texts.iter().all(|text| !found.to_string().contains(text)), "{found}");
    let shown = client.get("/indexes/tagged/settings").body;
    assert_eq!(shown["distinctAttribute"], settings["distinctAttribute"]);
    assert_eq!(shown["rankingRules"], settings["rankingRules"]);
    for refused in [json!({"dictionary": [",,("]}), json!({"rankingRules": vec!["a:asc"; 501]})] {
        let answer = client.json("PATCH", "/indexes/tagged/settings", &refused);
        assert_eq!(answer.status, 400, "{}", answer.body);
    }
}

/// Unauthorized clients send requests that would need a lock, while another client writes.
pub fn strangers_hold_up_nobody_who_writes(cluster: &Sandbox) {
    let client = &cluster.client;
    client.add("written", &json!([{"id": 0}]));
    let slowest = |rounds: u64| {
        (0..rounds)
            .map(|id| {
                let begun = Instant::now();
                let answer = client.json("POST", "/indexes/written/documents", &json!([{ "id": id }]));
                assert_eq!(answer.status, 202, "{}", answer.body);
                begun.elapsed()
            })
            .max()
            .unwrap_or_default()
    };
    let alone = slowest(20);
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let among_strangers = std::thread::scope(|scope| {
        for number in 0..16 {
            let (is_over, stranger) = (&is_over, client.under(Some(&format!("{number:064x}"))));
            scope.spawn(move || {
                while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                    let answer = stranger.send("DELETE", "/indexes/written", None, "");
                    assert_eq!(answer.status, 403, "{}", answer.body);
                }
            });
        }
        let slowest = slowest(20);
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        slowest
    });
    // Sixteen threads send requests without a pause on the same processors, so the limit is generous.
    assert!(
        among_strangers < (alone * 5).max(Duration::from_secs(1)),
        "{alone:?} alone, {among_strangers:?} among strangers"
    );
    wait_until("what was written is there", || client.count("written") == 20);
}
