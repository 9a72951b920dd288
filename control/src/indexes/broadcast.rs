//! Broadcasts an operation on a whole index: one task in the ledger, the same requests to all nodes.

use crate::{
    auth::Grant,
    base::{
        error::{Error, Result, api_error},
        log,
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
        intent::{Effect, Intent, NodeRequest, NodeTask},
        task::TaskKind,
    },
    indexes::creation,
    ledger::{
        intents,
        tasks::{self, NewTask, Task},
    },
    node::{Authority, NodeAnswer, Request},
};
use miroir_core::{
    error::{ApiError, Code},
    node_name::NodeName,
};
use std::{collections::BTreeSet, sync::Arc};
use tracing::Instrument;

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

/// Kinds of tasks that change no data: a node that missed one is not behind.
pub const CHANGELESS: [TaskKind; 3] =
    [TaskKind::DumpCreation, TaskKind::SnapshotCreation, TaskKind::IndexCompaction];

/// A change of the catalogue that is valid as soon as nodes have the request in their queues.
#[derive(Clone, Debug, Default)]
pub enum ImmediateEffect {
    /// No change.
    #[default]
    Nothing,
    /// An index was created.
    Created {
        /// Index uid.
        index: String,
        /// Its primary key.
        primary_key: Option<String>,
    },
    /// An index was deleted.
    Deleted {
        /// Index uid.
        index: String,
    },
}

/// The locks of an operation. An operation that depends on the cluster state is planned under them: before, an earlier
/// operation may still change that state, such as a rename that frees the name of an index.
#[derive(Debug)]
pub struct Held {
    scope: Scope,
    guard: LockGuard,
}

/// Waits for the locks of an operation. The [`Grant`] proves that the client's key was checked before: a request that is not
/// allowed never waits for a lock.
pub async fn lock(cluster: &Cluster, _: &Grant, scope: Scope) -> Held {
    let guard = cluster.locks.lock(scope.clone()).await;
    Held { scope, guard }
}

/// Runs an operation under its locks, and returns its task.
///
/// # Errors
/// The first node's error, if it refuses the client's request; or no node answers.
pub async fn run(cluster: &Arc<Cluster>, held: Held, operation: Operation) -> Result<Task> {
    let cluster = cluster.clone();
    let span = log::task_span(None, Some(operation.task.kind.name()), operation.task.index.as_deref());
    // In a task of its own: if the client disconnects, the operation must still reach all nodes.
    let running = async move { run_locked(&cluster, operation, held).await };
    tokio::spawn(running.instrument(span)).await.map_err(|error| Error::Other(error.to_string()))?
}

