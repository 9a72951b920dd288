//! Tasks about documents.

use bumpalo::Bump;
use memmap2::{Mmap, MmapMut};
use milli_core::documents::PrimaryKey;
use milli_core::progress::Progress;
use milli_core::update::ClearDocuments;
use milli_core::update::new::indexer::{DocumentDeletion, DocumentOperation, UpdateByFunction};
use milli_core::{FieldsIdsMap, Index, UserError, heed};
use roaring::RoaringBitmap;
use serde_json::{Map, Value};

use super::indexes::set_primary_key;
use super::{index_changes, must_stop};
use crate::embedders;
use crate::error::{ApiError, Code, Result};
use crate::filter;
use crate::node::Node;
use crate::tasks::{Addition, Status, Task, Work};
use crate::worker::Outcome;

/// Adds the documents of several tasks of one index, in one commit.
pub fn add(node: &Node, tasks: &mut [Task], outcome: &mut Outcome) -> Result<()> {
    let additions: Vec<Addition> = tasks
        .iter()
        .filter_map(|task| match &task.work {
            Work::AddDocuments(addition) => Some(addition.clone()),
            _ => None,
        })
        .collect();
    let Some(Addition { index: uid, primary_key, may_create, .. }) = additions.first().cloned() else {
        return Ok(());
    };
    let (created, index) = match node.indexes.folder_of(&uid) {
        Some(folder) => (None, node.indexes.open(folder)?),
        None if may_create => {
            let (folder, index) = node.indexes.create()?;
            (Some(folder), index)
        }
        None => return Err(ApiError::index_not_found(&uid)),
    };
    if let Some(folder) = created {
        // The index exists from now on, even if none of the documents is valid.
        outcome.renames.set(&uid, Some(folder));
    }
    let written = write_additions(node, &index, &uid, primary_key.as_deref(), &additions, tasks);
    if let Err(error) = written {
        if must_stop(node)() {
            return Err(error);
        }
        for task in tasks {
            task.status = Status::Failed;
            task.error = Some(error.clone());
            task.set_detail("indexedDocuments", 0);
        }
    }
    Ok(())
}

fn write_additions(
    node: &Node,
    index: &Index,
    uid: &str,
    primary_key: Option<&str>,
    additions: &[Addition],
    tasks: &mut [Task],
) -> Result<()> {
    let in_index = |error: milli_core::Error| ApiError::from(error).in_index(uid);
    let rtxn = index.read_txn()?;
    // An index without a primary key holds no documents, so all of these are new.
    let is_new = index.primary_key(&rtxn)?.is_none();
    let knows_none = is_new && additions.iter().all(|addition| addition.skip_new);
    let mut payloads = Vec::with_capacity(additions.len());
    let mut skipped = Vec::new();
    for addition in additions {
        let mut bytes = std::fs::read(node.queue.file(addition.file))?;
        if addition.skip_new {
            skipped.push(in_memory_map(&bytes)?);
        }
        if addition.skip_new && !knows_none {
            bytes = only_known(index, &rtxn, primary_key, &bytes)?;
        }
        payloads.push(in_memory_map(&bytes)?);
    }
    let mut operation = DocumentOperation::new();
    for (payload, addition) in payloads.iter().zip(additions) {
        if addition.replace {
            operation.replace_documents(payload).map_err(in_index)?;
        } else {
            operation.update_documents(payload).map_err(in_index)?;
        }
    }
    let alloc = Bump::new();
    let old_fields = index.fields_ids_map(&rtxn)?;
    let mut new_fields = old_fields.clone();
    if let Some(key) = primary_key.filter(|key| is_new && !key.contains('.')) {
        new_fields.insert(key).ok_or(UserError::AttributeLimitReached)?;
    }
    // The index also learns the fields of documents that it skips.
    for payload in &skipped {
        take_up_fields(&mut new_fields, payload)?;
    }
    let (changes, stats, new_primary_key) = operation
        .into_changes(
            &alloc,
            index,
            &rtxn,
            primary_key,
            &mut new_fields,
            &must_stop(node),
            Progress::default(),
        )
        .map_err(in_index)?;
    let mut any_good = false;
    let mut any_twice = false;
    for ((task, addition), stats) in tasks.iter_mut().zip(additions).zip(stats) {
        match stats.error {
            Some(error) => {
                any_twice |= matches!(error, UserError::TooManyDocumentIds { .. });
                task.status = Status::Failed;
                task.error = Some(error.into());
            }
            None => {
                any_good = true;
                // The count includes skipped documents.
                let received = || task.details.as_ref()?.get("receivedDocuments").cloned();
                let count = received().filter(|_| addition.skip_new);
                task.set_detail("indexedDocuments", count.unwrap_or(stats.document_count.into()));
            }
        }
    }
    let new_primary_key = new_primary_key.filter(|_| is_new);
    if any_good {
        let changes = if knows_none {
            DocumentOperation::new()
                .into_changes(
                    &alloc,
                    index,
                    &rtxn,
                    None,
                    &mut new_fields,
                    &must_stop(node),
                    Progress::default(),
                )
                .map_err(in_index)?
                .0
        } else {
            changes
        };
        let embedders = embedders::of_index(index, &rtxn)?;
        let mut wtxn = index.write_txn()?;
        index_changes(node, index, &mut wtxn, &old_fields, new_fields, new_primary_key, &changes, embedders)
            .map_err(in_index)?;
        wtxn.commit()?;
    } else if let Some(key) = new_primary_key.filter(|_| any_twice) {
        // The index keeps the primary key, even if no document is added.
        set_primary_key(node, index, uid, key.name().to_owned())?;
    }
    Ok(())
}

