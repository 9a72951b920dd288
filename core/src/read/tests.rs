use super::*;
use crate::{
    http::{Callout, Upstream},
    search::{MultiSearch, Search},
    topology::{OnMissingShards, TopologyConfig},
};
use serde_json::{Value, json};
#[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
use wasm_bindgen_test::wasm_bindgen_test as test;

/// Three nodes, three shards, two replicas of each.
fn topology(on_missing: OnMissingShards) -> Arc<Topology> {
    let config: TopologyConfig = serde_json::from_value(json!({
        "schema": 1, "version": 1,
        "nodes": [{"name":"a","cluster":"a"},{"name":"b","cluster":"b"},{"name":"c","cluster":"c"}],
        "placement": [[0,1],[1,2],[2,0]], "onMissingShards": on_missing,
    }))
    .unwrap();
    Arc::new(Topology::validate(config).unwrap())
}

/// Simulated nodes: each has one document of its own in every shard.
struct Nodes {
    down: BTreeSet<u16>,
    garbage: BTreeSet<u16>,
    asked: Vec<(u16, String, String)>,
}

impl Nodes {
    fn new() -> Self {
        Self { down: BTreeSet::new(), garbage: BTreeSet::new(), asked: Vec::new() }
    }

    fn answer(&mut self, call: &Callout) -> Outcome {
        let Upstream::Node(node) = call.upstream else { return Outcome::Failed };
        let body = String::from_utf8(call.body.clone()).unwrap();
        self.asked.push((node, call.path.to_string(), body.clone()));
        if self.down.contains(&node) {
            return Outcome::Failed;
        }
        let status = |status, body: Value| {
            Outcome::Answered(Answer { status, headers: Vec::new(), body: body.to_string().into_bytes() })
        };
        if self.garbage.contains(&node) {
            return status(200, json!({"hits": "half a bo"}));
        }
        if body.contains("wrong") {
            let native = !body.contains("_miroir_shard IN");
            let message = if native { "Available: `_miroir_shard, x`." } else { "other" };
            return status(400, json!({"message": message, "code": "invalid_search_filter"}));
        }
        let search = |body: &str| {
            let hits: Vec<Value> = (0..3u16)
                .filter(|shard| body.contains(Shard(*shard).tag().as_str()))
                .map(|shard| json!({"id": shard, "_miroir_shard": "x", "_rankingScoreDetails": {}}))
                .collect();
            json!({"estimatedTotalHits": hits.len(), "hits": hits, "limit": 20, "offset": 0})
        };
        let body: Value = serde_json::from_str(&body).unwrap();
        match body["queries"].as_array() {
            Some(queries) => {
                let results: Vec<Value> = queries.iter().map(|query| search(&query.to_string())).collect();
                status(200, json!({ "results": results }))
            }
            None => status(200, search(&body.to_string())),
        }
    }
}

fn run(nodes: &mut Nodes, on_missing: OnMissingShards, body: &str) -> Reply {
    ask(nodes, on_missing, body, |topology, head, body| Search::of(topology, "movies", head, body))
}

fn ask(
    nodes: &mut Nodes,
    on_missing: OnMissingShards,
    body: &str,
    understand: impl FnOnce(&Topology, &RequestHead, &[u8]) -> Option<Box<dyn ScatterQuery>>,
) -> Reply {
    let head = RequestHead {
        method: "POST".into(),
        path: "/indexes/movies/search".into(),
        headers: vec![
            ("authorization".into(), "Bearer key".into()),
            ("content-type".into(), "application/json; charset=utf-8".into()),
            ("cookie".into(), "no".into()),
        ],
    };
    let mut progress = Read::start(topology(on_missing), head, body.as_bytes().to_vec(), understand);
    let mut queue: Vec<Callout> = Vec::new();
    loop {
        match progress {
            Progress::Done(reply) => return reply,
            Progress::Pending { machine, calls } => {
                queue.extend(calls);
                let call = queue.pop().expect("a machine that is not done has calls under way");
                assert!(call.headers.contains(&("authorization".into(), "Bearer key".into())));
                assert!(!call.headers.iter().any(|(name, _)| name == "cookie"));
                let outcome = nodes.answer(&call);
                progress = machine.digest(call.id, outcome);
            }
        }
    }
}

