//! The tasks that the control plane tracks, because nodes have not ended them, and the state of each.

mod pending;

pub(crate) use pending::{FieldCompletion, Moving, Pending, RollBack, RolledBack};

use crate::{
    base::log,
    cluster::{locks::LockGuard, missed::WrittenIds},
    domain::{
        intent::{Effect, NodeTask},
        task::TaskKind,
        verdict::{ReportedState, State, TrackedNodeTask},
    },
    ledger::tasks::{Ending, Task},
};
use miroir_core::{node_name::NodeName, shard::Shard};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::Notify;
use tracing::Span;

/// The pause of those that wait for tasks, from the second time on that they look.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_millis(100);

/// Kinds of tasks that change all nodes in the same way.
const EVERYWHERE: [TaskKind; 5] = [
    TaskKind::IndexCreation,
    TaskKind::IndexDeletion,
    TaskKind::IndexUpdate,
    TaskKind::IndexSwap,
    TaskKind::SettingsUpdate,
];

/// A task to be tracked to its end.
#[derive(Debug)]
pub struct TrackedTask {
    /// The task as stored in the ledger.
    pub task: Task,
    /// The nodes' tasks for it.
    pub node_tasks: Vec<NodeTask>,
    /// What changes in the catalogue once it has succeeded.
    pub effect: Effect,
    /// For an addition: the number of documents that are indexed once it has succeeded.
    pub indexed: Option<u64>,
    /// For a write: the ids of the documents that it changes.
    pub written: WrittenIds,
    /// Locks that are held until the task has ended, if others must wait for that.
    pub guard: Option<LockGuard>,
}

/// The most ids of documents that are kept with all tracked tasks.
const MOST_IDS: usize = 200_000;

/// Tasks that nodes have not ended, and that the control plane tracks.
#[derive(Debug, Default)]
pub struct TrackedTasks {
    pub(crate) pending: Mutex<BTreeMap<u32, Pending>>,
    pub(crate) wake: Notify,
    pub(crate) rounds: Notify,
}

impl TrackedTasks {
    /// Adds a task.
    pub fn add(&self, tracked: TrackedTask) {
        self.insert(tracked, None, &BTreeSet::new(), false);
    }

    /// Adds a task of before a restart. `ending`: how it ends, if its outcome was applied. `interrupted`: nodes that stopped while
    /// they processed it.
    pub fn restore(&self, tracked: TrackedTask, ending: Option<Ending>, interrupted: &BTreeSet<NodeName>) {
        self.insert(tracked, ending, interrupted, true);
    }

    fn insert(
        &self,
        tracked: TrackedTask,
        ending: Option<Ending>,
        interrupted: &BTreeSet<NodeName>,
        is_restored: bool,
    ) {
        let TrackedTask { task, node_tasks, effect, indexed, mut written, guard } = tracked;
        let part = |task: NodeTask| TrackedNodeTask {
            is_interrupted: interrupted.contains(&task.node),
            ..TrackedNodeTask::of(task)
        };
        let parts = node_tasks.into_iter().map(part).collect();
        let count = |written: &WrittenIds| written.values().map(BTreeSet::len).sum::<usize>();
        let mut all = self.pending();
        // Without its ids, a write may have changed any document.
        if count(&written) + all.values().map(|pending| count(&pending.written)).sum::<usize>() > MOST_IDS {
            written.clear();
        }
        let pending = Pending {
            task,
            other_names: BTreeSet::new(),
            parts,
            effect,
            indexed,
            written,
            guard,
            is_restored,
            ending,
            roll_back: RollBack::Nothing,
            moving: Moving::default(),
            completing: FieldCompletion::default(),
        };
        all.insert(pending.task.uid, pending);
        drop(all);
        self.wake.notify_one();
    }

    /// The span of what is done for a task.
    pub(crate) fn span(&self, uid: u32) -> Span {
        let pending = self.pending();
        let task = pending.get(&uid).map(|pending| &pending.task);
        let index = task.and_then(|task| task.index.as_deref());
        log::task_span(Some(uid), task.map(|task| task.kind.name()), index)
    }

