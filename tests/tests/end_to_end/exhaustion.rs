//! One client tries to use as many resources as possible. It is refused at once, and other clients are not affected.
//!
//! The greedy client has the address 127.0.0.1, its neighbour 127.0.0.2.

use crate::fixtures::{ClusterChecks, HasCluster};
use miroir_tests::{
    Answer, Client, MASTER_KEY, Options, Sandbox, Upload, pass, tell,
    trials::{Fixture, Group, Trials, name_of},
    wait_until,
};
use serde_json::{Value, json};
use std::{
    fs,
    io::Write,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

const MIB: usize = 1 << 20;
const JSON: Option<&str> = Some("application/json");
const DOCUMENTS: &str = "/indexes/books/documents";
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(25);
const LIMITS: &str = r#"{"maxPayloadBytes":16777216,"maxBufferedBytes":67108864,"maxReadsPerClient":16,"bodyTimeoutMs":25000}"#;

/// A cluster that a client already has six uploads under way at, which stall.
struct Beset {
    cluster: Sandbox,
    begun: Instant,
    stalled: Mutex<Vec<Upload>>,
}

impl Beset {
    fn start() -> Self {
        let cluster = Sandbox::start(Options { limits: LIMITS, ..Options::default() });
        cluster.client.create("books", "id", &json!({}));
        cluster.client.add("books", &(0..200).map(|id| json!({"id": id, "text": "red"})).collect());
        let begun = Instant::now();
        let mut stalled: Vec<Upload> =
            (0..6).map(|_| Upload::start(cluster.client.url(), DOCUMENTS, 10 * MIB)).collect();
        stalled.iter_mut().for_each(|upload| upload.send(b"[{\"id\":1"));
        Self { cluster, begun, stalled: Mutex::new(stalled) }
    }
}

impl Fixture for Beset {
    fn logs(&self) -> String {
        self.cluster.logs()
    }
}

impl HasCluster for Beset {
    fn cluster(&self) -> &Sandbox {
        &self.cluster
    }
}

pub fn trials(trials: &mut Trials) {
    trials
        .sharing(Beset::start)
        .unnoticed(16, 32, announced_bodies_hold_nothing_up)
        .unnoticed(3, 64, a_short_body_that_asks_for_much_is_refused_at_once)
        .unnoticed(19, 96, a_reads_body_has_a_limit_of_its_own)
        .unnoticed(2, 96, an_expensive_read_is_judged_before_it_is_expanded)
        .unnoticed(3, 128, one_client_holds_its_share_only)
        .unnoticed(2, 32, one_client_has_so_many_reads_under_way)
        .unnoticed(6, 64, a_large_upload_is_judged_while_it_comes_in)
        .unnoticed(3, 384, what_grows_when_it_is_read_is_refused)
        .of_cluster(7, a_stalled_upload_keeps_no_topology_in_use)
        .check(12, stalled_uploads_end_at_their_time);
}

/// Checks that nobody else notices: Envoy takes no more than so many mebibytes for them.
trait Unnoticed {
    fn unnoticed<F: Fn(&Sandbox) + Send + 'static>(self, seconds: u32, mebibytes: u64, check: F) -> Self;
}

impl Unnoticed for Group<'_, Beset> {
    fn unnoticed<F: Fn(&Sandbox) + Send + 'static>(self, seconds: u32, mebibytes: u64, check: F) -> Self {
        let name = name_of(&check);
        self.named(name, seconds, move |beset: &Beset| unnoticed(&beset.cluster, mebibytes, &check))
    }
}

fn stalled_uploads_end_at_their_time(beset: &Beset) {
    for mut upload in std::mem::take(&mut *beset.stalled.lock().unwrap()) {
        let answer = upload.answered_within(BODY_TIMEOUT + Duration::from_secs(5));
        assert!(answer.starts_with("http/1.1 408"), "{answer}");
        assert!(answer.contains("limits.bodytimeoutms"), "{answer}");
    }
    assert!(beset.begun.elapsed() >= BODY_TIMEOUT);
}

/// A neighbour's search that takes this long has been held up.
const HELD_UP: Duration = Duration::from_secs(1);

