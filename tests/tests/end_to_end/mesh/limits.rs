//! What a gateway does with clients that hold on to it, by the time limits of the samples.

use super::{Envoy, bootstrap};
use miroir_tests::{MASTER_KEY, Sandbox, Upload};
use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

const DOCUMENTS: &str = "/indexes/movies/documents";
/// The sample's time limits, and those of the test.
const LIMITS: [(&str, &str); 4] = [
    ("request_headers_timeout: 10s", "request_headers_timeout: 0.5s"),
    ("stream_idle_timeout: 240s", "stream_idle_timeout: 1s"),
    ("request_timeout: 1800s", "request_timeout: 3s"),
    ("  idle_timeout: 900s", "  idle_timeout: 1s"),
];
/// Long after each of them.
const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway with the sample's limits, but short.
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

/// What comes until the gateway hangs up.
fn until_the_end(stream: &mut TcpStream) -> String {
    let mut answer = Vec::new();
    // A connection that is reset has ended, too; one that stays runs into the time limit.
    if let Err(error) = stream.read_to_end(&mut answer) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "it does not hang up");
    }
    String::from_utf8_lossy(&answer).into_owned()
}

pub fn clients_that_stop_talking_are_let_go(cluster: &Sandbox) {
    let envoy = &impatient(cluster);
    envoy.wait_ready();
    // A head that does not end.
    let mut head = connect(envoy);
    head.write_all(b"GET /health HTTP/1.1\r\nhos").unwrap();
    // A connection on which nothing is asked any more.
    let mut idle = connect(envoy);
    idle.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\n\r\n").unwrap();
    // An upload that stops, while the others are waited for.
    let mut stalled = Upload::start(envoy.client.url(), DOCUMENTS, 1_000);
    stalled.send(b"[");
    let answer = until_the_end(&mut head);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
    let answer = until_the_end(&mut idle);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("available\"}"), "{answer}");
    let answer = stalled.answer();
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");

    // One that never stops, and never ends.
    let mut slow = connect(envoy);
    let head = format!(
        "POST {DOCUMENTS} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {MASTER_KEY}\r\n\
         content-type: application/json\r\ncontent-length: 1000\r\n\r\n["
    );
    slow.write_all(head.as_bytes()).unwrap();
    slow.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let (begun, mut answer) = (Instant::now(), [0; 12]);
    while slow.read_exact(&mut answer).is_err() {
        assert!(begun.elapsed() < PATIENCE, "it is taken for ever");
        // A gateway that has hung up takes no more.
        if slow.write_all(b" ").is_err() {
            break;
        }
    }
    assert!([&b"HTTP/1.1 408"[..], &[0; 12]].contains(&&answer[..]), "{answer:?}");
    // Whoever talks is served.
    assert_eq!(envoy.client.count("movies"), 41);
}