/// The engine needs payloads as memory maps. An anonymous map needs no unsafe code.
fn in_memory_map(bytes: &[u8]) -> Result<Mmap> {
    let mut map = MmapMut::map_anon(bytes.len())?;
    map.copy_from_slice(bytes);
    Ok(map.make_read_only()?)
}

/// Adds the fields of the documents of a payload.
fn take_up_fields(fields: &mut FieldsIdsMap, payload: &[u8]) -> Result<()> {
    for document in serde_json::Deserializer::from_slice(payload).into_iter::<Map<String, Value>>() {
        for name in document?.keys() {
            fields.insert(name).ok_or(UserError::AttributeLimitReached)?;
        }
    }
    Ok(())
}

/// Drops the documents that the index does not hold yet.
fn only_known(
    index: &Index,
    rtxn: &heed::RoTxn<'_>,
    primary_key: Option<&str>,
    payload: &[u8],
) -> Result<Vec<u8>> {
    let key = primary_key.or(index.primary_key(rtxn)?);
    let mut kept = Vec::new();
    for document in serde_json::Deserializer::from_slice(payload).into_iter::<Map<String, Value>>() {
        let document = document?;
        let id = key.and_then(|key| id_at(&document, key)).map(|id| match id {
            Value::String(text) => text.trim().to_string(),
            other => other.to_string(),
        });
        let known = match &id {
            Some(id) => index.external_documents_ids().get(rtxn, id)?.is_some(),
            // A document without an id must fail as usual.
            None => key.is_some(),
        };
        if known {
            serde_json::to_writer(&mut kept, &document)?;
        }
    }
    Ok(kept)
}

/// The value of a primary key, which may point into objects.
fn id_at<'a>(document: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    document.get(key).or_else(|| {
        key.match_indices('.')
            .find_map(|(at, _)| id_at(document.get(&key[..at])?.as_object()?, &key[at + 1..]))
    })
}

/// Deletes documents by their ids.
pub fn delete_ids(node: &Node, task: &mut Task, uid: &str, ids: &[String]) -> Result<()> {
    let index = node.indexes.get(uid)?;
    let rtxn = index.read_txn()?;
    let mut found = RoaringBitmap::new();
    for id in ids {
        found.extend(index.external_documents_ids().get(&rtxn, id)?);
    }
    delete(node, task, uid, &index, found)
}