    /// Makes a task end only after these node tasks too.
    pub(crate) fn wait_for(&self, uid: u32, node_tasks: Vec<NodeTask>) {
        if let Some(pending) = self.pending().get_mut(&uid) {
            pending.parts.extend(node_tasks.into_iter().map(TrackedNodeTask::of));
        }
        self.wake.notify_one();
    }

    /// Whether a task waits for nodes with the only replicas of some shards: its locks are held until they have moved their indexes.
    #[must_use]
    pub fn wait_for_holders(&self) -> bool {
        self.pending().values().any(|pending| pending.moving.waits)
    }

    /// Wakes task tracking, because something has changed that tasks may wait for.
    pub fn notice(&self) {
        self.wake.notify_one();
    }

    /// Whether a task must wait for an earlier task of its index: for one that nodes are rolling back, and where both change settings,
    /// until the earlier change is applied. A single Meilisearch would end them in order.
    pub(crate) fn waits_for_earlier(&self, uid: u32) -> bool {
        let all = self.pending();
        let Some(this) = all.get(&uid) else { return false };
        let names: BTreeSet<&str> = this.names().collect();
        let is_change = |pending: &Pending| matches!(pending.effect, Effect::Settings { .. });
        let is_before = |pending: &Pending| {
            let is_open = is_change(this) && is_change(pending) && pending.ending.is_none();
            (is_open || pending.roll_back != RollBack::Nothing)
                && pending.names().any(|name| names.contains(name))
        };
        // A task that holds locks does not wait: others wait for it.
        this.guard.is_none() && all.range(..uid).any(|(_, pending)| is_before(pending))
    }

    /// Changes of an index's settings that have not ended, and that no node has refused.
    pub fn changes_of(&self, index: &str) -> Vec<Option<Value>> {
        self.other_changes(u32::MAX, index)
    }

    /// Like [`Self::changes_of`], without the task `uid`.
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

    /// Renames indexes in the settings changes of tasks before the task `by`, which renamed or swapped the indexes. Nodes have the
    /// documents of these tasks under the new names, if they have done the task `by`.
    pub(crate) fn renamed(&self, by: u32, moves: &[(String, String, bool)]) {
        for (_, pending) in self.pending().range_mut(..by) {
            pending.effect.follow(moves);
            for (from, to, _) in moves {
                if pending.index_names().any(|name| name == from || name == to) {
                    pending.other_names.extend([from.clone(), to.clone()]);
                }
            }
        }
    }

    pub(crate) fn kind(&self, uid: u32) -> Option<TaskKind> {
        self.pending().get(&uid).map(|pending| pending.task.kind)
    }

    /// What `choose` selects from the effects of pending tasks, oldest first.
    pub fn effects<T>(&self, choose: impl FnMut(&Effect) -> Option<T>) -> Vec<T> {
        self.pending().values().map(|pending| &pending.effect).filter_map(choose).collect()
    }

    /// Waits until none of these tasks is pending.
    pub async fn ended(&self, uids: &[u32]) {
        let mut pause = Duration::ZERO;
        while uids.iter().any(|uid| self.pending().contains_key(uid)) {
            self.look_again(&mut pause).await;
        }
    }

    /// Like [`Self::refresh`], after a pause that grows: a round may be over at once, such as where nodes are away or gateways are waited
    /// for, and whoever waits for tasks must not have nodes asked all the time.
    pub async fn look_again(&self, pause: &mut Duration) {
        tokio::time::sleep(*pause).await;
        *pause = (*pause * 3 / 2).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        self.refresh().await;
    }

    /// Those of these tasks that a single Meilisearch would be processing now: tasks that have started, and the oldest pending
    /// one.
    #[must_use]
    pub fn under_way(&self, uids: &[u32]) -> Vec<u32> {
        let pending = self.pending();
        let next = pending.keys().next();
        let is_under_way = |uid: &&u32| {
            pending.get(uid).is_some_and(|pending| pending.task.started_at.is_some()) || next == Some(*uid)
        };
        uids.iter().filter(is_under_way).copied().collect()
    }

    /// The uids of the pending tasks.
    #[must_use]
    pub fn uids(&self) -> Vec<u32> {
        self.pending().keys().copied().collect()
    }

    /// The number of pending tasks.
    #[must_use]
    pub fn count(&self) -> usize {
        self.pending().len()
    }

