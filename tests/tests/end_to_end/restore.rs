//! A cluster is restored from its dumps, and from its snapshots, as `docs/operations.md` describes.

use miroir_tests::{Options, Sandbox, wait_until};
use serde_json::{Value, json};
use std::{
    fs,
    path::{Path, PathBuf},
};

const FROM_DUMPS: [(&str, &str); 3] = [
    ("MEILI_IMPORT_DUMP", "restore.dump"),
    ("MEILI_IGNORE_MISSING_DUMP", "true"),
    ("MEILI_IGNORE_DUMP_IF_DB_EXISTS", "true"),
];
const FROM_SNAPSHOTS: [(&str, &str); 3] = [
    ("MEILI_IMPORT_SNAPSHOT", "snapshots/data.ms.snapshot"),
    ("MEILI_IGNORE_MISSING_SNAPSHOT", "true"),
    ("MEILI_IGNORE_SNAPSHOT_IF_DB_EXISTS", "true"),
];

fn books(ids: std::ops::Range<u64>, version: u64) -> Value {
    ids.map(|id| json!({"id": id, "v": version, "title": format!("book number {id}")})).collect()
}

/// A cluster loses everything except the files that its nodes wrote for `POST route`, and is started again from these.
fn comes_back(route: &str, env: &'static [(&'static str, &'static str)], put: fn(&Path)) {
    // With one replica, the files of every node are needed.
    let options = Options { nodes: 2, replication: 1, env, ..Options::default() };
    let cluster = Sandbox::start(options);
    let client = &cluster.client;
    client.create("books", "id", &json!({"filterableAttributes": ["v"], "synonyms": {"tome": ["book"]}}));
    client.add("books", &books(0..300, 1));
    let key = json!({"uid": "5a1c6f0e-0d0c-4b6e-9d0a-0c1f3c7c2a41", "actions": ["search"],
                     "indexes": ["books"], "expiresAt": null});
    let key = client.json("POST", "/keys", &key).body["key"].as_str().unwrap().to_owned();
    let settings = client.get("/indexes/books/settings").body;
    client.succeeded(&client.send("POST", route, None, ""));
    // Documents that were written later are not in the files.
    client.add("books", &books(200..400, 2));
    client.add("later", &json!([{"id": 1}]));

    cluster.kill("control");
    for node in ["meili-0", "meili-1"] {
        cluster.kill(node);
        let folder = cluster.data().join("nodes").join(node);
        fs::remove_dir_all(folder.join("data.ms")).unwrap();
        put(&folder);
        cluster.revive(node);
    }
    let data = cluster.data().join("control");
    for file in files(&data).into_iter().filter(|file| name(file).starts_with("ledger")) {
        fs::remove_file(file).unwrap();
    }
    let recovered = std::process::Command::new(miroir_tests::programs().join("miroir"))
        .args(["recover", "--config", cluster.data().join("cluster.json").to_str().unwrap()])
        .args(["--data", data.to_str().unwrap()])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&recovered.stdout).into_owned();
    assert!(recovered.status.success() && said.contains("1 indexes with 300 documents"), "{recovered:?}");
    cluster.revive("control");
    wait_until("it is back", || client.get("/tasks").status == 200);
    cluster.wait_repaired();

    let found = client.search("books", &json!({"q": "tome", "filter": "v = 1", "limit": 1000}));
    assert_eq!(found["hits"].as_array().unwrap().len(), 300, "by a synonym, too");
    assert_eq!(client.count("books"), 300);
    assert_eq!(client.get("/indexes/later").status, 404);
    assert_eq!(client.get("/indexes/books/settings").body, settings);
    let search = client.under(Some(&key)).json("POST", "/indexes/books/search", &json!({"limit": 3}));
    assert_eq!(search.status, 200, "{}", search.body);
    client.add("books", &books(250..350, 3));
    assert_eq!(client.count("books"), 350);
    assert_eq!(client.get("/indexes/books/documents/349").body["v"], 3);
    cluster.miroir_ok(&["verify"]);
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect()
}

fn name(file: &Path) -> String {
    file.file_name().unwrap().to_string_lossy().into_owned()
}

pub fn a_cluster_comes_back_from_its_dumps() {
    comes_back("/dumps", &FROM_DUMPS, |folder| {
        let dumps = files(&folder.join("dumps"));
        assert_eq!(dumps.len(), 1, "{dumps:?}");
        fs::rename(&dumps[0], folder.join("restore.dump")).unwrap();
    });
}

pub fn a_cluster_comes_back_from_its_snapshots() {
    comes_back("/snapshots", &FROM_SNAPSHOTS, |folder| {
        assert!(folder.join("snapshots/data.ms.snapshot").is_file());
    });
}
