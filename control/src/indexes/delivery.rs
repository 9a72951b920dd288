//! Delivers the requests of an operation to nodes, once each. After a restart, nodes are asked what they have of it first.

use crate::{
    base::error::{Error, Result},
    cluster::Cluster,
    domain::{
        intent::{CreationDates, NodeRequest, NodeTask},
        task::TaskKind,
    },
    fencing::in_flight,
    indexes::broadcast::refusal,
    ledger::intents::{self, StoredIntent},
    node::{Authority, Node, Request, SHORT_QUESTION, TIMEOUT, TaskInfo},
};
use futures_util::future::join_all;
use miroir_core::node_name::NodeName;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// By node: the uid of its newest task.
pub type NewestTasks = BTreeMap<NodeName, Option<u32>>;

/// Asks current nodes for their newest tasks. A node that does not answer is left out, and gets nothing of the operation.
///
/// # Errors
/// No node answers.
pub async fn newest_tasks(cluster: &Cluster) -> Result<NewestTasks> {
    let nodes = cluster.current();
    let asked = nodes.iter().map(async |node| (node, node.newest_task().await));
    let (mut newest, mut failure) = (NewestTasks::new(), Error::NoNode);
    for (node, answer) in join_all(asked).await {
        match answer {
            Ok(task) => _ = newest.insert(node.name.clone(), task),
            Err(error) => {
                tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a node gets no part of an operation");
                failure = error;
            }
        }
    }
    if newest.is_empty() { Err(failure) } else { Ok(newest) }
}

/// When nodes have created some indexes. One that does not tell is left out.
pub async fn creation_dates(nodes: &[Arc<Node>], indexes: &BTreeSet<&str>) -> CreationDates {
    let asked = nodes.iter().map(async |node| (node, node.creation_dates().await));
    let mut all = CreationDates::new();
    for (node, answer) in join_all(asked).await {
        match answer {
            Ok(mut dates) => {
                dates.retain(|index, _| indexes.contains(&**index));
                all.insert(node.name.clone(), dates);
            }
            Err(error) => {
                tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a node does not tell when it created its indexes");
            }
        }
    }
    all
}

/// What nodes have of an operation.
#[derive(Clone, Debug, Default)]
pub struct Delivered {
    /// By node: its tasks, one for each of the first requests.
    pub tasks: BTreeMap<NodeName, Vec<NodeTask>>,
    /// Nodes that may have some of it, although no task of theirs is known.
    pub unknown: BTreeSet<NodeName>,
}

impl Delivered {
    /// Whether a node has judged the operation, and accepted it.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        self.tasks.values().any(|tasks| !tasks.is_empty())
    }

    /// The nodes that have all of so many requests.
    #[must_use]
    pub fn whole(&self, requests: usize) -> BTreeSet<NodeName> {
        self.tasks.iter().filter(|(_, tasks)| tasks.len() == requests).map(|(node, _)| node.clone()).collect()
    }

    /// All tasks of nodes.
    #[must_use]
    pub fn node_tasks(&self) -> Vec<NodeTask> {
        self.tasks.values().flatten().cloned().collect()
    }
}

/// A delivery of requests under a task uid.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// The state of the control plane.
    pub cluster: &'a Cluster,
    /// The client's task uid.
    pub uid: u32,
    /// The requests that each node gets, in this order.
    pub requests: &'a [NodeRequest],
}

