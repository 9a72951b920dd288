//! Operations on whole indexes: one ledger task, the same requests to all nodes.

use crate::{
    auth::Grant,
    base::error::{Error, Result, api_error},
    cluster::{Cluster, locks::Scope, tracked::Unsettled},
    disguise::scrub,
    domain::{
        cluster_state::{Index, View},
        intent::{Effect, Intent, NodeRequest, NodeTask},
        task::TaskKind,
    },
    indexes::catalogue,
    ledger::{
        intents,
        tasks::{self, NewTask, Task},
    },
    node::{Authority, NodeAnswer, Request},
};
use std::{collections::BTreeSet, sync::Arc};

/// An operation, before it has a uid.
#[derive(Clone, Debug)]
pub struct Operation {
    /// The client's task.
    pub task: NewTask,
    /// What it touches.
    pub scope: Scope,
    /// Request by request, for every node. The first is the client's own, as rewritten.
    pub requests: Vec<NodeRequest>,
    /// The client's, so that the first node judges its request natively too.
    pub authority: Authority,
    /// What the catalogue learns once nodes have taken it.
    pub at_once: AtOnce,
    /// What the catalogue learns once it has succeeded; locks are held until then, if there is any.
    pub effect: Effect,
}

/// Kinds of tasks that change nothing: a node that misses one has nothing to catch up with.
pub const CHANGELESS: [TaskKind; 3] =
    [TaskKind::DumpCreation, TaskKind::SnapshotCreation, TaskKind::IndexCompaction];

/// A change of the catalogue that is true as soon as nodes have the request in their queues.
#[derive(Clone, Debug, Default)]
pub enum AtOnce {
    /// None.
    #[default]
    Nothing,
    /// An index is there.
    Created {
        /// Index uid.
        index: String,
        /// Its primary key.
        primary_key: Option<String>,
    },
    /// An index is gone.
    Deleted {
        /// Index uid.
        index: String,
    },
}

/// Runs an operation that a key allows, and returns its task. The key has been judged before: what is not allowed waits for no lock,
/// and is nowhere in the ledger.
///
/// # Errors
/// A node's own error, if the first node refuses the client's request; or no node answers.
pub async fn run(cluster: &Arc<Cluster>, _: &Grant, operation: Operation) -> Result<Task> {
    let guard = cluster.locks.lock(operation.scope.clone()).await;
    let cluster = cluster.clone();
    // A client that leaves must not leave nodes different.
    tokio::spawn(async move { run_locked(&cluster, operation, guard).await })
        .await
        .map_err(|error| Error::Other(error.to_string()))?
}

async fn run_locked(
    cluster: &Arc<Cluster>,
    operation: Operation,
    guard: crate::cluster::locks::LockGuard,
) -> Result<Task> {
    let Operation { task, scope, requests, authority, at_once, effect } = operation;
    // Copies that are under way begin anew with these indexes, once it is known what nodes have taken.
    // Rules do not change any.
    let indexes = if matches!(effect, Effect::Rules { .. }) { Some(BTreeSet::new()) } else { scope.indexes };
    let changed = Changed { cluster, indexes };
    let intent = Intent::Broadcast { requests: requests.clone(), effect: effect.clone() };
    let task = cluster.ledger.call(move |connection| intents::begin(connection, &task, &intent)).await?;
    let uid = task.uid;
    tell_changing(cluster, uid, &effect).await?;
    let (node_tasks, missed) = match send(cluster, &requests, authority).await {
        Ok(sent) => sent,
        Err(error) => {
            cluster.change(|view| drop(view.changing.remove(&uid))).await?;
            cluster.ledger.call(move |connection| tasks::take_back(connection, uid)).await?;
            return Err(error);
        }
    };
    if !CHANGELESS.contains(&task.kind) {
        catalogue::mark_behind(cluster, &missed).await?;
    }
    let stored = node_tasks.clone();
    cluster.ledger.call(move |connection| intents::sent(connection, uid, &stored)).await?;
    let now = task.enqueued_at;
    cluster
        .change(|view| match at_once {
            AtOnce::Created { index, primary_key } => {
                view.indexes.entry(index).or_insert(Index {
                    primary_key,
                    created_at: now,
                    updated_at: now,
                    ..Index::default()
                });
            }
            AtOnce::Deleted { index } => {
                view.indexes.remove(&index);
            }
            AtOnce::Nothing => {}
        })
        .await?;
    let (held, released) = if effect.holds_locks() { (Some(guard), None) } else { (None, Some(guard)) };
    cluster.settler.add(Unsettled { task: task.clone(), node_tasks, effect, indexed: None, guard: held });
    // Only now: a copy that hears of it, or gets the locks, must find the operation among what it waits for.
    drop(changed);
    drop(released);
    Ok(task)
}

/// Before a node hears of other settings, gateways do: what they answer meanwhile may be of both. And of a rule, so that
/// what it pins on one node is found in its place.
pub(crate) async fn tell_changing(cluster: &Cluster, uid: u32, effect: &Effect) -> Result<()> {
    match effect {
        Effect::Settings { .. } | Effect::Rules { .. } => {
            cluster.change(|view| drop(view.changing.insert(uid, effect.clone()))).await
        }
        Effect::None | Effect::UpdateIndex { .. } | Effect::Swap { .. } => Ok(()),
    }
}

