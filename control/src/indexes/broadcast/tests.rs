use super::*;
use crate::{
    auth::authorize,
    sync::health,
    testing::{ClusterBuilder, Reply, Script},
};
use serde_json::json;

#[test]
fn renames_and_swaps_move_the_catalogue() {
    let index = |key: &str| Index { primary_key: Some(key.into()), ..Index::default() };
    let mut cluster_state = ClusterState::default();
    cluster_state.indexes.insert("a".into(), index("ka"));
    cluster_state.indexes.insert("b".into(), index("kb"));
    apply(&mut cluster_state, &Effect::Swap { pairs: vec![("a".into(), "b".into(), false)] });
    assert_eq!(cluster_state.indexes["a"].primary_key.as_deref(), Some("kb"));
    let rename = Effect::UpdateIndex { index: "a".into(), primary_key: None, rename: Some("c".into()) };
    apply(&mut cluster_state, &rename);
    assert_eq!(cluster_state.indexes.keys().collect::<Vec<_>>(), ["b", "c"]);
    apply(
        &mut cluster_state,
        &Effect::UpdateIndex { index: "b".into(), primary_key: Some("x".into()), rename: None },
    );
    assert_eq!(cluster_state.indexes["b"].primary_key.as_deref(), Some("x"));
}

#[tokio::test(start_paused = true)]
async fn documents_are_moved_only_where_all_of_them_are_reached() {
    let data = tempfile::tempdir().unwrap();
    let script = Script::new(|_| Reply::Answer(200, json!({"results": []})));
    let cluster = Arc::new(ClusterBuilder::new(data.path()).transport(script).build());
    health::check(&cluster).await;
    let master = format!("Bearer {}", cluster.secrets.master_key);
    let grant = authorize(&cluster, Some(&master), "indexes.swap", None).await.unwrap();
    let lock = || lock_documents(&cluster, &grant, Scope::indexes(["left", "right"]));
    cluster.change(|cluster_state| cluster_state.mark_behind("a")).await.unwrap();
    assert!(lock().await.is_ok(), "the other node has everything");
    cluster.change(|cluster_state| cluster_state.mark_behind("b")).await.unwrap();
    let refused = lock().await.unwrap_err();
    assert_eq!(refused.to_api().status, 503, "{refused}");
    // It catches up while the operation waits. That takes the locks.
    let catches_up = async {
        tokio::time::sleep(CATCH_UP / 2).await;
        let _everything = cluster.locks.lock(Scope::everything()).await;
        cluster.change(|cluster_state| cluster_state.behind.clear()).await.unwrap();
    };
    let (locked, ()) = tokio::join!(lock(), catches_up);
    assert!(locked.is_ok());
}
