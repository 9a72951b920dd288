//! Registrations of fields that come late. They change no document, but make an index anew that was deleted meanwhile, or give one its
//! primary key. After a restart nobody knows which registrations nodes had taken in time, so what decides is what the node has.

use crate::{
    base::error::Result,
    cluster::{Cluster, locks::Scope},
    node::Node,
};
use std::time::Duration;

/// How long to wait for an index's locks: writers that come later wait behind this.
const LOCK_PATIENCE: Duration = Duration::from_millis(200);

/// Compares a node's index with the catalogue, after the node has taken a registration. If it has an index that should not be there, or
/// another primary key, it is behind. Returns whether that could be found out: not while the index is being changed. A registration that
/// the node has not begun is not cancelled, since it may be one that others have done.
///
/// # Errors
/// The node did not answer, or the ledger failed.
pub async fn examine(cluster: &Cluster, node: &Node, index: Option<&str>) -> Result<bool> {
    let Some(index) = index else { return Ok(true) };
    // Until then, what a crash has interrupted is not resumed.
    if !cluster.is_ready() {
        return Ok(false);
    }
    let locks = async {
        let guard = cluster.locks.lock(Scope::indexes([index])).await;
        (guard, cluster.creating.lock(index).await)
    };
    let Ok(_locks) = tokio::time::timeout(LOCK_PATIENCE, locks).await else { return Ok(false) };
    if !node.keeps_its_indexes().await? {
        return Ok(false);
    }
    let Some(own) = node.indexes().await?.remove(index) else { return Ok(true) };
    let known = cluster.cluster_state().indexes.get(index).map(|known| known.primary_key.clone());
    if known.is_some_and(|known| own.is_none() || own == known) {
        return Ok(true);
    }
    tracing::warn!(
        node = node.name.as_str(),
        index,
        "a node has an index that the cluster does not have, or has with another primary key: it is behind"
    );
    cluster.change(|cluster_state| cluster_state.mark_behind(&node.name)).await?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::cluster_state::Index,
        testing::{ClusterBuilder, Reply, Script},
    };
    use serde_json::json;
    use std::sync::{Arc, Mutex};

    #[tokio::test]
    async fn a_node_is_behind_whose_index_should_not_be_or_has_another_key() {
        let folder = tempfile::tempdir().unwrap();
        // The key of the node's index, and its unfinished tasks.
        let told = Arc::new(Mutex::new((None, 0)));
        let shared = told.clone();
        let transport = Script::new(move |call| {
            let (key, unfinished): (Option<Option<&str>>, u32) = *shared.lock().unwrap();
            match call.url.path() {
                "/tasks" => Reply::Answer(200, json!({"results": [], "total": unfinished})),
                _ => {
                    let index = key.map(|key| json!({"uid": "books", "primaryKey": key}));
                    Reply::Answer(200, json!({"results": index.as_slice()}))
                }
            }
        });
        let cluster = ClusterBuilder::new(folder.path()).transport(transport).build();
        let node = cluster.node("a").unwrap();
        let examine = || examine(&cluster, &node, Some("books"));
        assert!(!examine().await.unwrap(), "a start has not taken up what it interrupted");
        cluster.set_ready();

        let known = |key: Option<&str>| Index { primary_key: key.map(ToOwned::to_owned), ..Index::default() };
        for (on_node, in_catalogue, is_behind) in [
            (None, None, false),
            (None, Some(known(Some("id"))), false),
            (Some(None), None, true),
            (Some(Some("id")), None, true),
            (Some(None), Some(known(None)), false),
            (Some(None), Some(known(Some("id"))), false),
            (Some(Some("id")), Some(known(Some("id"))), false),
            (Some(Some("id")), Some(known(None)), true),
            (Some(Some("id")), Some(known(Some("other"))), true),
        ] {
            let entry = in_catalogue.clone();
            let set = |state: &mut crate::domain::cluster_state::ClusterState| {
                state.behind.clear();
                state.indexes.remove("books");
                state.indexes.extend(entry.map(|entry| ("books".to_owned(), entry)));
            };
            cluster.change(set).await.unwrap();
            *told.lock().unwrap() = (on_node, 1);
            assert!(!examine().await.unwrap(), "the node changes its indexes");
            *told.lock().unwrap() = (on_node, 0);
            {
                let _guard = cluster.locks.lock(Scope::indexes(["books"])).await;
                assert!(!examine().await.unwrap(), "an operation changes the index");
            }
            assert!(cluster.cluster_state().behind.is_empty());
            assert!(examine().await.unwrap());
            let behind = cluster.cluster_state().behind.contains("a");
            assert_eq!(behind, is_behind, "{on_node:?} {in_catalogue:?}");
        }
    }
}
