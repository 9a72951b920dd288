//! Tasks that nodes have not ended, and how far each is.

use crate::{
    cluster::locks::LockGuard,
    domain::{
        intent::{Effect, NodeTask},
        task::TaskKind,
        verdict::{Decides, Part, State},
    },
    ledger::tasks::Task,
};
use miroir_core::shard::Shard;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, watch};

/// Kinds of tasks that change all nodes alike.
const EVERYWHERE: [TaskKind; 5] = [
    TaskKind::IndexCreation,
    TaskKind::IndexDeletion,
    TaskKind::IndexUpdate,
    TaskKind::IndexSwap,
    TaskKind::SettingsUpdate,
];

/// A task to be settled.
#[derive(Debug)]
pub struct Unsettled {
    /// As the ledger has it.
    pub task: Task,
    /// What nodes call it.
    pub node_tasks: Vec<NodeTask>,
    /// What the catalogue learns when it has succeeded.
    pub effect: Effect,
    /// How many documents are indexed when it has succeeded, for an addition.
    pub indexed: Option<u64>,
    /// Held until it has ended, where others must not go on before.
    pub guard: Option<LockGuard>,
}

#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) task: Task,
    pub(crate) parts: Vec<Part>,
    pub(crate) effect: Effect,
    pub(crate) indexed: Option<u64>,
    pub(crate) guard: Option<LockGuard>,
    /// The catalogue and the replicas are what the task's end makes of them.
    pub(crate) is_applied: bool,
    /// Nodes that have taken what another one refuses.
    pub(crate) set_back: SetBack,
    /// What nodes are to know of each other's fields.
    pub(crate) completing: Completing,
}

/// Nodes that are to be as before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum SetBack {
    /// There are none, as far as is known.
    #[default]
    Nothing,
    /// They are being set back.
    UnderWay,
    /// They are as before, but for these.
    Done(BTreeSet<String>),
}

impl Pending {
    /// Which end is the truth, where nodes end it differently.
    pub(crate) fn decides(&self) -> Decides {
        match &self.effect {
            Effect::Settings { .. } | Effect::UpdateIndex { .. } => Decides::Refusal,
            _ if self.task.kind == TaskKind::IndexDeletion => Decides::Deletion,
            _ => Decides::Best,
        }
    }

    /// The indexes that it concerns.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.task.index.as_deref().into_iter().chain(self.effect.names())
    }
}

/// Tasks that nodes have not ended.
#[derive(Debug)]
pub struct Settler {
    pub(crate) pending: Mutex<BTreeMap<u32, Pending>>,
    pub(crate) wake: Notify,
    pub(crate) rounds: watch::Sender<u64>,
}

impl Default for Settler {
    fn default() -> Self {
        Self { pending: Mutex::default(), wake: Notify::new(), rounds: watch::Sender::new(0) }
    }
}

impl Settler {
    /// Adds a task.
    pub fn add(&self, unsettled: Unsettled) {
        let Unsettled { task, node_tasks, effect, indexed, guard } = unsettled;
        let parts = node_tasks.into_iter().map(Part::of).collect();
        let pending = Pending {
            task,
            parts,
            effect,
            indexed,
            guard,
            is_applied: false,
            set_back: SetBack::Nothing,
            completing: Completing::default(),
        };
        self.pending().insert(pending.task.uid, pending);
        self.wake.notify_one();
    }

    /// A task is over only once these are too.
    pub(crate) fn wait_for(&self, uid: u32, node_tasks: Vec<NodeTask>) {
        if let Some(pending) = self.pending().get_mut(&uid) {
            pending.parts.extend(node_tasks.into_iter().map(Part::of));
        }
        self.wake.notify_one();
    }

    /// Something has changed that tasks may wait for.
    pub fn notice(&self) {
        self.wake.notify_one();
    }

    /// Whether a task has to wait for an earlier one of its index, which nodes are to be set back from: one node ends them in order.
    pub(crate) fn waits_for_set_back(&self, uid: u32) -> bool {
        let all = self.pending();
        let Some(this) = all.get(&uid) else { return false };
        let names: BTreeSet<&str> = this.names().collect();
        let is_before = |pending: &Pending| {
            pending.set_back != SetBack::Nothing && pending.names().any(|name| names.contains(name))
        };
        // Whoever holds locks is waited for itself.
        this.guard.is_none() && all.range(..uid).any(|(_, pending)| is_before(pending))
    }

    /// Changes of an index's settings that have not ended, and that no node has refused.
    pub fn changes_of(&self, index: &str) -> Vec<Option<Value>> {
        self.other_changes(u32::MAX, index)
    }

    /// The same without the task of this uid.
    pub(crate) fn other_changes(&self, uid: u32, of: &str) -> Vec<Option<Value>> {
        let pending = self.pending();
        let others = pending.iter().filter(|(other, pending)| {
            let is_refused = pending.parts.iter().any(|part| part.seen.state == State::Failed);
            **other != uid && !is_refused
        });
        let change = |(_, pending): (_, &Pending)| match &pending.effect {
            Effect::Settings { index, change, .. } if index == of => Some(change.clone()),
            _ => None,
        };
        others.filter_map(change).collect()
    }

    /// Indexes have changed their names: what came before that is of the same indexes as before.
    pub(crate) fn renamed(&self, by: u32, moves: &[(String, String, bool)]) {
        for (_, pending) in self.pending().range_mut(..by) {
            if let Effect::Settings { index, .. } = &mut pending.effect {
                for (from, to, comes_back) in moves {
                    if *index == *from {
                        index.clone_from(to);
                    } else if *index == *to && *comes_back {
                        index.clone_from(from);
                    }
                }
            }
        }
    }

