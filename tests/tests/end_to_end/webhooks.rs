//! Task webhooks: each task of a client is posted once, although several nodes have tasks for it.

use flate2::read::GzDecoder;
use miroir_tests::{Sandbox, serve, serve_at, wait_until};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::Ipv4Addr,
    sync::mpsc,
    time::Duration,
};

/// A server that accepts every request. Returns its URL, and a receiver of the heads and decompressed bodies.
fn listener() -> (String, mpsc::Receiver<(String, String)>) {
    let (posted, requests) = mpsc::channel();
    let url = serve(move |head, body| {
        let mut text = String::new();
        GzDecoder::new(body).read_to_string(&mut text).unwrap();
        // The receiver may be gone already.
        let _ = posted.send((head.to_owned(), text));
        String::new()
    });
    (format!("{url}/hook"), requests)
}

pub fn ended_tasks_are_posted_once(cluster: &Sandbox) {
    let client = &cluster.client;
    let (url, requests) = listener();
    let hook = json!({"url": url, "headers": {"authorization": "Bearer a-secret-token", "x-team": "search"}});
    let made = client.json("POST", "/webhooks", &hook);
    assert_eq!(made.status, 201, "{}", made.body);
    assert_eq!(made.body["headers"], json!({"authorization": "Bearer a-XXXX...", "x-team": "search"}));
    assert_eq!(client.get("/webhooks").body["results"][0], made.body);

    client.add("books", &json!([{"id": 1}, {"id": 2}, {"id": 3}]));
    client.succeeded(&client.send("DELETE", "/indexes/books/documents/2", None, ""));
    let mut told: Vec<Value> = Vec::new();
    while told.len() < 2 {
        let (head, body) = requests.recv_timeout(Duration::from_secs(30)).expect("a request");
        for header in ["content-encoding: gzip", "content-type: application/x-ndjson", "x-team: search"] {
            assert!(head.contains(header), "{head}");
        }
        assert!(head.contains("authorization: bearer a-secret-token"), "{head}");
        told.extend(body.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()));
    }
    for task in &told {
        assert_eq!(task, &client.get(&format!("/tasks/{}", task["uid"])).body);
    }

    let uuid = made.body["uuid"].as_str().unwrap();
    let path = format!("/webhooks/{uuid}");
    let changed = client.json("PATCH", &path, &json!({"headers": {"x-team": null}}));
    assert_eq!(changed.body["headers"], json!({"authorization": "Bearer a-XXXX..."}), "{}", changed.body);
    let refused = |method: &str, path: &str, body: Value| {
        let answer = client.json(method, path, &body);
        (answer.status, answer.body["code"].as_str().unwrap_or_default().to_owned())
    };
    for (method, path, body, status, code) in [
        ("POST", "/webhooks", json!({"url": 7}), 400, "invalid_webhook_url"),
        ("POST", "/webhooks", json!({"url": "no url"}), 400, "invalid_webhook_url"),
        ("POST", "/webhooks", json!({}), 400, "invalid_webhook_url"),
        ("POST", "/webhooks", json!({"url": url, "headers": {"a b": "x"}}), 400, "invalid_webhook_headers"),
        ("PATCH", "/webhooks/nonsense", json!({}), 400, "invalid_webhook_uuid"),
        ("PATCH", "/webhooks/00000000-0000-0000-0000-000000000000", json!({}), 400, "immutable_webhook"),
        ("DELETE", "/webhooks/7a1c6f0e-0d0c-4b6e-9d0a-0c1f3c7c2a31", json!({}), 404, "webhook_not_found"),
    ] {
        assert_eq!(refused(method, path, body), (status, code.to_owned()), "{method} {path}");
    }
    assert_eq!(client.send("DELETE", &path, None, "").status, 204);
    client.add("books", &json!([{"id": 4}]));
    assert!(requests.recv_timeout(Duration::from_secs(1)).is_err(), "the webhook gets no further tasks");
}

pub fn webhooks_do_not_reach_private_addresses(cluster: &Sandbox) {
    let client = &cluster.client;
    let (posted, requests) = mpsc::channel();
    // This server would answer, but the cluster's outbound policy allows only 127.0.0.1.
    let private = serve_at(Ipv4Addr::new(127, 0, 0, 2), move |head, _| {
        let _ = posted.send(head.to_owned());
        String::new()
    });
    let moved = format!("{private}/redirected");
    let redirect = serve_redirect(&moved);
    let hooks = [format!("{private}/hook"), redirect].map(|url| {
        let made = client.json("POST", "/webhooks", &json!({ "url": url }));
        assert_eq!(made.status, 201, "nodes take it, too: {}", made.body);
        made.body["uuid"].as_str().unwrap().to_owned()
    });
    client.add("books", &json!([{"id": 1}]));
    let log = cluster.data().join("logs/control.log");
    wait_until("the control plane has refused both", || {
        let log = std::fs::read_to_string(&log).unwrap();
        let is_refused =
            |uuid: &String| log.lines().any(|line| line.contains(uuid) && line.contains("ended tasks"));
        hooks.iter().all(is_refused)
    });
    assert!(requests.try_recv().is_err(), "no request reached it");
    for uuid in hooks {
        assert_eq!(client.send("DELETE", &format!("/webhooks/{uuid}"), None, "").status, 204);
    }
}

/// A server that redirects every request.
fn serve_redirect(to: &str) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let head = format!(
        "HTTP/1.1 307 Temporary Redirect\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    );
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let _ = stream.write_all(head.as_bytes());
        }
    });
    url
}
