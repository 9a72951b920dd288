//! Judges swaps and renames by where nodes have the indexes, not by what they say of their tasks: a node that was killed may do them twice,
//! one that could not store the end of a task has done them, one with a full disk has not. The date of creation moves with an index.
//!
//! Where no node that has moved them has the documents of some shard, the task waits, with its locks, and the nodes that have these documents
//! are told again.
//!
//! The ledger has the dates of before; after a crash, everything is judged anew.

use crate::{
    base::error::Result,
    cluster::Cluster,
    domain::{
        cluster_state::ClusterState,
        impossible_move::deniers,
        intent::{CreationDates, Effect, Intent, NodeRequest},
        task::TaskStatus,
        verdict::{Outcome, State, TrackedNodeTask, is_about_existence},
    },
    indexes::creation,
    ledger::intents,
    node::Node,
};
use futures_util::future::join_all;
use miroir_core::{node_name::NodeName, path::ApiPath};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// What telling nodes again is called in logs and metrics.
const MOVING: &str = "moving";
/// How long a node is left alone that could not be told: its disk may be full.
const PAUSE: Duration = Duration::from_secs(1);

/// How an operation moves indexes: from, to, and whether `to` moves back to `from`.
type Moves = Vec<(String, String, bool)>;
/// When a node created its indexes, by name.
type Dates = BTreeMap<String, String>;

/// Where a node has the indexes of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Where they are to be.
    Moved,
    /// Where they were.
    Unmoved,
    /// It has none of those that it had, or it is not known which it had.
    Unclear,
    /// It does not answer, or may still do its task.
    Unknown,
}

/// What is known of an operation whose node tasks are over.
pub(super) enum Moving {
    /// It moves nothing, or has not moved anything: what nodes say of their tasks counts.
    AsTold,
    /// Some documents are only on nodes that have not moved them.
    Waits,
    /// It has moved its indexes, and can end.
    Over(Moved),
}

/// Which nodes have moved the indexes of an operation.
pub(super) struct Moved {
    names: BTreeSet<String>,
    nodes: BTreeSet<NodeName>,
    /// Those that have not, and can.
    others: BTreeSet<NodeName>,
}

impl Moved {
    /// Whether this node has moved them.
    pub fn is_on(&self, node: &NodeName) -> bool {
        self.nodes.contains(node)
    }

    /// The nodes that must move them still, since they have the only replicas of some shards.
    fn needed(&self, cluster_state: &ClusterState) -> BTreeSet<NodeName> {
        let only = cluster_state.only_holders(&self.names, &self.nodes);
        only.intersection(&self.others).cloned().collect()
    }

    /// Whether there are no such nodes.
    pub fn is_enough(&self, cluster_state: &ClusterState) -> bool {
        self.needed(cluster_state).is_empty()
    }

    /// Corrects what follows from the states of nodes' tasks.
    fn correct(&self, outcome: &mut Outcome, effect: &Effect, parts: &[TrackedNodeTask]) {
        if !matches!(effect, Effect::UpdateIndex { primary_key: Some(_), .. }) {
            (outcome.status, outcome.error) = (TaskStatus::Succeeded, None);
            outcome.behind.retain(|node| !self.is_on(node));
        }
        let nodes = parts.iter().filter(|part| part.main).map(|part| &part.node);
        outcome.behind.extend(nodes.filter(|node| !self.is_on(node)).cloned());
    }
}