/// Tells recordings that indexes have changed, when an operation on them has been sent, or has failed.
struct Changed<'a> {
    cluster: &'a Cluster,
    indexes: Option<BTreeSet<String>>,
}

impl Drop for Changed<'_> {
    fn drop(&mut self) {
        let known = self.cluster.view().indexes.clone().into_keys();
        self.cluster.mover.recorder.indexes_changed(self.indexes.as_ref(), known);
    }
}

/// The first node judges the client's request; what it takes, all others get under keys that can be taken away. Gives the
/// nodes that missed something, too.
async fn send(
    cluster: &Cluster,
    requests: &[NodeRequest],
    authority: Authority,
) -> Result<(Vec<NodeTask>, Vec<String>)> {
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
        match catalogue::send_all(cluster, node, rest).await {
            Ok(extras) => tasks.extend(extras),
            Err(error) => {
                tracing::warn!(node = node.name, %error, "a node missed a step");
                missed.push(node.name.clone());
            }
        }
        break;
    }
    if tasks.is_empty() {
        return Err(failure);
    }
    let others: Vec<_> = others.cloned().collect();
    let sent = catalogue::send_to(cluster, &others, requests).await;
    tasks.extend(sent.tasks);
    missed.extend(sent.missed);
    Ok((tasks, missed))
}

/// A node's refusal, in its own words but for the tag.
#[must_use]
pub fn refusal(answer: &NodeAnswer) -> Error {
    match answer.error() {
        Some(error) => {
            let message = scrub::message(&error.message);
            let message = scrub::shift_position(&message, ".filterableAttributes[");
            api_error(answer.status, &error.kind, &error.code, message).into()
        }
        None => Error::Other(format!("a node answered {}", answer.status)),
    }
}

/// What a mutation does to the catalogue, once it has succeeded.
pub fn apply(view: &mut View, effect: &Effect) {
    match effect {
        Effect::None | Effect::Settings { .. } => {}
        Effect::Rules { change } => change.apply(&mut view.rules),
        Effect::UpdateIndex { index, primary_key, rename } => {
            if let Some(entry) = view.indexes.get_mut(index)
                && primary_key.is_some()
            {
                entry.primary_key.clone_from(primary_key);
            }
            if let Some(rename) = rename
                && let Some(entry) = view.indexes.remove(index)
            {
                view.indexes.insert(rename.clone(), entry);
            }
        }
        Effect::Swap { pairs } => {
            for (left, right, rename) in pairs {
                let (from, to) = (view.indexes.remove(left), view.indexes.remove(right));
                if let Some(from) = from {
                    view.indexes.insert(right.clone(), from);
                }
                if let Some(to) = to.filter(|_| !rename) {
                    view.indexes.insert(left.clone(), to);
                }
            }
        }
    }
}

/// Sends an operation again that a crash found open: its client's key allowed it, or it would not be in the ledger. Nodes that had it
/// before fail the second: that decides nothing. What all nodes refuse to take was never accepted, and is taken back.
///
/// # Errors
/// The ledger failed.
pub async fn redo(cluster: &Arc<Cluster>, uid: u32, requests: &[NodeRequest], effect: Effect) -> Result<()> {
    let Some(task) = cluster.ledger.call(move |connection| tasks::get(connection, uid)).await? else {
        return Ok(());
    };
    tell_changing(cluster, uid, &effect).await?;
    let nodes = cluster.current();
    let sent = catalogue::send_to(cluster, &nodes, requests).await;
    let is_refusal = |error: &Error| matches!(error, Error::Unexpected { status: 400..500, .. });
    if sent.tasks.is_empty()
        && let Some(failure) = sent.failure
    {
        if sent.missed.len() < nodes.len() || !is_refusal(&failure) {
            return Err(failure);
        }
        tracing::info!(uid, error = %failure, "nodes refuse an operation whose client has heard nothing: it is taken back");
        cluster.change(|view| drop(view.changing.remove(&uid))).await?;
        return cluster.ledger.call(move |connection| tasks::take_back(connection, uid)).await;
    }
    catalogue::mark_behind(cluster, &sent.missed).await?;
    let node_tasks = sent.tasks;
    let stored = node_tasks.clone();
    cluster.ledger.call(move |connection| intents::sent(connection, uid, &stored)).await?;
    cluster.settler.add(Unsettled { task, node_tasks, effect, indexed: None, guard: None });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn renames_and_swaps_move_the_catalogue() {
        let index = |key: &str| Index { primary_key: Some(key.into()), ..Index::default() };
        let mut view = View::default();
        view.indexes.insert("a".into(), index("ka"));
        view.indexes.insert("b".into(), index("kb"));
        apply(&mut view, &Effect::Swap { pairs: vec![("a".into(), "b".into(), false)] });
        assert_eq!(view.indexes["a"].primary_key.as_deref(), Some("kb"));
        let rename = Effect::UpdateIndex { index: "a".into(), primary_key: None, rename: Some("c".into()) };
        apply(&mut view, &rename);
        assert_eq!(view.indexes.keys().collect::<Vec<_>>(), ["b", "c"]);
        apply(
            &mut view,
            &Effect::UpdateIndex { index: "b".into(), primary_key: Some("x".into()), rename: None },
        );
        assert_eq!(view.indexes["b"].primary_key.as_deref(), Some("x"));
    }
}
