use super::*;
use crate::{
    domain::cluster_state::Index,
    testing::{ClusterBuilder, Reply, Script},
};

/// What a node is asked to change when it learns that `movies` has no primary key. `own_key` is the key that the index has on
/// the node.
async fn changes(own_key: Option<&'static str>, is_locked: bool) -> Vec<(String, Value)> {
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
    cluster.change(|cluster_state| cluster_state.indexes.extend([movies])).await.unwrap();
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