/// Finds out where nodes have the indexes of an operation, and corrects its outcome if it can end. `stopped`: nodes that may have stopped
/// while they processed it.
///
/// # Errors
/// The ledger failed.
pub(super) async fn judge(
    cluster: &Arc<Cluster>,
    uid: u32,
    outcome: &mut Outcome,
    stopped: &BTreeSet<NodeName>,
) -> Result<Moving> {
    let (effect, parts) = match cluster.tracked_tasks.pending().get(&uid) {
        // Without its locks, something else may have followed.
        Some(it) if it.guard.is_some() => (it.effect.clone(), it.parts.clone()),
        _ => return Ok(Moving::AsTold),
    };
    let moves: Moves = effect.moves().into_iter().filter(|(from, to, _)| from != to).collect();
    if moves.is_empty() {
        return Ok(Moving::AsTold);
    }
    let intent = cluster.ledger.call(move |connection| intents::get(connection, uid)).await?;
    let Some(Intent::Broadcast { created, .. }) = intent else { return Ok(Moving::AsTold) };
    // Only nodes that know that it cannot be done have got it.
    if deniers(&effect, &cluster.cluster_state().indexes, &created).is_some_and(|nodes| !nodes.is_empty()) {
        return Ok(Moving::AsTold);
    }
    let main: BTreeMap<&NodeName, &TrackedNodeTask> =
        parts.iter().filter(|part| part.main).map(|part| (&part.node, part)).collect();
    let places = places(cluster, &created, &moves, &main).await;
    let at = |place: Place| -> BTreeSet<NodeName> {
        let there = places.iter().filter(|(_, found)| **found == place);
        there.map(|(node, _)| node.clone()).collect()
    };
    let names: BTreeSet<String> = effect.names().map(ToOwned::to_owned).collect();
    let mut nodes = at(Place::Moved);
    let has_failed = outcome.status != TaskStatus::Succeeded;
    // A node that has moved them says so if it is told to do it a second time. Otherwise, nodes that know which indexes there are say that it
    // cannot be done.
    let repeats = |node: &NodeName| main.get(node).is_some_and(|part| part.seen.is_about_existence());
    let is_denied =
        has_failed && outcome.error.as_ref().is_some_and(is_about_existence) && !nodes.iter().any(repeats);
    if is_denied || places.values().all(|place| *place == Place::Unclear) {
        return Ok(Moving::AsTold);
    }
    if has_failed && nodes.is_empty() {
        // Who does not answer may have moved them.
        let unmoved = Moved { names, nodes: at(Place::Unmoved), others: at(Place::Unknown) };
        return Ok(match unmoved.is_enough(&cluster.cluster_state()) {
            true => Moving::AsTold,
            false => Moving::Waits,
        });
    }
    let is_believed = |node: &NodeName, part: &TrackedNodeTask| {
        let had_none =
            || created.get(node).is_none_or(|dates| dates.keys().all(|name| !names.contains(name)));
        let has_no_other_proof = match places.get(node) {
            Some(Place::Unclear) => had_none(),
            Some(Place::Unknown) => true,
            _ => false,
        };
        has_no_other_proof
            && part.seen.state == State::Succeeded
            && !part.is_interrupted
            && !stopped.contains(node)
    };
    let believed = main.iter().filter(|(node, part)| is_believed(node, part));
    nodes.extend(believed.map(|(node, _)| (*node).clone()));
    let others = at(Place::Unmoved).into_iter().chain(at(Place::Unknown));
    let others = others.filter(|node| !nodes.contains(node)).collect();
    let moved = Moved { names, nodes, others };
    let needed = moved.needed(&cluster.cluster_state());
    if !needed.is_empty() {
        let told = needed.intersection(&at(Place::Unmoved)).cloned().collect();
        tell(cluster, &Arc::new(Order { uid, effect, moves, created }), told);
        return Ok(Moving::Waits);
    }
    moved.correct(outcome, &effect, &parts);
    Ok(Moving::Over(moved))
}

/// Asks the nodes that have got an operation where they have its indexes.
async fn places(
    cluster: &Cluster,
    created: &CreationDates,
    moves: &Moves,
    main: &BTreeMap<&NodeName, &TrackedNodeTask>,
) -> BTreeMap<NodeName, Place> {
    let nodes: BTreeSet<&NodeName> = main.keys().copied().chain(created.keys()).collect();
    let asked = nodes.into_iter().filter_map(|name| Some((name, cluster.node(name)?)));
    let asked = asked.map(async |(name, node)| {
        let is_over = main.get(name).is_none_or(|part| part.seen.state.is_over());
        let now = if is_over && node.is_up() { node.creation_dates().await.ok() } else { None };
        (name.clone(), now.map_or(Place::Unknown, |now| place(created.get(name), &now, moves)))
    });
    join_all(asked).await.into_iter().collect()
}

/// Where a node has the indexes that it had created at these dates. A node moves all of them, or none.
fn place(before: Option<&Dates>, now: &Dates, moves: &Moves) -> Place {
    let Some(before) = before else { return Place::Unclear };
    for (from, to, is_exchange) in moves {
        let forth = Some((from, to));
        let back = Some((to, from)).filter(|_| *is_exchange);
        for (name, other) in forth.into_iter().chain(back) {
            let Some(date) = before.get(name).filter(|date| before.get(other) != Some(date)) else {
                continue;
            };
            if now.get(name) == Some(date) {
                return Place::Unmoved;
            }
            if now.get(other) == Some(date) {
                return Place::Moved;
            }
        }
    }
    Place::Unclear
}

