//! Nodes that lack an index of the catalogue, or do not answer soon.

use super::*;
use crate::{
    document_read::DocumentRead,
    http::{Callout, Upstream},
    search::Search,
    topology::TopologyConfig,
};
use serde_json::{Value, json};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// What a node without an index answers.
fn lacks(index: &str) -> Outcome {
    let body = json!({
        "message": format!("Index `{index}` not found."), "code": "index_not_found", "type": "invalid_request", "link": "",
    });
    Outcome::Answered(Answer { status: 404, headers: Vec::new(), body: body.to_string().into_bytes() })
}

#[test]
fn a_node_that_lacks_an_index_of_the_catalogue_is_stood_in_for() {
    let config = |indexes: Value| -> TopologyConfig {
        serde_json::from_value(json!({
            "schema": 1, "version": 1, "nodes": [{"name":"a","cluster":"a"},{"name":"b","cluster":"b"}],
            "placement": [[0,1],[0,1]], "indexes": indexes,
        }))
        .unwrap()
    };
    let head = || RequestHead {
        method: "POST".into(),
        path: "/indexes/movies/search".into(),
        headers: vec![("content-type".into(), "application/json".into())],
    };
    let start = |indexes: Value| {
        let topology = Arc::new(Topology::validate(config(indexes)).unwrap());
        let understand =
            |topology: &Topology, head: &RequestHead, body: &[u8]| Search::of(topology, "movies", head, body);
        match Read::start(topology, head(), b"{}".to_vec(), understand) {
            Progress::Pending { machine, calls } => (machine, calls),
            Progress::Done(reply) => panic!("{reply:?}"),
        }
    };
    let next = |progress: Progress<Read>| match progress {
        Progress::Pending { machine, mut calls } => (machine, calls.remove(0)),
        Progress::Done(reply) => panic!("{reply:?}"),
    };
    let (machine, calls) = start(json!({"movies": {}}));
    let (machine, other) = next(machine.digest(calls[0].id, lacks("movies")));
    assert_ne!(other.upstream, calls[0].upstream);
    // Both lack it: the index is gone, and the node's word counts.
    let (machine, native) = next(machine.digest(other.id, lacks("movies")));
    assert_eq!((native.upstream, &*native.body), (other.upstream, &b"{}"[..]));
    match machine.digest(native.id, lacks("movies")) {
        Progress::Done(reply) => assert_eq!(reply.status, 404),
        Progress::Pending { calls, .. } => panic!("{calls:?}"),
    }
    let (machine, calls) = start(json!({}));
    let (_, native) = next(machine.digest(calls[0].id, lacks("movies")));
    assert_eq!(native.upstream, calls[0].upstream, "nobody expects it to have the index");
}

#[test]
fn a_document_is_read_from_another_replica_where_one_lacks_its_index() {
    let start = |indexes: Value| {
        let config = json!({
            "schema": 1, "version": 1, "nodes": [{"name":"a","cluster":"a"},{"name":"b","cluster":"b"}],
            "placement": [[0,1]], "indexes": indexes,
        });
        let topology = Topology::from_json(config.to_string().as_bytes()).unwrap();
        let path = "/indexes/movies/documents/1".into();
        let head = RequestHead { method: "GET".into(), path, headers: Vec::new() };
        DocumentRead::start(Arc::new(topology), head, "movies", "1")
    };
    let next = |progress: Progress<DocumentRead>| match progress {
        Progress::Pending { machine, mut calls } => (machine, calls.remove(0)),
        Progress::Done(reply) => panic!("{reply:?}"),
    };
    let status = |progress: Progress<DocumentRead>| match progress {
        Progress::Pending { calls, .. } => panic!("{calls:?}"),
        Progress::Done(reply) => reply.status,
    };
    let (machine, first) = next(start(json!({"movies": {}})));
    let (machine, other) = next(machine.digest(first.id, lacks("movies")));
    assert_ne!(other.upstream, first.upstream);
    assert_eq!(status(machine.digest(other.id, lacks("movies"))), 404, "nobody has it");
    let (machine, call) = next(start(json!({})));
    assert_eq!(status(machine.digest(call.id, lacks("movies"))), 404, "nobody expects it");
}

fn two_replicas() -> Arc<Topology> {
    Arc::new(Topology::validate(TopologyConfig::of(&["a", "b"], [[0, 1], [0, 1]])).unwrap())
}

fn next<M>(progress: Progress<M>) -> (M, Callout) {
    match progress {
        Progress::Pending { machine, mut calls } => (machine, calls.remove(0)),
        Progress::Done(reply) => panic!("{reply:?}"),
    }
}

#[test]
fn a_node_that_was_given_up_is_asked_again_where_the_others_fail() {
    let start = |topology: Arc<Topology>| {
        let head = RequestHead {
            method: "POST".into(),
            path: "/indexes/movies/search".into(),
            headers: vec![("content-type".into(), "application/json".into())],
        };
        next(Read::start(topology, head, b"{}".to_vec(), |topology, head, body| {
            Search::of(topology, "movies", head, body)
        }))
    };
    let (machine, first) = start(two_replicas());
    assert!(first.has_stand_in);
    let (machine, second) = next(machine.digest(first.id, Outcome::GivenUp));
    assert!(second.upstream != first.upstream && !second.has_stand_in, "it has all the time that is left");
    let (machine, third) = next(machine.digest(second.id, Outcome::Failed));
    assert!(third.upstream == first.upstream && !third.has_stand_in);
    match machine.digest(third.id, Outcome::Failed) {
        Progress::Done(reply) => assert_eq!(reply.status, 503),
        Progress::Pending { calls, .. } => panic!("{calls:?}"),
    }
    let slow = two_replicas();
    slow.avoid([0].into());
    let (_, call) = start(slow);
    assert!(call.upstream == Upstream::Node(1) && !call.has_stand_in, "the other one is slow");
}

#[test]
fn a_node_that_was_given_up_is_asked_for_its_document_again_where_the_others_fail() {
    let path = "/indexes/movies/documents/1".into();
    let head = RequestHead { method: "GET".into(), path, headers: Vec::new() };
    let (machine, first) = next(DocumentRead::start(two_replicas(), head, "movies", "1"));
    assert!(first.has_stand_in);
    let (machine, second) = next(machine.digest(first.id, Outcome::GivenUp));
    assert!(second.upstream != first.upstream && !second.has_stand_in);
    let (machine, third) = next(machine.digest(second.id, Outcome::Failed));
    assert!(third.upstream == first.upstream && !third.has_stand_in);
    match machine.digest(third.id, Outcome::Failed) {
        Progress::Done(reply) => assert_eq!(reply.status, 503),
        Progress::Pending { calls, .. } => panic!("{calls:?}"),
    }
}
