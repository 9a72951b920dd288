//! Cache of the fields of indexes, and the registrations of fields that are under way.

use crate::domain::intent::NodeTask;
use miroir_core::{documents::MAX_FIELDS, node_name::NodeName};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Maximum size of all field names of an index, in bytes: a node that joins gets all of them in one request.
const MAX_BYTES: usize = 16 << 20;

/// The known fields of one index, in the order in which nodes have registered them.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub(crate) names: Vec<Arc<str>>,
    all: BTreeSet<Arc<str>>,
    bytes: usize,
}

impl Known {
    /// The given fields, without duplicates.
    #[must_use]
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let mut known = Self::default();
        known.add(names);
        known
    }

    /// The fields in their order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.names.iter().map(ToString::to_string).collect()
    }

    /// Whether no field is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Those of `names` that are not known yet, without duplicates.
    #[must_use]
    pub fn unknown<'a>(&self, names: impl IntoIterator<Item = &'a String>) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let names = names.into_iter();
        names.filter(|name| !self.all.contains(name.as_str()) && seen.insert(*name)).cloned().collect()
    }

    /// Whether these fields would exceed what an index can have, or what a node that joins can be sent.
    #[must_use]
    pub fn would_be_too_many(&self, unknown: &[String]) -> bool {
        let bytes: usize = unknown.iter().map(String::len).sum();
        // The shard tag is one field more.
        self.names.len() + unknown.len() >= MAX_FIELDS || self.bytes + bytes > MAX_BYTES
    }

    pub(crate) fn add(&mut self, names: impl IntoIterator<Item = String>) {
        for name in names.into_iter().map(Arc::<str>::from) {
            if self.all.insert(name.clone()) {
                self.bytes += name.len();
                self.names.push(name);
            }
        }
    }
}

/// The fields of the indexes that were written recently.
#[derive(Debug, Default)]
pub struct Fields {
    cache: Mutex<Cache>,
    /// By index and node, the newest registration that has not ended. A node processes the registrations of one index in order,
    /// so the newest one ends last.
    registrations: Mutex<BTreeMap<String, BTreeMap<NodeName, NodeTask>>>,
}

#[derive(Debug, Default)]
pub(crate) struct Cache {
    pub(crate) known: BTreeMap<String, Arc<Known>>,
    /// How often an index was forgotten. If this has changed since a read of the ledger, the result may belong to another index
    /// and is not cached.
    pub(crate) forgotten: u64,
}

impl Fields {
    pub(crate) fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn registrations(&self) -> MutexGuard<'_, BTreeMap<String, BTreeMap<NodeName, NodeTask>>> {
        self.registrations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets an index that was deleted, renamed or swapped: its fields are read from the ledger again.
    pub fn forget(&self, index: &str) {
        let mut cache = self.cache();
        cache.known.remove(index);
        cache.forgotten += 1;
        drop(cache);
        self.registrations().remove(index);
    }

    /// The registrations that a write to the index must wait for, including those that other writes started.
    #[must_use]
    pub fn under_way(&self, index: &str) -> Vec<NodeTask> {
        self.registrations().get(index).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    /// Notes registrations that nodes have enqueued.
    pub fn registering(&self, index: &str, tasks: &[NodeTask]) {
        for task in tasks {
            let mut registrations = self.registrations();
            let of_index = registrations.entry(index.to_owned()).or_default();
            let newest = of_index.entry(task.node.clone()).or_insert_with(|| task.clone());
            if newest.node_task < task.node_task {
                *newest = task.clone();
            }
        }
    }

    /// Removes the registrations for which `is_over` is true: they have ended, or nothing waits for them any more.
    pub fn ended(&self, index: &str, mut is_over: impl FnMut(&str, u32) -> bool) {
        let mut registrations = self.registrations();
        if let Some(of_index) = registrations.get_mut(index) {
            of_index.retain(|node, task| !is_over(node, task.node_task));
            if of_index.is_empty() {
                registrations.remove(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn fields_are_known_once() {
        let known = Known::new(names(&["a", "b", "a"]));
        assert_eq!(known.names(), names(&["a", "b"]));
        assert_eq!(known.unknown(&names(&["c", "b", "c", "d"])), names(&["c", "d"]));
        assert!(!known.would_be_too_many(&names(&["c"])));
        let many: Vec<String> = (0..MAX_FIELDS - 2).map(|n| n.to_string()).collect();
        assert!(known.would_be_too_many(&many));
        assert!(known.would_be_too_many(&["x".repeat(MAX_BYTES)]));
    }

    #[test]
    fn the_newest_registration_of_a_node_stands_for_those_before_it() {
        let task = |node: &str, node_task| NodeTask {
            node: node.into(),
            node_task,
            main: false,
            shards: Vec::new(),
        };
        let fields = Fields::default();
        fields.registering("i", &[task("a", 3), task("b", 9), task("a", 5), task("a", 4)]);
        assert_eq!(fields.under_way("i"), [task("a", 5), task("b", 9)]);
        fields.ended("i", |node, uid| (node, uid) == ("a", 3) || node == "b");
        assert_eq!(fields.under_way("i"), [task("a", 5)]);
        fields.ended("i", |_, _| true);
        assert!(fields.under_way("i").is_empty() && fields.registrations().is_empty());
    }
}
