//! Ends a task: changes replicas and the catalogue first, then lets the client see the end.

use super::{
    field_completion,
    moving::{self, Moved, Moving},
    restarts, roll_back,
};
use crate::{
    base::error::{Error, Result},
    cluster::{
        Cluster,
        missed::{self, WrittenIds},
        tracked_tasks::{Pending, RollBack, RolledBack},
    },
    disguise::{facet_values::FACETING, messages, settings_tag},
    domain::{
        cluster_state::Index,
        intent::Effect,
        task::{TaskKind, TaskStatus},
        task_details::nothing_done,
        verdict::{Outcome, State, is_about_existence, repeated},
    },
    indexes::broadcast::CHANGELESS,
    ledger::{
        intents, settings as stored,
        tasks::{self, Ending, Task},
    },
};
use miroir_core::{error::ErrorBody, node_name::NodeName, shard::Shard};
use serde_json::{Value, json};
use std::{collections::BTreeSet, sync::Arc};

/// Ends a task. First records and publishes what it means for replicas and indexes. The client sees the end only when every
/// gateway uses the topology with these changes, and no gateway reads a replica that ended the task differently.
pub(super) async fn finish(cluster: &Arc<Cluster>, uid: u32, mut over: Outcome) -> Result<()> {
    let (task, effect, written, roll_back, unwatched) = match cluster.tracked_tasks.pending().get(&uid) {
        Some(it) => {
            // A node creates an index before it applies the first settings. Even if these fail, the index must have the shard
            // tag's rule, so all its nodes are rolled back to that.
            if over.status == TaskStatus::Failed
                && matches!(it.effect, Effect::Settings { creates: true, .. })
            {
                let there = it.parts.iter().filter(|part| part.main && part.seen.state != State::Away);
                over.to_roll_back.extend(there.map(|part| part.node.clone()));
            }
            let interrupted = it.parts.iter().filter(|part| part.is_interrupted);
            let interrupted: BTreeSet<NodeName> = interrupted.map(|part| part.node.clone()).collect();
            if it.task.kind == TaskKind::DocumentEdition {
                over.stale.extend(repeated(&it.parts, &interrupted));
            }
            if it.task.kind.is_about_whole_indexes() {
                over.behind.extend(interrupted);
            }
            // Whatever else a node does twice fails the second time, or changes nothing more.
            let may_be_twice = [TaskKind::IndexSwap, TaskKind::DocumentEdition].contains(&it.task.kind);
            let unwatched = if it.is_restored && may_be_twice { it.parts.clone() } else { Vec::new() };
            let written = Written {
                names: it.index_names().map(ToOwned::to_owned).collect(),
                ids: it.written.clone(),
                indexed: it.indexed,
            };
            (it.task.clone(), it.effect.clone(), written, it.roll_back.clone(), unwatched)
        }
        None => return Ok(()),
    };
    match roll_back {
        RollBack::Nothing if over.to_roll_back.is_empty() => {}
        RollBack::Nothing => {
            roll_back::start(cluster, uid, over);
            return Ok(());
        }
        RollBack::UnderWay => return Ok(()),
        RollBack::Done(RolledBack { behind, rewritten }) => {
            over.behind.extend(behind);
            let cluster_state = cluster.cluster_state();
            let replicas = cluster_state
                .shards()
                .flat_map(|shard| cluster_state.active(shard).map(move |node| (shard, node.clone())));
            over.stale.extend(replicas.filter(|(_, node)| rewritten.contains(node)));
        }
    }
    if cluster.tracked_tasks.waits_for_earlier(uid) {
        return Ok(());
    }
    let may_have_stopped = restarts::find(cluster, &unwatched).await;
    if task.kind == TaskKind::DocumentEdition {
        over.stale.extend(repeated(&unwatched, &may_have_stopped));
    } else {
        over.behind.extend(may_have_stopped.iter().cloned());
    }
    let moving = moving::judge(cluster, uid, &mut over, &may_have_stopped).await?;
    if let Some(it) = cluster.tracked_tasks.pending().get_mut(&uid) {
        it.moving.waits = matches!(moving, Moving::Waits);
    }
    let moved_by = match moving {
        Moving::AsTold => None,
        Moving::Waits => return Ok(()),
        Moving::Over(moved) => Some(moved),
    };
    match field_completion::step(cluster, uid) {
        None => return Ok(()),
        Some(ignorant) => over.behind.extend(ignorant),
    }
    if let Some(it) = cluster.tracked_tasks.pending().get(&uid) {
        for part in it.parts.iter().filter(|part| over.excludes(&part.node)) {
            let error = part.seen.error.as_ref().map(|error| error.message.as_str());
            tracing::warn!(uid, node = part.node.as_str(), node_task = part.node_task, state = ?part.seen.state, error, "a node did not do as the others");
        }
    }
    let effect = match (over.status, &moved_by) {
        (TaskStatus::Succeeded, _) => effect,
        (_, Some(_)) => without_key(effect),
        (_, None) => kept(effect, &over),
    };
    let ending = apply(cluster, &task, &effect, over, written, moved_by).await?;
    if let Some(pending) = cluster.tracked_tasks.pending().get_mut(&uid) {
        pending.ending = Some(ending);
        pending.effect = effect;
        if let Some(index) = &pending.task.index {
            let over: BTreeSet<(&str, u32)> =
                pending.parts.iter().map(|part| (&*part.node, part.node_task)).collect();
            cluster.fields.ended(index, |node, task| over.contains(&(node, task)));
        }
    }
    conclude(cluster, uid).await
}

