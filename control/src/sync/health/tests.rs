use super::*;
use crate::{
    domain::cluster_state::Index,
    testing::{ClusterBuilder, Reply, Script},
};
use serde_json::json;
use std::collections::BTreeMap;

/// What a node has: indexes, and whether its disk is the one that it had.
type Disks = BTreeMap<u16, (Vec<&'static str>, bool)>;

/// Two indexes in the catalogue, and nodes with these disks.
async fn cluster(data: &std::path::Path, disks: Disks) -> Cluster {
    let script = Script::new(move |call| {
        let Some((indexes, has_keys)) = disks.get(&call.url.port().unwrap()) else {
            return Reply::NoConnection;
        };
        let indexes: Vec<_> = indexes.iter().map(|uid| json!({"uid": uid})).collect();
        match call.url.path() {
            "/indexes" => Reply::Answer(200, json!({"results": indexes})),
            path if path.starts_with("/keys/") && !has_keys => Reply::Answer(404, json!({})),
            path if path.starts_with("/keys/") => {
                Reply::Answer(200, json!({"description": "Reads of gateways themselves"}))
            }
            _ => Reply::Answer(200, json!({"status": "available", "results": [], "total": 0})),
        }
    });
    let cluster = ClusterBuilder::new(data).transport(script).build();
    let fill = |state: &mut crate::domain::cluster_state::ClusterState| {
        state.indexes.extend(["gone", "there"].map(|uid| (uid.to_owned(), Index::default())));
    };
    cluster.change(fill).await.unwrap();
    check(&cluster).await;
    cluster
}

#[tokio::test]
async fn an_index_that_no_node_has_is_no_lost_disk() {
    let all = || vec!["gone", "there"];
    for (disks, behind, left) in [
        ([(all(), true), (all(), true)], vec![], all()),
        ([(vec!["there"], true), (vec!["there"], true)], vec![], vec!["there"]),
        ([(vec!["there"], true), (all(), true)], vec!["a"], all()),
        // Lost disks have no keys either: nodes get everything again.
        ([(vec![], false), (vec!["there"], true)], vec!["a"], vec!["there"]),
        ([(vec![], false), (vec![], false)], vec!["a", "b"], all()),
        // Something has made its indexes again.
        ([(all(), false), (all(), true)], vec!["a"], all()),
    ] {
        let data = tempfile::tempdir().unwrap();
        let cluster = cluster(data.path(), (1..).zip(disks).collect()).await;
        for node in cluster.nodes().iter() {
            notice_loss(&cluster, node).await.unwrap();
        }
        let state = cluster.cluster_state();
        assert_eq!(state.behind.iter().collect::<Vec<_>>(), behind);
        assert_eq!(state.indexes.keys().collect::<Vec<_>>(), left);
    }
}

#[tokio::test]
async fn of_a_node_that_is_away_it_is_not_known_what_it_has() {
    let data = tempfile::tempdir().unwrap();
    let cluster = cluster(data.path(), [(1, (vec!["there"], true))].into()).await;
    let version = cluster.cluster_state().version;
    let nodes = cluster.nodes();
    notice_loss(&cluster, &nodes[0]).await.unwrap();
    assert_eq!(cluster.cluster_state().version, version);
}
