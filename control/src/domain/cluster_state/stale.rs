//! What active replicas miss of single indexes. Such a replica is read and written for all other indexes.

use super::{ClusterState, Replica, ReplicaState};
use miroir_core::{node_name::NodeName, shard::Shard};
use std::collections::{BTreeMap, BTreeSet};

/// What a replica misses of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missed {
    /// Writes to documents whose ids the ledger has.
    Recorded,
    /// Any document may differ.
    Anything,
}

/// The most active replicas that may be stale in single indexes, each counted once for each index. Beyond that, a replica that misses a
/// write is stale as a whole: topologies and the ledger would grow with the number of indexes.
pub const MOST_STALE_IN_INDEXES: usize = 10_000;

/// By index, node and shard.
type StaleByIndex = BTreeMap<String, BTreeMap<NodeName, BTreeMap<Shard, Missed>>>;

/// The active replicas that miss something of an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StaleInIndexes {
    by_index: StaleByIndex,
    count: usize,
}

impl StaleInIndexes {
    /// Whether every active replica has everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_index.is_empty()
    }

    /// What a replica misses of an index; `None` if it has everything.
    #[must_use]
    pub fn get(&self, index: &str, node: &str, shard: Shard) -> Option<Missed> {
        self.by_index.get(index)?.get(node)?.get(&shard).copied()
    }

    /// The number of replicas, each counted once for each index.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// All of them: index, node, shard, and what is missed.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &NodeName, Shard, Missed)> {
        self.by_index.iter().flat_map(|(index, nodes)| {
            nodes.iter().flat_map(move |(node, shards)| {
                shards.iter().map(move |(shard, missed)| (index.as_str(), node, *shard, *missed))
            })
        })
    }

    /// The replicas of a shard that miss something of an index: node, and what is missed.
    pub fn of(&self, index: &str, shard: Shard) -> impl Iterator<Item = (&NodeName, Missed)> {
        let nodes = self.by_index.get(index).into_iter().flatten();
        nodes.filter_map(move |(node, shards)| Some((node, *shards.get(&shard)?)))
    }

    /// Whether a replica misses something of any index.
    #[must_use]
    pub fn has(&self, node: &str, shard: Shard) -> bool {
        self.by_index.values().any(|nodes| nodes.get(node).is_some_and(|shards| shards.contains_key(&shard)))
    }

    /// Notes that a replica misses something of an index, besides what it is known to miss.
    pub fn insert(&mut self, index: &str, node: &str, shard: Shard, missed: Missed) {
        let nodes = self.by_index.entry(index.to_owned()).or_default();
        let shards = nodes.entry(node.into()).or_default();
        let before = shards.insert(shard, missed);
        match before {
            Some(known) if known > missed => _ = shards.insert(shard, known),
            Some(_) => {}
            None => self.count += 1,
        }
    }

    /// Keeps only those for which the condition holds.
    pub fn retain(&mut self, keep: impl Fn(&str, &NodeName, Shard) -> bool) {
        self.count = 0;
        for (index, nodes) in &mut self.by_index {
            for (node, shards) in nodes.iter_mut() {
                shards.retain(|shard, _| keep(index, node, *shard));
                self.count += shards.len();
            }
            nodes.retain(|_, shards| !shards.is_empty());
        }
        self.by_index.retain(|_, nodes| !nodes.is_empty());
    }

    fn remove(&mut self, index: &str, node: &str, shard: Shard) {
        self.retain(|i, n, s| (i, n.as_str(), s) != (index, node, shard));
    }

    /// Forgets what a replica misses: it is not active any more.
    pub(super) fn forget(&mut self, node: &str, shard: Shard) {
        if self.has(node, shard) {
            self.retain(|_, n, s| (n.as_str(), s) != (node, shard));
        }
    }
}

impl ClusterState {
    /// Whether a node's replica of a shard is active, and misses nothing of an index.
    #[must_use]
    pub fn is_whole(&self, index: &str, shard: Shard, node: &str) -> bool {
        self.replica(shard, node).is_some_and(Replica::is_active)
            && self.stale.get(index, node, shard).is_none()
    }

    /// Whether a node's replica of a shard is active, and misses nothing of any index.
    #[must_use]
    pub fn has_everything(&self, shard: Shard, node: &str) -> bool {
        self.replica(shard, node).is_some_and(Replica::is_active) && !self.stale.has(node, shard)
    }

