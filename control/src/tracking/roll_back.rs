//! Rolls back an operation that one node has refused, on the nodes that have applied it.
//!
//! The rollback needs no entry in the ledger: after a crash the nodes' tasks are judged again, and a second rollback changes
//! nothing. A node that cannot be rolled back is marked as behind, and gets everything again.

use crate::{
    base::error::{Error, Result},
    cluster::{
        Cluster,
        locks::{LockGuard, Scope},
        tracked_tasks::{RollBack, RolledBack},
    },
    disguise::{
        embedders::{EMBEDDERS, known, with_template},
        facet_values,
        settings_tag::{FILTERABLE, display_tag, with_tag},
    },
    domain::{
        intent::{Effect, NodeRequest},
        settings_change::{depth, merge_change},
        verdict::Outcome,
    },
    indexes::creation,
    ledger::settings as stored,
    node::Node,
};
use futures_util::future::join_all;
use miroir_core::{node_name::NodeName, path::ApiPath};
use serde_json::{Map, Value, json};
use std::{collections::BTreeSet, sync::Arc};

/// What the rollback is called in logs and metrics.
const ROLL_BACK: &str = "roll-back";

/// Starts the rollback. The task waits for it.
pub(super) fn start(cluster: &Arc<Cluster>, uid: u32, over: Outcome) {
    if let Some(pending) = cluster.tracked_tasks.pending().get_mut(&uid) {
        pending.roll_back = RollBack::UnderWay;
    }
    tracing::info!(uid, nodes = ?over.to_roll_back, error = over.error.as_ref().map(|error| &*error.message), "nodes are rolled back");
    let (cluster, supervisor) = (Arc::clone(cluster), &cluster.supervisor);
    let work = async move {
        let mut done = match cluster.supervisor.catch(ROLL_BACK, run(&cluster, uid, &over)).await.flatten() {
            Ok(done) => done,
            Err(error) => {
                tracing::warn!(uid, error = %error.chain(), "nodes could not be rolled back");
                RolledBack { behind: over.to_roll_back, ..RolledBack::default() }
            }
        };
        // A node that was away at this verdict may come back and do what is being undone, after the others have been told to undo it.
        done.behind.extend(over.behind);
        if let Some(pending) = cluster.tracked_tasks.pending().get_mut(&uid) {
            pending.roll_back = RollBack::Done(done);
        }
        cluster.tracked_tasks.notice();
    };
    supervisor.spawn(ROLL_BACK, work);
}

/// Rolls nodes back.
async fn run(cluster: &Arc<Cluster>, uid: u32, over: &Outcome) -> Result<RolledBack> {
    let Some((effect, guard)) = lock(cluster, uid).await else { return Ok(RolledBack::default()) };
    let nodes: Vec<Arc<Node>> = over.to_roll_back.iter().filter_map(|name| cluster.node(name)).collect();
    let requests = match &effect {
        Effect::Settings { index, change, .. } => {
            settings(cluster, uid, index, change.as_ref(), over).await?
        }
        Effect::UpdateIndex { .. } => update(cluster, &effect),
        Effect::None | Effect::Swap { .. } | Effect::Deletion { .. } | Effect::Rules { .. } => Vec::new(),
    };
    if requests.is_empty() {
        return Ok(RolledBack::default());
    }
    let sent = nodes.iter().map(async |node| (node, creation::send_all(cluster, node, &requests).await));
    let sent = join_all(sent).await;
    drop(guard);
    let done = sent.into_iter().map(async |(node, tasks)| {
        let done = async {
            for task in tasks? {
                node.wait_for_task(task.node_task.into()).await?;
            }
            Ok::<_, Error>(())
        };
        let done = done.await;
        let missed = done.inspect_err(
            |error| tracing::warn!(uid, node = node.name.as_str(), error = %error.chain(), "a node could not be rolled back"),
        );
        missed.is_err().then(|| node.name.clone())
    });
    let behind = join_all(done).await.into_iter().flatten().collect();
    let rewritten = match &effect {
        Effect::Settings { index, change, creates: false } if is_about_embedders(change.as_ref()) => {
            rewritten(index, &nodes).await
        }
        _ => BTreeSet::new(),
    };
    Ok(RolledBack { behind, rewritten })
}

