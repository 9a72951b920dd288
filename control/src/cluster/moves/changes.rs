//! When each replica has changed last: whoever works on one for long can tell whether it is still what it was.

use miroir_core::{node_name::NodeName, shard::Shard};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// For how many indexes of a replica it is known when what it misses of them has changed. Beyond, the replica counts as changed as a
/// whole.
const MOST_INDEXES: usize = 64;

/// The last changes of each replica since the start, as numbers that grow. A state alone does not tell: a replica that missed a write
/// while it was copied from, and is complete again at the end, has given a copy without that write.
#[derive(Debug, Default)]
pub struct ReplicaChanges(Mutex<Changes>);

#[derive(Debug, Default)]
struct Changes {
    newest: u64,
    replicas: BTreeMap<(Shard, NodeName), LastChanges>,
}

#[derive(Debug, Default)]
struct LastChanges {
    as_a_whole: u64,
    /// Of what it misses of single indexes.
    in_indexes: BTreeMap<String, u64>,
}

impl ReplicaChanges {
    /// The number of the newest change of any replica.
    #[must_use]
    pub fn newest(&self) -> u64 {
        self.changes().newest
    }

    /// The number of the last change of a replica, as far as it concerns an index, or any index.
    #[must_use]
    pub fn last(&self, shard: Shard, node: &NodeName, index: Option<&str>) -> u64 {
        let changes = self.changes();
        let Some(last) = changes.replicas.get(&(shard, node.clone())) else { return 0 };
        let in_index = match index {
            Some(index) => last.in_indexes.get(index).copied(),
            None => last.in_indexes.values().max().copied(),
        };
        last.as_a_whole.max(in_index.unwrap_or(0))
    }

    /// Notes that a replica changes: what it misses of an index, or its state. It must be noted before anybody sees the new state.
    pub(crate) fn changes_now(&self, shard: Shard, node: &NodeName, index: Option<&str>) {
        let mut changes = self.changes();
        changes.newest += 1;
        let newest = changes.newest;
        let last = changes.replicas.entry((shard, node.clone())).or_default();
        match index {
            Some(index) if last.in_indexes.len() < MOST_INDEXES || last.in_indexes.contains_key(index) => {
                last.in_indexes.insert(index.to_owned(), newest);
            }
            _ => *last = LastChanges { as_a_whole: newest, ..LastChanges::default() },
        }
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_concerns_one_index_or_all() {
        let changes = ReplicaChanges::default();
        let (shard, node) = (Shard(1), NodeName::from("a"));
        let last = |index| changes.last(shard, &node, index);
        let begun = changes.newest();
        changes.changes_now(shard, &node, Some("written"));
        assert!(last(Some("written")) > begun && last(None) > begun);
        assert_eq!((last(Some("at-rest")), changes.last(Shard(2), &node, None)), (0, 0));
        assert_eq!(changes.last(shard, &"b".into(), None), 0);
        let begun = changes.newest();
        assert!(last(Some("written")) <= begun && last(None) <= begun);
        changes.changes_now(shard, &node, None);
        assert!(last(Some("written")) > begun && last(Some("at-rest")) > begun);
    }

    #[test]
    fn with_many_indexes_a_change_concerns_all() {
        let changes = ReplicaChanges::default();
        let (shard, node) = (Shard(1), NodeName::from("a"));
        let note = |number: usize| changes.changes_now(shard, &node, Some(&format!("index-{number}")));
        (0..MOST_INDEXES).for_each(note);
        let begun = changes.newest();
        note(0);
        assert!(changes.last(shard, &node, Some("index-1")) <= begun, "there was room");
        note(MOST_INDEXES);
        assert!(changes.last(shard, &node, Some("index-1")) > begun);
        assert!(changes.changes().replicas.values().all(|last| last.in_indexes.is_empty()));
    }
}
