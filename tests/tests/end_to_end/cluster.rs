//! The cluster as a whole: its control plane, its topology, and crashes of its parts.

use miroir_tests::{Options, Sandbox, wait_until};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

fn names(processes: &[Value]) -> Vec<&str> {
    processes.iter().filter_map(|process| process["name"].as_str()).collect()
}

pub fn indexes_settings_and_statistics_show_nothing_of_the_shards(cluster: &Sandbox) {
    let client = &cluster.client;
    client.create(
        "movies",
        "id",
        &json!({"filterableAttributes": ["genre"], "sortableAttributes": ["year"]}),
    );
    client.add(
        "movies",
        &json!((0..50).map(|id| json!({"id": id, "genre": "x", "year": id})).collect::<Vec<_>>()),
    );

    let settings = client.get("/indexes/movies/settings").body;
    assert_eq!(settings["filterableAttributes"], json!(["genre"]));
    assert_eq!(settings["sortableAttributes"], json!(["year"]));
    client.succeeded(&client.json(
        "PUT",
        "/indexes/movies/settings/filterable-attributes",
        &json!(["year", "genre"]),
    ));
    assert_eq!(client.get("/indexes/movies/settings/filterable-attributes").body, json!(["year", "genre"]));
    client.succeeded(&client.send("DELETE", "/indexes/movies/settings", None, ""));
    assert_eq!(client.get("/indexes/movies/settings").body["filterableAttributes"], json!([]));
    assert_eq!(client.search("movies", &json!({}))["estimatedTotalHits"], 50, "the tag is filterable still");

    let indexes = client.get("/indexes").body;
    assert_eq!((&indexes["total"], &indexes["results"][0]["uid"]), (&json!(1), &json!("movies")));
    let stats = client.get("/stats").body;
    assert_eq!(stats["indexes"]["movies"]["numberOfDocuments"], 50);
    assert_eq!(stats["indexes"]["movies"]["fieldDistribution"], json!({"genre": 50, "id": 50, "year": 50}));
    assert!(client.get("/version").body["pkgVersion"].is_string());
    assert_eq!(client.get("/health").body, json!({"status": "available"}));

    let tasks = client.get("/tasks").body;
    let uids: Vec<u64> =
        tasks["results"].as_array().unwrap().iter().map(|task| task["uid"].as_u64().unwrap()).collect();
    assert_eq!(uids, (0..uids.len() as u64).rev().collect::<Vec<_>>(), "uids have no gaps");
    let additions = client.get("/tasks?types=documentAdditionOrUpdate&statuses=succeeded").body;
    assert_eq!(additions["total"], 1);
    assert_eq!(client.get("/tasks/999").body["code"], "task_not_found");

    let text = [&settings, &indexes, &stats, &tasks].map(Value::to_string).join("");
    assert!(!text.contains("_miroir_shard"), "{text}");
}

pub fn clients_have_no_business_with_internal_routes(cluster: &Sandbox) {
    for path in
        ["/_miroir/begin", "/_miroir/status", "/_miroir/commit", "//_miroir/begin", "/%5Fmiroir/begin"]
    {
        let status = cluster.client.json("POST", path, &json!({})).status;
        assert!((400..500).contains(&status), "{path}: {status}");
    }
}