    /// The nodes whose replicas of a shard are read for an index.
    pub fn whole(&self, index: &str, shard: Shard) -> impl Iterator<Item = &NodeName> {
        self.active(shard).filter(move |node| self.stale.get(index, node, shard).is_none())
    }

    /// The nodes that receive a shard's writes to an index: those with active replicas that miss nothing of it, and those with
    /// old copies that may still be read.
    pub fn writers(&self, index: &str, shard: Shard) -> impl Iterator<Item = &NodeName> {
        let written = self.of(shard).iter().filter(|replica| replica.is_written());
        let written = written.map(|replica| &replica.node);
        written.filter(move |node| self.stale.get(index, node, shard).is_none())
    }

    /// Whether each index can be read in a shard from nodes for which the condition holds.
    #[must_use]
    pub fn is_readable(&self, shard: Shard, is_up: impl Fn(&NodeName) -> bool) -> bool {
        self.active(shard).any(&is_up)
            && self.stale.by_index.keys().all(|index| self.whole(index, shard).any(&is_up))
    }

    /// Notes that a replica missed a write to an index: it is neither read nor written for this index. The last replica of the
    /// shard that misses nothing of the index stays as it is: an incomplete copy is better than none. An old copy is not written
    /// any more. Returns whether the replica is stale in the index, or not written any more.
    ///
    /// Where too many replicas are stale in single indexes already, it is stale as a whole.
    pub fn mark_missed(&mut self, index: &str, shard: Shard, node: &str, missed: Missed) -> bool {
        if self.stale.get(index, node, shard).is_none() {
            let is_last = self.whole(index, shard).all(|other| *other == *node);
            match self.replica_mut(shard, node) {
                Some(replica) if replica.is_active() && !is_last => {}
                Some(Replica { state: ReplicaState::Leaving { written: written @ true, .. }, .. }) => {
                    *written = false;
                    return true;
                }
                _ => return false,
            }
            if self.stale.count() >= MOST_STALE_IN_INDEXES && !self.is_last(shard, node) {
                return self.mark_stale(shard, node);
            }
        }
        self.stale.insert(index, node, shard, missed);
        true
    }

    /// Marks a replica as stale in all indexes of the catalogue of which another replica of the shard has everything. Returns whether
    /// the state changed.
    pub(super) fn mark_stale_where_others_are_whole(&mut self, shard: Shard, node: &str) -> bool {
        let stands_in = |index: &&String| self.whole(index, shard).any(|other| *other != *node);
        let is_new = |index: &&String| self.stale.get(index, node, shard) != Some(Missed::Anything);
        let indexes: Vec<String> = self.indexes.keys().filter(stands_in).filter(is_new).cloned().collect();
        for index in &indexes {
            self.stale.insert(index, node, shard, Missed::Anything);
        }
        !indexes.is_empty()
    }

    /// Marks a replica that has got what it missed of an index. It is read and written for the index from now on.
    pub fn mark_whole(&mut self, index: &str, shard: Shard, node: &str) {
        self.stale.remove(index, node, shard);
        self.release(shard);
    }

    /// Whether no other replica of a shard, or not all indexes, could be read without this node.
    pub(super) fn is_last(&self, shard: Shard, node: &str) -> bool {
        !self.is_readable(shard, |other| *other != *node)
    }

    /// The indexes may be swapped or renamed from now on, so that any of these names may soon mean the documents of another: a
    /// replica that misses something of one index misses it of all of them.
    ///
    /// # Errors
    /// A name of which no replica of this shard would be left: nothing has changed.
    pub fn spread_stale(&mut self, indexes: &BTreeSet<&str>) -> Result<(), (String, Shard)> {
        let found = self.stale.iter().filter(|(index, ..)| indexes.contains(index));
        let found: BTreeSet<(NodeName, Shard)> =
            found.map(|(_, node, shard, _)| (node.clone(), shard)).collect();
        let mut spread = self.clone();
        for (node, shard) in found {
            for index in indexes {
                if !spread.mark_missed(index, shard, &node, Missed::Anything) {
                    return Err(((*index).to_owned(), shard));
                }
            }
        }
        self.stale = spread.stale;
        Ok(())
    }