/// Lets the client see the end of a task whose outcome is applied, once every gateway uses the topology with it.
pub(super) async fn conclude(cluster: &Arc<Cluster>, uid: u32) -> Result<()> {
    let (task, effect, ending) = match cluster.tracked_tasks.pending().get(&uid) {
        Some(Pending { task, effect, ending: Some(ending), .. }) => {
            (task.clone(), effect.clone(), ending.clone())
        }
        _ => return Ok(()),
    };
    let is_applied_everywhere =
        cluster.is_applied_everywhere(task.index.as_deref().into_iter().chain(effect.names()));
    if !is_applied_everywhere || !cluster.no_gateway_reads_stale().await? {
        return Ok(());
    }
    end(cluster, task, effect, ending).await
}

/// The part of a failed operation that nodes have applied nevertheless: if an update changes name and primary key at once,
/// nodes apply the name before they check the key. An index that nodes have not deleted is there again.
fn kept(effect: Effect, over: &Outcome) -> Effect {
    let is_gone = over.error.as_ref().is_some_and(is_about_existence);
    let has_index = over.error.is_some() && !is_gone;
    match effect {
        Effect::UpdateIndex { primary_key: Some(_), rename: Some(_), .. } if has_index => without_key(effect),
        Effect::Deletion { index, was, .. } if !is_gone => Effect::Deletion { index, was, is_undone: true },
        _ => Effect::None,
    }
}

/// What an operation does to names.
fn without_key(effect: Effect) -> Effect {
    match effect {
        Effect::UpdateIndex { index, rename, .. } => Effect::UpdateIndex { index, primary_key: None, rename },
        effect => effect,
    }
}

/// What a task has written.
struct Written {
    /// The names under which nodes may have the documents.
    names: BTreeSet<String>,
    ids: WrittenIds,
    /// The number of documents that are indexed.
    indexed: Option<u64>,
}

