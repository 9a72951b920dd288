use super::*;
use crate::{
    http::Upstream,
    topology::{ControlConfig, IndexConfig, Limits, TopologyConfig},
};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

#[test]
fn a_read_is_planned_again_by_another_topology_and_a_write_is_not() {
    let topology = |node: u16| {
        let config = TopologyConfig { version: u64::from(node), ..TopologyConfig::of(&["a", "b"], [[node]]) };
        Arc::new(Topology::validate(config).unwrap())
    };
    let collect = |method: &str, path: &'static str| {
        let head = RequestHead {
            method: method.into(),
            path: path.into(),
            headers: vec![("content-type".into(), "application/json".into())],
        };
        match Intake::of(topology(0), "vm", head) {
            Intake::Collect(mut collector) => {
                collector.push(br#"{"q":"red"}"#).unwrap();
                collector
            }
            intake => panic!("{intake:?}"),
        }
    };
    for (method, path) in [("POST", "/indexes/a/search"), ("GET", "/indexes/a/documents/1")] {
        let collector = collect(method, path);
        let again = collector.again(topology(1)).unwrap();
        for (collector, node) in [(*collector, 0), (again, 1)] {
            match collector.finish(|_| Ok(())) {
                Progress::Pending { calls, .. } => assert_eq!(calls[0].upstream, Upstream::Node(node)),
                Progress::Done(reply) => panic!("{reply:?}"),
            }
        }
    }
    assert!(collect("POST", "/indexes/a/documents").again(topology(1)).is_none());
}

fn topology() -> Arc<Topology> {
    let index = IndexConfig { primary_key: Some("id".to_owned()), ..IndexConfig::default() };
    let config = TopologyConfig {
        indexes: [("a".to_owned(), index)].into(),
        control: Some(ControlConfig { cluster: "c".to_owned(), secret: "s".to_owned() }),
        limits: Limits {
            max_payload_bytes: 1_000_000,
            max_read_bytes: 10_000,
            max_buffered_bytes: 2_000_000,
            ..Limits::default()
        },
        ..TopologyConfig::of(&["a"], [[0]])
    };
    Arc::new(Topology::validate(config).unwrap())
}

fn intake(method: &str, path: &'static str, headers: &[(&str, &str)]) -> Intake {
    let headers =
        [&[("content-type", "application/json"), ("authorization", "Bearer mine")], headers].concat();
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Intake::of(topology(), "vm", RequestHead { method: method.into(), path: path.into(), headers })
}

fn collector(method: &str, path: &'static str, headers: &[(&str, &str)]) -> Box<Collector> {
    match intake(method, path, headers) {
        Intake::Collect(collector) => collector,
        intake => panic!("{intake:?}"),
    }
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, body).unwrap();
    gzip.finish().unwrap()
}

fn refused(progress: Progress<Operation>) -> Reply {
    match progress {
        Progress::Done(reply) => reply,
        Progress::Pending { calls, .. } => panic!("{calls:?}"),
    }
}

#[test]
fn a_read_has_a_small_limit_as_announced_as_received_and_as_decoded() {
    for path in ["/multi-search", "/indexes/a/search", "/indexes/a/documents/fetch"] {
        match intake("POST", path, &[("content-length", "10001")]) {
            Intake::Reply(reply) => assert_eq!(reply.status, 413),
            intake => panic!("{intake:?}"),
        }
        let mut plain = collector("POST", path, &[]);
        plain.push(&[b' '; 10_000]).unwrap();
        assert_eq!(plain.push(b" ").unwrap_err().status, 413);
        let mut encoded = collector("POST", path, &[("content-encoding", "gzip")]);
        encoded.push(&gzip(&vec![b' '; 50_000_000])).unwrap_err();
        let mut encoded = collector("POST", path, &[("content-encoding", "gzip")]);
        encoded.push(&gzip(&vec![b' '; 10_001])).unwrap();
        let mut held = 0;
        let reply = refused(encoded.finish(|bytes| {
            held = bytes;
            Ok(())
        }));
        assert_eq!(reply.status, 413);
        assert!(String::from_utf8_lossy(&reply.body).contains("accepted payload size is 10 KB"));
        assert!(held < 10_500, "decoding stops at the limit");
    }
}

