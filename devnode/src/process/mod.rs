//! Processes each kind of task.

pub mod backup;
mod documents;
mod indexes;
mod queue;

use std::sync::atomic::Ordering;

use milli_core::progress::Progress;
use milli_core::update::new::indexer;
use milli_core::vector::EmbeddingConfigs;
use milli_core::{FieldsIdsMap, Index, heed};

use crate::error::Result;
use crate::node::Node;
use crate::tasks::{Task, Work};
use crate::worker::Outcome;

/// Processes a batch of tasks. An error fails all of them.
pub fn batch(node: &Node, tasks: &mut [Task]) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    if tasks.iter().all(|task| matches!(task.work, Work::AddDocuments(_))) {
        documents::add(node, tasks, &mut outcome)?;
        return Ok(outcome);
    }
    for task in tasks {
        match task.work.clone() {
            Work::AddDocuments(_) => {}
            Work::DeleteIds { index, ids } => documents::delete_ids(node, task, &index, &ids)?,
            Work::DeleteByFilter { index, filter } => {
                documents::delete_by_filter(node, task, &index, &filter)?
            }
            Work::Clear { index } => documents::clear(node, task, &index)?,
            Work::Edit { index, filter, context, function } => {
                documents::edit(node, task, &index, filter.as_ref(), context, function)?;
            }
            Work::Settings { index, settings, may_create, .. } => {
                indexes::settings(node, task, &mut outcome, &index, settings, may_create)?;
            }
            Work::CreateIndex { index, primary_key } => {
                indexes::create(node, &mut outcome, &index, primary_key)?
            }
            Work::UpdateIndex { index, primary_key, new_uid } => {
                indexes::update(node, task, &mut outcome, &index, primary_key, new_uid)?;
            }
            Work::DeleteIndex { index } => indexes::delete(node, task, &mut outcome, &index)?,
            Work::SwapIndexes { swaps } => indexes::swap(node, &mut outcome, &swaps)?,
            Work::CancelTasks { uids, .. } => queue::cancel(node, task, &mut outcome, &uids),
            Work::DeleteTasks { uids, .. } => queue::delete(node, task, &mut outcome, &uids),
            Work::Dump => backup::dump(node, task)?,
            Work::Snapshot => backup::snapshot(node, task)?,
        }
    }
    Ok(outcome)
}

/// Whether the worker must stop its current work.
fn must_stop(node: &Node) -> impl Fn() -> bool + Sync + '_ {
    || node.queue.must_stop.load(Ordering::Relaxed)
}

/// Writes changes of documents with the engine's indexer.
// These are the inputs of the engine's own function.
#[allow(clippy::too_many_arguments)]
fn index_changes<'pl, C>(
    node: &Node,
    index: &Index,
    wtxn: &mut heed::RwTxn<'_>,
    old_fields: &FieldsIdsMap,
    new_fields: FieldsIdsMap,
    primary_key: Option<milli_core::documents::PrimaryKey<'pl>>,
    changes: &C,
    embedders: EmbeddingConfigs,
) -> Result<(), milli_core::Error>
where
    C: indexer::document_changes::DocumentChanges<'pl>,
{
    let Some(pool) = &node.indexer.thread_pool else {
        return Ok(());
    };
    indexer::index(
        wtxn,
        index,
        pool,
        node.indexer.grenad_parameters(),
        old_fields,
        new_fields,
        primary_key,
        changes,
        embedders,
        &must_stop(node),
        &Progress::default(),
    )?;
    Ok(())
}
