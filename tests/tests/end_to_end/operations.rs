//! `miroir node …` adds and removes nodes; `miroir verify` and `miroir repair` find and repair copies that differ; mistaken
//! commands are refused, and change nothing.

use crate::vectors::Embedded;
use miroir_core::shard::Shard;
use miroir_tests::{BOOKS_PATH, Client, MASTER_KEY, Node, Sandbox, books, serve, wait_until};
use serde_json::{Value, json};

fn active(cluster: &Sandbox, node: &str) -> u64 {
    cluster.member(node)["active"].as_u64().unwrap_or(0)
}

/// Checks that a dry run of every operation prints its plan, also as JSON, and changes nothing.
fn dry_runs_change_nothing(cluster: &Sandbox) {
    let path = cluster.data().join("smaller.yaml");
    let file = cluster.miroir_json(&["topology", "show"]);
    let smaller = json!({"replication": 1, "nodes": [file["nodes"][1], file["nodes"][2]]});
    std::fs::write(&path, smaller.to_string()).unwrap();
    let before = state(cluster);
    let new = cluster.add_node();
    let named = cluster.named(&new);
    // The numbers of replicas to be created and deleted, with 16 shards, two replicas and three nodes.
    for (operation, made, deleted) in [
        (&["node", "add", &named][..], 8, 8),
        (&["node", "replace", "meili-0", &named], 11, 11),
        (&["node", "drain", "meili-0"], 11, 11),
        (&["node", "lost", "meili-0", "--force"], 11, 0),
        (&["rebalance"], 0, 0),
        (&["replication", "set", "3"], 16, 0),
        (&["replication", "set", "1"], 0, 16),
    ] {
        let plan = cluster.miroir_json(&[operation, &["--dry-run"]].concat());
        assert_eq!(
            (&plan["replicas"], &plan["deleted"]),
            (&json!(made), &json!(deleted)),
            "{operation:?}: {plan}"
        );
        let (documents, bytes) = (plan["documents"].as_u64().unwrap(), plan["bytes"].as_u64().unwrap());
        assert_eq!((documents > 0, bytes > 10 * documents), (made > 0, made > 0), "{operation:?}: {plan}");
        let said = cluster.miroir_ok(&[operation, &["--dry-run"]].concat());
        let words = format!("would copy {made} replicas, {documents} documents, about ");
        assert!(said.contains(&words) && said.contains(&format!("{deleted} old copies")), "{said}");
    }
    let plan = cluster.miroir_json(&["topology", "apply", path.to_str().unwrap(), "--dry-run"]);
    assert!(plan["deleted"].as_u64().unwrap() >= 16, "{plan}");
    let plan = cluster.miroir_json(&["repair", "--dry-run"]);
    assert_eq!((&plan["replicas"], &plan["strays"]), (&json!([]), &json!([])));
    let said = String::from_utf8_lossy(&cluster.miroir(&["node", "remove", "meili-0", "--dry-run"]).stderr)
        .into_owned();
    assert!(said.contains("miroir node drain meili-0"), "{said}");
    assert_eq!(state(cluster), before);
}

/// Everything that an operation could change.
fn state(cluster: &Sandbox) -> Value {
    let status = cluster.status();
    let shards = cluster.miroir_json(&["shards"]);
    json!([status["topologyVersion"], status["moving"], cluster.miroir_json(&["topology", "show"]), shards])
}

