//! A cluster, and writes, in which everything is there once.

use miroir_control::{
    base::config::NodeConfig,
    domain::{
        cluster_state::{ClusterState, Index, Member, Missed, Replica, ReplicaState, StaleInIndexes},
        search_rules::SearchRule,
    },
};
use miroir_core::{error::ErrorBody, protocol::WriteOperation, shard::Shard};
use serde_json::json;

/// A node of a cluster.
pub fn member(name: &str, draining: bool, leaving: bool) -> Member {
    let url = format!("http://{name}.example:7700").parse().unwrap();
    let config = NodeConfig {
        name: name.into(),
        url,
        cluster: format!("to-{name}"),
        weight: 2,
        zone: Some("z".into()),
    };
    Member { config, since: 3, draining, leaving }
}

/// An index with fixed dates.
pub fn index(primary_key: Option<&str>) -> Index {
    Index { primary_key: primary_key.map(Into::into), created_at: 5, updated_at: 6, ..Index::default() }
}

/// A cluster in which everything is there once.
pub fn cluster_state() -> ClusterState {
    let replica = |node: &str, state| Replica { node: node.into(), state };
    let mut stale = StaleInIndexes::default();
    stale.insert("movies", "a", Shard(0), Missed::Recorded);
    stale.insert("books", "a", Shard(0), Missed::Anything);
    ClusterState {
        version: 9,
        nodes: vec![member("a", false, false), member("b", true, false), member("c", true, true)],
        replication: 2,
        replicas: vec![
            vec![Replica::active("a"), Replica::stale("b")],
            vec![
                replica("a", ReplicaState::Leaving { since: 8, written: true }),
                replica("b", ReplicaState::Leaving { since: 7, written: false }),
                replica("c", ReplicaState::Removing),
            ],
        ],
        stale,
        stale_by_index: true,
        desired: vec![vec!["a".into(), "b".into()], vec!["c".into()]],
        floor: 4,
        indexes: [("movies".to_owned(), index(Some("id"))), ("books".to_owned(), index(None))].into(),
        behind: ["b".into()].into(),
        changing: [].into(),
        rules: vec![SearchRule {
            uid: "r".into(),
            place: 0,
            body: json!({"precedence": 1}).as_object().cloned().unwrap(),
        }],
        server_name: Some("here".into()),
        legacy_search: true,
    }
}

/// Every kind of write.
pub fn operations() -> Vec<WriteOperation> {
    let error = ErrorBody { message: "m".into(), code: "c".into(), kind: "k".into(), link: "l".into() };
    vec![
        WriteOperation::AddDocuments {
            update: true,
            documents: 3,
            distinct: 2,
            requested_primary_key: Some("id".into()),
            primary_key: Some("id".into()),
            assumed: true,
            failure: Some(error),
        },
        WriteOperation::AddDocuments {
            update: false,
            documents: 3,
            distinct: 2,
            requested_primary_key: None,
            primary_key: None,
            assumed: false,
            failure: None,
        },
        WriteOperation::DeleteDocuments { ids: 2, primary_key: Some("id".into()), odd: Some("?".into()) },
        WriteOperation::DeleteDocuments { ids: 2, primary_key: None, odd: None },
        WriteOperation::DeleteByFilter { filter: json!(["a = 1", ["b = 2"]]) },
        WriteOperation::Edit {
            filter: Some(json!("a = 1")),
            context: Some(json!({"x": 1})),
            function: "doc".into(),
        },
        WriteOperation::DeleteAll,
    ]
}
