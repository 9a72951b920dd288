//! Reads that avoid replicas that miss something of the index that is read.

use super::begin::begin;
use crate::{
    document_read::DocumentRead,
    http::{Callout, RequestHead, Upstream},
    path::ApiPath,
    progress::Progress,
    route::Route,
    shard::Shard,
    topology::{Topology, TopologyConfig},
};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Two nodes that hold two shards. The second one misses something of both shards of index `written`.
fn topology() -> Arc<Topology> {
    let mut config = TopologyConfig::of(&["whole", "stale"], [[0, 1], [0, 1]]);
    for shard in [0, 1] {
        config.stale.insert("written", 1, Shard(shard));
    }
    Arc::new(Topology::validate(config).unwrap())
}

fn calls<M>(progress: Progress<M>) -> Vec<Callout> {
    match progress {
        Progress::Pending { calls, .. } => calls,
        Progress::Done(reply) => panic!("{} {}", reply.status, String::from_utf8_lossy(&reply.body)),
    }
}

/// What a read asks of nodes, and of which.
fn asked(path: &str, body: &Value) -> Vec<Callout> {
    let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
    let head = RequestHead { method: "POST".into(), path: ApiPath::parse(path).unwrap(), headers };
    let route = Route::of("POST", &head.path);
    calls(begin(topology(), route, head, body.to_string().into_bytes(), |_| Ok(())))
}

/// The nodes that many different queries ask.
fn nodes(path: &str, body: impl Fn(u32) -> Value) -> BTreeSet<u16> {
    let asked = (0..40).flat_map(|number| asked(path, &body(number)));
    let node = |call: Callout| match call.upstream {
        Upstream::Node(node) => node,
        Upstream::Control => panic!("a read asks no control plane"),
    };
    asked.map(node).collect()
}

#[test]
fn a_node_is_read_for_the_indexes_of_which_it_has_everything() {
    for (index, expected) in [("written", [0].as_slice()), ("at-rest", &[0, 1])] {
        let expected: BTreeSet<u16> = expected.iter().copied().collect();
        let path = |route: &str| format!("/indexes/{index}/{route}");
        let query = |number: u32| json!({"q": number.to_string()});
        let of_index = |number: u32| json!({"indexUid": index, "q": number.to_string()});
        for (what, found) in [
            ("search", nodes(&path("search"), query)),
            ("a deep page", nodes(&path("search"), |n| json!({"q": n.to_string(), "offset": 900 + n}))),
            (
                "hybrid",
                nodes(
                    &path("search"),
                    |n| json!({"q": n.to_string(), "hybrid": {"embedder": "e", "semanticRatio": 0.5}}),
                ),
            ),
            (
                "facets",
                nodes(&path("facet-search"), |n| json!({"facetName": "a", "facetQuery": n.to_string()})),
            ),
            ("list", nodes(&path("documents/fetch"), |n| json!({"filter": format!("a = {n}")}))),
            ("several", nodes("/multi-search", |n| json!({"queries": [of_index(n), of_index(n + 1)]}))),
            ("federated", nodes("/multi-search", |n| json!({"federation": {}, "queries": [of_index(n)]}))),
        ] {
            assert_eq!(found, expected, "{what} in {index}");
        }
        let document = |number: u32| {
            let path = format!("/indexes/{index}/documents/{number}");
            let head = RequestHead {
                method: "GET".into(),
                path: ApiPath::parse(&path).unwrap(),
                headers: Vec::new(),
            };
            calls(DocumentRead::start(topology(), head, index, &number.to_string()))
        };
        let found: BTreeSet<bool> =
            (0..40).flat_map(document).map(|call| call.upstream == Upstream::Node(1)).collect();
        assert_eq!(found.contains(&true), expected.contains(&1), "a document of {index}");
    }
}

#[test]
fn similar_documents_come_from_nodes_that_have_everything() {
    let found = nodes("/indexes/written/similar", |n| json!({"id": n, "embedder": "e"}));
    assert_eq!(found, [0].into());
}

#[test]
fn queries_of_one_multi_search_are_planned_each_by_its_own_index() {
    let mut at_rest = BTreeSet::new();
    for number in 0..40 {
        let query = |index: &str| json!({"indexUid": index, "q": number.to_string()});
        let calls = asked("/multi-search", &json!({"queries": [query("written"), query("at-rest")]}));
        for call in calls {
            let text = String::from_utf8_lossy(&call.body).into_owned();
            if call.upstream == Upstream::Node(1) {
                assert!(!text.contains("written"), "{text}");
            }
            at_rest.extend(text.contains("at-rest").then_some(call.upstream));
        }
        // What reads both indexes in one list asks a node that has all of both.
        let federated = json!({"federation": {}, "queries": [query("written"), query("at-rest")]});
        let upstreams: Vec<Upstream> =
            asked("/multi-search", &federated).into_iter().map(|call| call.upstream).collect();
        assert_eq!(upstreams, [Upstream::Node(0)]);
    }
    assert_eq!(at_rest.len(), 2, "the other index is read from both nodes");
}

#[test]
fn an_index_is_the_same_however_its_name_is_written() {
    let found = nodes("/indexes/writt%65n/search", |n| json!({"q": n.to_string()}));
    assert_eq!(found, [0].into());
    for number in 0..40 {
        let body = format!(r#"{{"queries": [{{"indexUid": "writ\u0074en", "q": "{number}"}}]}}"#);
        let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
        let path = ApiPath::parse("/multi-search").unwrap();
        let head = RequestHead { method: "POST".into(), path, headers };
        let route = Route::of("POST", &head.path);
        let asked = calls(begin(topology(), route, head, body.into_bytes(), |_| Ok(())));
        assert!(asked.iter().all(|call| call.upstream == Upstream::Node(0)), "{number}");
    }
}

#[test]
fn a_shard_that_no_replica_has_all_of_an_index_is_missing_for_that_index_alone() {
    let mut config = TopologyConfig::of(&["a", "b"], [[0, 1], [0, 1]]);
    for node in [0, 1] {
        config.stale.insert("written", node, Shard(1));
    }
    let topology = Topology::validate(config).unwrap();
    let plan = |index: &str| {
        let stale = topology.config().stale.of(&[index]);
        crate::fan_out::plan(&topology, &stale, topology.shards(), &BTreeSet::new(), 0)
    };
    assert_eq!(plan("written").missing, [Shard(1)]);
    assert!(plan("at-rest").missing.is_empty());
}