    pub(crate) fn kind(&self, uid: u32) -> Option<TaskKind> {
        self.pending().get(&uid).map(|pending| pending.task.kind)
    }

    /// What pending tasks will do to the catalogue, oldest first: of those that `choose` wants.
    pub fn effects<T>(&self, choose: impl FnMut(&Effect) -> Option<T>) -> Vec<T> {
        self.pending().values().map(|pending| &pending.effect).filter_map(choose).collect()
    }

    /// Waits until none of these is pending.
    pub async fn ended(&self, uids: &[u32]) {
        while uids.iter().any(|uid| self.pending().contains_key(uid)) {
            self.refresh().await;
        }
    }

    /// Of these tasks, those that one node would be at now: what has begun, and what is next.
    #[must_use]
    pub fn under_way(&self, uids: &[u32]) -> Vec<u32> {
        let pending = self.pending();
        let next = pending.keys().next();
        let is_under_way = |uid: &&u32| {
            pending.get(uid).is_some_and(|pending| pending.task.started_at.is_some()) || next == Some(*uid)
        };
        uids.iter().filter(is_under_way).copied().collect()
    }

    /// The tasks that are pending.
    #[must_use]
    pub fn uids(&self) -> Vec<u32> {
        self.pending().keys().copied().collect()
    }

    /// How many tasks are pending.
    #[must_use]
    pub fn count(&self) -> usize {
        self.pending().len()
    }

    /// Asks the nodes now, if anything is pending, and waits for their answers for a moment.
    pub async fn refresh(&self) {
        if self.pending().is_empty() {
            return;
        }
        let mut rounds = self.rounds.subscribe();
        self.wake.notify_one();
        let _ = tokio::time::timeout(Duration::from_millis(500), rounds.changed()).await;
    }

    /// Marks pending tasks as cancelled by another, and returns what nodes are to cancel. Tasks end as their nodes' do.
    ///
    /// What changes all nodes alike is not cancelled, as if it had come too late. Where one node swaps indexes and others do
    /// not, a name stands for different documents on different nodes, and no copy of a shard mends that; where one node
    /// takes settings and others do not, none of them may be whole.
    pub fn cancel(&self, uids: &[u32], by: u32) -> BTreeMap<String, Vec<u32>> {
        let mut parts: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        let mut all = self.pending();
        let wanted =
            all.iter_mut().filter(|(uid, p)| uids.contains(uid) && !EVERYWHERE.contains(&p.task.kind));
        for (_, pending) in wanted {
            pending.task.canceled_by = Some(by);
            for part in pending.parts.iter().filter(|part| part.main) {
                parts.entry(part.node.clone()).or_default().push(part.node_task);
            }
        }
        parts
    }

    /// Waits until a node has ended everything that is pending for it now.
    pub async fn drained(&self, node: &str) {
        let waited_for: Vec<u32> = {
            let pending = self.pending();
            pending
                .iter()
                .filter(|(_, p)| p.parts.iter().any(|part| part.node == node))
                .map(|(uid, _)| *uid)
                .collect()
        };
        self.ended(&waited_for).await;
    }

    /// The pending tasks of a kind about an index.
    #[must_use]
    pub fn of_kind(&self, kind: TaskKind, index: &str) -> Vec<u32> {
        let is_wanted =
            |pending: &Pending| pending.task.kind == kind && pending.task.index.as_deref() == Some(index);
        self.pending().iter().filter(|(_, pending)| is_wanted(pending)).map(|(uid, _)| *uid).collect()
    }

    /// Whether a node has operations on indexes, or their settings, before it.
    #[must_use]
    pub fn has_operations(&self, node: &str) -> bool {
        let is_operation = |pending: &&Pending| {
            !pending.task.kind.is_about_documents() && pending.parts.iter().any(|part| part.node == node)
        };
        self.pending().values().any(|pending| is_operation(&pending))
    }

    /// Whether a node has not indexed everything yet that it took for a shard.
    #[must_use]
    pub fn is_pending(&self, node: &str, shard: Shard) -> bool {
        let concerns =
            |part: &Part| part.node == node && (part.shards.is_empty() || part.shards.contains(&shard));
        let is_open = |part: &Part| concerns(part) && part.seen.state != State::Succeeded;
        self.pending().values().any(|pending| pending.parts.iter().any(is_open))
    }

    /// Waits until a node has indexed everything that is pending for some shards on it now. `false` if the node is away.
    ///
    /// What it failed to take is waited for until it is known what that means.
    pub async fn indexed(&self, node: &str, shards: &[Shard]) -> bool {
        let concerns = |part: &Part| {
            part.node == node && (part.shards.is_empty() || part.shards.iter().any(|s| shards.contains(s)))
        };
        let mut waited_for: Vec<u32> = {
            let pending = self.pending();
            pending.iter().filter(|(_, p)| p.parts.iter().any(concerns)).map(|(uid, _)| *uid).collect()
        };
        loop {
            let mut is_away = false;
            {
                let pending = self.pending();
                waited_for.retain(|uid| {
                    let parts = pending.get(uid).into_iter().flat_map(|p| &p.parts).filter(|p| concerns(p));
                    let mut open = parts.filter(|part| part.seen.state != State::Succeeded).peekable();
                    let is_open = open.peek().is_some();
                    is_away |= open.any(|part| part.seen.state == State::Away);
                    is_open
                });
            }
            match (waited_for.is_empty(), is_away) {
                (true, _) => return true,
                (_, true) => return false,
                _ => self.refresh().await,
            }
        }
    }

    pub(crate) fn pending(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How far it is that all nodes know the fields that a task has brought.
#[derive(Debug, Default)]
pub(crate) struct Completing {
    pub(crate) is_under_way: bool,
    pub(crate) attempts: u8,
    /// Failed registrations that have been seen to.
    pub(crate) seen: usize,
}
