//! The node as a process: documents, tasks, searches, errors, keys, and what survives a kill.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

const MASTER_KEY: &str = "a master key for tests";

/// A node that ends with the test.
struct Node {
    process: Child,
    url: String,
    token: Option<String>,
}

impl Node {
    fn start(folder: &Path, master_key: Option<&str>) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_miroir-devnode"));
        command.args(["--http-addr", "127.0.0.1:0", "--no-analytics", "--db-path"]).arg(folder.join("db"));
        command.env_remove("MEILI_MASTER_KEY").stderr(Stdio::piped());
        if let Some(key) = master_key {
            command.args(["--master-key", key]);
        }
        let mut process = command.spawn().unwrap();
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let url = loop {
            let line = lines.next().expect("the node ended before it listened").unwrap();
            if let Some((_, url)) = line.split_once("listening on ") {
                break url.to_string();
            }
        };
        // Whoever writes to a pipe that nobody reads stops.
        std::thread::spawn(move || lines.for_each(drop));
        Self { process, url, token: master_key.map(String::from) }
    }

    fn send(&self, method: &str, path: &str, content_type: &str, body: Option<&str>) -> (u16, Value) {
        let mut request = ureq::request(method, &format!("{}{path}", self.url));
        if let Some(token) = &self.token {
            request = request.set("Authorization", &format!("Bearer {token}"));
        }
        let answer = match body {
            Some(body) => request.set("Content-Type", content_type).send_string(body),
            None => request.call(),
        };
        let answer = match answer {
            Ok(answer) | Err(ureq::Error::Status(_, answer)) => answer,
            Err(error) => panic!("{method} {path}: {error}"),
        };
        let status = answer.status();
        let text = answer.into_string().unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    fn call(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        self.send(method, path, "application/json", body.map(|body| body.to_string()).as_deref())
    }

    fn get(&self, path: &str) -> Value {
        self.call("GET", path, None).1
    }

    fn post(&self, path: &str, body: Value) -> Value {
        self.call("POST", path, Some(body)).1
    }

    /// Waits until a task is over.
    fn wait(&self, summary: &Value) -> Value {
        let uid = summary["taskUid"].as_u64().unwrap_or_else(|| panic!("not a task: {summary}"));
        let end = Instant::now() + Duration::from_secs(120);
        loop {
            let task = self.get(&format!("/tasks/{uid}"));
            if !["enqueued", "processing"].contains(&task["status"].as_str().unwrap()) {
                return task;
            }
            assert!(Instant::now() < end, "task {uid} does not end: {task}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn succeed(&self, summary: &Value) -> Value {
        let task = self.wait(summary);
        assert_eq!(task["status"], "succeeded", "{task}");
        task
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn films() -> Value {
    json!([
        { "id": 1, "title": "Alien", "year": 1979, "genres": ["horror", "space"] },
        { "id": 2, "title": "Aliens", "year": 1986, "genres": ["action", "space"] },
        { "id": 3, "title": "Heat", "year": 1995, "genres": ["crime"] },
    ])
}

#[test]
fn documents_are_added_read_searched_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), None);
    assert_eq!(node.get("/health"), json!({ "status": "available" }));
    let settings = json!({ "filterableAttributes": ["year", "genres"], "sortableAttributes": ["year"] });
    let task = node.call("PATCH", "/indexes/films/settings", Some(settings)).1;
    node.succeed(&task);
    let summary = node.post("/indexes/films/documents?customMetadata=mine", films());
    assert_eq!((&summary["indexUid"], &summary["status"]), (&json!("films"), &json!("enqueued")));
    let task = node.succeed(&summary);
    assert_eq!(task["details"], json!({ "receivedDocuments": 3, "indexedDocuments": 3 }));
    assert_eq!(task["customMetadata"], "mine");
    assert_eq!(node.get("/indexes/films")["primaryKey"], "id");

    assert_eq!(node.get("/indexes/films/documents/2?fields=title"), json!({ "title": "Aliens" }));
    let page =
        node.post("/indexes/films/documents/fetch", json!({ "filter": "genres = space", "fields": ["id"] }));
    assert_eq!(page, json!({ "results": [{ "id": 1 }, { "id": 2 }], "offset": 0, "limit": 20, "total": 2 }));
    let sorted = node.post(
        "/indexes/films/documents/fetch",
        json!({ "sort": ["year:desc"], "fields": ["id"], "limit": 2 }),
    );
    assert_eq!(sorted["results"], json!([{ "id": 3 }, { "id": 2 }]));

    let query = json!({
        "q": "alien", "filter": [["year < 1990", "year > 2000"]], "sort": ["year:asc"], "facets": ["genres"],
        "attributesToHighlight": ["title"], "attributesToRetrieve": ["id"], "showRankingScore": true,
        "showMatchesPosition": true,
    });
    let answer = node.post("/indexes/films/search", query);
    assert_eq!(answer["estimatedTotalHits"], 2, "{answer}");
    assert_eq!(answer["hits"][0]["id"], 1);
    assert_eq!(answer["hits"][0]["_formatted"], json!({ "id": "1", "title": "<em>Alien</em>" }));
    assert_eq!(answer["hits"][0]["_matchesPosition"], json!({ "title": [{ "start": 0, "length": 5 }] }));
    assert_eq!(answer["facetDistribution"]["genres"], json!({ "action": 1, "horror": 1, "space": 2 }));
    let paged = node.get("/indexes/films/search?q=&hitsPerPage=2&page=2");
    assert_eq!((&paged["totalHits"], &paged["totalPages"]), (&json!(3), &json!(2)));

    let deleted = node.post("/indexes/films/documents/delete", json!({ "filter": "year = 1979" }));
    let task = node.succeed(&deleted);
    assert_eq!(
        task["details"],
        json!({ "providedIds": 0, "deletedDocuments": 1, "originalFilter": "\"year = 1979\"" })
    );
    node.succeed(&node.post("/indexes/films/documents/delete-batch", json!([2, "none"])));
    assert_eq!(node.get("/indexes/films/stats")["numberOfDocuments"], 1);
    let csv = node.send("PUT", "/indexes/films/documents", "text/csv", Some("id:number,title\n3,Hot\n")).1;
    node.succeed(&csv);
    assert_eq!(node.get("/indexes/films/documents/3")["year"], 1995);
    node.succeed(&node.call("DELETE", "/indexes/films", None).1);
    assert_eq!(node.get("/indexes/films")["code"], "index_not_found");
}

#[test]
fn errors_are_those_of_meilisearch() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), None);
    let failed = node.wait(&node.post("/indexes/a/documents", json!([{ "id": "not good!" }])));
    assert_eq!(failed["error"]["code"], "invalid_document_id");
    assert_eq!(failed["details"], json!({ "receivedDocuments": 1, "indexedDocuments": 0 }));
    let failed = node.wait(&node.post("/indexes/a/documents", json!([{ "name": 1 }])));
    assert_eq!(failed["error"]["code"], "index_primary_key_no_candidate_found");
    let (status, error) = node.send("POST", "/indexes/a/documents", "application/json", Some("[{"));
    assert_eq!((status, &error["code"]), (400, &json!("malformed_payload")));
    let (status, error) = node.call("POST", "/indexes/a/search", Some(json!({ "limit": "x" })));
    assert_eq!((status, &error["code"]), (400, &json!("invalid_search_limit")));
    node.call("PATCH", "/experimental-features", Some(json!({ "editDocumentsByFunction": true })));
    let error = node.post("/indexes/a/documents/edit", json!({ "function": "doc.x = " }));
    assert_eq!(error["message"], "Script is incomplete (line 1, position 9)");
    let (status, error) = node.call("POST", "/indexes/none/search", Some(json!({})));
    assert_eq!(
        (status, error),
        (
            404,
            json!({
                "message": "Index `none` not found.",
                "code": "index_not_found",
                "type": "invalid_request",
                "link": "https://docs.meilisearch.com/errors#index_not_found",
            })
        )
    );
    let error = node.post("/indexes/a/search", json!({ "filter": "x = 1" }));
    assert_eq!(error["code"], "invalid_search_filter");
    assert!(
        error["message"].as_str().unwrap().starts_with("Index `a`: Attribute `x` is not filterable."),
        "{error}"
    );
    assert_eq!(node.call("GET", "/nowhere", None).0, 404);
    assert_eq!(node.call("PUT", "/health", None).0, 405);
}

