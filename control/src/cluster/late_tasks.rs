//! How far nodes' tasks have been examined, and what is known of requests that a node may still take.

use crate::{
    base::time::Instant,
    domain::task_mark::{TaskMark, TaskPosition},
};
use miroir_core::node_name::NodeName;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use uuid::Uuid;

/// What is known of tasks that nodes may take late.
#[derive(Debug, Default)]
pub struct LateTasks {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By node: how far its tasks have been examined.
    tails: BTreeMap<NodeName, Arc<tokio::sync::Mutex<Tail>>>,
    /// By node and request: copies that the node may take or has taken, with its task of those that it has answered.
    copies: BTreeMap<(NodeName, Uuid), Option<u32>>,
    /// By node: how many late tasks were seen.
    seen: BTreeMap<NodeName, u64>,
}

/// How far a node's tasks have been examined.
#[derive(Debug, Default)]
pub(crate) struct Tail {
    /// Whether the position was read from the ledger.
    pub(crate) is_loaded: bool,
    /// Whether the list of tasks is a new one to the control plane: then only tasks of open writes count in it.
    pub(crate) is_new: bool,
    pub(crate) position: TaskPosition,
    /// Tasks of writes that are not decided, and of copies that are not answered.
    pub(crate) open: Vec<MarkedTask>,
    /// Late tasks of which it is not known yet whether they are cancelled, or what they have changed.
    pub(crate) unsettled: Vec<MarkedTask>,
    /// The position that the ledger has, and since when.
    pub(crate) stored: Option<(TaskPosition, Instant)>,
}

impl Tail {
    /// The position to continue from after a restart: not behind any task that is not judged.
    pub(crate) fn settled(&self) -> TaskPosition {
        let unjudged = self.open.iter().chain(&self.unsettled).map(|task| task.node_task).min();
        let next = unjudged.map_or(self.position.next, |uid| uid.min(self.position.next));
        TaskPosition { next, anchor: self.position.anchor.clone() }
    }
}

/// A node's task that carries a mark of the cluster's.
#[derive(Clone, Debug)]
pub(crate) struct MarkedTask {
    /// The node's uid of it.
    pub(crate) node_task: u32,
    pub(crate) mark: TaskMark,
    /// The index that it writes to.
    pub(crate) index: Option<String>,
}

impl LateTasks {
    /// A node's tail.
    pub(crate) fn tail(&self, node: &NodeName) -> Arc<tokio::sync::Mutex<Tail>> {
        self.state().tails.entry(node.clone()).or_default().clone()
    }

    /// Notes that a copy is sent to a node.
    pub(crate) fn copying(&self, node: &NodeName, request: Uuid) -> CopyUnderWay<'_> {
        self.state().copies.insert((node.clone(), request), None);
        CopyUnderWay { late_tasks: self, key: (node.clone(), request) }
    }

    /// What is known of a copy: nothing where it was given up, or is from before a restart; its task once the node has answered.
    pub(crate) fn copy(&self, node: &NodeName, request: Uuid) -> Option<Option<u32>> {
        self.state().copies.get(&(node.clone(), request)).copied()
    }

    /// Forgets copies whose tasks were seen.
    pub(crate) fn copied(&self, node: &NodeName, requests: &[Uuid]) {
        let mut state = self.state();
        for request in requests {
            state.copies.remove(&(node.clone(), *request));
        }
    }

    /// Notes that a late task was seen on a node.
    pub(crate) fn note_seen(&self, node: &NodeName) {
        *self.state().seen.entry(node.clone()).or_default() += 1;
    }

    /// How many late tasks were seen on a node since the start.
    #[must_use]
    pub fn seen(&self, node: &NodeName) -> u64 {
        self.state().seen.get(node).copied().unwrap_or(0)
    }

    /// Forgets a node that has left the cluster.
    pub fn forget(&self, node: &NodeName) {
        let mut state = self.state();
        state.tails.remove(node);
        state.copies.retain(|(name, _), _| name != node);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A copy that the node has not answered. If this is dropped before, a task of it is a late one.
#[derive(Debug)]
pub(crate) struct CopyUnderWay<'a> {
    late_tasks: &'a LateTasks,
    key: (NodeName, Uuid),
}

impl CopyUnderWay<'_> {
    /// The node has answered: with this task, or without one.
    pub(crate) fn answered(self, node_task: Option<u32>) {
        if let (Some(copy), Some(_)) = (self.late_tasks.state().copies.get_mut(&self.key), node_task) {
            *copy = node_task;
        }
    }
}

impl Drop for CopyUnderWay<'_> {
    fn drop(&mut self) {
        let mut state = self.late_tasks.state();
        if state.copies.get(&self.key) == Some(&None) {
            state.copies.remove(&self.key);
        }
    }
}
