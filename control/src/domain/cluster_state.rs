//! What the cluster looks like: nodes, placement, catalogue, and which nodes are behind.

mod index;
mod replica;

pub use index::Index;
pub use replica::{Replica, ReplicaState};

use crate::{
    base::config::NodeConfig,
    domain::{
        intent::Effect,
        search_rules::{Change, Rule},
    },
};
use miroir_core::{
    placement::{Placement, PlacementNode, place, rebalance},
    shard::Shard,
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A version of the truth.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Grows with every change.
    pub version: u64,
    /// Nodes, in the topology's order.
    pub nodes: Vec<Member>,
    /// Replicas that a shard is to have.
    pub replication: usize,
    /// For each shard, its replicas, best first.
    pub replicas: Vec<Vec<Replica>>,
    /// For each shard, the nodes that are to hold it. Where that is not what is, replicas are moved.
    pub desired: Placement,
    /// Old copies of before this version may be gone: gateways with an older topology must not read.
    pub floor: u64,
    /// The catalogue.
    pub indexes: BTreeMap<String, Index>,
    /// Nodes that missed an operation on indexes: their settings may be old.
    pub behind: BTreeSet<String>,
    /// Changes of settings and rules that nodes may have been asked for, and that have not ended, by task. The ledger has them as
    /// intents.
    pub changing: BTreeMap<u32, Effect>,
    /// Dynamic search rules that nodes have, in the order of their places.
    pub rules: Vec<Rule>,
    /// What nodes are called among the servers of `/network`.
    pub server_name: Option<String>,
    /// Nodes' totals stop at `pagination.maxTotalHits`, as they do in Meilisearch's legacy search.
    pub legacy_search: bool,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name, where it is, and its share.
    #[serde(flatten)]
    pub config: NodeConfig,
    /// Since which version of the topology it is there.
    pub since: u64,
    /// It is to give its replicas away.
    pub draining: bool,
    /// It is to leave the cluster once it has none.
    pub leaving: bool,
}

impl View {
    /// Whether it is another only in the dates of indexes, of which gateways hear nothing.
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

    /// What gateways are told of by name: indexes, and rules as a whole.
    pub fn told(&self) -> impl Iterator<Item = &str> {
        self.indexes.keys().map(String::as_str).chain(std::iter::once(crate::domain::search_rules::INDEX))
    }