fn ids(reply: &Reply) -> Vec<u64> {
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    let mut ids: Vec<u64> =
        body["hits"].as_array().unwrap().iter().map(|hit| hit["id"].as_u64().unwrap()).collect();
    ids.sort_unstable();
    ids
}

#[test]
fn every_shard_answers_once() {
    let mut nodes = Nodes::new();
    let reply = run(&mut nodes, OnMissingShards::Partial, "{}");
    assert_eq!(ids(&reply), [0, 1, 2]);
    assert_eq!(nodes.asked.len(), 2, "two of three nodes hold everything");
}

#[test]
fn a_dead_node_is_planned_around_within_the_request() {
    for node in 0..3 {
        let mut nodes = Nodes::new();
        nodes.down.insert(node);
        let reply = run(&mut nodes, OnMissingShards::Error, r#"{"q":"x"}"#);
        assert_eq!(ids(&reply), [0, 1, 2], "without node {node}");
        let mut nodes = Nodes::new();
        nodes.garbage.insert(node);
        assert_eq!(ids(&run(&mut nodes, OnMissingShards::Error, r#"{"q":"x"}"#)), [0, 1, 2]);
    }
}

#[test]
fn a_shard_without_a_replica_makes_the_answer_partial_or_an_error() {
    let mut nodes = Nodes::new();
    nodes.down.extend([0, 1]);
    let reply = run(&mut nodes, OnMissingShards::Partial, "{}");
    assert_eq!((reply.status, ids(&reply)), (200, vec![1, 2]));
    assert!(reply.headers.contains(&(MISSING_SHARDS_HEADER.into(), "0".into())), "{:?}", reply.headers);
    let reply = run(&mut nodes, OnMissingShards::Error, "{}");
    assert_eq!(reply.status, 503);
    assert!(reply.headers.contains(&("retry-after".into(), "10".into())));
    nodes.down.insert(2);
    assert_eq!(run(&mut nodes, OnMissingShards::Partial, "{}").status, 503);
}

#[test]
fn errors_are_a_nodes_own_answer_to_the_clients_own_request() {
    let mut nodes = Nodes::new();
    let reply = run(&mut nodes, OnMissingShards::Partial, r#"{"filter":"wrong"}"#);
    assert_eq!(reply.status, 400);
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(body["message"], "Available: `x`.");
    assert_eq!(nodes.asked.last().unwrap().2, r#"{"filter":"wrong"}"#);
    let reply = run(&mut Nodes::new(), OnMissingShards::Partial, r#"{"limit":"wrong"}"#);
    assert_eq!(reply.status, 400, "what cannot be read here is for a node to refuse");
}

#[test]
fn many_queries_cost_one_callout_a_node() {
    let queries: Vec<Value> = (0..1000).map(|n| json!({"indexUid": "movies", "q": format!("{n}")})).collect();
    let body = json!({ "queries": queries }).to_string();
    for down in [None, Some(0), Some(1), Some(2)] {
        let mut nodes = Nodes::new();
        nodes.down.extend(down);
        let understand = |topology: &Topology, _: &RequestHead, body: &[u8]| MultiSearch::of(topology, body);
        let reply = ask(&mut nodes, OnMissingShards::Error, &body, understand);
        assert_eq!(reply.status, 200);
        let answer: Value = serde_json::from_slice(&reply.body).unwrap();
        let results = answer["results"].as_array().unwrap();
        assert_eq!(results.len(), 1000);
        assert!(results.iter().all(|result| result["hits"].as_array().unwrap().len() == 3));
        // Three nodes answer; if one is down, its part goes to the other two.
        assert_eq!(nodes.asked.len(), if down.is_some() { 5 } else { 3 });
    }
}

#[test]
fn the_tag_is_an_unknown_attribute_to_clients() {
    let mut nodes = Nodes::new();
    let filter = json!({"filter": "_miroir_shard = wrong"}).to_string();
    assert_eq!(run(&mut nodes, OnMissingShards::Partial, &filter).status, 400);
    assert!(nodes.asked.iter().all(|(_, _, body)| !body.contains("_miroir_shard = ")));
}

#[test]
fn a_body_of_another_type_is_for_a_node_to_judge() {
    let head =
        RequestHead { method: "POST".into(), path: "/indexes/movies/search".into(), headers: Vec::new() };
    let understand =
        |topology: &Topology, head: &RequestHead, body: &[u8]| Search::of(topology, "movies", head, body);
    match Read::start(topology(OnMissingShards::Partial), head, b"{}".to_vec(), understand) {
        Progress::Pending { calls, .. } => assert_eq!((calls.len(), &*calls[0].body), (1, b"{}".as_slice())),
        Progress::Done(reply) => panic!("{reply:?}"),
    }
}

#[test]
fn an_index_whose_tag_is_not_filterable_yet_is_not_there_yet() {
    let head = |path: &'static str| RequestHead {
        method: "POST".into(),
        path: path.into(),
        headers: vec![("content-type".into(), "application/json".into())],
    };
    let answers = |head: RequestHead, body: &str, refusal: &str| {
        let route = Route::of("POST", &head.path);
        let understand = |topology: &Topology, head: &RequestHead, body: &[u8]| match route {
            Route::MultiSearch => MultiSearch::of(topology, body),
            _ => Search::of(topology, "movies", head, body),
        };
        let mut progress =
            Read::start(topology(OnMissingShards::Partial), head, body.as_bytes().to_vec(), understand);
        let mut queue: Vec<Callout> = Vec::new();
        loop {
            match progress {
                Progress::Done(reply) => return (reply.status, String::from_utf8(reply.body).unwrap()),
                Progress::Pending { machine, calls } => {
                    queue.extend(calls);
                    let call = queue.pop().unwrap();
                    let sharded = String::from_utf8(call.body).unwrap().contains("_miroir_shard IN");
                    let (status, body) = match sharded {
                        true => (400, json!({"message": refusal})),
                        false => (200, json!({"hits": []})),
                    };
                    let body = body.to_string().into_bytes();
                    let outcome = Outcome::Answered(Answer { status, headers: Vec::new(), body });
                    progress = machine.digest(call.id, outcome);
                }
            }
        }
    };
    let refusal = "Attribute `_miroir_shard` is not filterable.\n2:15 \"_miroir_shard\" IN [\",,,\"]";
    let (status, body) = answers(head("/indexes/movies/search"), "{}", refusal);
    assert_eq!(status, 404);
    assert!(body.contains("Index `movies` not found.") && body.contains("index_not_found"), "{body}");
    let queries = json!({"queries": [{"indexUid": "movies"}, {"indexUid": "new"}]}).to_string();
    let refusal = format!("Inside `.queries[1]`: Index `new`: {refusal}");
    let (status, body) = answers(head("/multi-search"), &queries, &refusal);
    assert_eq!(status, 400);
    assert!(body.contains("Inside `.queries[1]`: Index `new` not found."), "{body}");
}

/// Two shards, each on its own node.
fn two_nodes() -> Arc<Topology> {
    let config = json!({
        "schema": 1, "version": 1, "internalKey": "own",
        "nodes": [{"name":"a","cluster":"a"},{"name":"b","cluster":"b"}],
        "placement": [[0],[1]], "indexes": {"movies": {"primaryKey": "id"}},
    });
    Arc::new(Topology::validate(serde_json::from_value(config).unwrap()).unwrap())
}

/// A search of `movies`, on [`two_nodes`]. The newest callout is answered first.
fn search_of_movies(body: &str, mut answer: impl FnMut(&Callout) -> Value) -> Reply {
    let head = RequestHead {
        method: "POST".into(),
        path: "/indexes/movies/search".into(),
        headers: vec![
            ("authorization".into(), "Bearer client".into()),
            ("content-type".into(), "application/json".into()),
        ],
    };
    let understand =
        |topology: &Topology, head: &RequestHead, body: &[u8]| Search::of(topology, "movies", head, body);
    let mut progress = Read::start(two_nodes(), head, body.into(), understand);
    let mut queue: Vec<Callout> = Vec::new();
    loop {
        match progress {
            Progress::Done(reply) => return reply,
            Progress::Pending { machine, calls } => {
                queue.extend(calls);
                let call = queue.pop().unwrap();
                let body = answer(&call).to_string().into_bytes();
                let outcome = Outcome::Answered(Answer { status: 200, headers: Vec::new(), body });
                progress = machine.digest(call.id, outcome);
            }
        }
    }
}

/// The positions, in all of the cluster, of the two documents that a node of [`two_nodes`] has.
fn documents_of(call: &Callout) -> [usize; 2] {
    let Upstream::Node(node) = call.upstream else { panic!("a node is asked") };
    [0, 1].map(|hit| usize::from(node) * 2 + hit)
}

fn is_fetch(call: &Callout) -> bool {
    call.path.route().ends_with("/documents/fetch")
}

#[test]
fn what_is_not_displayed_is_read_again_under_the_gateways_key() {
    let years = [[7, 3], [5, 1]];
    let mut reads = 0;
    let reply = search_of_movies(r#"{"sort":["year:desc"]}"#, |call| {
        let ids = documents_of(call);
        let key = if is_fetch(call) { "Bearer own" } else { "Bearer client" };
        assert!(call.headers.contains(&("authorization".into(), key.into())), "{call:?}");
        if is_fetch(call) {
            reads += 1;
            return json!({"results": ids.map(|id| json!({"id": id, "year": years[id / 2][id % 2]}))});
        }
        let details = json!({"<hidden-rule-0>": {"order": 0, "value": "<hidden>"}});
        let hits = ids.map(|id| json!({"id": id, "_rankingScoreDetails": details}));
        json!({"hits": hits, "estimatedTotalHits": 2, "limit": 20, "offset": 0})
    });
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!((reads, &body["hits"]), (2, &json!([{"id": 0}, {"id": 2}, {"id": 1}, {"id": 3}])));
}

#[test]
fn a_node_that_answers_nonsense_is_done_without_also_where_another_hides_values() {
    let reply = search_of_movies(r#"{"sort":["year:desc"]}"#, |call| {
        let details = json!({"<hidden-rule-0>": {"order": 0, "value": "<hidden>"}});
        let hits = json!([{"id": 1, "_rankingScoreDetails": details}]);
        match call.upstream {
            Upstream::Node(0) => json!({"hits": "none"}),
            _ if is_fetch(call) => json!({"results": [{"id": 1, "year": 7}]}),
            _ => json!({"hits": hits, "estimatedTotalHits": 1, "limit": 20, "offset": 0}),
        }
    });
    let body: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!((reply.status, &body["hits"]), (200, &json!([{"id": 1}])));
    assert!(reply.headers.contains(&(MISSING_SHARDS_HEADER.into(), "0".into())), "{reply:?}");
}

#[test]
fn distinct_values_that_are_not_displayed_are_read_too() {
    let makers = ["x", "y", "Y", "z"];
    let run = |shown: bool| {
        let mut reads = 0;
        let reply = search_of_movies(r#"{"q":"a","distinct":"maker"}"#, |call| {
            let documents = documents_of(call).map(|id| {
                let mut document = json!({"id": id});
                if is_fetch(call) || shown {
                    document["maker"] = json!(makers[id]);
                }
                if !is_fetch(call) {
                    document["_rankingScoreDetails"] = json!({});
                }
                document
            });
            if is_fetch(call) {
                reads += 1;
                return json!({ "results": documents });
            }
            json!({"hits": documents, "estimatedTotalHits": 2, "limit": 20, "offset": 0})
        });
        let body: Value = serde_json::from_slice(&reply.body).unwrap();
        let hits = body["hits"].as_array().unwrap();
        (reads, hits.iter().map(|hit| hit["id"].as_u64().unwrap()).collect::<Vec<_>>())
    };
    assert_eq!(run(false), (2, vec![0, 1, 3]));
    assert_eq!(run(true), (0, vec![0, 1, 3]));
}