    /// How many shards have no active replica on these nodes that misses nothing of any of these indexes; of all indexes if none are
    /// named.
    #[must_use]
    pub fn out_of_reach(&self, indexes: Option<&BTreeSet<String>>, nodes: &BTreeSet<NodeName>) -> usize {
        let is_reached = |shard: &Shard| self.holders(indexes, *shard).any(|node| nodes.contains(node));
        self.shards().filter(|shard| !is_reached(shard)).count()
    }

    /// The nodes with an active replica that misses nothing of any of these indexes, of those shards of which none of `nodes` has one.
    #[must_use]
    pub fn only_holders(&self, indexes: &BTreeSet<String>, nodes: &BTreeSet<NodeName>) -> BTreeSet<NodeName> {
        let holders = |shard| self.holders(Some(indexes), shard);
        let unreached = self.shards().filter(|shard| !holders(*shard).any(|node| nodes.contains(node)));
        unreached.flat_map(holders).cloned().collect()
    }

    /// The nodes with an active replica of a shard that misses nothing of any of these indexes; of all indexes if none are named.
    fn holders(&self, indexes: Option<&BTreeSet<String>>, shard: Shard) -> impl Iterator<Item = &NodeName> {
        let is_whole = move |node: &&NodeName| match indexes {
            Some(indexes) => indexes.iter().all(|index| self.stale.get(index, node, shard).is_none()),
            None => !self.stale.has(node, shard),
        };
        self.active(shard).filter(is_whole)
    }

    /// What follows from any change of the state.
    pub fn follow(&mut self, before: &Self) {
        self.forget_strangers();
        self.follow_catalogue(before);
        self.read_others_than_behind();
    }

    /// Has nodes that are behind not read any more where others stand in by now: these have become whole, or the index is new.
    pub(super) fn read_others_than_behind(&mut self) {
        self.behind.clone().iter().for_each(|node| self.mark_behind(node));
    }

    /// Forgets what is said of nodes that are no members: whoever still examined a node when it left may say something of it.
    fn forget_strangers(&mut self) {
        let Self { nodes, behind, replicas, stale, .. } = self;
        let is_member = |name: &NodeName| nodes.iter().any(|member| member.config.name == *name);
        behind.retain(is_member);
        replicas.iter_mut().for_each(|replicas| replicas.retain(|replica| is_member(&replica.node)));
        if stale.iter().any(|(_, node, ..)| !is_member(node)) {
            stale.retain(|_, node, _| is_member(node));
        }
    }

    /// Follows changes of the catalogue. What replicas miss of an index that has left it is forgotten: nobody has anything of it any more,
    /// and a node that has not deleted it is behind. A name that is not in the catalogue yet, because an index is being renamed to it,
    /// stays.
    pub(super) fn follow_catalogue(&mut self, before: &Self) {
        if !self.stale.is_empty() {
            let is_gone =
                |index: &str| before.indexes.contains_key(index) && !self.indexes.contains_key(index);
            self.stale.retain(|index, _, _| !is_gone(index));
        }
    }

    /// Where only this node's replica has everything of an index, another one takes its place: best that of a node that is not behind, and one
    /// of which it is known what it misses. The others get what that one has.
    pub(super) fn read_without(&mut self, node: &str) {
        let is_alone = |index: &str, shard| self.whole(index, shard).all(|whole| *whole == *node);
        let alone = self.stale.iter().filter(|(index, _, shard, _)| is_alone(index, *shard));
        let alone: BTreeSet<(String, Shard)> =
            alone.map(|(index, _, shard, _)| (index.to_owned(), shard)).collect();
        for (index, shard) in alone {
            let others = self.stale.of(&index, shard).filter(|(other, _)| **other != *node);
            let order = |(other, missed): &(&NodeName, Missed)| (self.behind.contains(*other), *missed);
            let Some(kept) = others.min_by_key(order).map(|(other, _)| other.clone()) else { continue };
            self.stale.remove(&index, &kept, shard);
            let left: Vec<NodeName> = self.stale.of(&index, shard).map(|(other, _)| other.clone()).collect();
            for other in left {
                self.stale.insert(&index, &other, shard, Missed::Anything);
            }
        }
    }

    /// If no replica of a shard is left that has everything of an index, what the others have is all that there is: it counts as
    /// everything.
    pub fn accept_what_is_left(&mut self) {
        let state = self.clone();
        self.stale.retain(|index, _, shard| state.whole(index, shard).next().is_some());
    }
}