/// Runs a check while a neighbour searches. Each search of the neighbour must get a complete answer within a second, and
/// Envoy's memory must not grow by more than `mebibytes`.
///
/// The check runs up to three times: a fault holds a search up each time, a busy machine does not.
fn unnoticed(cluster: &Sandbox, mebibytes: u64, check: impl Fn(&Sandbox)) {
    let mut slowest = Vec::new();
    while slowest.len() < 3 {
        slowest.push(slowest_search(cluster, mebibytes, &check));
        if slowest.last() < Some(&HELD_UP) {
            return;
        }
    }
    panic!("the neighbour's slowest searches took {slowest:?}");
}

/// Runs a check while a neighbour searches. Returns how long the neighbour's slowest search took.
fn slowest_search(cluster: &Sandbox, mebibytes: u64, check: impl Fn(&Sandbox)) -> Duration {
    let neighbour = neighbour(cluster);
    let process = cluster.processes().into_iter().find(|process| process["name"] == "gateway-0").unwrap();
    let folder = format!("/proc/{}", process["pid"]);
    // Resets the peak of the memory.
    fs::write(format!("{folder}/clear_refs"), "5").unwrap();
    let before = memory(&folder, "VmRSS:");
    let over = AtomicBool::new(false);
    let slowest = thread::scope(|scope| {
        let searches = scope.spawn(|| {
            let mut slowest = Duration::ZERO;
            while !over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                assert_eq!(neighbour.search("books", &json!({"q": "red"}))["estimatedTotalHits"], 200);
                slowest = slowest.max(begun.elapsed());
                // A client that thinks.
                pass(Duration::from_millis(5));
            }
            slowest
        });
        let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(cluster)));
        over.store(true, Ordering::Relaxed);
        let slowest = searches.join().unwrap();
        if let Err(panic) = ended {
            std::panic::resume_unwind(panic);
        }
        slowest
    });
    let peak = memory(&folder, "VmHWM:");
    tell!("slowest search {slowest:?}, {before} kB, then {peak} kB");
    assert!(peak < before + mebibytes * 1024, "Envoy grew from {before} to {peak} kB");
    slowest
}

fn neighbour(cluster: &Sandbox) -> Client {
    cluster.client.at(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)))
}