/// Applies the end of a task to replicas, the catalogue and settings, and stores how it ends, in one transaction: it is applied
/// once, whatever happens next. Returns how it ends.
async fn apply(
    cluster: &Cluster,
    task: &Task,
    effect: &Effect,
    mut over: Outcome,
    Written { names, mut ids, indexed }: Written,
    moved_by: Option<Moved>,
) -> Result<Ending> {
    let uid = task.uid;
    let finished_at = over.finished_at.unwrap_or_else(|| cluster.clock.wall());
    for (shard, node) in &over.stale {
        tracing::warn!(
            uid,
            shard = shard.0,
            node = node.as_str(),
            "a replica ended a write differently from the others"
        );
    }
    let changes_data = !CHANGELESS.contains(&task.kind);
    for node in over.behind.iter().filter(|_| changes_data) {
        tracing::warn!(uid, node = node.as_str(), "a node ended an operation differently from the others");
    }
    let moves = effect.moves();
    let moved: Vec<String> = moves.iter().flat_map(|(from, to, _)| [from.clone(), to.clone()]).collect();
    let change = (task.clone(), effect.clone(), moves.clone());
    // If the index is just being swapped or renamed, the documents may be under another name by now.
    let names: BTreeSet<String> = names.iter().flat_map(|name| cluster.locks.with(name)).collect();
    if names.len() > 1 {
        ids.clear();
    }
    let recorder = cluster.mover.recorder.clone();
    let ending = cluster
        .change_stored(move |connection, cluster_state| {
            let (task, effect, moves) = change;
            // Those that have done the write may have become stale by something else meanwhile, or be gone.
            let mut lost = BTreeSet::new();
            for index in &names {
                lost.extend(cluster_state.end_write(index, &over, |shard| missed::kind(&ids, shard)));
                let shards: BTreeSet<Shard> = over.stale.iter().map(|(shard, _)| *shard).collect();
                missed::record(connection, cluster_state, &recorder, index, shards, &ids)?;
            }
            if !lost.is_empty() {
                tracing::error!(uid, shards = ?lost, "no replica that is read has a write");
            }
            over.lose(&lost);
            // A node that has moved its indexes may have missed something else since it was judged. The next round judges again.
            if moved_by.as_ref().is_some_and(|moved| !moved.is_enough(cluster_state)) {
                return Err(Error::Other(
                    "a node that has done an operation has missed something else".to_owned(),
                ));
            }
            // Of two nodes, the one is kept that has done it.
            let has_done = |node: &&NodeName| moved_by.as_ref().is_some_and(|moved| moved.is_on(node));
            let (then, first): (Vec<_>, Vec<_>) =
                over.behind.iter().filter(|_| changes_data).partition(has_done);
            first.into_iter().chain(then).for_each(|node| cluster_state.mark_behind(node));
            cluster_state.changing.remove(&uid);
            let succeeded = over.status == TaskStatus::Succeeded;
            if let Some(changed) = task.index.as_ref().and_then(|index| cluster_state.indexes.get_mut(index))
                && succeeded
                && !is_idle(&effect)
            {
                let started_at = over.started_at.map_or(finished_at, |at| at.max(task.enqueued_at));
                changed.date(task.kind, started_at.min(finished_at), finished_at);
            }
            // Before an index disappears from the cluster state: the ledger deletes its settings then.
            stored::move_settings(connection, &moves)?;
            intents::follow(connection, uid, &moves)?;
            crate::indexes::broadcast::apply(cluster_state, &effect);
            // If the index was deleted meanwhile, its settings are not stored.
            if let Effect::Settings { index, change, .. } = &effect
                && let Some(changed) = cluster_state.indexes.get_mut(index)
                && succeeded
            {
                stored::merge_settings(connection, index, change.as_ref())?;
                changed.settings = Index::published(stored::settings(connection, index)?);
            }
            if let Effect::Deletion { index, was: Some(was), is_undone: true } = &effect
                && let Some(settings) = was.restore(cluster_state, index)
            {
                stored::merge_settings(connection, index, Some(&json!(settings)))?;
            }
            if let (Some(by), TaskStatus::Canceled) = (task.canceled_by, over.status) {
                tasks::set_canceled_by(connection, uid, by)?;
            }
            let ending = Ending {
                status: over.status,
                details: details(&task, &over, indexed, cluster_state.replication as u64),
                error: over.error.clone().map(|error| for_client(&task, error)),
                started_at: over.started_at.map(|at| at.max(task.enqueued_at)),
                finished_at,
            };
            intents::applied(connection, uid, &ending)?;
            Ok(ending)
        })
        .await?;
    cluster.tracked_tasks.renamed(uid, &moves);
    moved.iter().for_each(|index| cluster.fields.forget(index));
    Ok(ending)
}

/// Whether an update of an index has changed nothing: it sets no primary key, and no other name.
fn is_idle(effect: &Effect) -> bool {
    matches!(effect, Effect::UpdateIndex { index, primary_key: None, rename }
        if rename.as_ref().is_none_or(|rename| rename == index))
}