impl Delivery<'_> {
    /// Sends nodes what they lack. As long as no node has accepted the first request, one node after the other judges it, under
    /// `authority` where that is given: the client's.
    ///
    /// # Errors
    /// A node refuses the first request, or no node answers. `delivered` says who may have it nevertheless.
    pub async fn send(
        &self,
        nodes: &[Arc<Node>],
        delivered: &mut Delivered,
        authority: Option<Authority>,
    ) -> Result<()> {
        let Some(main) = self.requests.first() else { return Ok(()) };
        let mut failure = Error::NoNode;
        for node in nodes.iter().filter(|node| !delivered.unknown.contains(&node.name)).collect::<Vec<_>>() {
            if delivered.is_accepted() {
                break;
            }
            match self.send_one(node, main, authority.clone()).await {
                Ok(Ok(task)) => delivered.tasks.entry(node.name.clone()).or_default().push(task),
                Ok(Err(refusal)) => return Err(refusal),
                Err(error) => {
                    tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a node missed an operation on an index");
                    // A request that got no connection was never sent.
                    if !matches!(error, Error::Unreachable { is_unsent: true, .. }) {
                        delivered.unknown.insert(node.name.clone());
                    }
                    failure = error;
                }
            }
        }
        if !delivered.is_accepted() {
            return Err(failure);
        }
        let rest = nodes.iter().filter(|node| !delivered.unknown.contains(&node.name)).map(async |node| {
            let had = delivered.tasks.get(&node.name).cloned().unwrap_or_default();
            (node.name.clone(), self.send_rest(node, had).await)
        });
        let sent = join_all(rest).await;
        delivered.tasks.extend(sent);
        Ok(())
    }

    /// Asks the nodes whose answers were lost for their tasks. Returns whether one of them has accepted the operation: then it is done, and
    /// the others must get it.
    pub async fn find_answers(&self, newest: &NewestTasks, delivered: &mut Delivered) -> bool {
        let nodes = self.cluster.nodes();
        let nodes: Vec<_> = nodes.iter().filter(|node| delivered.unknown.contains(&node.name)).collect();
        let asked = join_all(nodes.into_iter().map(|node| self.taken_by(node, newest))).await;
        for (name, tasks) in asked.into_iter().flatten().filter(|(_, tasks)| !tasks.is_empty()) {
            tracing::info!(node = name.as_str(), "a node has an operation whose answer was lost");
            delivered.unknown.remove(&name);
            delivered.tasks.insert(name, tasks);
        }
        delivered.is_accepted()
    }

    /// Asks the nodes that lack some of the requests what they have, and sends them the rest. The key of a request that had no answer is
    /// deleted before, so that nothing is taken twice.
    pub async fn send_lacking(&self, nodes: &[Arc<Node>], newest: &NewestTasks, delivered: &mut Delivered) {
        let whole = delivered.whole(self.requests.len());
        let unknown = delivered.unknown.clone();
        let lacking = nodes.iter().filter(|node| !whole.contains(&node.name)).map(async |node| {
            if let Err(error) = self.cluster.write_keys.fence_late(self.cluster, node).await {
                tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a node may still take a part of an operation");
                return None;
            }
            let (name, had) = self.taken_by(node, newest).await?;
            // What was under the client's own key cannot be fenced.
            let may_come = had.is_empty() && unknown.contains(&name);
            if may_come { None } else { Some((name, self.send_rest(node, had).await)) }
        });
        for (name, tasks) in join_all(lacking).await.into_iter().flatten() {
            delivered.unknown.remove(&name);
            delivered.tasks.insert(name, tasks);
        }
    }

    /// What a node has taken of the operation; `None` if it does not tell.
    async fn taken_by(&self, node: &Node, newest: &NewestTasks) -> Option<(NodeName, Vec<NodeTask>)> {
        let bound = newest.get(&node.name).copied().flatten();
        let asked = tokio::time::timeout(SHORT_QUESTION, self.tasks_of(node, Vec::new(), bound)).await;
        match asked {
            Ok(Ok(tasks)) => return Some((node.name.clone(), tasks)),
            Ok(Err(error)) => {
                tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a node does not tell what it has of an operation");
            }
            Err(_) => {
                tracing::warn!(
                    node = node.name.as_str(),
                    "a node does not tell in time what it has of an operation"
                );
            }
        }
        None
    }

    /// Sends a node the requests that it lacks. Returns the tasks that it has then.
    async fn send_rest(&self, node: &Node, mut tasks: Vec<NodeTask>) -> Vec<NodeTask> {
        for request in self.requests.iter().skip(tasks.len()) {
            let sent = self.send_one(node, request, None).await;
            match sent.and_then(|answer| answer) {
                Ok(task) => tasks.push(task),
                Err(error) => {
                    tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a node missed a request of an operation");
                    break;
                }
            }
        }
        tasks
    }

    /// Sends a request, and stores the node's task before anything follows from it. The inner error is the node's refusal.
    async fn send_one(
        &self,
        node: &Node,
        request: &NodeRequest,
        authority: Option<Authority>,
    ) -> Result<Result<NodeTask>> {
        let own = Request::own(&request.method, request.path.clone(), request.body.as_ref());
        let answer = match authority {
            Some(authority) => node.send(&Request { authority, ..own }).await?,
            None => in_flight::send(self.cluster, node, own, TIMEOUT).await?,
        };
        let Some(node_task) = answer.task_uid().filter(|_| answer.is_success()) else {
            return Ok(Err(refusal(&answer)));
        };
        let task = NodeTask { node: node.name.clone(), node_task, main: request.main, shards: Vec::new() };
        let (uid, stored) = (self.uid, task.clone());
        let store = move |connection: &_| intents::add_node_tasks(connection, uid, &[stored]);
        // It is stored again with all others. Until then, the node itself could be asked for it.
        if let Err(error) = self.cluster.ledger.call(store).await {
            tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a node's answer could not be stored yet");
        }
        Ok(Ok(task))
    }

    /// Finds out what nodes have of an operation that a restart has interrupted. The ledger has the answers that had come, and
    /// nodes have the tasks of those that had not. `newest` are the nodes that were sent the requests.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn find(&self, stored: &StoredIntent, newest: &NewestTasks) -> Result<Delivered> {
        let mut delivered = Delivered::default();
        let nodes = self.cluster.nodes();
        // A build of before kept no such list: then any node may have been sent the requests.
        let was_asked = |node: &&Arc<Node>| newest.is_empty() || newest.contains_key(&node.name);
        let mut asked = Vec::new();
        for node in nodes.iter().filter(was_asked) {
            let recorded = stored.tasks.iter().filter(|task| task.node == node.name).cloned();
            let mut recorded: Vec<NodeTask> = recorded.collect();
            recorded.sort_by_key(|task| task.node_task);
            let bound = match newest.get(&node.name) {
                Some(bound) => *bound,
                None => {
                    let (uid, name) = (self.uid, node.name.clone());
                    self.cluster
                        .ledger
                        .call(move |connection| intents::newest_before(connection, uid, &name))
                        .await?
                }
            };
            asked.push(async move { (node, self.tasks_of(node, recorded, bound).await) });
        }
        for (node, found) in join_all(asked).await {
            match found {
                Ok(tasks) => _ = delivered.tasks.insert(node.name.clone(), tasks),
                Err(error) => {
                    tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a node does not tell what it has of an operation");
                    delivered.unknown.insert(node.name.clone());
                }
            }
        }
        // What was recorded stands, also of a node that does not answer now.
        for task in &stored.tasks {
            let tasks = delivered.tasks.entry(task.node.clone()).or_default();
            if !tasks.contains(task) {
                tasks.push(task.clone());
            }
        }
        Ok(delivered)
    }

    /// A node's tasks for the first requests. Operations are under locks: a newer task of the same kind on the same index is part
    /// of this one.
    async fn tasks_of(
        &self,
        node: &Node,
        recorded: Vec<NodeTask>,
        bound: Option<u32>,
    ) -> Result<Vec<NodeTask>> {
        if recorded.len() >= self.requests.len() {
            return Ok(recorded);
        }
        let kinds: Vec<TaskKind> = self.requests.iter().filter_map(kind).collect();
        let mut left = self.requests.iter().peekable();
        let mut tasks = Vec::new();
        for task in node.tasks_after(bound, &kinds).await? {
            if let Some(request) = left.next_if(|request| is_of(&task, request))
                && let Some(node_task) = task.uid()
            {
                let node = node.name.clone();
                tasks.push(NodeTask { node, node_task, main: request.main, shards: Vec::new() });
            }
        }
        Ok(tasks)
    }
}