/// A value of a process's memory status, in kilobytes.
fn memory(folder: &str, name: &str) -> u64 {
    let status = fs::read_to_string(format!("{folder}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn gzip(parts: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    parts.into_iter().for_each(|part| gzip.write_all(part.as_ref()).unwrap());
    gzip.finish().unwrap()
}

fn assert_refused(answer: &Answer, status: u16, code: &str) {
    let short: String = answer.body.to_string().chars().take(300).collect();
    assert_eq!((answer.status, answer.body["code"].as_str()), (status, Some(code)), "{short}");
}

fn announced_bodies_hold_nothing_up(cluster: &Sandbox) {
    let url = cluster.client.url();
    let mut idle: Vec<Upload> =
        (0..12).map(|_| Upload::under(url, DOCUMENTS, 16 * MIB, "nobodys-key")).collect();
    for upload in &mut idle {
        assert_eq!(upload.answered_within(Duration::from_millis(20)), "");
    }
    let neighbour = neighbour(cluster);
    neighbour.add("books", &json!([{"id": 7, "text": "red"}]));
    let mut large = serde_json::to_vec(&json!([{"id": 8, "text": "red"}])).unwrap();
    large.resize(16 * MIB, b' ');
    neighbour.succeeded(&neighbour.send("POST", DOCUMENTS, JSON, large));
}

fn a_short_body_that_asks_for_much_is_refused_at_once(cluster: &Sandbox) {
    let empty = || (0..600_000).map(|number| if number == 0 { "{}" } else { ",{}" });
    let plain = gzip(["{\"queries\":["].into_iter().chain(empty()).chain(["]}"]));
    let federated = gzip(["{\"federation\":{},\"queries\":["].into_iter().chain(empty()).chain(["]}"]));
    assert!(plain.len() < 30_000);
    for client in [&cluster.client, &cluster.client.under(None)] {
        for body in [&plain, &federated] {
            let begun = Instant::now();
            let answer = client.encoded("POST", "/multi-search", JSON, Some("gzip"), body.clone());
            assert_refused(&answer, 413, "payload_too_large");
            assert!(answer.body["message"].as_str().unwrap().contains("limits.maxFanOutBytes"));
            assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        }
    }
}

fn a_reads_body_has_a_limit_of_its_own(cluster: &Sandbox) {
    let client = &cluster.client;
    // It decodes to a gibibyte. Making it takes seconds of processor time.
    let bomb = gzip((0..1024).map(|_| [b' '; MIB]));
    for path in ["/multi-search", "/indexes/books/search", "/indexes/books/documents/fetch"] {
        // The request announces a body that is too large: the answer comes without waiting for the body.
        let mut upload = Upload::under(client.url(), path, 8 * MIB + 1, "nobodys-key");
        let answer = upload.answered_within(Duration::from_secs(2));
        assert!(answer.starts_with("http/1.1 413") && answer.contains("payload size is 8 mib"), "{answer}");
        let answer = client.under(None).encoded("POST", path, JSON, Some("gzip"), bomb.clone());
        assert_refused(&answer, 413, "payload_too_large");
    }
    let mut search = serde_json::to_vec(&json!({"q": "red"})).unwrap();
    search.resize(4 * MIB, b' ');
    assert_eq!(client.send("POST", "/indexes/books/search", JSON, search).status, 200);
}

fn an_expensive_read_is_judged_before_it_is_expanded(cluster: &Sandbox) {
    let queries: Vec<Value> = (0..4_000).map(|_| json!({"indexUid": "books", "limit": 0})).collect();
    let multi = json!({"queries": queries});
    let search = json!({"q": "red", "filter": vec!["text = red"; 20_000]});
    for (path, body) in [("/multi-search", &multi), ("/indexes/books/search", &search)] {
        let stranger = cluster.client.under(Some("nobodys-key"));
        assert_refused(&stranger.json("POST", path, body), 403, "invalid_api_key");
        let nobody = cluster.client.under(None);
        assert_refused(&nobody.json("POST", path, body), 401, "missing_authorization_header");
    }
    let answer = cluster.client.json("POST", "/multi-search", &multi);
    assert_eq!(answer.body["results"].as_array().map(Vec::len), Some(4_000), "{}", answer.status);
}

fn one_client_holds_its_share_only(cluster: &Sandbox) {
    let client = &cluster.client;
    let part = format!("[{{\"id\":1}}{}", " ".repeat(14 * MIB));
    // There are two workers, and each holds one such payload per client.
    let mut uploads = Vec::new();
    let mut refused = 0;
    for _ in 0..8 {
        let mut upload = Upload::start(client.url(), DOCUMENTS, 15 * MIB);
        // Like real clients, it checks for an answer while it sends.
        let mut parts = part.as_bytes().chunks(MIB / 4);
        let answers = std::iter::from_fn(|| {
            upload.try_send(parts.next()?);
            Some(upload.answered_within(Duration::from_millis(1)))
        });
        match answers.into_iter().find(|answer| !answer.is_empty()) {
            Some(answer) => {
                assert!(answer.starts_with("http/1.1 429"), "{answer}");
                assert!(
                    answer.contains("retry-after: 10") && answer.contains("that one client may have"),
                    "{answer}"
                );
                refused += 1;
            }
            None => uploads.push(upload),
        }
    }
    assert!((5..8).contains(&refused), "{refused} of 8 were refused");
    let neighbour = neighbour(cluster);
    let body = format!("[{{\"id\":9,\"text\":\"red\"}}{}]", " ".repeat(14 * MIB));
    neighbour.succeeded(&neighbour.send("POST", DOCUMENTS, JSON, body));
    // When the clients disconnect, their payloads are released.
    drop(uploads);
    let body = format!("[{{\"id\":9,\"text\":\"red\"}}{}]", " ".repeat(14 * MIB));
    wait_until("the client has its share again", || {
        client.send("POST", DOCUMENTS, JSON, body.clone()).status == 202
    });
}

fn one_client_has_so_many_reads_under_way(cluster: &Sandbox) {
    let url = cluster.client.url();
    let mut reads: Vec<Upload> = (0..60).map(|_| Upload::start(url, "/indexes/books/search", 11)).collect();
    let mut waiting = Vec::new();
    for mut read in reads.drain(..) {
        let answer = read.answered_within(Duration::from_millis(30));
        if answer.is_empty() {
            waiting.push(read);
        } else {
            assert!(answer.starts_with("http/1.1 429") && answer.contains("retry-after: 10"), "{answer}");
            assert!(answer.contains("too_many_search_requests"), "{answer}");
        }
    }
    assert!((16..=32).contains(&waiting.len()), "{} reads are under way at two workers", waiting.len());
    for mut read in waiting {
        read.send(br#"{"q":"red"}"#);
        assert!(read.answer().starts_with("HTTP/1.1 200"));
    }
    assert_eq!(cluster.client.search("books", &json!({"q": "red"}))["estimatedTotalHits"], 200);
}

fn a_large_upload_is_judged_while_it_comes_in(cluster: &Sandbox) {
    let url = cluster.client.url();
    for (key, status) in [("nobodys-key", "403"), (MASTER_KEY, "")] {
        let mut upload = Upload::under(url, DOCUMENTS, 15 * MIB, key);
        upload.try_send(&vec![b' '; MIB]);
        let answer =
            upload.answered_within(Duration::from_millis(if status.is_empty() { 300 } else { 5_000 }));
        assert!(answer.is_empty() == status.is_empty(), "{answer}");
        assert!(status.is_empty() || answer.starts_with(&format!("http/1.1 {status}")), "{answer}");
    }
    // A body that is large only after decoding.
    let body = gzip((0..15).map(|_| vec![b' '; MIB]));
    let stranger = cluster.client.under(Some("nobodys-key"));
    assert_refused(&stranger.encoded("POST", DOCUMENTS, JSON, Some("gzip"), body), 403, "invalid_api_key");
    let body =
        gzip([b"[{\"id\":3,\"text\":\"red\"}]".to_vec()].into_iter().chain((0..15).map(|_| vec![b' '; MIB])));
    cluster.client.succeeded(&cluster.client.encoded("POST", DOCUMENTS, JSON, Some("gzip"), body));
}

fn what_grows_when_it_is_read_is_refused(cluster: &Sandbox) {
    let client = &cluster.client;
    let columns = format!(
        "id,{}",
        (0..1_000).map(|column| format!("{column}{}", "x".repeat(1_000))).collect::<Vec<_>>().join(",")
    );
    let rows = (0..10_000).map(|row| format!("\n{row}{}", ",".repeat(1_000))).collect::<String>();
    let table = client.send("POST", DOCUMENTS, Some("text/csv"), columns + &rows);
    assert_refused(&table, 413, "payload_too_large");
    let ids = format!("[{}1]", "1,".repeat(7 * MIB));
    assert_refused(
        &client.send("POST", "/indexes/books/documents/delete-batch", JSON, ids),
        413,
        "payload_too_large",
    );
    let filter = format!("{{\"filter\":[{}[]]}}", "[],".repeat(5 * MIB));
    assert_refused(
        &client.send("POST", "/indexes/books/documents/delete", JSON, filter),
        413,
        "payload_too_large",
    );
    let documents = format!("[{}{{}}]", "{},".repeat(5 * MIB));
    assert_refused(&client.send("POST", DOCUMENTS, JSON, documents), 413, "payload_too_large");
    // A Brotli stream with a window of a gibibyte.
    let brotli = client.encoded("POST", "/indexes/books/search", JSON, Some("br"), vec![0x11, 0x1e, 0x03]);
    assert!((400..500).contains(&brotli.status), "{}", brotli.status);
    let sorts: Vec<String> = (0..50_000).map(|number| format!("a{number}:asc")).collect();
    let answer = client.json("POST", "/indexes/books/search", &json!({"q": "red", "sort": sorts}));
    assert_eq!(answer.body["code"], "invalid_search_sort", "{}: {:.300}", answer.status, answer.body);
}

fn a_stalled_upload_keeps_no_topology_in_use(cluster: &Sandbox) {
    let body = br#"[{"id":1000,"text":"red"},{"id":1001,"text":"red"}]"#;
    let mut upload = Upload::start(cluster.client.url(), DOCUMENTS, body.len());
    let (first, rest) = body.split_at(20);
    upload.send(first);
    let node = cluster.add_node();
    cluster.miroir_ok(&["node", "add", &cluster.named(&node)]);
    // The upload does not keep gateways on the topology that it started with.
    cluster.wait_published();
    upload.send(rest);
    let answer = upload.answer();
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    wait_until("it is written", || cluster.client.count("books") == 202);
}
