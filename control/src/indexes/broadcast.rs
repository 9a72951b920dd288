//! Broadcasts an operation on a whole index: one task in the ledger, the same requests to all nodes.

use crate::{
    auth::Grant,
    base::{
        error::{Error, Result, api_error},
        log,
        time::Nanos,
    },
    cluster::{
        Cluster,
        locks::{LockGuard, Scope},
        missed::WrittenIds,
        tracked_tasks::TrackedTask,
    },
    disguise::messages,
    domain::{
        cluster_state::{ClusterState, Index},
        impossible_move::deniers,
        intent::{CreationDates, Effect, Intent, NodeRequest, NodeTask},
        task::TaskKind,
    },
    fencing::write_keys::LATE_REQUESTS_END,
    indexes::delivery::{Delivered, Delivery, creation_dates, newest_tasks},
    ledger::{
        intents::{self, StoredIntent},
        tasks::{self, NewTask, Task},
    },
    node::{Authority, Node, NodeAnswer},
};
use miroir_core::node_name::NodeName;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tracing::Instrument;

pub use crate::domain::intent::ImmediateEffect;

/// An operation before it has a task uid.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The client's task.
    pub task: NewTask,
    /// The requests that every node gets, in this order. The first one is the client's request, as rewritten by the control
    /// plane.
    pub requests: Vec<NodeRequest>,
    /// The client's authority, so that the first node checks the client's key itself too.
    pub authority: Authority,
    /// The change of the catalogue that is made as soon as nodes have accepted the requests.
    pub at_once: ImmediateEffect,
    /// The change of the catalogue that is made once the task has succeeded. If the effect requires it, the locks are held
    /// until then.
    pub effect: Effect,
}

/// For how long an operation that moves or deletes documents waits for nodes that are behind.
const CATCH_UP: Duration = Duration::from_secs(5);
/// The pauses of that waiting.
const CATCH_UP_PAUSE: Duration = Duration::from_millis(100);
/// How long to wait until an operation is taken up again that could not be.
const PAUSE: Duration = Duration::from_secs(1);

/// How often an operation is sent again that no node with the documents of some shard has.
const ATTEMPTS: usize = 3;

/// How long an operation that cannot be done waits until all nodes know that.
const QUEUES: Duration = Duration::from_millis(500);

/// Kinds of tasks that change no data: a node that missed one is not behind.
pub const CHANGELESS: [TaskKind; 3] =
    [TaskKind::DumpCreation, TaskKind::SnapshotCreation, TaskKind::IndexCompaction];

/// The locks of an operation. An operation that depends on the cluster state is planned under them: before, an earlier
/// operation may still change that state, such as a rename that frees the name of an index.
#[derive(Debug)]
pub struct Held {
    scope: Scope,
    guard: LockGuard,
    /// Whether the operation must reach an active replica of every shard.
    is_about_documents: bool,
}

/// Waits for the locks of an operation. The [`Grant`] proves that the client's key was checked before: a request that is not
/// allowed never waits for a lock.
pub async fn lock(cluster: &Cluster, _: &Grant, scope: Scope) -> Held {
    let guard = cluster.locks.lock(scope.clone()).await;
    Held { scope, guard, is_about_documents: false }
}

/// Like [`lock`], for an operation that moves or deletes the documents of whole indexes, or that nodes may refuse because of them. It must reach a replica
/// of every shard that misses nothing of these indexes: documents that no node with them has moved or deleted would stay where they
/// were, and nobody could tell later. Nodes that are behind get no operations, so that this waits until they have caught up, and until
/// replicas have got what they missed, for a limited time.
///
/// # Errors
/// A shard has such replicas only on nodes that are away or behind.
pub async fn lock_documents(cluster: &Cluster, grant: &Grant, scope: Scope) -> Result<Held> {
    let begun = cluster.clock.monotonic();
    loop {
        let held = lock(cluster, grant, scope.clone()).await;
        let current = cluster.current().iter().map(|node| node.name.clone()).collect();
        let shards = cluster.cluster_state().out_of_reach(held.scope.indexes.as_ref(), &current);
        if shards == 0 {
            return Ok(Held { is_about_documents: true, ..held });
        }
        // Nodes catch up under the locks of everything.
        drop(held);
        if cluster.clock.since(begun) > CATCH_UP {
            return Err(Error::OutOfReach { shards });
        }
        tokio::time::sleep(CATCH_UP_PAUSE).await;
    }
}

