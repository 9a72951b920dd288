//! Ends a task: changes replicas and the catalogue first, then lets the client see the end.

use super::{field_completion, roll_back};
use crate::{
    base::error::Result,
    cluster::{Cluster, missed::WrittenIds, tracked_tasks::RollBack},
    disguise::{facet_values::FACETING, messages, settings_tag},
    domain::{
        cluster_state::Index,
        intent::Effect,
        task::{TaskKind, TaskStatus},
        task_details::nothing_done,
        verdict::{Outcome, State, is_about_existence},
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
    let (task, effect, indexed, written, is_applied, roll_back) =
        match cluster.tracked_tasks.pending().get(&uid) {
            Some(it) => {
                // A node creates an index before it applies the first settings. Even if these fail, the index must have the shard
                // tag's rule, so all its nodes are rolled back to that.
                if over.status == TaskStatus::Failed
                    && matches!(it.effect, Effect::Settings { creates: true, .. })
                {
                    let there = it.parts.iter().filter(|part| part.main && part.seen.state != State::Away);
                    over.to_roll_back.extend(there.map(|part| part.node.clone()));
                }
                if it.task.kind.is_about_whole_indexes() {
                    let interrupted = it.parts.iter().filter(|part| part.is_interrupted);
                    over.behind.extend(interrupted.map(|part| part.node.clone()));
                }
                let written = if it.is_applied { WrittenIds::new() } else { it.written.clone() };
                (it.task.clone(), it.effect.clone(), it.indexed, written, it.is_applied, it.roll_back.clone())
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
        RollBack::Done(missed) => over.behind.extend(missed),
    }
    if cluster.tracked_tasks.waits_for_roll_back(uid) {
        return Ok(());
    }
    let effect = if over.status == TaskStatus::Succeeded { effect } else { kept(effect, &over) };
    if !is_applied {
        match field_completion::step(cluster, uid) {
            None => return Ok(()),
            Some(ignorant) => over.behind.extend(ignorant),
        }
        missed(cluster, &task, &over, &written).await?;
        apply(cluster, &task, &effect, &over).await?;
    }
    match cluster.tracked_tasks.pending().get_mut(&uid) {
        Some(pending) => {
            pending.is_applied = true;
            if let Some(index) = &pending.task.index {
                let over: BTreeSet<(&str, u32)> =
                    pending.parts.iter().map(|part| (&*part.node, part.node_task)).collect();
                cluster.fields.ended(index, |node, task| over.contains(&(node, task)));
            }
        }
        None => return Ok(()),
    }
    let is_applied_everywhere =
        cluster.is_applied_everywhere(task.index.as_deref().into_iter().chain(effect.names()));
    if !is_applied_everywhere || !cluster.no_gateway_reads_stale().await? {
        return Ok(());
    }
    end(cluster, task, effect, &over, indexed).await
}

/// The part of a failed operation that nodes have applied nevertheless: if an update changes name and primary key at once,
/// nodes apply the name before they check the key.
fn kept(effect: Effect, over: &Outcome) -> Effect {
    let has_index = over.error.as_ref().is_some_and(|error| !is_about_existence(error));
    match effect {
        Effect::UpdateIndex { index, primary_key: Some(_), rename: rename @ Some(_) } if has_index => {
            Effect::UpdateIndex { index, primary_key: None, rename }
        }
        _ => Effect::None,
    }
}

/// Records which replicas ended a write differently from the others.
async fn missed(cluster: &Cluster, task: &Task, over: &Outcome, written: &WrittenIds) -> Result<()> {
    let Some(index) = task.index.as_deref().filter(|_| !over.stale.is_empty()) else { return Ok(()) };
    let uid = task.uid;
    for (shard, node) in &over.stale {
        let node = node.as_str();
        tracing::warn!(uid, shard = shard.0, node, "a replica ended a write differently from the others");
    }
    let replicas: Vec<(Shard, NodeName)> = over.stale.iter().cloned().collect();
    let shards = || replicas.iter().map(|(shard, _)| *shard);
    // If the index is just being swapped or renamed, the documents may be under another name by now.
    let names = cluster.locks.with(index);
    let unknown = WrittenIds::new();
    let written = if names.len() == 1 { written } else { &unknown };
    for name in &names {
        cluster.missed(name, shards(), &replicas, written).await?;
    }
    Ok(())
}

/// Applies the end of a task to replicas and the catalogue.
async fn apply(cluster: &Cluster, task: &Task, effect: &Effect, over: &Outcome) -> Result<()> {
    let uid = task.uid;
    let succeeded = over.status == TaskStatus::Succeeded;
    let finished_at = over.finished_at.unwrap_or_else(|| cluster.clock.wall());
    let started_at = over.started_at.map_or(finished_at, |at| at.max(task.enqueued_at).min(finished_at));
    // If the index was deleted meanwhile, its settings are not stored.
    if let (true, Effect::Settings { index, change, .. }) = (succeeded, effect.clone())
        && cluster.cluster_state().indexes.contains_key(&index)
    {
        let merge = move |connection: &_| stored::merge_settings(connection, &index, change.as_ref());
        cluster.ledger.call(merge).await?;
    }
    let settings = match effect {
        Effect::Settings { index, .. } if succeeded => {
            let uid = index.clone();
            let settings = cluster.ledger.call(move |connection| stored::settings(connection, &uid)).await?;
            Some((index, settings))
        }
        _ => None,
    };
    // Before the change of the cluster state: when an index disappears from it, the ledger deletes the index's settings.
    let moves = effect.moves();
    if !moves.is_empty() {
        let moved: Vec<String> = moves.iter().flat_map(|(from, to, _)| [from.clone(), to.clone()]).collect();
        cluster.tracked_tasks.renamed(uid, &moves);
        cluster.ledger.call(move |connection| stored::move_settings(connection, &moves)).await?;
        moved.iter().for_each(|index| cluster.fields.forget(index));
    }
    cluster
        .change(|cluster_state| {
            for node in over.behind.iter().filter(|_| !CHANGELESS.contains(&task.kind)) {
                tracing::warn!(
                    uid,
                    node = node.as_str(),
                    "a node ended an operation differently from the others"
                );
                cluster_state.mark_behind(node);
            }
            cluster_state.changing.remove(&uid);
            if let Some(changed) = task.index.as_ref().and_then(|index| cluster_state.indexes.get_mut(index))
                && succeeded
                && !is_idle(effect)
            {
                changed.date(task.kind, started_at, finished_at);
            }
            crate::indexes::broadcast::apply(cluster_state, effect);
            if let Some((index, settings)) = settings
                && let Some(changed) = cluster_state.indexes.get_mut(index)
            {
                changed.settings = Index::published(settings);
            }
        })
        .await
}

/// Whether an update of an index has changed nothing: it sets no primary key, and no other name.
fn is_idle(effect: &Effect) -> bool {
    matches!(effect, Effect::UpdateIndex { index, primary_key: None, rename }
        if rename.as_ref().is_none_or(|rename| rename == index))
}

/// Stores the end of a task, as clients see it.
async fn end(
    cluster: &Cluster,
    task: Task,
    effect: Effect,
    over: &Outcome,
    indexed: Option<u64>,
) -> Result<()> {
    let (uid, now) = (task.uid, cluster.clock.wall());
    let succeeded = over.status == TaskStatus::Succeeded;
    let ending = Ending {
        status: over.status,
        details: details(&task, over, indexed, cluster.cluster_state().replication as u64),
        error: over.error.clone().map(|error| for_client(&task, error)),
        started_at: over.started_at.map(|at| at.max(task.enqueued_at)),
        finished_at: over.finished_at.unwrap_or(now),
    };
    cluster
        .ledger
        .call(move |connection| {
            let mut ending = ending;
            if task.kind == TaskKind::TaskCancelation
                && let Some(details) = &mut ending.details
            {
                details["canceledTasks"] = json!(tasks::count_canceled(connection, uid)?);
            }
            tasks::finish(connection, uid, &ending)?;
            if let (true, Effect::Swap { pairs }) = (succeeded, &effect) {
                pairs
                    .iter()
                    .try_for_each(|(left, right, _)| tasks::swap_names(connection, uid, left, right))?;
            }
            if let (Some(by), TaskStatus::Canceled) = (task.canceled_by, ending.status) {
                tasks::set_canceled_by(connection, uid, by)?;
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
mod tests {
    use super::*;

    #[test]
    fn details_of_settings_are_what_the_client_wrote() {
        let mut told = json!({
            "a": {"source": "rest", "dimensions": 3, "documentTemplate": "ours", "apiKey": "XXX..."},
            "b": {"documentTemplate": "ours"}, "c": null,
            "d": {"indexingEmbedder": {"source": "ollama", "documentTemplate": "ours"}},
        });
        let sent = json!({
            "d": {"indexingEmbedder": {"source": "ollama"}}, "c": null,
            "b": {"documentTemplate": null}, "a": {"dimensions": 3, "apiKey": "XXX...", "source": "rest"},
        });
        as_sent(&mut told, &sent);
        // The members are in the node's order.
        let expected = json!({
            "a": {"source": "rest", "dimensions": 3, "apiKey": "XXX..."},
            "b": {"documentTemplate": null}, "c": null,
            "d": {"indexingEmbedder": {"source": "ollama"}},
        });
        assert_eq!(told.to_string(), expected.to_string());
    }
}