    /// Of these, those of which gateways are told something else than by an older version.
    #[must_use]
    pub fn told_otherwise(&self, old: &Self) -> Vec<String> {
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

    /// The rules that some node may apply: those that nodes have, and those that they are being told.
    #[must_use]
    pub fn rules_in_use(&self) -> Vec<Rule> {
        let mut rules = self.rules.clone();
        for effect in self.changing.values() {
            if let Effect::Rules { change: change @ Change::Update { .. } } = effect {
                change.apply(&mut rules);
            }
        }
        rules
    }

    /// The replicas of a shard.
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

    /// The nodes whose replicas of a shard are read and written.
    pub fn active(&self, shard: Shard) -> impl Iterator<Item = &str> {
        self.of(shard).iter().filter(|replica| replica.is_active()).map(|replica| replica.node.as_str())
    }

    /// The nodes that a write to a shard goes to: those of active replicas, and of old copies that may still be read.
    pub fn writers(&self, shard: Shard) -> impl Iterator<Item = &str> {
        self.of(shard).iter().filter(|replica| replica.is_written()).map(|replica| replica.node.as_str())
    }

    /// All shards, ascending.
    pub fn shards(&self) -> impl Iterator<Item = Shard> + use<> {
        (0..u16::try_from(self.replicas.len()).unwrap_or(u16::MAX)).map(Shard)
    }

    /// Takes a replica that missed a write out of the read and write sets, unless it is the last active one of its shard: an
    /// old copy is better than none. `true` if it was taken out.
    pub fn mark_stale(&mut self, shard: Shard, node: &str) -> bool {
        let is_last = self.active(shard).count() < 2;
        match self.replica_mut(shard, node) {
            Some(replica) if replica.is_active() && !is_last => replica.state = ReplicaState::Stale,
            Some(Replica { state: ReplicaState::Leaving { written: written @ true, .. }, .. }) => {
                *written = false;
            }
            _ => return false,
        }
        true
    }

    /// A node missed an operation on indexes: all its replicas are stale, as far as others can stand in.
    pub fn mark_behind(&mut self, node: &str) {
        self.behind.insert(node.to_owned());
        for shard in self.shards() {
            self.mark_stale(shard, node);
        }
    }

    /// A replica is whole: it is read and written from now on. What the shard does not need any more leaves.
    pub fn mark_active(&mut self, shard: Shard, node: &str) {
        if let Some(replica) = self.replica_mut(shard, node)
            && replica.state == ReplicaState::Stale
        {
            replica.state = ReplicaState::Active;
        }
        self.release(shard);
    }

    /// Replicas on nodes that are not to hold the shard leave it, once all that are to hold it are active. Those that are
    /// stale leave at once.
    fn release(&mut self, shard: Shard) {
        let since = self.version + 1;
        let wanted = self.desired.get(usize::from(shard.0)).cloned().unwrap_or_default();
        let is_whole = !wanted.is_empty() && wanted.iter().all(|node| self.active(shard).any(|n| n == node));
        for replica in self.replicas.get_mut(usize::from(shard.0)).into_iter().flatten() {
            if wanted.contains(&replica.node) {
                continue;
            }
            match replica.state {
                ReplicaState::Active if is_whole => {
                    replica.state = ReplicaState::Leaving { since, written: true };
                }
                ReplicaState::Stale => replica.state = ReplicaState::Leaving { since, written: false },
                _ => {}
            }
        }
    }

    /// Stale replicas of a node, ascending.
    #[must_use]
    pub fn stale_on(&self, node: &str) -> Vec<Shard> {
        let is_stale = |shard: &Shard| {
            self.replica(*shard, node).is_some_and(|replica| replica.state == ReplicaState::Stale)
        };
        self.shards().filter(is_stale).collect()
    }

    /// Whether a replica that was read and written in an older version is not any more, since it missed something or is gone: who
    /// knows only that version must not read it for long.
    #[must_use]
    pub fn has_lost_since(&self, old: &Self) -> bool {
        let is_lost = |shard: Shard, replica: &Replica| {
            let now = self.replica(shard, &replica.node);
            !now.is_some_and(|now| now.is_written() || now.state == ReplicaState::Removing)
        };
        let of = |shard| old.of(shard).iter().filter(|replica| replica.is_written());
        self.replicas != old.replicas && old.shards().any(|shard| of(shard).any(|one| is_lost(shard, one)))
    }

    /// Whether some replica has missed something.
    #[must_use]
    pub fn has_stale(&self) -> bool {
        let mut all = self.replicas.iter().flatten();
        all.any(|replica| {
            matches!(replica.state, ReplicaState::Stale | ReplicaState::Leaving { written: false, .. })
        })
    }

    /// Nodes as placement sees them: those that are to leave take nothing.
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

    /// Where replicas are to be, for these nodes and this replication: what can stay stays.
    #[must_use]
    pub fn planned(&self) -> Placement {
        let shards = u16::try_from(self.replicas.len()).unwrap_or(u16::MAX);
        place(shards, self.replication, &self.placement_nodes(), &self.desired)
    }

    /// The same, where more may move: zones and bounds hold after it.
    #[must_use]
    pub fn rebalanced(&self) -> Placement {
        let shards = u16::try_from(self.replicas.len()).unwrap_or(u16::MAX);
        rebalance(shards, self.replication, &self.placement_nodes(), &self.desired)
    }

    /// Sets where replicas are to be: those that are missing are to be made.
    pub fn set_desired(&mut self, desired: Placement) {
        self.desired = desired;
        for shard in self.shards() {
            self.want_replicas(shard);
            self.release(shard);
        }
    }

    /// Adds the replicas that a shard is to have, but for those on nodes whose old copy is not gone yet.
    pub fn want_replicas(&mut self, shard: Shard) {
        let wanted = self.desired.get(usize::from(shard.0)).cloned().unwrap_or_default();
        let Some(replicas) = self.replicas.get_mut(usize::from(shard.0)) else { return };
        for node in wanted {
            if !replicas.iter().any(|replica| replica.node == node) {
                replicas.push(Replica::stale(node));
            }
        }
    }

    /// Whether replicas are, or are about to be, on other nodes than they are to be.
    #[must_use]
    pub fn is_moving(&self) -> bool {
        self.shards().any(|shard| {
            let wanted = self.desired.get(usize::from(shard.0)).map_or(&[][..], Vec::as_slice);
            let held = self.of(shard);
            held.len() != wanted.len() || held.iter().any(|replica| !wanted.contains(&replica.node))
        })
    }

    /// Takes an old copy that no gateway reads any more out of the write set, to be deleted.
    pub fn remove(&mut self, shard: Shard, node: &str) {
        let Some(replica) = self.replica_mut(shard, node) else { return };
        if let ReplicaState::Leaving { since, .. } = replica.state {
            replica.state = ReplicaState::Removing;
            self.floor = self.floor.max(since);
        }
    }

    /// A node has documents of a shard that it is not to have, and no replica: they are to be deleted. `false` where it has, or
    /// is about to have, a replica.
    pub fn clear_away(&mut self, shard: Shard, node: &str) -> bool {
        let is_wanted = |nodes: &Vec<String>| nodes.iter().any(|name| name == node);
        let replicas = self.replicas.get_mut(usize::from(shard.0));
        let Some(replicas) = replicas.filter(|replicas| replicas.iter().all(|replica| replica.node != node))
        else {
            return false;
        };
        if self.desired.get(usize::from(shard.0)).is_some_and(is_wanted) {
            return false;
        }
        replicas.push(Replica { node: node.to_owned(), state: ReplicaState::Removing });
        true
    }

    /// An old copy has been deleted: its node may hold the shard again.
    pub fn removed(&mut self, shard: Shard, node: &str) {
        if let Some(replicas) = self.replicas.get_mut(usize::from(shard.0)) {
            replicas.retain(|replica| replica.node != node || replica.state != ReplicaState::Removing);
        }
        self.want_replicas(shard);
    }
}

#[cfg(test)]
mod tests;