/// Runs an operation under its locks, and returns its task.
///
/// # Errors
/// The first node's error, if it refuses the client's request; or no node answers.
pub async fn run(cluster: &Arc<Cluster>, held: Held, operation: Operation) -> Result<Task> {
    let (cluster, supervisor) = (cluster.clone(), cluster.supervisor.clone());
    let span = log::task_span(None, Some(operation.task.kind.name()), operation.task.index.as_deref());
    // In a task of its own: if the client disconnects, the operation must still reach all nodes.
    let running = async move { run_locked(&cluster, operation, held).await };
    supervisor.detach("broadcast", running.instrument(span)).await?
}

async fn run_locked(cluster: &Arc<Cluster>, operation: Operation, held: Held) -> Result<Task> {
    let Operation { task, requests, authority, at_once, effect } = operation;
    let Held { scope, guard, is_about_documents } = held;
    // Once it is known which nodes accepted the operation, running moves copy these indexes again from the start. Search rules
    // do not change an index.
    let changes_none = matches!(effect, Effect::Rules { .. });
    let indexes = if changes_none { Some(BTreeSet::new()) } else { scope.indexes.clone() };
    let changed = NotifyRecordings { cluster, indexes };
    let newest = newest_tasks(cluster).await?;
    let nodes = cluster.current().into_iter().filter(|node| newest.contains_key(&node.name));
    let mut nodes: Vec<_> = nodes.collect();
    let (created, deniers) = match effect.moves().is_empty() {
        true => (CreationDates::new(), None),
        false => creation_dates_and_deniers(cluster, &nodes, &effect).await,
    };
    nodes.retain(|node| effect.moves().is_empty() || created.contains_key(&node.name));
    nodes.retain(|node| deniers.as_ref().is_none_or(|deniers| deniers.contains(&node.name)));
    let concerns_all = deniers.is_none();
    let is_about_documents = is_about_documents && concerns_all;
    let reached: BTreeSet<NodeName> = nodes.iter().map(|node| node.name.clone()).collect();
    let intent = Intent::Broadcast {
        requests: requests.clone(),
        effect: effect.clone(),
        at_once: at_once.clone(),
        newest: newest.clone(),
        created,
    };
    let (clock, begun, in_scope) = (cluster.clock.clone(), effect.clone(), scope.indexes.clone());
    // In one transaction: an operation that is open in the ledger is sent, or taken back.
    let begin = move |connection: &_, cluster_state: &mut ClusterState| {
        if is_about_documents {
            let shards = cluster_state.out_of_reach(scope.indexes.as_ref(), &reached);
            if shards > 0 {
                return Err(Error::OutOfReach { shards });
            }
        }
        if concerns_all && !begun.moves().is_empty() {
            cluster_state
                .spread_stale(&begun.names().collect())
                .map_err(|_| Error::OutOfReach { shards: 1 })?;
        }
        let task = intents::begin(connection, &task, &intent, clock.wall())?;
        note_changing(cluster_state, task.uid, &begun);
        Ok(task)
    };
    let task = cluster.change_stored(begin).await?;
    let uid = task.uid;
    log::learn_uid(uid);
    let mut delivered = Delivered::default();
    let delivery = Delivery { cluster, uid, requests: &requests };
    let mut outcome = delivery.send(&nodes, &mut delivered, Some(authority)).await;
    if outcome.is_err() && delivery.find_answers(&newest, &mut delivered).await {
        outcome = delivery.send(&nodes, &mut delivered, None).await;
    }
    if let Err(error) = outcome {
        take_back(cluster, &task, delivered).await;
        return Err(error);
    }
    for _ in 0..ATTEMPTS {
        let whole = delivered.whole(requests.len());
        let shards = cluster.cluster_state().out_of_reach(in_scope.as_ref(), &whole);
        if !is_about_documents || shards == 0 {
            break;
        }
        // Where no node with a shard's documents has the operation, they would stay as they were.
        tokio::time::sleep(PAUSE).await;
        delivery.send_lacking(&nodes, &newest, &mut delivered).await;
    }
    let node_tasks = sent(cluster, &task, requests.len(), delivered, at_once, concerns_all).await;
    let (held, released) = if effect.holds_locks() { (Some(guard), None) } else { (None, Some(guard)) };
    cluster.tracked_tasks.add(TrackedTask {
        task: task.clone(),
        node_tasks,
        effect,
        indexed: None,
        written: WrittenIds::new(),
        guard: held,
    });
    // Only after the task is tracked: a move that sees the change, or gets the locks, must find the operation among the tasks
    // that it waits for.
    drop(changed);
    drop(released);
    Ok(task)
}