pub fn a_node_that_dies_is_read_no_more_where_it_missed_a_write_and_is_repaired(cluster: &Sandbox) {
    let client = &cluster.client;
    client.add("books", &json!((0..200).map(|id| json!({"id": id, "v": 1})).collect::<Vec<_>>()));
    cluster.kill("meili-2");
    client.add("books", &json!((100..300).map(|id| json!({"id": id, "v": 2})).collect::<Vec<_>>()));
    assert_eq!(client.search("books", &json!({"limit": 0}))["estimatedTotalHits"], 300);
    let stale: u64 = cluster.miroir_json(&["status"])["nodes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|node| node["stale"].as_u64().unwrap())
        .sum();
    assert!(stale > 0, "the dead node's replicas missed a write");
    cluster.revive("meili-2");
    cluster.wait_repaired();
    assert_eq!(cluster.copies("books"), 600);
    // Another node is killed: the repaired copies alone must be enough.
    cluster.kill("meili-0");
    for id in [0, 150, 299] {
        let expected = if id < 100 { 1 } else { 2 };
        assert_eq!(
            client.get(&format!("/indexes/books/documents/{id}")).body,
            json!({"id": id, "v": expected})
        );
    }
    assert_eq!(client.search("books", &json!({"limit": 0}))["estimatedTotalHits"], 300);
    cluster.revive("meili-0");
    cluster.wait_repaired();
}

pub fn without_its_control_plane_a_cluster_is_read_and_writes_can_be_tried_again(cluster: &Sandbox) {
    let client = &cluster.client;
    client.add("books", &json!([{"id": 1, "name": "one"}]));
    cluster.kill("control");
    assert_eq!(client.search("books", &json!({"q": "one"}))["estimatedTotalHits"], 1);
    assert_eq!(client.get("/indexes/books/documents/1").status, 200);
    for (method, path) in [
        ("POST", "/indexes/books/documents"),
        ("POST", "/indexes/books/documents/delete-batch"),
        ("POST", "/indexes"),
        ("PATCH", "/indexes/books/settings"),
        ("POST", "/swap-indexes"),
    ] {
        let refused = client.json(method, path, &json!([{"id": 2}]));
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("10")), "{path}: {refused:?}");
        assert_eq!(refused.header("content-type"), Some("application/json"), "{path}");
        let mut keys: Vec<&String> = refused.body.as_object().unwrap().keys().collect();
        keys.sort_unstable();
        assert_eq!(keys, ["code", "link", "message", "type"], "{path}");
        assert!(!refused.body["message"].as_str().unwrap().is_empty(), "{path}");
    }
    cluster.revive("control");
    wait_until("writes are taken again", || {
        client.json("POST", "/indexes/books/documents", &json!([{"id": 2}])).status == 202
    });
    wait_until("what was written is found", || client.count("books") == 2);
}

pub fn an_invalid_topology_is_refused_and_the_last_good_one_stays(cluster: &Sandbox) {
    let client = &cluster.client;
    client.add("books", &json!([{"id": 1}]));
    let good: Value =
        serde_json::from_slice(&std::fs::read(cluster.published("ecds.json")).unwrap()).unwrap();
    let mut bad = good.clone();
    bad["version_info"] = json!("bad");
    let configuration = "/resources/0/typed_config/config/configuration/value";
    *bad.pointer_mut(configuration).unwrap() =
        json!(r#"{"schema":1,"version":99,"nodes":[{"name":"","cluster":""}],"placement":[[7]]}"#);
    let log = cluster.data().join("logs/gateway-0.log");
    let names_every_error = || {
        let log = std::fs::read_to_string(&log).unwrap();
        ["nodes[0].name", "nodes[0].cluster", "placement[0]"].iter().all(|key| log.contains(key))
    };
    let what = "Envoy's log names every error";
    cluster.publish_instead("ecds.json", bad.to_string().as_bytes(), what, names_every_error);
    assert_eq!(client.search("books", &json!({}))["estimatedTotalHits"], 1);
    client.add("books", &json!([{"id": 2}]));
}

pub fn data_survives_a_restart_and_nothing_survives_the_playground() {
    let mut cluster = Sandbox::start(Options { master_key: false, ..Options::default() });
    cluster.client.add("books", &json!([{"id": 1, "name": "kept"}]));
    let ids = |cluster: &Sandbox| -> Vec<u64> {
        cluster.processes().iter().filter_map(|process| process["pid"].as_u64()).collect()
    };
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        assert_eq!(names(&cluster.processes()), ["meili-0", "meili-1", "meili-2", "control", "gateway-0"]);
        let running = ids(&cluster);
        cluster.stop(signal);
        wait_until("every process is gone", || {
            running.iter().all(|id| {
                let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
                stat.is_empty() || stat.contains(") Z ")
            })
        });
        cluster.restart();
        assert_eq!(cluster.client.search("books", &json!({"q": "kept"}))["estimatedTotalHits"], 1);
    }
}

pub fn the_command_line_prints_tables(cluster: &Sandbox) {
    for (arguments, expected) in [(["status"], "topology version"), (["shards"], "meili-2")] {
        let output = cluster.miroir(&arguments);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && text.contains(expected), "{text}");
    }
    let shards = cluster.miroir_json(&["shards"]);
    let active = |shard: &Value| shard["active"].as_array().map_or(0, Vec::len);
    assert_eq!(shards.as_array().unwrap().iter().map(active).collect::<Vec<_>>(), vec![2; 16]);
}
