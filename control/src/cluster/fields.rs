//! Which fields indexes have, and which registrations of fields are under way.

use crate::domain::intent::NodeTask;
use miroir_core::documents::MAX_FIELDS;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The most bytes that the names of an index's fields may have together: a node that joins is told all of them at once.
const MAX_BYTES: usize = 16 << 20;

/// The fields of one index, in the order in which nodes have taken them up.
#[derive(Clone, Debug, Default)]
pub struct Known {
    pub(crate) names: Vec<Arc<str>>,
    all: HashSet<Arc<str>>,
    bytes: usize,
}

impl Known {
    /// These, each once.
    #[must_use]
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let mut known = Self::default();
        known.add(names);
        known
    }

    /// In their order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.names.iter().map(ToString::to_string).collect()
    }

    /// Whether none is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Those of these that are not known yet.
    #[must_use]
    pub fn unknown<'a>(&self, names: impl IntoIterator<Item = &'a String>) -> Vec<String> {
        let mut seen = HashSet::new();
        let names = names.into_iter();
        names.filter(|name| !self.all.contains(name.as_str()) && seen.insert(*name)).cloned().collect()
    }

    /// Whether an index could not have these too, or nodes that join could not be told them.
    #[must_use]
    pub fn would_be_too_many(&self, unknown: &[String]) -> bool {
        let bytes: usize = unknown.iter().map(String::len).sum();
        // The tag is one more.
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

/// The fields of the indexes that were written lately.
#[derive(Debug, Default)]
pub struct Fields {
    cache: Mutex<Cache>,
    /// By index and node, the newest registration that has not ended: nodes end those of one index in their order.
    registrations: Mutex<HashMap<String, BTreeMap<String, NodeTask>>>,
}

#[derive(Debug, Default)]
pub(crate) struct Cache {
    pub(crate) known: HashMap<String, Arc<Known>>,
    /// How often something was forgotten: what was read before that may be of another index.
    pub(crate) forgotten: u64,
}

impl Fields {
    pub(crate) fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn registrations(&self) -> MutexGuard<'_, HashMap<String, BTreeMap<String, NodeTask>>> {
        self.registrations.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The ledger is to be read again: the index is another one.
    pub fn forget(&self, index: &str) {
        let mut cache = self.cache();
        cache.known.remove(index);
        cache.forgotten += 1;
        drop(cache);
        self.registrations().remove(index);
    }

    /// The registrations that a write to an index has to wait for, whichever write they were made for.
    #[must_use]
    pub fn under_way(&self, index: &str) -> Vec<NodeTask> {
        self.registrations().get(index).into_iter().flat_map(BTreeMap::values).cloned().collect()
    }

    /// Nodes have taken these.
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

    /// A task is through with these tasks of nodes: they have ended, or are not waited for any more.
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
            node: node.to_owned(),
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