/// When nodes have created the indexes of a swap or rename; and, if it cannot be done, the nodes that know that. What the catalogue says may
/// still be in their queues: they are asked for a moment, until all know it. If nobody does then, all nodes judge.
async fn creation_dates_and_deniers(
    cluster: &Cluster,
    nodes: &[Arc<Node>],
    effect: &Effect,
) -> (CreationDates, Option<BTreeSet<NodeName>>) {
    let begun = cluster.clock.monotonic();
    loop {
        let created = creation_dates(nodes, &effect.names().collect()).await;
        let Some(deniers) = deniers(effect, &cluster.cluster_state().indexes, &created) else {
            return (created, None);
        };
        if deniers.len() == created.len() || cluster.clock.since(begun) >= QUEUES {
            return (created, Some(deniers).filter(|deniers| !deniers.is_empty()));
        }
        tokio::time::sleep(CATCH_UP_PAUSE).await;
    }
}

/// Stores what nodes have of an operation, and what follows at once, in one transaction: the nodes that miss a part of it are
/// behind, if it concerns all, and the catalogue changes. Returns the nodes' tasks.
async fn sent(
    cluster: &Cluster,
    task: &Task,
    requests: usize,
    delivered: Delivered,
    at_once: ImmediateEffect,
    concerns_all: bool,
) -> Vec<NodeTask> {
    let (uid, now) = (task.uid, task.enqueued_at);
    let matters = concerns_all && requests > 0 && !CHANGELESS.contains(&task.kind);
    let whole = delivered.whole(requests);
    let node_tasks = delivered.node_tasks();
    let stored = node_tasks.clone();
    let change = move |connection: &_, cluster_state: &mut ClusterState| {
        if matters {
            let all: Vec<NodeName> =
                cluster_state.nodes.iter().map(|member| member.config.name.clone()).collect();
            let misses = |node: &&NodeName| !whole.contains(*node) && !cluster_state.behind.contains(*node);
            let missed: Vec<&NodeName> = all.iter().filter(misses).collect();
            missed.into_iter().for_each(|node| cluster_state.mark_behind(node));
        }
        apply_at_once(cluster_state, at_once, now);
        intents::sent(connection, uid, &stored)
    };
    cluster.store_what_is_done(change).await;
    node_tasks
}

fn apply_at_once(cluster_state: &mut ClusterState, at_once: ImmediateEffect, now: Nanos) {
    match at_once {
        ImmediateEffect::Created { index, primary_key } => {
            cluster_state.indexes.entry(index).or_insert(Index {
                primary_key,
                created_at: now,
                updated_at: now,
                ..Index::default()
            });
        }
        ImmediateEffect::Deleted { index } => _ = cluster_state.indexes.remove(&index),
        ImmediateEffect::Nothing => {}
    }
}