/// An operation that nodes are told again.
struct Order {
    uid: u32,
    effect: Effect,
    moves: Moves,
    created: CreationDates,
}

/// Has nodes told, each once at a time.
fn tell(cluster: &Arc<Cluster>, order: &Arc<Order>, told: BTreeSet<NodeName>) {
    let uid = order.uid;
    let fresh: Vec<NodeName> = match cluster.tracked_tasks.pending().get_mut(&uid) {
        Some(it) => told.into_iter().filter(|node| it.moving.told.insert(node.clone())).collect(),
        None => return,
    };
    for node in fresh.iter().filter_map(|name| cluster.node(name)) {
        tracing::warn!(
            uid,
            node = node.name.as_str(),
            "a node with the only replica of a shard has its indexes under other names than the others: it is told again"
        );
        let (cluster, supervisor, order) = (Arc::clone(cluster), &cluster.supervisor, Arc::clone(order));
        supervisor.spawn(MOVING, async move {
            let told = cluster.supervisor.catch(MOVING, order.carry_out(&cluster, &node)).await.flatten();
            if let Err(error) = told {
                tracing::warn!(uid, node = node.name.as_str(), error = %error.chain(), "a node could not move its indexes yet");
                tokio::time::sleep(PAUSE).await;
            }
            if let Some(it) = cluster.tracked_tasks.pending().get_mut(&uid) {
                it.moving.told.remove(&node.name);
            }
            cluster.tracked_tasks.notice();
        });
    }
}

impl Order {
    /// Has a node move its indexes, if it has not done it by now.
    async fn carry_out(&self, cluster: &Cluster, node: &Node) -> Result<()> {
        // From here on, what was sent before is in the node's queue or comes no more, and what is in the queue is done.
        cluster.write_keys.fence_late(cluster, node).await?;
        node.wait_for_current_tasks().await?;
        let now = node.creation_dates().await?;
        let before = self.created.get(&node.name);
        if place(before, &now, &self.moves) != Place::Unmoved {
            return Ok(());
        }
        let first = self.preparation(cluster, before, &now);
        if !first.is_empty() {
            // It has missed more than this.
            cluster.change(|cluster_state| cluster_state.mark_behind(&node.name)).await?;
        }
        let requests: Vec<NodeRequest> = first.into_iter().chain([self.request()]).collect();
        for task in creation::send_all(cluster, node, &requests).await? {
            node.wait_for_task(task.node_task.into()).await?;
        }
        Ok(())
    }

    /// What a node gets first that has missed the creation of one of these indexes, or the deletion of one whose name is needed.
    fn preparation(&self, cluster: &Cluster, before: Option<&Dates>, now: &Dates) -> Vec<NodeRequest> {
        let catalogue = cluster.cluster_state();
        let create = |index: &String| {
            let known = catalogue.indexes.get(index);
            creation::creation(index, known.and_then(|known| known.primary_key.as_deref()))
        };
        let mut first = Vec::new();
        for (from, to, is_exchange) in &self.moves {
            let lacking = [Some(from), Some(to).filter(|_| *is_exchange)].into_iter().flatten();
            first.extend(lacking.filter(|index| !now.contains_key(*index)).flat_map(create));
            // What it has under `from` is the index in question. So what it has under `to` is not, and nobody else knows it.
            let date = before.and_then(|before| before.get(from));
            let is_it = date.is_some_and(|date| now.get(from) == Some(date));
            if !is_exchange && now.contains_key(to) && is_it {
                let path = ApiPath::of_index(to, &[]);
                first.push(NodeRequest { method: "DELETE".to_owned(), path, body: None, main: false });
            }
        }
        first
    }

    fn request(&self) -> NodeRequest {
        let (method, path, body) = match (&self.effect, self.moves.first()) {
            (Effect::UpdateIndex { .. }, Some((from, to, _))) => {
                ("PATCH", ApiPath::of_index(from, &[]), json!({ "uid": to }))
            }
            _ => {
                let pair = |(from, to, is_exchange): &(String, String, bool)| match is_exchange {
                    true => json!({"indexes": [from, to]}),
                    false => json!({"indexes": [from, to], "rename": true}),
                };
                ("POST", "/swap-indexes".into(), self.moves.iter().map(pair).collect::<Value>())
            }
        };
        NodeRequest { method: method.to_owned(), path, body: Some(body), main: true }
    }
}

#[cfg(test)]
mod tests;
