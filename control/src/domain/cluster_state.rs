//! The cluster's state: nodes, placement, catalogue, and which nodes are behind.

mod index;
mod replica;
mod stale;
mod withdrawal;

pub use index::Index;
pub use replica::{Replica, ReplicaState};
pub use stale::{MOST_STALE_IN_INDEXES, Missed, StaleInIndexes};
pub use withdrawal::Told;

use crate::{
    base::config::NodeConfig,
    domain::{
        intent::Effect,
        search_rules::{Change, SearchRule},
    },
};
use miroir_core::{
    node_name::NodeName,
    placement::{Placement, PlacementNode, place, rebalance},
    shard::Shard,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One version of the cluster's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterState {
    /// Its number. Every change increases it.
    pub version: u64,
    /// Nodes, in the topology's order.
    pub nodes: Vec<Member>,
    /// The number of replicas that each shard should have.
    pub replication: usize,
    /// For each shard, its replicas, the one first that copies are made from. The order of rows is that of `desired`.
    pub replicas: Vec<Vec<Replica>>,
    /// The active replicas that miss something of an index.
    pub stale: StaleInIndexes,
    /// Whether all gateways know topologies that say which replicas are stale in which index. For others, a replica that is
    /// stale in one index is not readable at all.
    pub stale_by_index: bool,
    /// For each shard, the nodes that should hold it. The mover moves replicas until `replicas` agrees with it.
    pub desired: Placement,
    /// The oldest version that gateways may read by: the copies that an older topology names may be deleted.
    pub floor: u64,
    /// The catalogue: indexes by uid.
    pub indexes: BTreeMap<String, Index>,
    /// Nodes that missed an operation on indexes: their settings may be stale.
    pub behind: BTreeSet<NodeName>,
    /// Changes of settings and search rules that may have been sent to nodes and have not ended, by task uid. The ledger stores
    /// them as intents.
    pub changing: BTreeMap<u32, Effect>,
    /// The dynamic search rules that nodes have, sorted by `place`.
    pub rules: Vec<SearchRule>,
    /// The name of this cluster's nodes among the remotes of `/network`.
    pub server_name: Option<String>,
    /// Whether nodes run Meilisearch's legacy search, which stops counting at `pagination.maxTotalHits`.
    pub legacy_search: bool,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its configuration: name, URL, weight.
    #[serde(flatten)]
    pub config: NodeConfig,
    /// The version of the cluster state in which it joined.
    pub since: u64,
    /// It is being emptied: its replicas move to other nodes.
    pub draining: bool,
    /// It leaves the cluster once it has no replicas.
    pub leaving: bool,
}

impl ClusterState {
    /// Whether it equals `old` except for the dates of indexes, which are not published to gateways.
    #[must_use]
    pub fn is_but_for_dates(&self, old: &Self) -> bool {
        let mut dated = old.clone();
        for (uid, index) in &mut dated.indexes {
            if let Some(Index { created_at, updated_at, .. }) = self.indexes.get(uid) {
                (index.created_at, index.updated_at) = (*created_at, *updated_at);
            }
        }
        dated == *self
    }

    /// Whether the settings of an index are being changed.
    #[must_use]
    pub fn is_changing(&self, index: &str) -> bool {
        self.changing
            .values()
            .any(|effect| matches!(effect, Effect::Settings { index: of, .. } if of == index))
    }

    /// The names of what is published to gateways: each index, and one name for all search rules.
    pub fn published_names(&self) -> impl Iterator<Item = &str> {
        self.indexes.keys().map(String::as_str).chain(std::iter::once(crate::domain::search_rules::INDEX))
    }

    /// The names from [`Self::published_names`] whose published content differs from `old`.
    #[must_use]
    pub fn changed_names(&self, old: &Self) -> Vec<String> {
        let is_same = |name: &str| {
            let (new, old) = (self.indexes.get(name), old.indexes.get(name));
            new.map(|index| (&index.primary_key, &index.settings))
                == old.map(|index| (&index.primary_key, &index.settings))
        };
        let all: BTreeSet<&String> = self.indexes.keys().chain(old.indexes.keys()).collect();
        let others =
            all.into_iter().filter(|name| !is_same(name) || self.is_changing(name) != old.is_changing(name));
        let mut names: Vec<String> = others.cloned().collect();
        if self.rules_in_use() != old.rules_in_use() {
            names.push(crate::domain::search_rules::INDEX.to_owned());
        }
        names
    }

    /// The rules that a node may be applying: those that nodes have, and those that are being sent to them.
    #[must_use]
    pub fn rules_in_use(&self) -> Vec<SearchRule> {
        let mut rules = self.rules.clone();
        for effect in self.changing.values() {
            if let Effect::Rules { change: change @ Change::Update { .. } } = effect {
                change.apply(&mut rules);
            }
        }
        rules
    }