/// Removes an operation that no node has accepted. A node that may have it nevertheless is behind: it learns that there was none.
async fn take_back(cluster: &Cluster, task: &Task, delivered: Delivered) {
    let (uid, matters) = (task.uid, !CHANGELESS.contains(&task.kind));
    let change = move |connection: &_, cluster_state: &mut ClusterState| {
        cluster_state.changing.remove(&uid);
        delivered.unknown.iter().filter(|_| matters).for_each(|node| cluster_state.mark_behind(node));
        tasks::take_back(connection, uid)
    };
    cluster.store_what_is_done(change).await;
}

/// Tells gateways about changing settings before any node gets them, because until all nodes have them an answer may mix old
/// and new settings. Tells gateways about a search rule too, so that they place the documents that it pins on some nodes
/// already.
pub(crate) async fn tell_changing(cluster: &Cluster, uid: u32, effect: &Effect) -> Result<()> {
    cluster.change(|cluster_state| note_changing(cluster_state, uid, effect)).await
}

fn note_changing(cluster_state: &mut ClusterState, uid: u32, effect: &Effect) {
    match effect {
        Effect::Settings { .. } | Effect::Rules { .. } => {
            cluster_state.changing.insert(uid, effect.clone());
        }
        Effect::None | Effect::UpdateIndex { .. } | Effect::Swap { .. } | Effect::Deletion { .. } => {}
    }
}

/// A guard that tells recordings that indexes have changed. It does so when it is dropped: after an operation on the indexes
/// was sent, or has failed.
struct NotifyRecordings<'a> {
    cluster: &'a Cluster,
    indexes: Option<BTreeSet<String>>,
}

impl Drop for NotifyRecordings<'_> {
    fn drop(&mut self) {
        let known = self.cluster.cluster_state().indexes.clone().into_keys();
        self.cluster.mover.recorder.indexes_changed(self.indexes.as_ref(), known);
    }
}

/// A node's error for the client, with the shard tag removed from the message.
#[must_use]
pub fn refusal(answer: &NodeAnswer) -> Error {
    match answer.error() {
        Some(error) => {
            let message = messages::message(&error.message);
            let message = messages::shift_position(&message, ".filterableAttributes[");
            api_error(answer.status, &error.kind, &error.code, message).into()
        }
        None => Error::Other(format!("a node answered {}", answer.status)),
    }
}

/// What a mutation changes in the catalogue once it has succeeded.
pub fn apply(cluster_state: &mut ClusterState, effect: &Effect) {
    match effect {
        Effect::None | Effect::Settings { .. } | Effect::Deletion { .. } => {}
        Effect::Rules { change } => change.apply(&mut cluster_state.rules),
        Effect::UpdateIndex { index, primary_key, rename } => {
            if let Some(entry) = cluster_state.indexes.get_mut(index)
                && primary_key.is_some()
            {
                entry.primary_key.clone_from(primary_key);
            }
            if let Some(rename) = rename
                && let Some(entry) = cluster_state.indexes.remove(index)
            {
                cluster_state.indexes.insert(rename.clone(), entry);
            }
        }
        Effect::Swap { pairs } => {
            for (left, right, rename) in pairs {
                let (from, to) = (cluster_state.indexes.remove(left), cluster_state.indexes.remove(right));
                if let Some(from) = from {
                    cluster_state.indexes.insert(right.clone(), from);
                }
                if let Some(to) = to.filter(|_| !rename) {
                    cluster_state.indexes.insert(left.clone(), to);
                }
            }
        }
    }
}

/// The locks of an operation that is in the ledger.
#[must_use]
pub fn scope(task: &Task, effect: &Effect) -> Scope {
    match task.kind {
        TaskKind::DumpCreation | TaskKind::SnapshotCreation => Scope::everything(),
        _ => Scope::indexes(task.index.as_deref().into_iter().chain(effect.names())),
    }
}

