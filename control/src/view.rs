//! What the cluster looks like: placement, catalogue, and which nodes are behind.

use miroir_core::shard::Shard;
use std::collections::{BTreeMap, BTreeSet};

/// A version of the truth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Grows with every change.
    pub version: u64,
    /// For each shard, its replicas, best first.
    pub replicas: Vec<Vec<Replica>>,
    /// The catalogue.
    pub indexes: BTreeMap<String, Index>,
    /// Nodes that missed an operation on indexes: their settings may be old.
    pub behind: BTreeSet<String>,
}

/// A node's copy of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The node's name.
    pub node: String,
    /// Read and written; else stale: out of both sets until it is repaired.
    pub active: bool,
}

/// What is known of an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// Absent until the first document says it.
    pub primary_key: Option<String>,
    /// The settings that gateways need, as clients have set them: those that nodes have applied.
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// When it was created.
    pub created_at: i64,
    /// When a mutation of it ended last.
    pub updated_at: i64,
}

/// The settings that gateways need.
const PUBLISHED: [&str; 4] = ["distinctAttribute", "faceting", "pagination", "rankingRules"];

impl Index {
    /// Out of all that clients have set on an index, what gateways need.
    #[must_use]
    pub fn published(
        all: serde_json::Map<String, serde_json::Value>,
    ) -> serde_json::Map<String, serde_json::Value> {
        all.into_iter().filter(|(name, _)| PUBLISHED.contains(&name.as_str())).collect()
    }
}

impl View {
    /// The active replicas of a shard.
    pub fn active(&self, shard: Shard) -> impl Iterator<Item = &str> {
        self.replicas
            .get(usize::from(shard.0))
            .into_iter()
            .flatten()
            .filter(|replica| replica.active)
            .map(|replica| replica.node.as_str())
    }

    /// All shards, ascending.
    pub fn shards(&self) -> impl Iterator<Item = Shard> + use<> {
        (0..u16::try_from(self.replicas.len()).unwrap_or(u16::MAX)).map(Shard)
    }

    /// Takes a replica out of the read and write sets, unless it is the last active one of its shard: an old copy is
    /// better than none. `true` if it was taken out.
    pub fn mark_stale(&mut self, shard: Shard, node: &str) -> bool {
        let Some(replicas) = self.replicas.get_mut(usize::from(shard.0)) else { return false };
        if replicas.iter().filter(|replica| replica.active).count() < 2 {
            return false;
        }
        match replicas.iter_mut().find(|replica| replica.active && replica.node == node) {
            Some(replica) => {
                replica.active = false;
                true
            }
            None => false,
        }
    }

    /// Puts a repaired replica back.
    pub fn mark_active(&mut self, shard: Shard, node: &str) {
        let replicas = self.replicas.get_mut(usize::from(shard.0)).into_iter().flatten();
        for replica in replicas.filter(|replica| replica.node == node) {
            replica.active = true;
        }
    }

    /// A node missed an operation on indexes: all its replicas are stale, as far as others can stand in.
    pub fn mark_behind(&mut self, node: &str) {
        self.behind.insert(node.to_owned());
        for shard in self.shards() {
            self.mark_stale(shard, node);
        }
    }

    /// Shards whose replica on this node is stale.
    #[must_use]
    pub fn stale_on(&self, node: &str) -> Vec<Shard> {
        self.shards()
            .filter(|shard| {
                let replicas = self.replicas.get(usize::from(shard.0)).into_iter().flatten();
                replicas.into_iter().any(|replica| replica.node == node && !replica.active)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_active_replica_stays() {
        let replica = |node: &str| Replica { node: node.into(), active: true };
        let mut view =
            View { replicas: vec![vec![replica("a"), replica("b")], vec![replica("a")]], ..View::default() };
        view.mark_behind("a");
        assert_eq!(view.active(Shard(0)).collect::<Vec<_>>(), ["b"]);
        assert_eq!(view.active(Shard(1)).collect::<Vec<_>>(), ["a"]);
        assert!(!view.mark_stale(Shard(0), "b"));
        assert_eq!(view.stale_on("a"), [Shard(0)]);
        view.mark_active(Shard(0), "a");
        assert!(view.stale_on("a").is_empty());
    }
}