    /// If any task is pending, makes task tracking ask the nodes now, and waits for a moment for the answers.
    pub async fn refresh(&self) {
        if self.pending().is_empty() {
            return;
        }
        let mut round = pin!(self.rounds.notified());
        round.as_mut().enable();
        self.wake.notify_one();
        let _ = tokio::time::timeout(Duration::from_millis(500), round).await;
    }

    /// Marks pending tasks as cancelled by the task `by`, and returns the node tasks to cancel, by node. Each task ends as its
    /// node tasks end.
    ///
    /// Tasks that change all nodes in the same way are not cancelled, as if the cancelation came too late. If one node swapped
    /// indexes and others did not, a name would mean different documents on different nodes, and copying shards could not
    /// repair that. If one node applied settings and others did not, possibly no node would be complete.
    pub fn cancel(&self, uids: &[u32], by: u32) -> BTreeMap<NodeName, Vec<u32>> {
        let mut parts: BTreeMap<NodeName, Vec<u32>> = BTreeMap::new();
        let uids: BTreeSet<u32> = uids.iter().copied().collect();
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

    /// Waits until a node has ended all tasks that are pending on it when this is called.
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

    /// The pending tasks of a kind on an index.
    #[must_use]
    pub fn of_kind(&self, kind: TaskKind, index: &str) -> Vec<u32> {
        let is_wanted =
            |pending: &Pending| pending.task.kind == kind && pending.task.index.as_deref() == Some(index);
        self.pending().iter().filter(|(_, pending)| is_wanted(pending)).map(|(uid, _)| *uid).collect()
    }

    /// Whether operations on indexes or settings are pending on a node, or on any.
    #[must_use]
    pub fn has_operations(&self, node: Option<&str>) -> bool {
        let is_operation = |pending: &&Pending| {
            !pending.task.kind.is_about_documents()
                && pending.parts.iter().any(|part| node.is_none_or(|node| part.node == node))
        };
        self.pending().values().any(|pending| is_operation(&pending))
    }

    /// Whether a node has tasks on a shard that have not succeeded yet.
    #[must_use]
    pub fn is_pending(&self, node: &str, shard: Shard) -> bool {
        let concerns = |part: &TrackedNodeTask| {
            part.node == node && (part.shards.is_empty() || part.shards.contains(&shard))
        };
        let is_open = |part: &TrackedNodeTask| concerns(part) && part.seen.state != State::Succeeded;
        self.pending().values().any(|pending| pending.parts.iter().any(is_open))
    }

    /// Notes that a node has lost its list of tasks: those that it had not ended never end, and others get their uids.
    pub fn forgotten_by(&self, node: &str) {
        for pending in self.pending().values_mut() {
            let parts =
                pending.parts.iter_mut().filter(|part| part.node == node && !part.seen.state.is_over());
            parts.for_each(|part| part.report(ReportedState::forgotten(), false));
        }
    }

    /// Notes that a node's copies of some shards were replaced, of one index or of all: whatever becomes of its tasks of before, its copies
    /// are those of the other replicas.
    pub fn replaced(&self, index: Option<&str>, node: &str, shards: &[Shard]) {
        let is_of = |pending: &Pending| index.is_none_or(|index| pending.index_names().eq([index]));
        for pending in self.pending().values_mut().filter(|pending| is_of(pending)) {
            for part in pending.parts.iter_mut().filter(|part| part.node == node) {
                let own = shards.iter().filter(|shard| part.shards.contains(shard));
                part.replaced.extend(own.copied());
            }
        }
    }

    /// Waits until a node has indexed everything that is pending for these shards when this is called. Returns `false` if the
    /// node is unreachable.
    ///
    /// A task that failed on the node is waited for too, until its outcome has been applied.
    pub async fn indexed(&self, node: &str, shards: &[Shard]) -> bool {
        let concerns = |part: &TrackedNodeTask| {
            part.node == node && (part.shards.is_empty() || part.shards.iter().any(|s| shards.contains(s)))
        };
        let mut waited_for: Vec<u32> = {
            let pending = self.pending();
            pending.iter().filter(|(_, p)| p.parts.iter().any(concerns)).map(|(uid, _)| *uid).collect()
        };
        let mut pause = Duration::ZERO;
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
                _ => self.look_again(&mut pause).await,
            }
        }
    }

    pub(crate) fn pending(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