fn is_about_embedders(change: Option<&Value>) -> bool {
    change.is_none_or(|change| change.get(EMBEDDERS).is_some())
}

/// The nodes that have had an embedder for a moment, and documents of the index: a node that loses an embedder writes the vectors that its
/// documents came with into them, in a form of its own.
async fn rewritten(index: &str, nodes: &[Arc<Node>]) -> BTreeSet<NodeName> {
    let asked = nodes.iter().map(async |node| {
        let is_empty = matches!(node.index_size(index).await, Ok(Some(0)));
        (!is_empty).then(|| node.name.clone())
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// The effect of a task, and the locks of its indexes; `None` for the locks if the task has them. They make sure that no other operation
/// gets into the nodes' queues between what is read under them and the requests of the rollback. Returns `None` if there is no such task.
async fn lock(cluster: &Cluster, uid: u32) -> Option<(Effect, Option<LockGuard>)> {
    let found = || {
        let pending = cluster.tracked_tasks.pending();
        pending.get(&uid).map(|pending| (pending.effect.clone(), pending.guard.is_some()))
    };
    let (mut effect, is_locked) = found()?;
    if is_locked {
        return Some((effect, None));
    }
    loop {
        let guard = cluster.locks.lock(Scope::indexes(effect.names())).await;
        // Whoever had the locks may have renamed the indexes.
        let (now, _) = found()?;
        if now.names().eq(effect.names()) {
            return Some((now, Some(guard)));
        }
        drop(guard);
        effect = now;
    }
}

/// The requests that restore the primary key of an index, under its new name if it was renamed.
fn update(cluster: &Cluster, effect: &Effect) -> Vec<NodeRequest> {
    let Effect::UpdateIndex { index, primary_key, rename } = effect else { return Vec::new() };
    let known = cluster.cluster_state().indexes.get(index).and_then(|known| known.primary_key.clone());
    let Some(known) = known.filter(|known| primary_key.as_ref().is_some_and(|key| key != known)) else {
        return Vec::new();
    };
    let path = ApiPath::of_index(rename.as_ref().unwrap_or(index), &[]);
    let body = Some(json!({ "primaryKey": known }));
    vec![NodeRequest { method: "PATCH".to_owned(), path, body, main: false }]
}

/// The requests that restore the settings of an index that a change has changed.
async fn settings(
    cluster: &Cluster,
    uid: u32,
    index: &str,
    change: Option<&Value>,
    over: &Outcome,
) -> Result<Vec<NodeRequest>> {
    // If the index was deleted, there is nothing to restore, and settings would create it again.
    if !cluster.cluster_state().indexes.contains_key(index) {
        return Ok(Vec::new());
    }
    let name = index.to_owned();
    let mut wanted = cluster.ledger.call(move |connection| stored::settings(connection, &name)).await?;
    // Changes whose tasks have not ended are not in the ledger yet, but are earlier in the nodes' queues.
    for other in cluster.tracked_tasks.other_changes(uid, index) {
        merge_change(&mut wanted, other.as_ref());
    }
    let reference = over.refused_by.iter().chain(&over.to_roll_back).find_map(|name| cluster.node(name));
    let shown = reference.ok_or(Error::NoNode)?.settings(index).await?;
    // After `miroir recover` the ledger does not know embedders: only nodes do.
    let (embedders, _) = known(shown.get(EMBEDDERS).unwrap_or(&Value::Null), wanted.get(EMBEDDERS));
    wanted.insert(EMBEDDERS.to_owned(), embedders);
    let undone = undone(change, &wanted, &shown).ok_or_else(|| Error::UnreadableRow {
        table: "settings",
        row: index.to_owned(),
        column: "body",
        problem: format!("`{FILTERABLE}` are no list"),
    })?;
    Ok(creation::apart(index, &undone).into())
}

/// The change that undoes a change: what it has set becomes as in `wanted`, or the default. `shown` are all settings of a node
/// that has refused the change. `None` where the tag cannot be among the filterable attributes that are wanted.
fn undone(change: Option<&Value>, wanted: &Map<String, Value>, shown: &Value) -> Option<Map<String, Value>> {
    let mut body = Map::new();
    let reset: Map<String, Value> =
        shown.as_object().into_iter().flatten().map(|(name, _)| (name.clone(), Value::Null)).collect();
    for (name, change) in change.and_then(Value::as_object).unwrap_or(&reset) {
        let value = match name.as_str() {
            EMBEDDERS => undone_embedders(change, wanted.get(name)),
            name => undone_members(change, wanted.get(name), depth(name)),
        };
        body.insert(name.clone(), value);
    }
    if let Some(rules) = body.get_mut(FILTERABLE) {
        *rules = with_tag(rules)?;
    }
    if let Some(embedders) = body.get_mut(EMBEDDERS) {
        with_template(embedders, None);
    }
    facet_values::with_room(&mut body);
    display_tag(&mut body);
    Some(body)
}

fn undone_members(change: &Value, wanted: Option<&Value>, depth: u8) -> Value {
    match (change, depth) {
        (Value::Object(change), 1..) => {
            let of = |name: &String| wanted.and_then(|wanted| wanted.get(name));
            let members = change
                .iter()
                .map(|(name, change)| (name.clone(), undone_members(change, of(name), depth - 1)));
            Value::Object(members.collect())
        }
        _ => wanted.cloned().unwrap_or(Value::Null),
    }
}

/// Deletes the embedders that a change has created, and restores those that it has changed.
fn undone_embedders(change: &Value, wanted: Option<&Value>) -> Value {
    let Some(change) = change.as_object() else { return wanted.cloned().unwrap_or(Value::Null) };
    // If there were no embedders, reset all: nodes also count those that a request deletes, and could refuse it for too many.
    if wanted.and_then(Value::as_object).is_none_or(Map::is_empty) {
        return Value::Null;
    }
    let undone = change.iter().map(|(name, change)| {
        let wanted = wanted.and_then(|wanted| wanted.get(name)).and_then(Value::as_object);
        let embedder = wanted.map_or(Value::Null, |wanted| {
            let mut all = wanted.clone();
            for (field, _) in change.as_object().into_iter().flatten() {
                all.entry(field.clone()).or_insert(Value::Null);
            }
            Value::Object(all)
        });
        (name.clone(), embedder)
    });
    Value::Object(undone.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disguise::settings_tag::tag_rule;

    #[test]
    fn a_change_is_undone_to_what_clients_had_set() {
        let wanted = json!({
            "stopWords": ["the"],
            "filterableAttributes": ["genre"],
            "faceting": {"maxValuesPerFacet": 7},
            "typoTolerance": {"enabled": true, "minWordSizeForTypos": {"oneTypo": 4}},
            "embedders": {"a": {"source": "rest", "url": "u", "apiKey": "k"}},
        });
        let change = json!({
            "stopWords": ["a"],
            "synonyms": {"x": ["y"]},
            "filterableAttributes": ["genre", "_geo"],
            "faceting": {"maxValuesPerFacet": 9, "sortFacetValuesBy": {"*": "count"}},
            "typoTolerance": {"minWordSizeForTypos": {"twoTypos": 9}},
            "embedders": {"a": {"url": "v", "dimensions": 3}, "b": {"source": "userProvided", "dimensions": 2}},
        });
        let undone = undone(Some(&change), wanted.as_object().unwrap(), &Value::Null).unwrap();
        let expected = json!({
            "stopWords": ["the"],
            "synonyms": null,
            "filterableAttributes": [tag_rule(), "genre"],
            "faceting": {"maxValuesPerFacet": 1007, "sortFacetValuesBy": null},
            "typoTolerance": {"minWordSizeForTypos": {"twoTypos": null}},
            "embedders": {
                "a": {"source": "rest", "url": "u", "apiKey": "k", "dimensions": null, "documentTemplate": crate::disguise::embedders::template()},
                "b": null,
            },
        });
        assert_eq!(Value::Object(undone), expected);
    }

    #[test]
    fn a_reset_is_undone_as_a_whole() {
        let wanted =
            json!({"stopWords": ["the"], "embedders": {"a": {"source": "userProvided", "dimensions": 2}}});
        let shown = json!({"stopWords": [], "synonyms": {}, "filterableAttributes": [], "embedders": {}});
        let undone = undone(None, wanted.as_object().unwrap(), &shown).unwrap();
        let expected = json!({"stopWords": ["the"], "synonyms": null, "filterableAttributes": [tag_rule()],
            "embedders": {"a": {"source": "userProvided", "dimensions": 2}}});
        assert_eq!(Value::Object(undone), expected);
    }
}