/// The kind of the task that a request makes.
fn kind(request: &NodeRequest) -> Option<TaskKind> {
    Some(match (request.path.segments().as_slice(), &*request.method) {
        (["indexes"], "POST") => TaskKind::IndexCreation,
        (["indexes", _], "DELETE") => TaskKind::IndexDeletion,
        (["indexes", _], _) => TaskKind::IndexUpdate,
        (["indexes", _, "settings", ..], _) => TaskKind::SettingsUpdate,
        (["indexes", _, "compact"], _) => TaskKind::IndexCompaction,
        (["swap-indexes"], _) => TaskKind::IndexSwap,
        (["dumps"], _) => TaskKind::DumpCreation,
        (["snapshots"], _) => TaskKind::SnapshotCreation,
        (["dynamic-search-rules"], _) => TaskKind::DsrClear,
        (["dynamic-search-rules", _], _) => TaskKind::DsrUpdate,
        _ => return None,
    })
}

/// Whether a node's task may come from a request: it is of its kind, and on its index.
fn is_of(task: &TaskInfo, request: &NodeRequest) -> bool {
    let body = request.body.as_ref();
    let segments = request.path.segments();
    let is_there = match segments.as_slice() {
        ["indexes"] => task.index() == body.and_then(|body| body.get("uid")).and_then(Value::as_str),
        ["indexes", index, ..] => task.index() == Some(*index),
        ["swap-indexes"] => {
            let swaps = task.get("details").and_then(|details| details.get("swaps"));
            swaps.map(names) == body.map(names)
        }
        _ => true,
    };
    is_there && kind(request).is_some_and(|kind| task.kind() == Some(kind))
}

/// The names in a list of swaps.
fn names(swaps: &Value) -> Vec<&Value> {
    swaps.as_array().into_iter().flatten().filter_map(|swap| swap.get("indexes")).collect()
}

#[cfg(test)]
mod tests;
