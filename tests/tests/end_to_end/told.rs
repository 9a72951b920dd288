//! Settings, and the details of settings tasks, appear as clients wrote them, although nodes were sent more. Batches show the
//! same about a task as those of a single node.

use miroir_tests::{Answer, Client, Node, Sandbox, nodes_are_real};
use serde_json::{Value, json};

/// For each change: the details of its waiting task and of its ended task, and the settings afterwards.
fn told(client: &Client) -> Vec<(String, Value)> {
    let rest = |more: Value| {
        let mut embedder = json!({"source": "rest", "url": "http://127.0.0.1:1", "dimensions": 4, "request": "{{text}}",
                                  "response": "{{embedding}}"});
        embedder.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        embedder
    };
    // The engine of the development node does not know fragments, and has other defaults.
    let real = if nodes_are_real() { 3 } else { 0 };
    let fragments = json!({"a": {"value": "{{doc.a}}"}});
    let fragmented = json!({"parts": rest(json!({"request": "{{fragment}}", "indexingFragments": fragments, "searchFragments": {"s": {"value": "{{q}}"}}}))});
    let composite = json!({"both": {"source": "composite", "indexingEmbedder": {"source": "rest", "url": "http://127.0.0.1:1", "documentTemplate": "x"},
        "searchEmbedder": {"source": "rest", "documentTemplate": "x"}}});
    let _ = client.json(
        "PATCH",
        "/experimental-features",
        &json!({"multimodal": true, "compositeEmbedders": true}),
    );
    let of_real = [
        ("PATCH", "/embedders", fragmented),
        ("PATCH", "/embedders", json!({"parts": {"url": "http://127.0.0.1:2"}})),
        ("PATCH", "/embedders", composite),
    ];
    let changes = [
        ("PATCH", "", json!({"embedders": {"default": rest(json!({"apiKey": "My super secret value"}))}})),
        ("PATCH", "/embedders", json!({"default": {"documentTemplate": null}})),
        (
            "PATCH",
            "/embedders",
            json!({"other": rest(json!({"documentTemplate": "{{doc.title}}"})), "none": null}),
        ),
        ("PATCH", "/embedders", json!({"other": {"source": "rest"}})),
        ("PATCH", "/embedders", json!({"default": rest(json!({})), "other": {"apiKey": "x"}})),
        (
            "PATCH",
            "/embedders",
            json!({"default": null, "mine": {"source": "userProvided", "dimensions": 2}}),
        ),
        ("PATCH", "/embedders", json!({"mine": {"source": "userProvided", "documentTemplate": "x"}})),
        ("DELETE", "/embedders", json!(null)),
        ("PATCH", "", json!({"faceting": {"maxValuesPerFacet": 7}})),
        ("PATCH", "", json!({"faceting": {"maxValuesPerFacet": null}})),
        ("PATCH", "", json!({"faceting": {"sortFacetValuesBy": {"a": "count"}}, "pagination": null})),
        ("PATCH", "/faceting", json!({"maxValuesPerFacet": null, "sortFacetValuesBy": {"b": "alpha"}})),
        ("PATCH", "", json!({"faceting": null, "typoTolerance": {"minWordSizeForTypos": {"oneTypo": 3}}})),
        ("DELETE", "/faceting", json!(null)),
        (
            "PATCH",
            "",
            json!({"filterableAttributes": ["a", {"attributePatterns": ["b*"]}], "synonyms": {"a": ["b"]}}),
        ),
        ("DELETE", "", json!(null)),
    ];
    let mut told = Vec::new();
    for (method, path, body) in of_real.into_iter().take(real).chain(changes) {
        let what = format!("{method} {path} {body}");
        let accepted = client.json(method, &format!("/indexes/told/settings{path}"), &body);
        if accepted.status != 202 {
            told.push((what, accepted.body));
            continue;
        }
        let task = client.ended(&accepted);
        // The members of a reset's details have no fixed order.
        let details =
            if method == "DELETE" { task["details"].clone() } else { json!(task["details"].to_string()) };
        told.push((what, json!([task["status"], details, client.get("/indexes/told/settings").body])));
    }
    told
}

