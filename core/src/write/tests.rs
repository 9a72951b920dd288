use super::*;
use crate::documents::{DocumentReader, Format};
use crate::http::RequestHead;
use crate::protocol::WriteOperation;
use crate::sequence::Sequence;
use crate::topology::{ControlConfig, IndexConfig, TopologyConfig};
use serde_json::{Value, json};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

fn topology(known: Option<&str>) -> Arc<Topology> {
    let movies = |key: &str| {
        let config = IndexConfig { primary_key: Some(key.to_owned()), ..IndexConfig::default() };
        ("movies".to_owned(), config)
    };
    let control = ControlConfig { cluster: "control".to_owned(), secret: "s3cret".to_owned() };
    let config = TopologyConfig {
        version: 5,
        indexes: known.map(movies).into_iter().collect(),
        control: Some(control),
        ..TopologyConfig::of(&["a", "b"], [[0, 1]; 4])
    };
    Arc::new(Topology::validate(config).unwrap())
}

fn start(known: Option<&str>, payload: &str) -> Progress<Write> {
    let topology = topology(known);
    let mut reader = DocumentReader::new(Format::Json, None, 1 << 20);
    reader.push(payload.as_bytes()).unwrap();
    let documents = reader.finish().unwrap();
    let payload = DocumentsPayload::split(documents, false, known, None, None, 4);
    let context = WriteContext {
        gateway: "g".into(),
        index: "movies".into(),
        authorization: Some("Bearer client".into()),
        custom_metadata: None,
    };
    Write::start(topology, context, Payload::Documents(Box::new(payload)))
}

fn pending(progress: Progress<Write>) -> (Write, Vec<Callout>) {
    match progress {
        Progress::Pending { machine, calls } => (machine, calls),
        Progress::Done(reply) => panic!("done with {reply:?}"),
    }
}

fn done(progress: Progress<Write>) -> Reply {
    match progress {
        Progress::Done(reply) => reply,
        Progress::Pending { calls, .. } => panic!("still wants {calls:?}"),
    }
}

fn answered(status: u16, body: Value) -> Outcome {
    Outcome::Answered(Answer { status, headers: Vec::new(), body: body.to_string().into_bytes() })
}

fn body(call: &Callout) -> Value {
    serde_json::from_slice(&call.body).unwrap()
}

fn send_reply(shards: usize) -> Outcome {
    answered(
        200,
        json!({"decision": "send", "uid": 42, "key": "epoch", "primaryKey": "id",
               "nodes": ["a", "b"], "writers": vec![vec![0, 1]; shards]}),
    )
}

/// Begins a write whose documents are not in the index yet.
fn sent(machine: Write, begin: CallId, reply: Outcome) -> (Write, Vec<Callout>) {
    let (mut machine, mut calls) = pending(machine.digest(begin, reply));
    while calls.iter().any(|call| call.path.to_string().ends_with("/fetch")) {
        for call in std::mem::take(&mut calls) {
            let (next, sent) = pending(machine.digest(call.id, answered(404, json!({}))));
            (machine, calls) = (next, sent);
        }
    }
    (machine, calls)
}

