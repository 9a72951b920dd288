//! Replicas that miss something of one index, and are read for the others.

use crate::shard::Shard;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The readable replicas that miss something of an index: by index uid, the positions of their nodes, and the shards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StaleReplicas(BTreeMap<String, StaleInIndex>);

/// The replicas that miss something of one index: the positions of their nodes, each with its shards.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StaleInIndex(BTreeMap<u16, BTreeSet<Shard>>);

impl StaleReplicas {
    /// Whether every readable replica has everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a replica.
    pub fn insert(&mut self, index: &str, node: u16, shard: Shard) {
        let StaleInIndex(nodes) = self.0.entry(index.to_owned()).or_default();
        nodes.entry(node).or_default().insert(shard);
    }

    /// What a read of these indexes must avoid.
    #[must_use]
    pub fn of<'a>(&'a self, indexes: &[&str]) -> Vec<&'a StaleInIndex> {
        indexes.iter().filter_map(|index| self.0.get(*index)).collect()
    }

    /// All replicas: index, node, shard.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u16, Shard)> {
        self.0.iter().flat_map(|(index, StaleInIndex(nodes))| {
            let shards = |(node, shards): (&u16, &'_ BTreeSet<Shard>)| {
                let node = *node;
                shards.iter().map(move |shard| (node, *shard)).collect::<Vec<_>>()
            };
            nodes.iter().flat_map(shards).map(move |(node, shard)| (index.as_str(), node, shard))
        })
    }
}

impl StaleInIndex {
    /// Whether a node's replica of a shard misses something of the index.
    #[must_use]
    pub fn contains(&self, node: u16, shard: Shard) -> bool {
        self.0.get(&node).is_some_and(|shards| shards.contains(&shard))
    }
}