pub fn a_node_is_added_drained_and_removed() {
    let cluster = Sandbox::library(2, 2, 1);
    assert_eq!(cluster.add_node(), "meili-2");
    // 16 shards with two replicas on three nodes.
    let plan = cluster.miroir_json(&["node", "add", &cluster.named("meili-2"), "--dry-run"]);
    assert_eq!((&plan["replicas"], &plan["deleted"]), (&json!(10), &json!(10)), "{plan}");
    assert!(plan["documents"].as_u64().unwrap() > 100 && plan["bytes"].as_u64().unwrap() > 1_000, "{plan}");
    assert_eq!(cluster.member("meili-2"), Value::Null, "a dry run changes nothing");
    cluster.miroir_ok(&["node", "add", &cluster.named("meili-2")]);
    assert_eq!(active(&cluster, "meili-2"), 10);
    cluster.library_is_whole(400, 1);
    assert_eq!(cluster.copies("books"), 800, "old copies are gone");
    dry_runs_change_nothing(&cluster);
    cluster.client.add("books", &books(0..400, 2));
    // The pace is slow, also after a crash of the control plane, until an operator sets a faster one.
    let slowly = ["--documents-per-second", "5", "--shards-at-once", "2", "--no-wait"];
    cluster.miroir_ok(&[&["node", "drain", "meili-0"], &slowly[..]].concat());
    cluster.kill("control");
    cluster.revive("control");
    wait_until("a copy is under way", || cluster.status()["moved"]["copies"][0]["source"].is_string());
    let copying = cluster.status()["moved"]["copies"].clone();
    let shards: usize =
        copying.as_array().unwrap().iter().map(|copy| copy["shards"].as_array().unwrap().len()).sum();
    assert!((1..=2).contains(&shards), "{copying}");
    assert!(active(&cluster, "meili-0") > 4, "the move was faster than 5 documents per second");
    let output = cluster.miroir(&["throttle", "--shards-at-once", "0"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("must not be 0"), "{output:?}");
    cluster.miroir_ok(&["throttle"]);
    wait_until("it is drained", || cluster.status()["moving"] == false);
    assert_eq!((active(&cluster, "meili-0"), cluster.node(0).count("books")), (0, 0));
    cluster.library_is_whole(400, 2);
    let plan = cluster.miroir_json(&["node", "remove", "meili-0", "--dry-run"]);
    assert_eq!((&plan["replicas"], &plan["deleted"]), (&json!(0), &json!(0)), "it is empty: {plan}");
    assert_eq!(cluster.member("meili-0")["leaving"], false);
    cluster.miroir_ok(&["node", "remove", "meili-0"]);
    assert_eq!(cluster.member("meili-0"), Value::Null);
    cluster.client.add("books", &books(0..400, 3));
    // The removed node can join again as a new one.
    wait_until("it has forgotten the cluster", || cluster.node(0).get("/indexes").body["total"] == 0);
    cluster.miroir_ok(&["node", "add", &cluster.named("meili-0")]);
    assert_eq!(active(&cluster, "meili-0"), 10);
    cluster.library_is_whole(400, 3);
}

/// Misplaced documents are found and deleted: those of an old copy that a node has kept, and those that were written to a node
/// without a gateway.
fn strays_are_cleared_away(cluster: &Sandbox) {
    let placed = cluster.miroir_json(&["shards"]);
    let is_foreign = |id: &u64| {
        let shard = Shard::of_document(&id.to_string(), 16).0;
        placed[usize::from(shard)]["active"].as_array().unwrap().iter().all(|node| node != "meili-0")
    };
    let foreign: Vec<u64> = (0..400).filter(is_foreign).take(2).collect();
    let query = json!({"ids": [foreign[0].to_string()]});
    let read = |number| cluster.node(number).json("POST", &format!("{BOOKS_PATH}/fetch"), &query);
    let copy = read(1).body["results"][0].take();
    let node = cluster.node(0);
    let before = node.count("books");
    node.succeeded(&node.json("POST", BOOKS_PATH, &json!([copy, {"id": foreign[1], "title": "by hand"}])));
    let output = cluster.miroir(&["verify", "--json"]);
    assert!(!output.status.success());
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut ids: Vec<&str> =
        found["strays"].as_array().unwrap().iter().map(|stray| stray["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    let mut expected: Vec<String> = foreign.iter().map(u64::to_string).collect();
    expected.sort_unstable();
    assert_eq!(
        (ids, found["differences"].as_array().unwrap().len()),
        (expected.iter().map(String::as_str).collect(), 0)
    );
    cluster.miroir_ok(&["repair", "--dry-run"]);
    assert_eq!(node.count("books"), before + 2, "a dry run changes nothing");
    cluster.miroir_ok(&["repair"]);
    assert_eq!(node.count("books"), before);
    cluster.library_is_whole(400, 1);
}

pub fn a_node_is_replaced_and_another_is_lost() {
    let cluster = Sandbox::library(3, 2, 1);
    strays_are_cleared_away(&cluster);
    let before = active(&cluster, "meili-1");
    assert_eq!(cluster.add_node(), "meili-3");
    // The operation continues after a crash of the control plane.
    cluster.miroir_ok(&["node", "replace", "meili-1", &cluster.named("meili-3"), "--no-wait"]);
    cluster.kill("control");
    cluster.revive("control");
    wait_until("it is replaced", || {
        let status = cluster.status();
        status["moving"] == false
            && cluster.member("meili-1") == Value::Null
            && cluster.member("meili-3") != Value::Null
    });
    assert_eq!((cluster.member("meili-1"), active(&cluster, "meili-3")), (Value::Null, before));
    cluster.library_is_whole(400, 1);
    let output = cluster.miroir(&["node", "lost", "meili-0"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("answers"), "{output:?}");
    // Writes that the lost node had accepted but not indexed are done by other replicas.
    let sent: Vec<_> = (0..5).map(|_| cluster.client.json("POST", BOOKS_PATH, &books(0..400, 1))).collect();
    cluster.kill("meili-0");
    cluster.client.add("books", &books(0..400, 2));
    cluster.miroir_ok(&["node", "lost", "meili-0", "--no-wait"]);
    cluster.kill("control");
    cluster.revive("control");
    wait_until("the lost node's replicas are rebuilt", || cluster.status()["replicasMissing"] == 0);
    assert_eq!((active(&cluster, "meili-2"), active(&cluster, "meili-3")), (16, 16));
    sent.iter().for_each(|accepted| drop(cluster.client.succeeded(accepted)));
    cluster.library_is_whole(400, 2);
}

pub fn a_file_says_what_the_cluster_is_to_be() {
    let cluster = Sandbox::library(2, 1, 1);
    let embedded = Embedded::new(&cluster);
    assert_eq!(cluster.add_node(), "meili-2");
    let mut file = cluster.miroir_json(&["topology", "show"]);
    assert_eq!((&file["replication"], file["nodes"].as_array().unwrap().len()), (&json!(1), 2));
    file["replication"] = json!(2);
    let nodes = file["nodes"].as_array_mut().unwrap();
    nodes.remove(0);
    nodes.push(json!({"name": "meili-2", "url": cluster.address("meili-2"), "weight": 3}));
    let path = cluster.data().join("topology.json");
    std::fs::write(&path, file.to_string()).unwrap();
    cluster.miroir_ok(&["topology", "apply", path.to_str().unwrap()]);
    assert_eq!((cluster.member("meili-0"), active(&cluster, "meili-2")), (Value::Null, 16));
    cluster.library_is_whole(400, 1);
    embedded.is_as_it_was(&cluster);
    cluster.miroir_ok(&["replication", "set", "1"]);
    assert!(active(&cluster, "meili-1") + active(&cluster, "meili-2") == 16);
    cluster.miroir_ok(&["rebalance"]);
    cluster.library_is_whole(400, 1);
    embedded.is_as_it_was(&cluster);
}

pub fn copies_that_differ_are_found_and_mended(cluster: &Sandbox) {
    cluster.miroir_ok(&["verify"]);
    let node = cluster.node(1);
    let mut document =
        node.json("POST", &format!("{BOOKS_PATH}/fetch"), &json!({"ids": ["7"]})).body["results"][0].take();
    document["title"] = json!("another book");
    node.succeeded(&node.json("POST", BOOKS_PATH, &json!([document])));
    node.succeeded(&node.json("POST", &format!("{BOOKS_PATH}/delete-batch"), &json!(["8", "9"])));
    // A document without a shard tag, which no search finds.
    node.succeeded(&node.json("POST", BOOKS_PATH, &json!([{"id": 4711, "title": "by hand"}])));
    let output = cluster.miroir(&["verify", "--json"]);
    assert!(!output.status.success());
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let ids: Vec<&str> =
        found["differences"].as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap()).collect();
    let mut sorted = ids.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, ["4711", "7", "8", "9"]);
    // With two copies, the control plane cannot decide which one is right.
    let output = cluster.miroir(&["repair"]);
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("--node"));
    cluster.miroir_ok(&["repair", "--node", "meili-1"]);
    cluster.library_is_whole(400, 1);
    assert_eq!(node.get(&format!("{BOOKS_PATH}/7")).body["title"], "book number 7");
    assert_eq!(node.count("books"), 400);
}

pub fn a_node_that_lost_its_disk_gets_everything_again(cluster: &Sandbox) {
    cluster.kill("meili-1");
    std::fs::remove_dir_all(cluster.data().join("nodes/meili-1")).unwrap();
    std::fs::create_dir_all(cluster.data().join("nodes/meili-1")).unwrap();
    cluster.revive("meili-1");
    wait_until("it has its copies", || cluster.node(1).count("books") == 400);
    cluster.wait_repaired();
    cluster.library_is_whole(400, 1);
}

pub fn mistakes_are_refused_and_change_nothing(cluster: &Sandbox) {
    let before = state(cluster);
    let refused = |arguments: &[&str], why: &str| {
        let output = cluster.miroir(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(why), "{arguments:?}: {said}");
        assert!(said.contains("nothing has changed") || said.contains("invalid"), "{said}");
    };
    let stranger = Node::start();
    let url = stranger.client.url().to_owned();
    let named = |name: &str| format!("{name}={url}");
    refused(&["node", "add", &cluster.named("meili-0")], "in the cluster already");
    refused(&["node", "add", &format!("other={}", cluster.address("meili-1"))], "as node `meili-1`");
    refused(&["node", "add", "other=http://127.0.0.1:1"], "does not answer");
    refused(&["node", "add", "other"], "NAME=URL");
    refused(&["node", "drain", "meili-0"], "1 node(s) would be left for 2 replicas");
    refused(&["node", "remove", "meili-0"], "miroir node drain meili-0");
    refused(&["node", "lost", "meili-0"], "1 node(s) would be left for 2 replicas");
    refused(&["node", "drain", "nobody"], "there are meili-0, meili-1");
    refused(&["replication", "set", "3"], "add a node first");
    stranger.client.add("own", &json!([{"id": 1}]));
    refused(&["node", "add", &named("other")], "data of its own (indexes own)");
    let other_key = Node::start_with_key("quite another master key");
    refused(&["node", "add", &format!("other={}", other_key.client.url())], "another master key");
    let older = serve(|head, _| match head.split(' ').nth(1) {
        Some("/version") => json!({"pkgVersion": "1.2.3"}).to_string(),
        _ => json!({"status": "available", "results": []}).to_string(),
    });
    refused(&["node", "add", &format!("other={older}")], "start it with the cluster's version");
    refused(
        &["node", "replace", "meili-0", &format!("other={older}")],
        "runs Meilisearch 1.2.3, the cluster ",
    );
    let path = cluster.data().join("wrong.yaml");
    std::fs::write(
        &path,
        format!(
            "replication: 7\nnodes:\n- {{name: a b, url: '{url}'}}\n- {{name: c, url: nonsense}}\n\
             - {{name: meili-0, url: 'http://127.0.0.1:1', weight: 0}}\n"
        ),
    )
    .unwrap();
    for why in ["replication: 7", "nodes[0].name", "nodes[1].url", "nodes[2].weight"] {
        refused(&["topology", "apply", path.to_str().unwrap()], why);
    }
    std::fs::write(&path, "replicas: 7").unwrap();
    refused(&["topology", "apply", path.to_str().unwrap()], "unknown field `replicas`");
    assert_eq!(state(cluster), before);
    // Requests of operators require the admin token.
    let control = Client::new(cluster.address("control"), Some(MASTER_KEY));
    let rebalance = json!({"wanted": {"operation": "rebalance"}});
    assert_eq!(control.json("POST", "/_miroir/operations", &rebalance).status, 403);
    // Two operations at once: one of them is refused because the other is running.
    let nodes = [cluster.add_node(), cluster.add_node()];
    let outputs: Vec<_> = std::thread::scope(|scope| {
        let add = |node: &String| cluster.miroir(&["node", "add", &cluster.named(node), "--no-wait"]);
        let adding: Vec<_> = nodes.iter().map(|node| scope.spawn(move || add(node))).collect();
        adding.into_iter().map(|adding| adding.join().unwrap()).collect()
    });
    let (done, refused): (Vec<_>, Vec<_>) = outputs.iter().partition(|output| output.status.success());
    assert_eq!((done.len(), refused.len()), (1, 1), "{outputs:?}");
    let said = String::from_utf8_lossy(&refused[0].stderr);
    assert!(said.contains("being moved") && said.contains("nothing has changed"), "{said}");
    wait_until("the first is done", || cluster.status()["moving"] == false);
    cluster.library_is_whole(400, 1);
}

pub fn a_lost_ledger_is_made_again() {
    let cluster = Sandbox::library(3, 2, 1);
    let key = json!({"uid": "6062abda-a5aa-4414-ac91-ecd7944c0f8d", "name": "mine", "actions": ["search"],
                     "indexes": ["books"], "expiresAt": null});
    let key = cluster.client.json("POST", "/keys", &key).body["key"].as_str().unwrap().to_owned();
    let last = cluster.client.get("/tasks?limit=1").body["results"][0]["uid"].as_u64().unwrap();
    let embedders = json!({"made": {"source": "rest", "url": "http://127.0.0.1:9", "apiKey": "a-long-secret", "dimensions": 2,
                          "request": "{{text}}", "response": "{{embedding}}", "documentTemplate": "{{doc.title}}"}});
    let path = "/indexes/empty/settings/embedders";
    cluster.client.succeeded(&cluster.client.json("PATCH", path, &embedders));
    let settings = cluster.client.get("/indexes/books/settings").body;
    let data = cluster.data().join("control");
    let config = cluster.data().join("cluster.json");
    let recover = || {
        std::process::Command::new(miroir_tests::programs().join("miroir"))
            .args(["recover", "--config", config.to_str().unwrap(), "--data", data.to_str().unwrap()])
            .output()
            .unwrap()
    };
    cluster.kill("control");
    let refused = recover();
    assert!(String::from_utf8_lossy(&refused.stderr).contains("nothing is lost"), "{refused:?}");
    for file in std::fs::read_dir(&data).unwrap() {
        let file = file.unwrap().path();
        if file.file_name().unwrap().to_string_lossy().starts_with("ledger") {
            std::fs::remove_file(file).unwrap();
        }
    }
    let recovered = recover();
    let said = String::from_utf8_lossy(&recovered.stdout).into_owned();
    assert!(recovered.status.success() && said.contains("2 indexes with 400 documents"), "{recovered:?}");
    assert!(said.contains("the embedder `made` of index `empty`") && said.contains("tasks"), "{said}");
    cluster.revive("control");
    wait_until("it is back", || {
        cluster.miroir(&["status"]).status.success() && cluster.client.get("/tasks").status == 200
    });
    cluster.wait_repaired();
    cluster.library_is_whole(400, 1);
    assert_eq!(cluster.client.get("/indexes/books/settings").body, settings);
    let mine = cluster.client.under(Some(&key));
    assert_eq!(mine.search("books", &json!({"limit": 3}))["hits"].as_array().unwrap().len(), 3);
    cluster.client.add("books", &books(0..400, 2));
    let next = cluster.client.get("/tasks?limit=1").body["results"][0]["uid"].as_u64().unwrap();
    assert!(next > last, "{next} after {last}");
    cluster.library_is_whole(400, 2);
    // A masked API key is never sent to a node.
    let spare = cluster.add_node();
    let output = cluster.miroir(&["node", "add", &cluster.named(&spare)]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("PATCH /indexes/empty/settings/embedders"), "{said}");
    let again = json!({"made": {"apiKey": "a-long-secret"}});
    cluster.client.succeeded(&cluster.client.json("PATCH", path, &again));
    cluster.miroir_ok(&["node", "add", &cluster.named(&spare)]);
    let new = spare.strip_prefix("meili-").unwrap().parse().unwrap();
    let of_new = cluster.node(new).get(path).body;
    assert_eq!(of_new, cluster.node(0).get(path).body);
    assert_eq!(
        (&of_new["made"]["source"], &of_new["made"]["url"]),
        (&json!("rest"), &embedders["made"]["url"])
    );
    cluster.library_is_whole(400, 2);
}
