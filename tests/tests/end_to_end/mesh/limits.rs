//! A gateway closes the connections of slow clients, by the time limits of the sample configurations.

use super::{Envoy, bootstrap};
use miroir_tests::{MASTER_KEY, Sandbox, Upload};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

const DOCUMENTS: &str = "/indexes/movies/documents";
/// The time limits of the sample, and the shorter ones of the test.
const LIMITS: [(&str, &str); 4] = [
    ("request_headers_timeout: 10s", "request_headers_timeout: 0.5s"),
    ("stream_idle_timeout: 240s", "stream_idle_timeout: 1s"),
    ("request_timeout: 1800s", "request_timeout: 3s"),
    ("  idle_timeout: 900s", "  idle_timeout: 1s"),
];
/// Much longer than each of these limits.
const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway with the sample's limits, shortened.
fn impatient(cluster: &Sandbox) -> Envoy {
    Envoy::start(|listen, admin, _| {
        let text = bootstrap(cluster, "impatient", (listen, admin), &[]);
        LIMITS.iter().fold(text, |text, (long, short)| {
            assert!(text.contains(long), "{long}: {text}");
            text.replace(long, short)
        })
    })
}

fn connect(envoy: &Envoy) -> TcpStream {
    let stream = TcpStream::connect(envoy.client.url().trim_start_matches("http://")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Reads until the gateway closes the connection.
fn until_the_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A reset also counts as closed. If the connection stays open, the read times out.
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(
            error.kind(),
            std::io::ErrorKind::ConnectionReset,
            "the gateway does not close the connection"
        );
    }
    String::from_utf8_lossy(&answer).into_owned()
}

pub fn clients_that_stop_talking_are_let_go(cluster: &Sandbox) {
    let envoy = &impatient(cluster);
    envoy.wait_ready();
    // A request head that never ends.
    let mut head = connect(envoy);
    head.write_all(b"GET /health HTTP/1.1\r\nhos").unwrap();
    // A connection that stays idle after a request.
    let mut idle = connect(envoy);
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    // An upload that stalls, while the test waits for the other two.
    let mut stalled = Upload::start(envoy.client.url(), DOCUMENTS, 1_000);
    stalled.send(b"[");
    let answer = until_the_end(&mut head);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    let answer = until_the_end(&mut idle);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("available\"}"), "{answer}");
    let answer = stalled.answer();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");

    // An upload that sends slowly and never ends.
    let mut slow = connect(envoy);
    let head = format!(
        "POST {DOCUMENTS} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {MASTER_KEY}\r\n\
         content-type: application/json\r\ncontent-length: 1000\r\n\r\n["
    );
    slow.write_all(head.as_bytes()).unwrap();
    slow.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let (begun, mut answer) = (Instant::now(), [0; 12]);
    while slow.read_exact(&mut answer).is_err() {
        assert!(begun.elapsed() < PATIENCE, "the gateway accepts the upload forever");
        // Once the gateway has closed the connection, writing fails.
        if slow.write_all(b" ").is_err() {
            break;
        }
    }
    assert!([&b"HTTP/1.1 408"[..], &[0; 12]].contains(&&answer[..]), "{answer:?}");
    // Other clients are still served.
    assert_eq!(envoy.client.count("movies"), 41);
}