    /// A shard's replicas, the one of its first row first.
    #[must_use]
    pub fn of(&self, shard: Shard) -> &[Replica] {
        self.replicas.get(usize::from(shard.0)).map_or(&[], Vec::as_slice)
    }

    /// A shard's replica on a node.
    #[must_use]
    pub fn replica(&self, shard: Shard, node: &str) -> Option<&Replica> {
        self.of(shard).iter().find(|replica| replica.node == node)
    }

    fn replica_mut(&mut self, shard: Shard, node: &str) -> Option<&mut Replica> {
        self.replicas.get_mut(usize::from(shard.0))?.iter_mut().find(|replica| replica.node == node)
    }

    /// A node by its name.
    #[must_use]
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.nodes.iter().find(|member| member.config.name == name)
    }

    /// The nodes whose replicas of a shard are read and written, but for indexes of which they miss something: see
    /// [`Self::whole`].
    pub fn active(&self, shard: Shard) -> impl Iterator<Item = &NodeName> {
        self.of(shard).iter().filter(|replica| replica.is_active()).map(|replica| &replica.node)
    }

    /// All shards, ascending.
    pub fn shards(&self) -> impl Iterator<Item = Shard> + use<> {
        (0..u16::try_from(self.replicas.len()).unwrap_or(u16::MAX)).map(Shard)
    }

    /// Marks a replica as stale in all indexes, so that it is neither read nor written. The last replica of a shard that is read
    /// for some index stays active, for those indexes: an incomplete copy is better than none. Returns whether the state changed.
    pub fn mark_stale(&mut self, shard: Shard, node: &str) -> bool {
        let is_last = self.is_last(shard, node);
        match self.replica_mut(shard, node) {
            Some(replica) if replica.is_active() && !is_last => {
                replica.state = ReplicaState::Stale;
                self.stale.forget(node, shard);
            }
            Some(replica) if replica.is_active() => {
                return self.mark_stale_where_others_are_whole(shard, node);
            }
            Some(Replica { state: ReplicaState::Leaving { written: written @ true, .. }, .. }) => {
                *written = false;
            }
            _ => return false,
        }
        true
    }

    /// Whether no node has all operations on indexes: then the catalogue alone says which indexes there are.
    #[must_use]
    pub fn is_every_node_behind(&self) -> bool {
        self.nodes.iter().all(|member| self.behind.contains(&member.config.name))
    }

    /// Marks a node that missed an operation on indexes as behind. Its replicas become stale, except where it has the last
    /// active one.
    pub fn mark_behind(&mut self, node: &str) {
        self.behind.insert(node.into());
        for shard in self.shards() {
            self.mark_stale(shard, node);
        }
    }

    /// Marks a replica that is complete as active: it is read and written from now on. Replicas that the shard no longer needs
    /// become leaving.
    pub fn mark_active(&mut self, shard: Shard, node: &str) {
        if let Some(replica) = self.replica_mut(shard, node)
            && replica.state == ReplicaState::Stale
        {
            replica.state = ReplicaState::Active;
        }
        self.release(shard);
    }

    /// Marks replicas on nodes that should not hold the shard as leaving, once all the desired replicas have everything. Stale ones
    /// become leaving at once.
    fn release(&mut self, shard: Shard) {
        let since = self.version + 1;
        let wanted = self.desired.get(usize::from(shard.0)).cloned().unwrap_or_default();
        let is_whole = !wanted.is_empty() && wanted.iter().all(|node| self.has_everything(shard, node));
        for replica in self.replicas.get_mut(usize::from(shard.0)).into_iter().flatten() {
            if wanted.contains(&replica.node) {
                continue;
            }
            match replica.state {
                ReplicaState::Active if is_whole => {
                    // One that has missed something is not written any more.
                    let written = !self.stale.has(&replica.node, shard);
                    replica.state = ReplicaState::Leaving { since, written };
                    self.stale.forget(&replica.node, shard);
                }
                ReplicaState::Stale => replica.state = ReplicaState::Leaving { since, written: false },
                _ => {}
            }
        }
    }

    /// The shards of which a node has a stale replica, ascending.
    #[must_use]
    pub fn stale_on(&self, node: &str) -> Vec<Shard> {
        let is_stale = |shard: &Shard| {
            self.replica(*shard, node).is_some_and(|replica| replica.state == ReplicaState::Stale)
        };
        self.shards().filter(is_stale).collect()
    }

    /// Whether a replica that `old` reads and writes has missed a write or is gone. Gateways that have only `old` must soon
    /// stop reading it.
    #[must_use]
    pub fn has_lost_since(&self, old: &Self) -> bool {
        let is_lost = |shard: Shard, replica: &Replica| {
            let now = self.replica(shard, &replica.node);
            !now.is_some_and(|now| now.is_written() || now.state == ReplicaState::Removing)
        };
        let of = |shard| old.of(shard).iter().filter(|replica| replica.is_written());
        let is_new = |(index, node, shard, _): (&str, &NodeName, Shard, Missed)| {
            old.stale.get(index, node, shard).is_none()
                && old.replica(shard, node).is_some_and(Replica::is_written)
        };
        (self.replicas != old.replicas && old.shards().any(|shard| of(shard).any(|one| is_lost(shard, one))))
            || (self.stale != old.stale && self.stale.iter().any(is_new))
    }

    /// Whether any replica has missed a write or is not complete yet.
    #[must_use]
    pub fn has_stale(&self) -> bool {
        let mut all = self.replicas.iter().flatten();
        let is_stale = |replica: &Replica| {
            matches!(replica.state, ReplicaState::Stale | ReplicaState::Leaving { written: false, .. })
        };
        !self.stale.is_empty() || all.any(is_stale)
    }

    /// The nodes as input for placement: draining nodes get the weight 0.
    #[must_use]
    pub fn placement_nodes(&self) -> Vec<PlacementNode> {
        let share = |member: &Member| if member.draining { 0.0 } else { f64::from(member.config.weight) };
        self.nodes
            .iter()
            .map(|member| PlacementNode {
                name: member.config.name.clone(),
                weight: share(member),
                zone: member.config.zone.clone(),
            })
            .collect()
    }

    /// Plans the placement for the current nodes and replication. Replicas that can stay where they are stay.
    #[must_use]
    pub fn planned(&self) -> Placement {
        let shards = u16::try_from(self.replicas.len()).unwrap_or(u16::MAX);
        place(shards, self.replication, &self.placement_nodes(), &self.desired)
    }

    /// Plans the placement anew: more replicas may move, and zones and bounds hold afterwards.
    #[must_use]
    pub fn rebalanced(&self) -> Placement {
        let shards = u16::try_from(self.replicas.len()).unwrap_or(u16::MAX);
        rebalance(shards, self.replication, &self.placement_nodes(), &self.desired)
    }

    /// Sets the desired placement. Missing replicas are added as stale, for the mover to create.
    pub fn set_desired(&mut self, desired: Placement) {
        self.desired = desired;
        for shard in self.shards() {
            self.add_missing_replicas(shard);
            self.release(shard);
        }
    }

    /// Adds the missing replicas of a shard as stale, except on nodes whose old copy has not been deleted yet.
    pub fn add_missing_replicas(&mut self, shard: Shard) {
        let wanted = self.desired.get(usize::from(shard.0)).cloned().unwrap_or_default();
        let Some(replicas) = self.replicas.get_mut(usize::from(shard.0)) else { return };
        for node in wanted {
            if !replicas.iter().any(|replica| replica.node == node) {
                replicas.push(Replica::stale(node));
            }
        }
    }

    /// Whether any shard's replicas differ from the desired placement.
    #[must_use]
    pub fn is_moving(&self) -> bool {
        self.shards().any(|shard| {
            let wanted = self.desired.get(usize::from(shard.0)).map_or(&[][..], Vec::as_slice);
            let held = self.of(shard);
            held.len() != wanted.len() || held.iter().any(|replica| !wanted.contains(&replica.node))
        })
    }

    /// Stops writes to an old copy that no gateway reads any more, so that it can be deleted.
    pub fn remove(&mut self, shard: Shard, node: &str) {
        let Some(replica) = self.replica_mut(shard, node) else { return };
        if let ReplicaState::Leaving { since, .. } = replica.state {
            replica.state = ReplicaState::Removing;
            self.floor = self.floor.max(since);
        }
    }

    /// Marks a node's misplaced documents of a shard for deletion. Returns `false`, and changes nothing, if the node has or
    /// should have a replica of the shard.
    pub fn mark_misplaced(&mut self, shard: Shard, node: &str) -> bool {
        let is_wanted = |nodes: &Vec<NodeName>| nodes.iter().any(|name| name == node);
        let replicas = self.replicas.get_mut(usize::from(shard.0));
        let Some(replicas) = replicas.filter(|replicas| replicas.iter().all(|replica| replica.node != node))
        else {
            return false;
        };
        if self.desired.get(usize::from(shard.0)).is_some_and(is_wanted) {
            return false;
        }
        replicas.push(Replica { node: node.into(), state: ReplicaState::Removing });
        true
    }

    /// Forgets an old copy that has been deleted. Its node may hold the shard again.
    pub fn removed(&mut self, shard: Shard, node: &str) {
        if let Some(replicas) = self.replicas.get_mut(usize::from(shard.0)) {
            replicas.retain(|replica| replica.node != node || replica.state != ReplicaState::Removing);
        }
        self.add_missing_replicas(shard);
    }
}

#[cfg(test)]
mod stale_tests;
#[cfg(test)]
mod tests;
