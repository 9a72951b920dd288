use super::*;
use crate::{
    cluster::{missed::WrittenIds, tracked_tasks::TrackedTask},
    domain::{
        cluster_state::Index,
        intent::{Effect, NodeTask},
        task::TaskKind,
    },
    testing::{self, ClusterBuilder, Reply, Script},
};

/// What a node is asked to change when it learns that `movies` has no primary key. `own_key` is the key that the index has on
/// the node.
async fn changes(own_key: Option<&'static str>, is_locked: bool) -> Vec<(String, Value)> {
    changes_with(own_key, is_locked, true).await
}

/// Like [`changes`]; `is_known`: `movies` is in the catalogue.
async fn changes_with(
    own_key: Option<&'static str>,
    is_locked: bool,
    is_known: bool,
) -> Vec<(String, Value)> {
    let data = tempfile::tempdir().unwrap();
    let transport = Script::new(move |call| match (call.method.as_str(), call.url.path()) {
        ("GET", "/indexes") => {
            Reply::Answer(200, json!({"results": [{"uid": "movies", "primaryKey": own_key}]}))
        }
        // No experimental feature is known, and every setting has its default.
        ("GET", _) => Reply::Answer(200, json!({})),
        _ => Reply::Answer(202, json!({"taskUid": 1})),
    });
    let cluster = ClusterBuilder::new(data.path()).transport(transport.clone()).build();
    let movies = ("movies".to_owned(), Index::default());
    cluster.change(|cluster_state| cluster_state.indexes.extend(is_known.then_some(movies))).await.unwrap();
    let node = cluster.node("b").unwrap();
    learn(&cluster, None, &node, is_locked).await.unwrap();
    let calls = transport.calls().into_iter().filter(|call| call.method != "GET");
    let calls = calls.filter(|call| call.url.path().starts_with("/indexes"));
    calls
        .map(|call| {
            let body = serde_json::from_slice(&call.body).unwrap_or(Value::Null);
            (format!("{} {}", call.method, call.url.path()), body)
        })
        .collect()
}

#[tokio::test]
async fn an_index_whose_key_only_the_node_knows_is_made_again_under_the_locks() {
    let changes = changes(Some("old"), true).await;
    let requests: Vec<&str> = changes.iter().map(|(request, _)| request.as_str()).collect();
    assert_eq!(
        requests,
        [
            "DELETE /indexes/movies",
            "POST /indexes",
            // The settings that every index has, in a batch of their own.
            "PATCH /indexes/movies",
            "PATCH /indexes/movies/settings",
            "PATCH /indexes/movies",
            "PATCH /indexes/movies/settings",
        ]
    );
    assert_eq!(changes[1].1, json!({"uid": "movies", "primaryKey": null}));
}

#[tokio::test]
async fn without_the_locks_or_without_a_key_the_index_stays() {
    for (own_key, is_locked) in [(Some("old"), false), (None, false), (None, true)] {
        let changes = changes(own_key, is_locked).await;
        let requests: Vec<&str> = changes.iter().map(|(request, _)| request.as_str()).collect();
        assert_eq!(requests, ["PATCH /indexes/movies/settings"], "{own_key:?}, {is_locked}");
    }
}

#[tokio::test]
async fn an_index_that_the_catalogue_does_not_have_is_deleted_under_the_locks_only() {
    // An operation may be creating it.
    assert!(changes_with(None, false, false).await.is_empty());
    let changes = changes_with(None, true, false).await;
    let requests: Vec<&str> = changes.iter().map(|(request, _)| request.as_str()).collect();
    assert_eq!(requests, ["DELETE /indexes/movies"]);
}

#[tokio::test]
async fn a_node_learns_nothing_while_an_operation_is_pending() {
    let data = tempfile::tempdir().unwrap();
    // Node b has not processed what a write has made.
    let transport = Script::new(|call| {
        let is_asked = call.url.query().is_some_and(|query| query.contains("settingsUpdate"));
        let unfinished = u32::from(is_asked && call.url.port() == Some(2));
        Reply::Answer(200, json!({"results": [], "total": unfinished}))
    });
    let cluster = ClusterBuilder::new(data.path()).transport(transport).build();
    let of = async |name: &str| is_changing(&cluster, cluster.node(name).as_deref()).await.unwrap();
    assert_eq!((of("a").await, of("b").await, of("nobody").await), (false, true, false));
    let task = testing::task(7, "movies", TaskKind::SettingsUpdate);
    let node_task = NodeTask { node: "a".into(), node_task: 1, main: true, shards: Vec::new() };
    cluster.tracked_tasks.add(TrackedTask {
        task,
        node_tasks: vec![node_task],
        effect: Effect::None,
        indexed: None,
        written: WrittenIds::new(),
        guard: None,
    });
    assert_eq!(
        (of("a").await, of("nobody").await),
        (true, true),
        "the ledger alone has settings of before it"
    );
}
