//! What is kept of an index while nodes delete it. The catalogue forgets it once a node has accepted that, since whatever comes later
//! comes after it in nodes' queues. If the deletion is cancelled, or nodes fail to do it, the index is still there.

use super::cluster_state::{ClusterState, Index, Missed};
use miroir_core::{node_name::NodeName, shard::Shard};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// An index that nodes are deleting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeletedIndex {
    primary_key: Option<String>,
    created_at: i64,
    updated_at: i64,
    /// As clients have set them.
    settings: Map<String, Value>,
    /// The replicas that missed nothing of it.
    whole: Vec<(Shard, NodeName)>,
}

impl DeletedIndex {
    /// What is kept of an index with these settings of clients; `None` if the catalogue does not have it.
    #[must_use]
    pub fn of(cluster_state: &ClusterState, index: &str, settings: Map<String, Value>) -> Option<Self> {
        let Index { primary_key, created_at, updated_at, .. } = cluster_state.indexes.get(index)?.clone();
        let whole = cluster_state
            .shards()
            .flat_map(|shard| cluster_state.whole(index, shard).map(move |node| (shard, node.clone())));
        Some(Self { primary_key, created_at, updated_at, settings, whole: whole.collect() })
    }

    /// Puts it back. Replicas that were filled meanwhile may lack its documents. Returns the settings that clients had set; `None` if there
    /// is another index of this name by now.
    #[must_use]
    pub fn restore(&self, cluster_state: &mut ClusterState, index: &str) -> Option<&Map<String, Value>> {
        if cluster_state.indexes.contains_key(index) {
            return None;
        }
        let restored = Index {
            primary_key: self.primary_key.clone(),
            settings: Index::published(self.settings.clone()),
            created_at: self.created_at,
            updated_at: self.updated_at,
        };
        cluster_state.indexes.insert(index.to_owned(), restored);
        for shard in cluster_state.shards() {
            let active: Vec<NodeName> = cluster_state.active(shard).cloned().collect();
            for node in active.into_iter().filter(|node| !self.whole.contains(&(shard, node.clone()))) {
                cluster_state.mark_missed(index, shard, &node, Missed::Anything);
            }
        }
        Some(&self.settings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::cluster_state::Replica;
    use serde_json::json;

    #[test]
    fn it_comes_back_as_it_was_and_replicas_that_came_meanwhile_lack_it() {
        let settings = Map::from_iter([("rankingRules".to_owned(), json!(["words"]))]);
        let index = Index {
            primary_key: Some("id".to_owned()),
            settings: settings.clone(),
            created_at: 1,
            updated_at: 2,
        };
        let mut cluster_state = ClusterState::default();
        cluster_state.indexes.insert("books".to_owned(), index.clone());
        cluster_state.replicas = vec![["a", "b"].map(|node| Replica::active(NodeName::from(node))).to_vec()];
        assert_eq!(DeletedIndex::of(&cluster_state, "other", Map::new()), None);
        let deleted = DeletedIndex::of(&cluster_state, "books", settings.clone()).unwrap();
        let stored = serde_json::to_string(&deleted).unwrap();
        assert_eq!(serde_json::from_str::<DeletedIndex>(&stored).unwrap(), deleted);

        cluster_state.indexes.clear();
        cluster_state.replicas = vec![["b", "c"].map(|node| Replica::active(NodeName::from(node))).to_vec()];
        assert_eq!(deleted.restore(&mut cluster_state, "books"), Some(&settings));
        assert_eq!(cluster_state.indexes["books"], index);
        let whole = |node| cluster_state.is_whole("books", Shard(0), node);
        assert_eq!((whole("b"), whole("c")), (true, false));

        cluster_state.indexes.insert("books".to_owned(), Index::default());
        assert_eq!(deleted.restore(&mut cluster_state, "books"), None, "it was made again");
        assert_eq!(cluster_state.indexes["books"], Index::default());
    }
}
