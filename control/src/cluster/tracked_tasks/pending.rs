//! What is known of one tracked task.

use crate::{
    cluster::{locks::LockGuard, missed::WrittenIds},
    domain::{
        intent::Effect,
        task::TaskKind,
        verdict::{OutcomeRule, TrackedNodeTask},
    },
    ledger::tasks::{Ending, Task},
};
use miroir_core::node_name::NodeName;
use std::collections::BTreeSet;

/// A tracked task, and what is known of it.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) task: Task,
    /// The names that the task's index got afterwards, by swaps and renames.
    pub(crate) other_names: BTreeSet<String>,
    pub(crate) parts: Vec<TrackedNodeTask>,
    pub(crate) effect: Effect,
    pub(crate) indexed: Option<u64>,
    pub(crate) written: WrittenIds,
    pub(crate) guard: Option<LockGuard>,
    /// Whether nodes may have processed it while the control plane was down.
    pub(crate) is_restored: bool,
    /// How the task ends, once its outcome has been applied to the catalogue and the replicas. Nodes decide nothing any more.
    pub(crate) ending: Option<Ending>,
    /// The roll back of nodes that applied what another node refused.
    pub(crate) roll_back: RollBack,
    /// Where it moves indexes: what is done about nodes that have not moved them.
    pub(crate) moving: Moving,
    /// The registration, on all nodes, of the fields that the task brought.
    pub(crate) completing: FieldCompletion,
}

/// The state of a task that waits until nodes have moved indexes.
#[derive(Debug, Default)]
pub(crate) struct Moving {
    /// Whether it waits.
    pub(crate) waits: bool,
    /// The nodes that are being told to move them.
    pub(crate) told: BTreeSet<NodeName>,
}

/// The state of rolling nodes back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum RollBack {
    /// No node is known to need a roll back.
    #[default]
    Nothing,
    /// Nodes are being rolled back.
    UnderWay,
    /// Nodes have been rolled back.
    Done(RolledBack),
}

/// What rolling nodes back has left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RolledBack {
    /// The nodes that could not be rolled back.
    pub(crate) behind: BTreeSet<NodeName>,
    /// The nodes whose documents may not be as they were.
    pub(crate) rewritten: BTreeSet<NodeName>,
}

impl Pending {
    /// Which outcome counts if nodes end the task differently.
    pub(crate) fn decides(&self) -> OutcomeRule {
        match &self.effect {
            Effect::Settings { .. } | Effect::UpdateIndex { .. } => OutcomeRule::Refusal,
            _ if self.task.kind == TaskKind::IndexDeletion => OutcomeRule::Deletion,
            _ => OutcomeRule::Best,
        }
    }

    /// The names under which nodes may have the documents of the task's index.
    pub(crate) fn index_names(&self) -> impl Iterator<Item = &str> {
        self.task.index.iter().chain(&self.other_names).map(String::as_str)
    }

    /// The indexes that the task concerns.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.task.index.as_deref().into_iter().chain(self.effect.names())
    }
}

/// The state of registering, on all nodes, the fields that a task brought.
#[derive(Debug, Default)]
pub(crate) struct FieldCompletion {
    pub(crate) is_under_way: bool,
    pub(crate) attempts: u8,
    /// The number of failed registrations that have been handled.
    pub(crate) seen: usize,
}
