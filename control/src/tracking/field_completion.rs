//! Field completion: before a task ends, all nodes must know the fields that it has created. A function may have created fields
//! on some nodes only, settings may make nodes index fields within objects, and a registration may have failed together with
//! another task in the same batch of a node.

use crate::{
    base::error::Result,
    cluster::{
        Cluster,
        tracked_tasks::{FieldCompletion, Pending},
    },
    domain::{
        intent::Effect,
        task::TaskKind,
        verdict::{State, TrackedNodeTask},
    },
    indexes::fields,
    ledger::intents,
};
use miroir_core::node_name::NodeName;
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tracing::Instrument;

/// How often fields are registered on a node that refuses them, before the node is marked as behind.
const ATTEMPTS: u8 = 3;
/// The pause before nodes are asked again, after a node did not list its fields.
const PAUSE: Duration = Duration::from_millis(200);

/// Settings that decide which fields within objects nodes index.
const REACH: [&str; 5] = [
    "searchableAttributes",
    "filterableAttributes",
    "sortableAttributes",
    "rankingRules",
    "distinctAttribute",
];

/// Starts the field completion if the task needs it. `None` means that the task has to wait; otherwise returns the nodes that
/// do not know all fields, and must be marked as behind.
pub(super) fn step(cluster: &Arc<Cluster>, uid: u32) -> Option<BTreeSet<NodeName>> {
    let index = {
        let mut all = cluster.tracked_tasks.pending();
        let Some(pending) = all.get_mut(&uid) else { return Some(BTreeSet::new()) };
        if pending.completing.is_under_way {
            return None;
        }
        let failed: Vec<&TrackedNodeTask> =
            pending.parts.iter().filter(|part| is_failed_registration(part)).collect();
        let is_first = pending.completing.attempts == 0 && makes_fields(pending);
        let is_about_documents = pending.task.kind.is_about_documents();
        let is_again = is_about_documents && failed.len() > pending.completing.seen;
        // A task that holds locks must not complete fields: the completion would wait for these locks.
        let (Some(index), true, None) = (&pending.task.index, is_first || is_again, &pending.guard) else {
            return Some(BTreeSet::new());
        };
        if pending.completing.attempts >= ATTEMPTS {
            return Some(failed.iter().skip(pending.completing.seen).map(|part| part.node.clone()).collect());
        }
        let (index, seen) = (index.clone(), failed.len());
        let attempts = pending.completing.attempts + 1;
        pending.completing = FieldCompletion { is_under_way: true, attempts, seen };
        index
    };
    let cluster = Arc::clone(cluster);
    let work = async move {
        let done = run(&cluster, uid, &index).await;
        if let Err(error) = &done {
            tracing::warn!(uid, index, error = %error.chain(), "fields could not be registered on all nodes yet");
            tokio::time::sleep(PAUSE).await;
        }
        if let Some(pending) = cluster.tracked_tasks.pending().get_mut(&uid) {
            pending.completing.is_under_way = false;
            if done.is_err() {
                pending.completing.attempts = pending.completing.attempts.saturating_sub(1);
                pending.completing.seen = 0;
            }
        }
        cluster.tracked_tasks.notice();
    };
    tokio::spawn(work.in_current_span());
    None
}

async fn run(cluster: &Cluster, uid: u32, index: &str) -> Result<()> {
    let tasks = fields::complete(cluster, index).await?;
    if !tasks.is_empty() {
        let stored = tasks.clone();
        let add = move |connection: &_| intents::add_node_tasks(connection, uid, &stored);
        cluster.ledger.call(add).await?;
        cluster.tracked_tasks.wait_for(uid, tasks);
    }
    Ok(())
}

fn is_failed_registration(part: &TrackedNodeTask) -> bool {
    !part.main && matches!(part.seen.state, State::Failed | State::Canceled)
}

fn makes_fields(pending: &Pending) -> bool {
    let has_succeeded = pending.parts.iter().any(|part| part.main && part.seen.state == State::Succeeded);
    let may = match &pending.effect {
        Effect::Settings { change, .. } => change
            .as_ref()
            .and_then(serde_json::Value::as_object)
            .is_none_or(|change| change.keys().any(|name| REACH.contains(&name.as_str()))),
        _ => pending.task.kind == TaskKind::DocumentEdition,
    };
    may && has_succeeded
}