#[test]
fn documents_keep_the_sequences_that_they_have() {
    let stored = Sequence { write: 7, position: 3 };
    let answers = [
        answered(
            200,
            json!({"results": [
            {"id": 2, "_miroir_shard": [",,,", stored.to_string()]}, {"id": 3, "_miroir_shard": ",,,"}]}),
        ),
        answered(200, json!({"results": "x"})),
        answered(404, json!({})),
        Outcome::Failed,
    ];
    for (position, answer) in answers.into_iter().enumerate() {
        let (machine, begin) = pending(start(Some("id"), r#"[{"id":1},{"id":2},{"id":3},{"id":1}]"#));
        let shards = body(&begin[0])["shards"].as_array().unwrap().len();
        let (machine, asked) = pending(machine.digest(begin[0].id, send_reply(shards)));
        assert_eq!(asked.len(), 1, "each replica has all shards");
        assert_eq!(
            body(&asked[0]),
            json!({"ids": ["1", "2", "3"], "fields": ["id", "_miroir_shard"], "limit": 3})
        );
        let (mut machine, calls) = pending(machine.digest(asked[0].id, answer));
        assert_eq!(calls.len(), 2);
        let bodies: Vec<Value> = calls
            .iter()
            .map(|call| serde_json::from_slice(&machine.late_body(call.id).unwrap()).unwrap())
            .collect();
        assert_eq!(bodies[0], bodies[1], "replicas are sent the same");
        let own = |position| Sequence { write: 42, position };
        let second = if position == 0 { stored } else { own(1) };
        let sequences: Vec<String> = [own(0), second, own(2), own(0)].map(|it| it.to_string()).to_vec();
        let told: Vec<&str> = bodies[0]
            .as_array()
            .unwrap()
            .iter()
            .map(|document| document["_miroir_shard"][1].as_str().unwrap())
            .collect();
        assert_eq!(told, sequences);
    }
}

#[test]
fn large_writes_are_not_looked_up() {
    let documents: Vec<Value> = (0..1001).map(|id| json!({ "id": id })).collect();
    let (machine, begin) = pending(start(Some("id"), &json!(documents).to_string()));
    let (_, calls) = pending(machine.digest(begin[0].id, send_reply(4)));
    assert!(calls.iter().all(|call| call.path.to_string().contains("/documents?")), "{calls:?}");
}

#[test]
fn begin_nodes_commit_and_only_then_202() {
    let (machine, calls) = pending(start(Some("id"), r#"[{"id":1},{"id":2}]"#));
    assert_eq!(calls.len(), 1);
    assert_eq!((calls[0].upstream, calls[0].path.to_string().as_str()), (Upstream::Control, BEGIN_PATH));
    assert!(calls[0].headers.contains(&(SECRET_HEADER.into(), "s3cret".into())));
    let begin = body(&calls[0]);
    assert_eq!(begin["operation"]["documents"], 2);
    assert_eq!(begin["authorization"], "Bearer client");
    let shards = begin["shards"].as_array().unwrap().len();

    let (mut machine, mut calls) = sent(machine, calls[0].id, send_reply(shards));
    assert_eq!(calls.len(), 2);
    for call in &mut calls {
        call.body = machine.late_body(call.id).unwrap();
        assert_eq!(
            call.path.to_string(),
            "/indexes/movies/documents?customMetadata=miroir%3A42&primaryKey=id"
        );
        assert!(call.headers.contains(&("authorization".into(), "Bearer epoch".into())));
        assert_eq!(body(call).as_array().unwrap().len(), 2);
    }
    let (machine, none) = pending(machine.digest(calls[1].id, answered(202, json!({"taskUid": 7}))));
    assert!(none.is_empty());
    let (machine, commit) = pending(machine.digest(calls[0].id, Outcome::Failed));
    assert_eq!(commit[0].path, COMMIT_PATH.into());
    assert_eq!(
        body(&commit[0]),
        json!({"uid": 42, "results": [
            {"node": "b", "outcome": {"kind": "enqueued", "taskUid": 7}},
            {"node": "a", "outcome": {"kind": "unknown"}}]})
    );
    let reply = done(machine.digest(commit[0].id, answered(200, json!({"taskUid": 42}))));
    assert_eq!((reply.status, reply.body), (202, br#"{"taskUid":42}"#.to_vec()));
}

#[test]
fn a_payload_that_would_fail_is_recorded_and_never_sent() {
    let (machine, calls) = pending(start(Some("id"), r#"[{"id":1},{"name":"x"}]"#));
    let begin = body(&calls[0]);
    assert_eq!(begin["operation"]["failure"]["code"], "missing_document_id");
    assert_eq!(begin["shards"], json!([]));
    let recorded = answered(200, json!({"decision": "recorded", "task": {"taskUid": 3}}));
    let reply = done(machine.digest(calls[0].id, recorded));
    assert_eq!((reply.status, reply.body), (202, br#"{"taskUid":3}"#.to_vec()));
}

#[test]
fn another_primary_key_splits_again() {
    let (machine, calls) = pending(start(None, r#"[{"movie_id":1,"other":2}]"#));
    assert_eq!(body(&calls[0])["operation"]["primaryKey"], "movie_id");
    let split = || answered(200, json!({"decision": "split", "primaryKey": "other"}));
    let (machine, calls) = pending(machine.digest(calls[0].id, split()));
    assert_eq!(body(&calls[0])["operation"]["primaryKey"], "other");
    assert_eq!(done(machine.digest(calls[0].id, split())).status, 500, "the same key twice is a fault");
}

#[test]
fn the_key_of_an_index_that_is_gone_is_forgotten() {
    let (machine, calls) = pending(start(Some("id"), r#"[{"movie_id":1,"name":"x"}]"#));
    let begin = body(&calls[0]);
    assert_eq!(begin["operation"]["failure"]["code"], "missing_document_id");
    assert_eq!(begin["operation"]["assumed"], true);
    let infer = || answered(200, json!({"decision": "infer"}));
    let (machine, calls) = pending(machine.digest(calls[0].id, infer()));
    let begin = body(&calls[0]);
    assert_eq!(begin["operation"]["primaryKey"], "movie_id");
    assert_eq!(
        (&begin["operation"]["failure"], &begin["operation"]["assumed"]),
        (&json!(null), &json!(false))
    );
    assert_eq!(begin["shards"].as_array().unwrap().len(), 1);
    assert_eq!(done(machine.digest(calls[0].id, infer())).status, 500, "it was inferred");
}

#[test]
fn without_a_control_plane_writes_are_refused_and_can_be_tried_again() {
    let (machine, calls) = pending(start(Some("id"), r#"[{"id":1}]"#));
    let reply = done(machine.digest(calls[0].id, Outcome::Failed));
    assert_eq!(reply.status, 503);
    assert!(reply.headers.contains(&("retry-after".into(), "10".into())));
    let (machine, calls) = pending(start(Some("id"), r#"[{"id":1}]"#));
    let error = json!({"message": "m", "code": "invalid_api_key", "type": "auth", "link": "l"});
    assert_eq!(done(machine.digest(calls[0].id, answered(403, error))).status, 403);
}

#[test]
fn a_commit_is_sent_again() {
    let (machine, calls) = pending(start(Some("id"), r#"[{"id":1}]"#));
    let (mut machine, nodes) = sent(machine, calls[0].id, send_reply(1));
    let mut commit = Vec::new();
    for call in &nodes {
        let (next, calls) = pending(machine.digest(call.id, answered(202, json!({"taskUid": 7}))));
        (machine, commit) = (next, calls);
    }
    for _ in 1..COMMIT_ATTEMPTS {
        (machine, commit) = pending(machine.digest(commit[0].id, Outcome::Failed));
    }
    assert_eq!(done(machine.digest(commit[0].id, Outcome::Failed)).status, 503);
}

#[test]
fn what_cannot_be_taken_is_refused_in_a_nodes_words() {
    let head = RequestHead {
        method: "PUT".into(),
        path: "/indexes/movies/documents?primaryKey=id".into(),
        headers: vec![("authorization".into(), "Bearer client".into())],
    };
    let error = || ApiError::new(Code::MALFORMED_PAYLOAD, "the gateway's words");
    let start =
        |body: Option<&[u8]>| match Refusal::start(&topology(None), &head, error(), body.map(<[u8]>::to_vec))
        {
            Progress::Pending { machine, calls } => (machine, calls),
            Progress::Done(reply) => panic!("done with {reply:?}"),
        };
    let reply = |machine: Refusal, outcome| match machine.digest(outcome) {
        Progress::Done(reply) => reply,
        Progress::Pending { .. } => panic!("a refusal asks once"),
    };
    let (machine, calls) = start(Some(b"{"));
    assert_eq!(
        (calls[0].method, calls[0].path.to_string().as_str(), calls[0].body.as_slice()),
        ("PUT", "/_miroir/refusal/indexes/movies/documents?primaryKey=id", b"{".as_slice())
    );
    assert!(calls[0].headers.contains(&("authorization".into(), "Bearer client".into())));
    let native = json!({"message": "a node's words", "code": "malformed_payload", "type": "t", "link": "l"});
    assert_eq!(reply(machine, answered(400, native.clone())).body, native.to_string().into_bytes());

    let (machine, calls) = start(None);
    assert_eq!(calls[0].path.to_string(), "/_miroir/authorization/indexes/movies/documents?primaryKey=id");
    assert_eq!(reply(machine, answered(204, json!(null))), error().reply());
    // A node would accept it, and its task would fail.
    assert_eq!(reply(start(None).0, answered(202, json!({"taskUid": 3}))).status, 202);
    assert_eq!(reply(start(None).0, Outcome::Failed).status, 503);
}

#[test]
fn ids_and_filters_are_split() {
    let payload = Payload::ids(br#"[1,"2","a"]"#, 4).unwrap();
    let one = Shard::of_document("1", 4);
    let (method, path) = payload.request("movies", None, "miroir:1");
    let body = payload.body(1, |shard| shard == one);
    assert_eq!(
        (method, path.to_string().as_str()),
        ("POST", "/indexes/movies/documents/delete-batch?customMetadata=miroir%3A1")
    );
    assert!(String::from_utf8(body).unwrap().starts_with("[1"));
    assert!(Payload::ids(b"[1.5,null,{}]", 4).is_some(), "any JSON is an id, as text");
    assert!(Payload::ids(b"{}", 4).is_none());
    let odd =
        |body: &str| match Payload::ids(body.as_bytes(), 4).unwrap().operation(&topology(None), "movies") {
            WriteOperation::DeleteDocuments { odd, .. } => odd,
            other => panic!("{other:?}"),
        };
    assert_eq!(odd(r#"[1, "a b", null, "é"]"#), None);
    assert_eq!(odd(r#"[1, ""]"#).as_deref(), Some(""));
    assert!(Payload::filter(br#"{"filter":"a = 1"}"#.to_vec()).is_some());
    assert!(Payload::filter(br#"{"x":1}"#.to_vec()).is_none());
}

#[test]
fn the_commit_tells_the_ids_of_shards_that_are_being_copied() {
    let ids = ["a", "b", "c", "d", "e"];
    let documents: Vec<Value> = ids.iter().map(|id| json!({ "id": id })).collect();
    let record = Shard::of_document("a", 4);
    let expected: BTreeSet<String> =
        ids.iter().filter(|id| Shard::of_document(id, 4) == record).map(|id| (*id).to_owned()).collect();
    let (machine, calls) = pending(start(Some("id"), &json!(documents).to_string()));
    let shards = body(&calls[0])["shards"].as_array().unwrap().len();
    let reply = json!({"decision": "send", "uid": 42, "key": "epoch", "primaryKey": "id", "nodes": ["a"],
                       "writers": vec![vec![0]; shards], "record": [record], "begun": "this one"});
    let (mut machine, calls) = sent(machine, calls[0].id, answered(200, reply));
    assert!(machine.late_body(calls[0].id).is_some());
    let (_, calls) = pending(machine.digest(calls[0].id, answered(202, json!({"taskUid": 1}))));
    let commit: Commit = serde_json::from_slice(&calls[0].body).unwrap();
    assert_eq!(commit.written, BTreeMap::from([(record, expected)]));
    assert_eq!(commit.begun.as_deref(), Some("this one"));
}