#[test]
fn six_hundred_thousand_queries_in_thirty_kilobytes_are_refused_before_they_are_read() {
    let queries = "{},".repeat(600_000);
    for text in [
        format!(r#"{{"queries":[{queries}{{}}]}}"#),
        format!(r#"{{"federation":{{}},"queries":[{queries}{{}}]}}"#),
    ] {
        let config = TopologyConfig { limits: Limits::default(), ..topology().config().clone() };
        let mut collector = collector("POST", "/multi-search", &[("content-encoding", "gzip")]);
        collector.plan_by(Arc::new(Topology::validate(config).unwrap()));
        let body = gzip(text.as_bytes());
        assert!(body.len() < 40_000);
        collector.push(&body).unwrap();
        // wasm32 in browsers has no clock.
        #[cfg(not(target_arch = "wasm32"))]
        let begun = std::time::Instant::now();
        let reply = refused(collector.finish(|bytes| {
            assert!(bytes < 2_000_000, "nothing is charged but the body");
            Ok(())
        }));
        assert_eq!(reply.status, 413);
        #[cfg(not(target_arch = "wasm32"))]
        assert!(begun.elapsed().as_millis() < 2_000, "{:?}", begun.elapsed());
    }
}

#[test]
fn bodies_are_charged_as_they_come_and_as_they_are_decoded() {
    let mut plain = collector("POST", "/indexes/a/documents", &[("content-length", "900000")]);
    assert_eq!(plain.held(), 0, "announced bytes must not count as held");
    plain.push(br#"[{"id":1},{"id":2},"#).unwrap();
    assert!(plain.held() > 19, "where documents lie counts too: {}", plain.held());
    let mut encoded = collector("POST", "/indexes/a/documents", &[("content-encoding", "gzip")]);
    encoded.push(&gzip(&vec![b' '; 900_000])).unwrap();
    assert!(encoded.held() < 10_000);
    let reply =
        refused(encoded.finish(|bytes| if bytes > 500_000 { Err(OverBudget::Worker) } else { Ok(()) }));
    assert_eq!(reply.status, 503);
}

#[test]
fn a_large_write_is_judged_before_it_is_whole_and_a_small_one_is_not() {
    let mut write = collector("PUT", "/indexes/a/documents?primaryKey=id", &[]);
    write.push(&vec![b' '; UNJUDGED as usize]).unwrap();
    assert_eq!(write.judge_early(), None);
    write.push(b" ").unwrap();
    let call = write.judge_early().unwrap();
    assert_eq!(
        (call.method, &*call.path.to_string()),
        ("PUT", "/_miroir/authorization/indexes/a/documents?primaryKey=id")
    );
    assert!(call.headers.contains(&("authorization".into(), "Bearer mine".into())));
    assert!(call.body.is_empty());
    assert_eq!(write.judge_encoded(), None);

    for (size, judged) in [(UNJUDGED as usize, false), (UNJUDGED as usize + 1, true)] {
        let mut encoded = collector("POST", "/indexes/a/documents", &[("content-encoding", "gzip")]);
        encoded.push(&gzip(&vec![b' '; size])).unwrap();
        assert_eq!((encoded.judge_early().is_some(), encoded.judge_encoded().is_some()), (false, judged));
    }
    let mut read = collector("POST", "/indexes/a/search", &[]);
    read.push(&[b' '; 10_000]).unwrap();
    assert_eq!(read.judge_early(), None);
}

#[test]
fn what_grows_when_it_is_read_is_refused_before_it_is_read() {
    let many = |text: &str| format!("[{}{text}]", format!("{text},").repeat(200_000));
    for (path, body) in [
        ("/indexes/a/documents/delete-batch", many("1")),
        ("/indexes/a/documents/delete", format!(r#"{{"filter":{}}}"#, many("[]"))),
    ] {
        let mut write = collector("POST", path, &[]);
        write.push(body.as_bytes()).unwrap();
        let limits = topology().config().limits;
        let mut budget = crate::budget::Budget::default();
        budget.begin(1, "client", false, 0, &limits).unwrap();
        let reply = refused(write.finish(|bytes| budget.charge(1, bytes, &limits)));
        assert_eq!(reply.status, 413, "{path}");
    }
    // The limit allows fewer documents with ids than this.
    let mut documents = collector("POST", "/indexes/a/documents", &[]);
    documents.push(many("{}").as_bytes()).unwrap();
    match documents.finish(|_| Ok(())) {
        Progress::Pending { machine: Operation::Refusal(_), calls } => assert!(calls[0].body.is_empty()),
        _ => panic!("it is taken"),
    }
}

#[test]
fn a_table_whose_columns_have_long_names_is_refused() {
    let mut table = collector("POST", "/indexes/a/documents", &[("content-type", "text/csv")]);
    let headers = &mut table.head.headers;
    headers.retain(|(name, value)| name != "content-type" || value == "text/csv");
    let head = table.head.clone();
    let Intake::Collect(mut table) = Intake::of(topology(), "vm", head) else { panic!() };
    let columns: Vec<String> = (0..100).map(|column| format!("{column}{}", "x".repeat(1_000))).collect();
    table.push(format!("id,{}\n", columns.join(",")).as_bytes()).unwrap();
    table.push(format!("1{}\n", ",".repeat(100)).repeat(1_000).as_bytes()).unwrap();
    match table.finish(|_| Ok(())) {
        Progress::Pending { machine: Operation::Refusal(_), calls } => assert!(calls[0].body.is_empty()),
        _ => panic!("it is taken"),
    }
}

#[test]
fn a_read_that_cannot_be_decoded_is_a_nodes_to_refuse() {
    let mut collector = collector("POST", "/indexes/a/search", &[("content-encoding", "gzip")]);
    collector.push(b"no gzip").unwrap();
    match collector.finish(|_| Ok(())) {
        Progress::Pending { calls, .. } => {
            assert_eq!((calls[0].upstream, &*calls[0].body), (Upstream::Node(0), &b"no gzip"[..]));
            assert_eq!(calls[0].path.to_string(), "/indexes/a/search");
            assert!(calls[0].headers.contains(&("content-encoding".into(), "gzip".into())));
        }
        Progress::Done(reply) => panic!("{reply:?}"),
    }
}