#[test]
fn tasks_are_listed_canceled_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), None);
    for uid in ["a", "b"] {
        node.succeed(&node.post("/indexes", json!({ "uid": uid })));
    }
    let failed = node.wait(&node.post("/indexes", json!({ "uid": "a" })));
    assert_eq!(failed["error"]["code"], "index_already_exists");
    let list = node.get("/tasks?statuses=failed&limit=1");
    assert_eq!((&list["total"], &list["results"][0]["uid"]), (&json!(1), &failed["uid"]));
    let page = node.get("/tasks?limit=2");
    assert_eq!((&page["from"], &page["next"]), (&json!(2), &json!(0)));
    node.succeed(&node.post("/swap-indexes", json!([{ "indexes": ["a", "b"] }])));
    let canceled = node.succeed(&node.call("POST", "/tasks/cancel?statuses=enqueued", None).1);
    assert_eq!(canceled["details"]["canceledTasks"], 0);
    let deleted = node.succeed(&node.call("DELETE", "/tasks?uids=0", None).1);
    assert_eq!(deleted["details"]["deletedTasks"], 1);
    assert_eq!(node.get("/tasks/0")["code"], "task_not_found");
    assert_eq!(node.get("/batches/1")["stats"]["totalNbTasks"], 1);
}

#[test]
fn keys_limit_their_bearers() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::start(folder.path(), Some(MASTER_KEY));
    let keys = node.get("/keys");
    assert_eq!(keys["total"], 4, "{keys}");
    node.succeed(&node.post("/indexes/a/documents", films()));
    let key = node.post(
        "/keys",
        json!({ "uid": "6062abda-a5aa-4414-ac91-ecd7944c0f8d", "actions": ["search"], "indexes": ["a*"], "expiresAt": null }),
    );
    node.token = key["key"].as_str().map(String::from);
    assert_eq!(node.post("/indexes/a/search", json!({}))["estimatedTotalHits"], 3);
    let (status, error) = node.call("POST", "/indexes/b/search", Some(json!({})));
    assert_eq!((status, &error["code"]), (403, &json!("invalid_api_key")));
    assert_eq!(node.call("GET", "/indexes/a/documents", None).0, 403);
    node.token = None;
    let (status, error) = node.call("GET", "/version", None);
    assert_eq!((status, &error["code"]), (401, &json!("missing_authorization_header")));
    assert_eq!(node.call("GET", "/health", None).0, 200);
}

