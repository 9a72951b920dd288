use super::*;
use crate::{base::config::ClusterFile, domain::key_holder::WriteKeyHolder};

fn found(shards: &[(u16, &[&str])]) -> NodeContent {
    let mut found = NodeContent::default();
    found.indexes.insert("books".into(), Index { primary_key: Some("id".into()), ..Index::default() });
    for (shard, documents) in shards {
        let copy = found.shards.entry(Shard(*shard)).or_default();
        documents.iter().for_each(|text| copy.add("books", "id", text));
    }
    found
}

#[test]
fn placement_follows_from_what_nodes_have() {
    let nodes = ["a=http://a:1".to_owned(), "b=http://b:1".to_owned(), "c=http://c:1".to_owned()];
    let mut file = ClusterFile::from_flags(&nodes).unwrap();
    (file.shards, file.replication) = (4, 2);
    let config = file.validate().unwrap();
    let nodes = BTreeMap::from([
        ("a".into(), found(&[(0, &["x", "y"]), (1, &["z"]), (2, &["old"])])),
        ("b".into(), found(&[(0, &["y", "x"]), (2, &["new", "more"])])),
        ("c".into(), found(&[(1, &["z"])])),
    ]);
    let (cluster_state, recovered) = cluster_state(&config, &nodes);
    let active = |shard| cluster_state.active(Shard(shard)).map(NodeName::as_str).collect::<Vec<_>>();
    assert_eq!((active(0), active(1)), (vec!["a", "b"], vec!["a", "c"]));
    // If two copies differ, the one with more documents is used and the other one is stale.
    assert_eq!((active(2), cluster_state.stale_on("a")), (vec!["b"], vec![Shard(2)]));
    assert_eq!(recovered.disputed, [(Shard(2), "b".into())]);
    assert_eq!(active(3).len(), 2, "an empty shard is whole");
    assert_eq!((recovered.indexes, recovered.documents), (1, 5));
    assert!(cluster_state.behind.is_empty() && !cluster_state.is_moving());
    assert_eq!(cluster_state.desired[0].iter().collect::<BTreeSet<_>>().len(), 2);
}

#[test]
fn nodes_of_two_clusters_are_not_mixed() {
    let of_cluster = |uid: u128| {
        let key = crate::domain::key_holder::read_key(Uuid::from_u128(uid), Default::default());
        NodeContent { keys: vec![key, serde_json::json!({"name": "a client's", "uid": "x"})], ..found(&[]) }
    };
    let nodes = |uids: [u128; 2]| {
        BTreeMap::from([("a".into(), of_cluster(uids[0])), ("b".into(), of_cluster(uids[1]))])
    };
    one_cluster(&nodes([1, 1])).unwrap();
    one_cluster(&BTreeMap::from([("a".into(), found(&[]))])).unwrap();
    let error = one_cluster(&nodes([1, 2])).unwrap_err().to_string();
    assert!(error.contains("different clusters, among them a, b"), "{error}");
}

#[tokio::test]
async fn what_clients_have_set_on_the_server_is_known_again() {
    let mut file = ClusterFile::from_flags(&["a=http://a:1".to_owned()]).unwrap();
    file.replication = 1;
    let config = file.validate().unwrap();
    let mut one = found(&[]);
    one.server = vec![
        InstanceChange::Network(serde_json::json!({"self": "here", "remotes": {}, "shards": {}})),
        InstanceChange::Workspace("w".into(), Some(serde_json::json!({"apiKey": "skXXXX...", "orgId": "o"}))),
    ];
    let nodes = BTreeMap::from([("a".into(), one)]);
    let cluster_state = cluster_state(&config, &nodes).0;
    assert_eq!(cluster_state.server_name.as_deref(), Some("here"));
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    store(&ledger, cluster_state, nodes).await.unwrap();
    let stored = ledger.call(|connection| ledger::meta(connection, "chatCompletions")).await.unwrap();
    assert!(stored.unwrap().contains("\"orgId\":\"o\""));
}

#[tokio::test]
async fn an_internal_key_without_a_holder_is_fenced_and_is_no_gateways() {
    let config = ClusterFile::from_flags(&["a=http://a:1".to_owned(), "b=http://b:1".to_owned()]).unwrap();
    let config = config.validate().unwrap();
    let [known, unknown] = [1, 2].map(Uuid::from_u128);
    let holder = WriteKeyHolder::Gateway("17".to_owned());
    let mut damaged = holder.key(unknown);
    damaged["description"] = Value::Null;
    let mut one = found(&[]);
    one.keys = vec![holder.key(known), damaged];
    let nodes = BTreeMap::from([("a".into(), one)]);
    let cluster_state = cluster_state(&config, &nodes).0;
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(folder.path()).unwrap();
    store(&ledger, cluster_state, nodes).await.unwrap();
    let mut stored = ledger.call(write_keys::write_keys).await.unwrap();
    stored.sort_by_key(|write_key| write_key.key);
    let expected =
        [(known, Some(holder)), (unknown, None)].map(|(key, holder)| WriteKey { key, holder, fenced: true });
    assert_eq!(stored, expected);
}
