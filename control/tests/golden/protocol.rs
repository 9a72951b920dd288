//! The bodies of begin, commit and report, and of their answers.

use super::{
    samples::operations,
    support::{addition, commit, enqueued, golden::compare},
};
use miroir_core::{
    documents::Preflight,
    error::ErrorBody,
    protocol::{Begin, BeginReply, Commit, NodeOutcome, NodeResult, RefusedTopology, Report, ReportReply},
    shard::Shard,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;
use std::fmt::Debug;

/// Writes bodies, one a line, and reads them again.
fn both_ways<T: Serialize + DeserializeOwned + PartialEq + Debug>(
    text: &mut String,
    kind: &str,
    bodies: &[T],
) {
    for body in bodies {
        let json = serde_json::to_string(body).unwrap();
        assert_eq!(serde_json::from_str::<T>(&json).unwrap(), *body);
        text.push_str(&format!("{kind} {json}\n"));
    }
}

#[test]
fn gateways_and_the_control_plane_speak_as_they_did() {
    let mut text = String::new();
    let begins = operations().into_iter().map(|operation| Begin { operation, ..addition("movies", &[0, 7]) });
    let mut begins: Vec<Begin> = begins.collect();
    begins[0].doubts = Preflight {
        geo: true,
        geojson: false,
        vectors: true,
        dimensions: [("e".to_owned(), [None, Some(3)].into())].into(),
    };
    begins[0].doubtful = Some("[{\"id\":1}]".into());
    begins[0].nested_fields = vec!["a.b".into()];
    begins[0].authorization = Some("Bearer key".into());
    begins[1].fields = Vec::new();
    begins[1].custom_metadata = None;
    both_ways(&mut text, "begin", &begins);
    let send = |record: Vec<Shard>, begun: Option<&str>| BeginReply::Send {
        uid: 4,
        key: "key".into(),
        primary_key: Some("id".into()),
        nodes: vec!["a".into(), "b".into()],
        writers: vec![vec![0, 1], vec![1]],
        record,
        begun: begun.map(Into::into),
    };
    both_ways(
        &mut text,
        "begin-reply",
        &[
            send(vec![Shard(7)], Some("begun")),
            send(Vec::new(), None),
            BeginReply::Split { primary_key: "id".into() },
            BeginReply::Infer,
            BeginReply::Show,
            BeginReply::Recorded { task: json!({"taskUid": 4}) },
        ],
    );
    let error = ErrorBody { message: "m".into(), code: "c".into(), kind: "k".into(), link: "l".into() };
    let result = |outcome| NodeResult { node: "a".into(), outcome };
    let results = vec![
        enqueued("b", 12),
        result(NodeOutcome::Refused { status: 403, error: Some(error) }),
        result(NodeOutcome::Refused { status: 502, error: None }),
        result(NodeOutcome::Unknown),
    ];
    let written = [(Shard(7), ["1".to_owned(), "2".to_owned()].into())].into();
    both_ways(
        &mut text,
        "commit",
        &[Commit { begun: Some("begun".into()), written, ..commit(4, results) }, commit(5, Vec::new())],
    );
    let report = Report {
        vm: "vm".into(),
        oldest: 3,
        unreached: vec!["b".into()],
        needed: Some(2),
        has_heard: Some(true),
        stale_by_index: true,
        waits: true,
        without_cluster: vec!["b".into()],
        newest: 4,
        gateway: "gateway-7".into(),
        refused: Some(RefusedTopology { version: Some(5), reason: "r".into() }),
    };
    both_ways(&mut text, "report", &[report, Report { vm: "vm".into(), oldest: 3, ..Report::default() }]);
    both_ways(
        &mut text,
        "report-reply",
        &[ReportReply { needed: 2, lease: true }, ReportReply { needed: 0, lease: false }],
    );
    // What earlier builds do not say.
    let reply: ReportReply = serde_json::from_str("{\"needed\":2}").unwrap();
    assert_eq!(reply, ReportReply { needed: 2, lease: true });
    compare("protocol.txt", &text);
}
