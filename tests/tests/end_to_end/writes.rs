//! Documents are written in every form, each to as many nodes as there are replicas.

use miroir_tests::{MASTER_KEY, Sandbox, wait_until};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

pub fn every_form_of_a_payload_is_written_to_every_replica(cluster: &Sandbox) {
    let client = &cluster.client;
    let forms: [(&str, &str, &str); 4] = [
        ("array", "application/json", r#"[{"id":1,"name":"one","n":1.50},{"id":"b-2","name":"two"}]"#),
        ("object", "application/json", r#"{"id":1,"name":"one","n":1.50}"#),
        (
            "ndjson",
            "application/x-ndjson",
            "{\"id\":1,\"name\":\"one\",\"n\":1.50}\n\n{\"id\":\"b-2\",\"name\":\"two\"}\n",
        ),
        ("csv", "text/csv", "id:number,name,n:number\n1,one,1.50\n2,two,\n"),
    ];
    for (index, content_type, payload) in forms {
        let accepted =
            client.send("POST", &format!("/indexes/{index}/documents"), Some(content_type), payload);
        let task = client.succeeded(&accepted);
        let count = if index == "object" { 1 } else { 2 };
        assert_eq!(task["type"], "documentAdditionOrUpdate");
        assert_eq!(task["details"], json!({"receivedDocuments": count, "indexedDocuments": count}));
        let document = client.get(&format!("/indexes/{index}/documents/1"));
        assert_eq!((document.status, document.body), (200, json!({"id": 1, "name": "one", "n": 1.5})));
        assert_eq!(client.count(index), count);
        assert_eq!(cluster.copies(index), 2 * count, "{index}: two replicas");
    }

    // PUT keeps the fields that it does not name, POST removes them.
    let path = "/indexes/array/documents";
    client.succeeded(&client.json("PUT", path, &json!([{"id": 1, "more": true}])));
    assert_eq!(
        client.get("/indexes/array/documents/1").body,
        json!({"id": 1, "name": "one", "n": 1.5, "more": true})
    );
    client.succeeded(&client.json("POST", path, &json!([{"id": 1, "less": true}])));
    assert_eq!(client.get("/indexes/array/documents/1").body, json!({"id": 1, "less": true}));

    // Deletions.
    client.succeeded(&client.json("POST", "/indexes/array/documents/delete-batch", &json!([1, "nobody"])));
    assert_eq!(client.get("/indexes/array/documents/1").status, 404);
    client.succeeded(&client.send("DELETE", "/indexes/array/documents/b-2", None, ""));
    assert_eq!(cluster.copies("array"), 0);
}

pub fn a_large_payload_is_split_and_counted_once(cluster: &Sandbox) {
    let client = &cluster.client;
    let documents: Vec<Value> =
        (0..20_000).map(|id| json!({"id": id, "text": format!("document number {id} of many")})).collect();
    client.add("many", &json!(documents));
    assert_eq!(client.count("many"), 20_000);
    assert_eq!(cluster.copies("many"), 40_000);
    for node in 0..3 {
        let held = cluster.node(node).count("many");
        assert!((9_000..18_000).contains(&held), "node {node} holds {held}");
    }
}

pub fn bodies_are_taken_whatever_a_listener_buffers(cluster: &Sandbox) {
    let client = &cluster.client;
    cluster.kill("gateway-0");
    let file = cluster.data().join("envoy/gateway-0.yaml");
    let bootstrap = std::fs::read_to_string(&file).unwrap();
    let small = bootstrap.replace("buffer_limit_bytes: 1048576", "buffer_limit_bytes: 32768");
    assert_ne!(small, bootstrap);
    std::fs::write(&file, small).unwrap();
    cluster.revive("gateway-0");
    wait_until("the gateway answers", || {
        client.try_send("GET", "/health", None, Vec::new()).is_ok_and(|answer| answer.status == 200)
    });
    let text = "x".repeat(900);
    client.add("books", &(0..4_000).map(|id| json!({"id": id, "text": text})).collect());
    assert_eq!(client.count("books"), 4_000);
    // The size is known only at the end of the body. The client must get Meilisearch's error, not Envoy's.
    let answer = client.chunked("/indexes/books/documents", std::io::repeat(b' ').take((100 << 20) + 1));
    assert_eq!((answer.status, &answer.body["code"]), (413, &json!("payload_too_large")), "{}", answer.body);
}

pub fn what_meilisearch_refuses_is_refused_in_its_words_and_nothing_is_written(cluster: &Sandbox) {
    let client = &cluster.client;
    client.create("books", "id", &json!({}));
    let path = "/indexes/books/documents";

    let mut large = b"[".to_vec();
    let padding = "x".repeat(4_000);
    while large.len() < 60 << 20 {
        large.extend_from_slice(format!(r#"{{"id":{},"text":"{padding}"}},"#, large.len()).as_bytes());
    }
    large.extend_from_slice(br#"{"id":}]"#);
    let answer = client.send("POST", path, Some("application/json"), large);
    assert_eq!(
        (answer.status, answer.body["code"].as_str()),
        (400, Some("malformed_payload")),
        "{}",
        answer.body
    );
    assert!(
        answer.body["message"].as_str().unwrap().contains("expected value at line 1 column"),
        "{}",
        answer.body
    );

    let too_large = vec![b' '; (100 << 20) + 1];
    let answer = client.send("POST", path, Some("application/json"), too_large);
    assert_eq!((answer.status, answer.body["code"].as_str()), (413, Some("payload_too_large")));

    let synchronous = [
        ("application/json", "", 400, "missing_payload"),
        ("application/json", "3", 400, "malformed_payload"),
        ("text/plain", "[]", 415, "invalid_content_type"),
        ("application/json", r#"[{"id":1,"_miroir_shard":"x"}]"#, 400, "bad_request"),
    ];
    for (content_type, payload, status, code) in synchronous {
        let answer = client.send("POST", path, Some(content_type), payload);
        assert_eq!(
            (answer.status, answer.body["code"].as_str()),
            (status, Some(code)),
            "{payload}: {}",
            answer.body
        );
    }
    let answer = client.send("POST", path, None, "[]");
    assert_eq!((answer.status, answer.body["code"].as_str()), (415, Some("missing_content_type")));

    let failing = [
        (r#"[{"id":1},{"name":"x"}]"#, "missing_document_id"),
        (r#"[{"id":1},{"id":"a b"}]"#, "invalid_document_id"),
        (r#"[{"id":1},{"id":1.5}]"#, "invalid_document_id"),
    ];
    for (payload, code) in failing {
        let task = client.ended(&client.send("POST", path, Some("application/json"), payload));
        assert_eq!(
            (task["status"].as_str(), task["error"]["code"].as_str()),
            (Some("failed"), Some(code)),
            "{task}"
        );
    }
    assert_eq!(cluster.copies("books"), 0, "no node may have accepted anything");

    for (key, status, code) in
        [(None, 401, "missing_authorization_header"), (Some("wrong"), 403, "invalid_api_key")]
    {
        let answer = client.under(key).json("POST", path, &json!([{"id": 1}]));
        assert_eq!((answer.status, answer.body["code"].as_str()), (status, Some(code)));
    }
    assert_eq!(cluster.copies("books"), 0);
}

pub fn a_worker_holds_what_has_come_and_slow_uploads_hold_up_nobody(cluster: &Sandbox) {
    let client = &cluster.client;
    client.create("books", "id", &json!({}));
    // Two workers may hold 256 MiB each; these uploads announce more than that.
    let address = client.url().trim_start_matches("http://").to_owned();
    let announce = || {
        let mut stream = TcpStream::connect(&address).unwrap();
        let head = format!(
            "POST /indexes/books/documents HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {MASTER_KEY}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n[{{\"id\":1,",
            100 << 20
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        stream
    };
    let mut uploads: Vec<TcpStream> = (0..6).map(|_| announce()).collect();
    for upload in &mut uploads {
        let mut answer = [0; 4096];
        let length = upload.read(&mut answer).unwrap_or(0);
        let answer = String::from_utf8_lossy(&answer[..length]).to_lowercase();
        assert_eq!(answer, "", "announced bytes must not count as held");
    }
    // Requests that wait for their bodies hold no lock.
    client.add("books", &json!([{"id": 1}, {"id": 2}]));
    assert_eq!(client.count("books"), 2);
    // When the clients disconnect, their payloads are released.
    drop(uploads);
    let body = format!("[{{\"id\":3}}{}]", " ".repeat(90 << 20));
    for _ in 0..4 {
        let accepted =
            client.send("POST", "/indexes/books/documents", Some("application/json"), body.clone());
        client.succeeded(&accepted);
    }
    assert_eq!(client.count("books"), 3);
}