/// Deletes documents by a filter.
pub fn delete_by_filter(node: &Node, task: &mut Task, uid: &str, filter: &Value) -> Result<()> {
    let index = node.indexes.get(uid)?;
    let rtxn = index.read_txn()?;
    let found = match filter::parse(filter, Code::InvalidDocumentFilter, node.features())? {
        Some(filter) => filter.evaluate(&rtxn, &index).map_err(|error| filter::error(error, uid))?,
        None => RoaringBitmap::new(),
    };
    delete(node, task, uid, &index, found)
}

fn delete(node: &Node, task: &mut Task, uid: &str, index: &Index, found: RoaringBitmap) -> Result<()> {
    let in_index = |error: milli_core::Error| ApiError::from(error).in_index(uid);
    let rtxn = index.read_txn()?;
    task.set_detail("deletedDocuments", found.len());
    let (Some(name), false) = (index.primary_key(&rtxn)?, found.is_empty()) else {
        return Ok(());
    };
    let old_fields = index.fields_ids_map(&rtxn)?;
    let mut new_fields = old_fields.clone();
    let primary_key = PrimaryKey::new_or_insert(name, &mut new_fields)?;
    let alloc = Bump::new();
    let mut deletion = DocumentDeletion::new();
    deletion.delete_documents_by_docids(found);
    let changes = deletion.into_changes(&alloc, primary_key);
    let embedders = embedders::of_index(index, &rtxn)?;
    let mut wtxn = index.write_txn()?;
    index_changes(node, index, &mut wtxn, &old_fields, new_fields, None, &changes, embedders)
        .map_err(in_index)?;
    wtxn.commit()?;
    Ok(())
}

/// Deletes all documents.
pub fn clear(node: &Node, task: &mut Task, uid: &str) -> Result<()> {
    let index = node.indexes.get(uid)?;
    let mut wtxn = index.write_txn()?;
    let deleted = ClearDocuments::new(&mut wtxn, &index).execute()?;
    wtxn.commit()?;
    task.set_detail("deletedDocuments", deleted);
    Ok(())
}

/// Edits documents by a function.
pub fn edit(
    node: &Node,
    task: &mut Task,
    uid: &str,
    filter: Option<&Value>,
    context: Option<Map<String, Value>>,
    function: String,
) -> Result<()> {
    let in_index = |error: milli_core::Error| ApiError::from(error).in_index(uid);
    let index = node.indexes.get(uid)?;
    let rtxn = index.read_txn()?;
    let parsed = filter
        .map(|filter| filter::parse(filter, Code::InvalidDocumentFilter, node.features()))
        .transpose()?;
    let documents = match parsed.flatten() {
        Some(filter) => filter.evaluate(&rtxn, &index).map_err(|error| filter::error(error, uid))?,
        None => index.documents_ids(&rtxn)?,
    };
    let edited = documents.len();
    let Some(name) = index.primary_key(&rtxn)? else {
        task.zero_counts();
        return Ok(());
    };
    let old_fields = index.fields_ids_map(&rtxn)?;
    let mut new_fields = old_fields.clone();
    let primary_key = PrimaryKey::new_or_insert(name, &mut new_fields)?;
    let changes =
        UpdateByFunction::new(documents, context, function).into_changes(&primary_key).map_err(in_index)?;
    let embedders = embedders::of_index(&index, &rtxn)?;
    let mut wtxn = index.write_txn()?;
    index_changes(node, &index, &mut wtxn, &old_fields, new_fields, None, &changes, embedders)
        .map_err(in_index)?;
    wtxn.commit()?;
    // Like Meilisearch, reports the number of candidates in both details.
    task.set_detail("deletedDocuments", edited);
    task.set_detail("editedDocuments", edited);
    Ok(())
}