/// Stores the end of a task, as clients see it.
async fn end(cluster: &Cluster, task: Task, effect: Effect, mut ending: Ending) -> Result<()> {
    let uid = task.uid;
    cluster
        .ledger
        .call(move |connection| {
            if task.kind == TaskKind::TaskCancelation
                && let Some(details) = &mut ending.details
            {
                details["canceledTasks"] = json!(tasks::count_canceled(connection, uid)?);
            }
            tasks::finish(connection, uid, &ending)?;
            if let (TaskStatus::Succeeded, Effect::Swap { pairs }) = (ending.status, &effect) {
                pairs
                    .iter()
                    .try_for_each(|(left, right, _)| tasks::swap_names(connection, uid, left, right))?;
            }
            intents::close(connection, uid)
        })
        .await?;
    let done = cluster.tracked_tasks.pending().remove(&uid);
    drop(done.and_then(|pending| pending.guard));
    Ok(())
}

/// An error for the client: line numbers in an edit's function are those of the client's own text.
fn for_client(task: &Task, mut error: ErrorBody) -> ErrorBody {
    if task.kind == TaskKind::DocumentEdition {
        error.message = messages::shift_lines(&error.message, miroir_core::write::EDIT_LINES_BEFORE);
    }
    error
}

/// The details of an ended task: those of the ledger, with counts that count each document once, and a node's details for
/// everything else.
fn details(task: &Task, over: &Outcome, indexed: Option<u64>, replication: u64) -> Option<Value> {
    let mut details = task.details.clone().unwrap_or_else(|| json!({}));
    if over.status != TaskStatus::Succeeded {
        if task.kind == TaskKind::IndexDeletion && over.details.is_some() {
            return over.details.clone();
        }
        // The details of a reset name all settings that nodes know.
        if task.kind == TaskKind::SettingsUpdate && over.details.is_some() {
            return settings_details(&details, over);
        }
        return nothing_done(task.details.as_ref());
    }
    // Every node has all rules, so one node's details are right.
    if task.kind.is_about_rules() && over.details.is_some() {
        return over.details.clone();
    }
    if let Some(received) = details.get("receivedDocuments").cloned() {
        details["indexedDocuments"] = indexed.map_or(received, Value::from);
        return Some(details);
    }
    if task.kind == TaskKind::DocumentEdition {
        details["deletedDocuments"] = json!(over.deleted.unwrap_or(0));
        details["editedDocuments"] = json!(over.edited.unwrap_or(0));
        return Some(details);
    }
    if details.get("deletedDocuments").is_some() {
        let deleted = over.deleted.unwrap_or(0);
        // Each node reports how many documents its copy of the index had, so every replica is counted.
        let copies = if task.kind == TaskKind::IndexDeletion { replication.max(1) } else { 1 };
        details["deletedDocuments"] = json!((deleted + copies / 2) / copies);
        return Some(details);
    }
    if CHANGELESS.contains(&task.kind) && over.details.is_some() {
        return over.details.clone();
    }
    if task.kind == TaskKind::SettingsUpdate && over.details.is_some() {
        return settings_details(&details, over);
    }
    task.details.clone()
}

/// A node's details of a settings task. Settings that the control plane rewrote for nodes appear as the client sent them.
fn settings_details(set: &Value, over: &Outcome) -> Option<Value> {
    let mut told = over.details.clone()?;
    messages::value(&mut told);
    let rewritten = [settings_tag::FILTERABLE, FACETING];
    for (name, set) in set.as_object().into_iter().flatten() {
        let is_reset = set.is_null() && (rewritten.contains(&&**name) || told.get(name).is_none());
        // A node writes out each rule in full. A client's rule that names only the tag was not sent to nodes: then the numbers
        // of rules differ, and the client's rules are shown.
        let rules = |value: &Value| value.as_array().map(Vec::len);
        let has_rules = told.get(name).and_then(rules) == rules(set);
        if is_reset || (name == settings_tag::FILTERABLE && !has_rules) {
            told[name] = set.clone();
        } else if let Some(told) = told.get_mut(name).filter(|_| !set.is_null()) {
            as_sent(told, set);
        }
    }
    Some(told)
}

/// Removes from a node's details what the client did not send. Nodes report everything that they were sent, in their own form,
/// also what the control plane added: templates of embedders, and limits in place of resets.
fn as_sent(told: &mut Value, sent: &Value) {
    match (told, sent) {
        (Value::Object(told), Value::Object(sent)) => {
            told.retain(|name, _| sent.contains_key(name));
            for (name, sent) in sent {
                if let Some(told) = told.get_mut(name) {
                    as_sent(told, sent);
                }
            }
        }
        (told, Value::Null) => *told = Value::Null,
        _ => {}
    }
}

#[cfg(test)]
mod tests;
