//! Replicas that lack a write leave the read set of its index, as far as complete ones stand in.

use super::{ClusterState, Missed, Replica, ReplicaState};
use crate::domain::verdict::Outcome;
use miroir_core::{node_name::NodeName, shard::Shard};
use std::collections::{BTreeMap, BTreeSet};

/// What a node has told of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It has taken it.
    Taken,
    /// It has not taken it.
    NotTaken,
    /// Nothing: it may have taken it.
    Nothing,
}

impl ClusterState {
    /// Takes the replicas of a shard out of the read set of an index that lack a write to it, where complete ones stand in: others that
    /// are read for the index, or an old copy that is still written and becomes active again. Returns `false`, and changes nothing,
    /// where no complete replica would be left.
    ///
    /// `lacks` holds for every replica that may lack the write. All others have it, unless they are stale in the index already: they
    /// took it, or were copied afterwards. `missed` is what those that lack it miss.
    pub fn withdraw(
        &mut self,
        index: &str,
        shard: Shard,
        lacks: impl Fn(&str) -> bool,
        missed: Missed,
    ) -> bool {
        if self.whole(index, shard).all(|node| lacks(node)) {
            let Some(replicas) = self.replicas.get_mut(usize::from(shard.0)) else { return false };
            let has_it = |replica: &&mut Replica| {
                replica.is_written() && !replica.is_active() && !lacks(&replica.node)
            };
            let mut whole = replicas.iter_mut().filter(has_it).peekable();
            if whole.peek().is_none() {
                return false;
            }
            whole.for_each(|replica| replica.state = ReplicaState::Active);
        }
        let lacking = self.of(shard).iter().filter(|replica| lacks(&replica.node));
        let lacking: Vec<NodeName> = lacking.map(|replica| replica.node.clone()).collect();
        for node in lacking {
            self.mark_missed(index, shard, &node, missed);
        }
        true
    }

    /// Like [`Self::withdraw`]. Where no complete replica would be left, one of those that are read for the index stays, and all get what it
    /// has: some of them may have the write, and others not.
    pub fn withdraw_or_keep_one(
        &mut self,
        index: &str,
        shard: Shard,
        lacks: impl Fn(&str) -> bool,
        missed: Missed,
    ) -> bool {
        if self.withdraw(index, shard, lacks, missed) {
            return true;
        }
        let others: Vec<NodeName> = self.whole(index, shard).skip(1).cloned().collect();
        for node in others {
            self.mark_missed(index, shard, &node, missed);
        }
        false
    }

    /// Marks a node as behind that has lost its disk. Where it has the last active replica of a shard, or the last one that has everything
    /// of an index, the copy of another node takes its place, best of one that is not behind: it may lack some writes, and the lost disk
    /// has nothing any more.
    pub fn lose_disk(&mut self, node: &str) {
        for replicas in &mut self.replicas {
            if replicas.iter().any(|replica| replica.is_active() && replica.node != node) {
                continue;
            }
            let others = replicas
                .iter_mut()
                .filter(|replica| replica.node != node && replica.state != ReplicaState::Removing);
            if let Some(kept) = others.min_by_key(|replica| self.behind.contains(&replica.node)) {
                kept.state = ReplicaState::Active;
            }
        }
        self.read_without(node);
        self.mark_behind(node);
    }

    /// Applies the decision on a write to an index: the replicas that missed it leave the index's read set. `writers` are the nodes that it
    /// was sent to, and `silent` those of them that may take it without having said so; `missed` is what replicas of a shard miss
    /// that lack it. Returns the shards of which no replica has it that is read from now on: those are not written.
    pub fn commit(
        &mut self,
        index: &str,
        writers: &BTreeMap<Shard, Vec<NodeName>>,
        took: impl Fn(&str) -> bool,
        silent: &BTreeSet<NodeName>,
        missed: impl Fn(Shard) -> Missed,
    ) -> BTreeSet<Shard> {
        let mut lost = BTreeSet::new();
        for (shard, writers) in writers {
            let (shard, missed) = (*shard, missed(*shard));
            let is_taken = writers.iter().any(|node| took(node));
            if is_taken && self.withdraw(index, shard, |node| !took(node), missed) {
                continue;
            }
            lost.insert(shard);
            // What stays is a replica without the write. Those that have it, or may, get what that one has.
            self.withdraw_or_keep_one(index, shard, |node| silent.contains(node) || took(node), missed);
        }
        lost
    }

    /// Whether nobody knows of some shard whether a write to it is done: each replica that is read may have it, and has not told, and no
    /// node that still gets its writes has told that it has.
    pub fn depends_on(
        &self,
        index: &str,
        writers: &BTreeMap<Shard, Vec<NodeName>>,
        told: impl Fn(&NodeName) -> Told,
    ) -> bool {
        writers.iter().any(|(shard, writers)| {
            let stays = |node: &&NodeName| writers.contains(*node);
            let is_taken = self.writers(index, *shard).filter(stays).any(|node| told(node) == Told::Taken);
            let mut whole = self.whole(index, *shard).peekable();
            !is_taken && whole.peek().is_some() && whole.all(|node| told(node) == Told::Nothing)
        })
    }

    /// Applies the end of a write to an index on nodes: the replicas that ended it differently from the others of their shard leave the
    /// index's read set. Returns the shards in which only replicas have done it that are not read any more.
    pub fn end_write(
        &mut self,
        index: &str,
        over: &Outcome,
        missed: impl Fn(Shard) -> Missed,
    ) -> BTreeSet<Shard> {
        let differing: BTreeSet<Shard> = over.stale.iter().map(|(shard, _)| *shard).collect();
        let is_lost = |shard: &Shard| {
            let lacks = |node: &str| over.stale.contains(&(*shard, node.into()));
            let keeps = self.withdraw_or_keep_one(index, *shard, lacks, missed(*shard));
            !keeps && over.written.contains(shard)
        };
        differing.into_iter().filter(is_lost).collect()
    }

    /// Takes a node's replica of a shard out of the read set of an index, since the node took something that the other replicas did
    /// not. Where it has no replica, the documents that it got are deleted. Returns `false`, and changes nothing, where no other
    /// replica stands in.
    pub fn distrust(&mut self, index: &str, shard: Shard, node: &str) -> bool {
        match self.replica(shard, node) {
            Some(replica) if replica.is_written() => {
                self.withdraw(index, shard, |name| name == node, Missed::Anything)
            }
            Some(_) => true,
            None => {
                self.mark_misplaced(shard, node);
                true
            }
        }
    }
}

#[cfg(test)]
mod interleavings;
#[cfg(test)]
mod tests;