/// After a restart, takes up an operation that was being sent: under its locks, which it has when this returns. Nodes are asked
/// what they have of it, and get the rest.
///
/// # Errors
/// The ledger failed.
pub async fn resume(cluster: &Arc<Cluster>, stored: StoredIntent) -> Result<()> {
    let uid = stored.uid;
    let Intent::Broadcast { effect, .. } = &stored.intent else { return Ok(()) };
    let Some(task) = cluster.ledger.call(move |connection| tasks::get(connection, uid)).await? else {
        return Ok(());
    };
    tell_changing(cluster, uid, effect).await?;
    let mut guard = Some(cluster.locks.lock(scope(&task, effect)).await);
    let span = log::task_span(Some(uid), Some(task.kind.name()), task.index.as_deref());
    let (cluster, supervisor) = (Arc::clone(cluster), cluster.supervisor.clone());
    let resuming = async move {
        // The keys of before the restart are deleted by now. After this pause, nodes have queued what they had let in.
        tokio::time::sleep(LATE_REQUESTS_END).await;
        while let Err(error) = redo(&cluster, &stored, &task, &mut guard).await {
            tracing::error!(error = %error.chain(), "an operation could not be taken up again yet");
            tokio::time::sleep(PAUSE).await;
        }
    };
    supervisor.spawn("broadcast", resuming.instrument(span));
    Ok(())
}

/// Sends nodes what they lack of an operation that a restart has interrupted. The client's key allowed it, otherwise it would not
/// be in the ledger. A node that cannot be asked may have it: it is behind, and never gets it twice. The task takes the locks if it
/// needs them until its end.
async fn redo(
    cluster: &Arc<Cluster>,
    stored: &StoredIntent,
    task: &Task,
    locks: &mut Option<LockGuard>,
) -> Result<()> {
    let Intent::Broadcast { requests, effect, at_once, newest, created } = &stored.intent else {
        return Ok(());
    };
    // Nothing is sent to nodes while the ledger does not work: an operation that reached some of them then would end without the others.
    cluster.ledger.probe(cluster.clock.wall()).await?;
    let delivery = Delivery { cluster, uid: stored.uid, requests };
    let mut delivered = delivery.find(stored, newest).await?;
    let mut nodes: Vec<_> =
        cluster.current().into_iter().filter(|node| !delivered.unknown.contains(&node.name)).collect();
    let deniers =
        deniers(effect, &cluster.cluster_state().indexes, created).filter(|deniers| !deniers.is_empty());
    nodes.retain(|node| deniers.as_ref().is_none_or(|deniers| deniers.contains(&node.name)));
    match delivery.send(&nodes, &mut delivered, None).await {
        Ok(()) => {}
        // Where all nodes are behind, or those that know that it cannot be done, nobody judges it, and they catch up only once its locks
        // are free.
        Err(error)
            if matches!(error, Error::Api(_))
                || cluster.cluster_state().is_every_node_behind()
                || (deniers.is_some() && nodes.is_empty()) =>
        {
            tracing::info!(error = %error.chain(), "no node takes an operation that its client got no answer to: its task is removed");
            take_back(cluster, task, delivered).await;
            return Ok(());
        }
        Err(error) => return Err(error),
    }
    let concerns_all = deniers.is_none();
    let node_tasks = sent(cluster, task, requests.len(), delivered, at_once.clone(), concerns_all).await;
    let (task, effect) = (task.clone(), effect.clone());
    let guard = if effect.holds_locks() { locks.take() } else { None };
    let unsettled =
        TrackedTask { task, node_tasks, effect, indexed: None, written: WrittenIds::new(), guard };
    cluster.tracked_tasks.restore(unsettled, None, &stored.interrupted);
    Ok(())
}

#[cfg(test)]
mod tests;