async fn run_locked(cluster: &Arc<Cluster>, operation: Operation, held: Held) -> Result<Task> {
    let Operation { task, requests, authority, at_once, effect } = operation;
    let Held { scope, guard } = held;
    spread_stale(cluster, &effect).await?;
    // Once it is known which nodes accepted the operation, running moves copy these indexes again from the start. Search rules
    // do not change an index.
    let indexes = if matches!(effect, Effect::Rules { .. }) { Some(BTreeSet::new()) } else { scope.indexes };
    let changed = NotifyRecordings { cluster, indexes };
    let intent = Intent::Broadcast { requests: requests.clone(), effect: effect.clone() };
    let clock = cluster.clock.clone();
    let begin = move |connection: &_| intents::begin(connection, &task, &intent, clock.wall());
    let task = cluster.ledger.call(begin).await?;
    let uid = task.uid;
    log::learn_uid(uid);
    tell_changing(cluster, uid, &effect).await?;
    let (node_tasks, missed) = match send(cluster, &requests, authority).await {
        Ok(sent) => sent,
        Err(error) => {
            cluster.change(|cluster_state| drop(cluster_state.changing.remove(&uid))).await?;
            cluster.ledger.call(move |connection| tasks::take_back(connection, uid)).await?;
            return Err(error);
        }
    };
    if !CHANGELESS.contains(&task.kind) {
        creation::mark_behind(cluster, &missed).await?;
    }
    let stored = node_tasks.clone();
    cluster.ledger.call(move |connection| intents::sent(connection, uid, &stored)).await?;
    let now = task.enqueued_at;
    cluster
        .change(|cluster_state| match at_once {
            ImmediateEffect::Created { index, primary_key } => {
                cluster_state.indexes.entry(index).or_insert(Index {
                    primary_key,
                    created_at: now,
                    updated_at: now,
                    ..Index::default()
                });
            }
            ImmediateEffect::Deleted { index } => {
                cluster_state.indexes.remove(&index);
            }
            ImmediateEffect::Nothing => {}
        })
        .await?;
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

/// Before indexes are swapped or renamed: a replica that misses something of one of them misses it of all of them, since from
/// now on nodes may have the documents of each under the name of another.
async fn spread_stale(cluster: &Cluster, effect: &Effect) -> Result<()> {
    if effect.moves().is_empty() || cluster.cluster_state().stale.is_empty() {
        return Ok(());
    }
    cluster
        .try_change(|cluster_state| {
            cluster_state.spread_stale(&effect.names().collect()).map_err(|(index, shard)| {
                let message = format!(
                    "No replica of shard {} would have all documents of index `{index}`, since replicas are being repaired. Try \
                     again later.",
                    shard.0
                );
                ApiError::new(Code::UNAVAILABLE, message).into()
            })
        })
        .await
}

/// Tells gateways about changing settings before any node gets them, because until all nodes have them an answer may mix old
/// and new settings. Tells gateways about a search rule too, so that they place the documents that it pins on some nodes
/// already.
pub(crate) async fn tell_changing(cluster: &Cluster, uid: u32, effect: &Effect) -> Result<()> {
    match effect {
        Effect::Settings { .. } | Effect::Rules { .. } => {
            cluster.change(|cluster_state| drop(cluster_state.changing.insert(uid, effect.clone()))).await
        }
        Effect::None | Effect::UpdateIndex { .. } | Effect::Swap { .. } => Ok(()),
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

/// Sends the client's request to the first node, which judges it. If that node accepts it, sends the requests to all other
/// nodes, under write keys that can be fenced. Returns the node tasks, and the names of the nodes that missed a request.
async fn send(
    cluster: &Cluster,
    requests: &[NodeRequest],
    authority: Authority,
) -> Result<(Vec<NodeTask>, Vec<NodeName>)> {
    let nodes = cluster.current();
    let Some((main, rest)) = requests.split_first() else { return Ok(Default::default()) };
    let request = Request { authority, ..Request::own(&main.method, main.path.clone(), main.body.as_ref()) };
    let mut missed = Vec::new();
    let mut tasks = Vec::new();
    let mut others = nodes.iter();
    let mut failure = Error::NoNode;
    for node in others.by_ref() {
        let answer = match node.send(&request).await {
            Ok(answer) => answer,
            Err(error) => {
                missed.push(node.name.clone());
                failure = error;
                continue;
            }
        };
        let Some(node_task) = answer.task_uid().filter(|_| answer.is_success()) else {
            return Err(refusal(&answer));
        };
        tasks.push(NodeTask { node: node.name.clone(), node_task, main: main.main, shards: Vec::new() });
        match creation::send_all(cluster, node, rest).await {
            Ok(extras) => tasks.extend(extras),
            Err(error) => {
                tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a node missed a later request of an operation");
                missed.push(node.name.clone());
            }
        }
        break;
    }
    if tasks.is_empty() {
        return Err(failure);
    }
    let others: Vec<_> = others.cloned().collect();
    let sent = creation::send_to(cluster, &others, requests).await;
    tasks.extend(sent.tasks);
    missed.extend(sent.missed);
    Ok((tasks, missed))
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
        Effect::None | Effect::Settings { .. } => {}
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

/// After a restart, sends an open operation to all nodes again. The client's key allowed it, otherwise it would not be in the
/// ledger. A node that had received it before the crash fails the second request; that does not decide the task. If all nodes
/// refuse it, no node had accepted it before either, and the task is removed from the ledger.
///
/// # Errors
/// The ledger failed.
pub async fn redo(cluster: &Arc<Cluster>, uid: u32, requests: &[NodeRequest], effect: Effect) -> Result<()> {
    let Some(task) = cluster.ledger.call(move |connection| tasks::get(connection, uid)).await? else {
        return Ok(());
    };
    tell_changing(cluster, uid, &effect).await?;
    let nodes = cluster.current();
    let sent = creation::send_to(cluster, &nodes, requests).await;
    let is_refusal = |error: &Error| matches!(error, Error::Unexpected { status: 400..500, .. });
    if sent.tasks.is_empty()
        && let Some(failure) = sent.failure
    {
        if sent.missed.len() < nodes.len() || !is_refusal(&failure) {
            return Err(failure);
        }
        tracing::info!(uid, error = %failure.chain(), "all nodes refuse an operation that its client got no answer to: its task is removed");
        cluster.change(|cluster_state| drop(cluster_state.changing.remove(&uid))).await?;
        return cluster.ledger.call(move |connection| tasks::take_back(connection, uid)).await;
    }
    creation::mark_behind(cluster, &sent.missed).await?;
    let node_tasks = sent.tasks;
    let stored = node_tasks.clone();
    cluster.ledger.call(move |connection| intents::sent(connection, uid, &stored)).await?;
    cluster.tracked_tasks.add(TrackedTask {
        task,
        node_tasks,
        effect,
        indexed: None,
        written: WrittenIds::new(),
        guard: None,
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renames_and_swaps_move_the_catalogue() {
        let index = |key: &str| Index { primary_key: Some(key.into()), ..Index::default() };
        let mut cluster_state = ClusterState::default();
        cluster_state.indexes.insert("a".into(), index("ka"));
        cluster_state.indexes.insert("b".into(), index("kb"));
        apply(&mut cluster_state, &Effect::Swap { pairs: vec![("a".into(), "b".into(), false)] });
        assert_eq!(cluster_state.indexes["a"].primary_key.as_deref(), Some("kb"));
        let rename = Effect::UpdateIndex { index: "a".into(), primary_key: None, rename: Some("c".into()) };
        apply(&mut cluster_state, &rename);
        assert_eq!(cluster_state.indexes.keys().collect::<Vec<_>>(), ["b", "c"]);
        apply(
            &mut cluster_state,
            &Effect::UpdateIndex { index: "b".into(), primary_key: Some("x".into()), rename: None },
        );
        assert_eq!(cluster_state.indexes["b"].primary_key.as_deref(), Some("x"));
    }
}