/// The batches of tasks of all kinds, alone and in the list, without values that depend on the server or the time.
fn batches(client: &Client) -> Vec<(String, Value)> {
    let documents = json!([{"id": 1, "n": 1}, {"id": 2, "n": 2}]);
    let requests = [
        ("POST", "/indexes", json!({"uid": "batched"})),
        ("POST", "/indexes", json!({"uid": "batched"})),
        ("POST", "/indexes", json!({"uid": "other", "primaryKey": "id"})),
        ("POST", "/indexes/batched/documents", documents),
        ("PUT", "/indexes/batched/documents", json!([{"id": 1, "n": 3}])),
        ("POST", "/indexes/batched/documents", json!([{"n": 1}])),
        (
            "PATCH",
            "/indexes/batched/settings",
            json!({"filterableAttributes": ["n"], "distinctAttribute": null}),
        ),
        ("DELETE", "/indexes/batched/documents/1", json!(null)),
        ("POST", "/indexes/batched/documents/delete-batch", json!([7, 8])),
        ("POST", "/indexes/batched/documents/delete", json!({"filter": "n = 9"})),
        ("PATCH", "/indexes/other", json!({"primaryKey": "key"})),
        ("POST", "/swap-indexes", json!([{"indexes": ["batched", "other"]}])),
        ("POST", "/tasks/cancel?uids=0", json!(null)),
        ("DELETE", "/tasks?uids=0", json!(null)),
        ("POST", "/dumps", json!(null)),
        ("POST", "/snapshots", json!(null)),
        ("DELETE", "/indexes/batched/documents", json!(null)),
        ("DELETE", "/indexes/other", json!(null)),
    ];
    let told = requests.map(|(method, path, body)| {
        // Cancelations and deletions of tasks are answered with 200.
        let accepted = client.json(method, path, &body);
        let task = client.ended(&Answer { status: accepted.status.max(202), ..accepted });
        let uid = &task["batchUid"];
        let mut batch = client.get(&format!("/batches/{uid}")).body;
        let list = client.get(&format!("/batches?batchUids={uid}")).body;
        assert_eq!(list["results"], json!([batch]), "{method} {path}");
        let id = format!("id {uid} ");
        batch["batchStrategy"] = json!(batch["batchStrategy"].as_str().unwrap().replace(&id, "id X "));
        let batch = batch.as_object_mut().unwrap();
        batch.retain(|name, _| !["uid", "duration", "startedAt", "finishedAt"].contains(&name.as_str()));
        // The steps of a batch and their durations vary from run to run.
        let stats = batch["stats"].as_object_mut().unwrap();
        assert!(!nodes_are_real() || stats.contains_key("progressTrace"), "{method} {path}");
        stats.retain(|name, _| {
            !["progressTrace", "writeChannelCongestion", "internalDatabaseSizes"].contains(&name.as_str())
        });
        if let Some(dump) = batch["details"].get_mut("dumpUid") {
            assert!(dump.is_string());
            *dump = json!("some");
        }
        (format!("{method} {path}"), json!(batch))
    });
    told.into()
}

pub fn batches_are_told_as_by_one_node(cluster: &Sandbox, node: &Node) {
    for (cluster, node) in batches(&cluster.client).iter().zip(&batches(&node.client)) {
        assert_eq!(cluster, node);
    }
    if nodes_are_real() {
        let of = |client: &Client| {
            client.add("traced", &json!([{"id": 1, "n": 1}]));
            let batch = client.get("/batches?indexUids=traced").body["results"][0].clone();
            batch["stats"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(of(&cluster.client), of(&node.client), "the batches of cluster and node differ");
    }
}

pub fn settings_are_told_as_clients_wrote_them(cluster: &Sandbox, node: &Node) {
    let create = |client: &Client| {
        client.succeeded(&client.json("POST", "/indexes", &json!({"uid": "told"})));
        told(client)
    };
    let (cluster, node) = (create(&cluster.client), create(&node.client));
    for (cluster, node) in cluster.iter().zip(&node) {
        assert_eq!(cluster, node);
    }
}