#[test]
fn what_was_accepted_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = Node::start(folder.path(), None);
    let mut last = Value::Null;
    for n in 0..20 {
        last = node.post("/indexes/a/documents", json!([{ "id": n, "text": format!("number {n}") }]));
    }
    node.process.kill().unwrap();
    node.process.wait().unwrap();
    let node = Node::start(folder.path(), None);
    node.succeed(&last);
    assert_eq!(node.get("/indexes/a/stats")["numberOfDocuments"], 20);
    assert_eq!(node.get("/tasks?statuses=succeeded")["total"], 20);
}

#[test]
fn vectors_and_several_searches() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), None);
    let embedders = json!({ "mine": { "source": "userProvided", "dimensions": 2 } });
    node.succeed(&node.call("PATCH", "/indexes/a/settings/embedders", Some(embedders)).1);
    let documents = json!([
        { "id": 1, "name": "one", "_vectors": { "mine": [1.0, 0.0] } },
        { "id": 2, "name": "two", "_vectors": { "mine": [0.0, 1.0] } },
    ]);
    node.succeed(&node.post("/indexes/a/documents", documents));
    let query = json!({ "vector": [0.0, 0.9], "hybrid": { "embedder": "mine", "semanticRatio": 1.0 }, "retrieveVectors": true });
    let answer = node.post("/indexes/a/search", query);
    assert_eq!(answer["hits"][0]["id"], 2, "{answer}");
    assert_eq!(answer["hits"][0]["_vectors"]["mine"]["regenerate"], false);
    assert_eq!(answer["semanticHitCount"], 2);
    let queries = json!([{ "indexUid": "a", "q": "one" }, { "indexUid": "a", "q": "two" }]);
    let plain = node.post("/multi-search", json!({ "queries": queries }));
    assert_eq!(plain["results"][1]["hits"][0]["id"], 2, "{plain}");
    let merged = node.post("/multi-search", json!({ "queries": queries, "federation": {} }));
    assert_eq!(merged["estimatedTotalHits"], 2, "{merged}");
    assert_eq!(merged["hits"][0]["_federation"]["queriesPosition"], 0);
    let error = node.post("/multi-search", json!({ "queries": [{ "indexUid": "b" }] }));
    assert_eq!(error["message"], "Inside `.queries[0]`: Index `b` not found.");
}

#[test]
fn a_request_is_judged_by_its_head_and_taken_however_late_its_body_comes() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), Some(MASTER_KEY));
    let key = node.post(
        "/keys",
        json!({ "actions": ["documents.add", "indexes.create"], "indexes": ["*"], "expiresAt": null }),
    );
    let begin = |key: &str, length: usize| {
        let address = node.url.trim_start_matches("http://");
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let head = format!(
            "POST /indexes/late/documents HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream
    };
    let status = |mut stream: TcpStream| {
        let mut line = [0; 12];
        stream.read_exact(&mut line).unwrap();
        String::from_utf8_lossy(&line[9..]).into_owned()
    };
    let body = br#"[{"id":1}]"#;
    let mut late = begin(key["key"].as_str().unwrap(), body.len());
    late.write_all(&body[..1]).unwrap();
    // Whoever has no right hears so before anything of the body has come.
    assert_eq!(status(begin("nobody", 1 << 30)), "403");
    let path = format!("/keys/{}", key["uid"].as_str().unwrap());
    assert_eq!(node.call("DELETE", &path, None).0, 204);
    assert_eq!(status(begin(key["key"].as_str().unwrap(), 1 << 30)), "403");
    late.write_all(&body[1..]).unwrap();
    assert_eq!(status(late), "202");
}
