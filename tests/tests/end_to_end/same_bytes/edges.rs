//! Queries of tasks, pages beyond the end, unusual paths, old protocols, cross-origin requests.

use super::Pair;
use miroir_tests::{Answer, Client, MASTER_KEY, Node, Sandbox, ask_raw};
use serde_json::{Value, json};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

/// Queries of tasks, pages beyond the end, unusual paths, old protocols.
pub fn edges_of_requests_are_those_of_one_node(cluster: &Sandbox, node: &Node) {
    let mut pair = Pair::new(cluster, node);
    let documents: Vec<Value> = (0..50).map(|id| json!({"id": id, "title": "river"})).collect();
    pair.create("edge", "id", &json!({}), &json!(documents));
    for query in [
        "indexUids=nothing,",
        "indexUids=,nothing",
        "indexUids=",
        "indexUids=a,,b c",
        "indexUids=,",
        "uids=,7777777",
        "uids=7777777,x,y",
        "uids=7777777,%20x",
        "uids=",
        "statuses=,",
        "statuses=failed,&indexUids=nothing",
        "types=",
        "types=nope,",
        "canceledBy=7777777,",
        "limit=",
        "from=-1",
        "limit=99999999999",
    ] {
        pair.get(&format!("/tasks?{query}"));
        pair.check(&format!("cancel {query}"), |client| {
            let answer = client.send("POST", &format!("/tasks/cancel?{query}"), None, "");
            // Of a successful cancelation, only the status is compared.
            Answer { bytes: if answer.status < 300 { Vec::new() } else { answer.bytes.clone() }, ..answer }
        });
    }
    let huge = u64::MAX;
    for (page, per_page) in [
        (0, 5),
        (1, 0),
        (huge, 0),
        (huge, 1),
        (huge, huge),
        (1, huge),
        (2, huge),
        ((1 << 63) + 1, 2),
        (1 << 32, 1 << 32),
        ((1 << 32) + 1, 1 << 32),
        (3, 20),
        (4, 20),
        (1000, 20),
    ] {
        // `miroir-devnode` adds an offset and a limit without wrapping.
        if !pair.is_real && (page, per_page) == (huge, huge) {
            continue;
        }
        let body = json!({"page": page, "hitsPerPage": per_page, "attributesToRetrieve": ["id"]});
        pair.search("edge", &body);
        pair.search(
            "edge",
            &json!({"q": "river", "page": page, "hitsPerPage": per_page, "attributesToRetrieve": ["id"]}),
        );
        pair.post(
            "/multi-search",
            &json!({"queries": [{"indexUid": "edge", "page": page, "hitsPerPage": per_page}]}),
        );
    }
    for (offset, limit) in
        [(0, huge), (20, huge), (huge, 20), (huge, huge), (49, 2), (50, 2), (1 << 63, 1 << 63)]
    {
        let body = json!({"offset": offset, "limit": limit, "attributesToRetrieve": ["id"]});
        if pair.is_real || (offset, limit) != (20, huge) {
            pair.search("edge", &body);
        }
        pair.get(&format!("/indexes/edge/documents?fields=id&offset={offset}&limit={limit}"));
    }
    for target in [
        "/indexes/edge#/stats",
        "/indexes/edge/documents/1#x",
        "/indexes/edge/documents?limit=1#&limit=2",
        "/indexes/./edge/documents/1",
        "/indexes/edge/./documents/1",
        "/indexes/edge/documents/../documents/1",
        "/indexes/edge/documents/.",
        "/indexes/edge/documents/..",
        "/./indexes/edge",
        "/indexes/%2e/documents/1",
        r"/indexes/edge\documents",
        "/indexes//edge///documents/1/",
        "/health#",
        "/health/./",
    ] {
        pair.check(target, |client| {
            ask_raw(client.url(), Some(MASTER_KEY), "GET", target, &[], b"").unwrap()
        });
    }
    for host in ["", "host: x\r\n"] {
        for (method, path) in [
            ("GET", "/health"),
            ("GET", "/indexes/edge/documents/1"),
            ("GET", "/indexes/edge/search?limit=1"),
            ("GET", "/nope"),
        ] {
            pair.check(&format!("HTTP/1.0 {method} {path} {host:?}"), |client| {
                old(client, &format!("{method} {path} HTTP/1.0\r\n{host}"))
            });
        }
    }
    if pair.is_real {
        cross_origin(&mut pair);
    }
    pair.end();
}

/// The headers that browsers check. The library of the development node differs in details.
fn cross_origin(pair: &mut Pair<'_>) {
    let origin = ("origin", "http://example.org");
    let method = |name: &'static str| ("access-control-request-method", name);
    let cases: [(&str, Vec<(&str, &str)>); 12] = [
        ("OPTIONS", vec![origin, method("POST")]),
        ("OPTIONS", vec![method("POST")]),
        ("OPTIONS", vec![origin, method("post")]),
        ("OPTIONS", vec![origin, method("NOPE")]),
        ("OPTIONS", vec![origin, method("A B")]),
        ("OPTIONS", vec![origin, method("")]),
        ("OPTIONS", vec![origin, method("PATCH"), ("access-control-request-headers", "x-one, X-Two")]),
        ("OPTIONS", vec![origin, method("PATCH"), ("access-control-request-private-network", "true")]),
        ("OPTIONS", vec![origin]),
        ("GET", vec![origin]),
        ("GET", vec![]),
        ("GET", vec![origin, ("accept-encoding", "gzip")]),
    ];
    for path in
        ["/indexes/edge/documents/1", "/indexes/edge", "/health", "/nope", "/indexes/edge/documents/none"]
    {
        for (method, headers) in &cases {
            let ask = |client: &Client| {
                let answer = client.ask(method, path, headers, "");
                let names = [
                    "vary",
                    "access-control-allow-origin",
                    "access-control-allow-methods",
                    "access-control-allow-headers",
                    "access-control-max-age",
                    "access-control-expose-headers",
                    "access-control-allow-private-network",
                    "allow",
                    "content-type",
                ];
                let told = json!(answer.listed(names));
                Answer { bytes: told.to_string().into_bytes(), ..answer }
            };
            pair.check(&format!("{method} {path} {headers:?}"), ask);
        }
    }
}

/// Sends an HTTP/1.0 request; the answer ends with the connection.
fn old(client: &Client, head: &str) -> Answer {
    let address = client.url().trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(format!("{head}authorization: Bearer {MASTER_KEY}\r\n\r\n").as_bytes()).unwrap();
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, headers: Vec::new(), body: Value::Null, bytes: body.as_bytes().to_vec() }
}
