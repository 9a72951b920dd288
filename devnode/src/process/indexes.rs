//! Tasks about indexes: creation, renames, swaps, deletion, and settings.

use milli_core::Index;
use milli_core::update::Settings;
use serde_json::Value;

use super::must_stop;
use crate::error::{ApiError, Code, Result};
use crate::node::Node;
use crate::settings;
use crate::tasks::{Swap, Task};
use crate::worker::Outcome;

fn already_exists(uid: &str) -> ApiError {
    ApiError::new(Code::IndexAlreadyExists, format!("Index `{uid}` already exists."))
}

/// Creates an index.
pub fn create(node: &Node, outcome: &mut Outcome, uid: &str, primary_key: Option<String>) -> Result<()> {
    if node.indexes.folder_of(uid).is_some() {
        return Err(already_exists(uid));
    }
    let (folder, index) = node.indexes.create()?;
    if let Some(primary_key) = primary_key {
        set_primary_key(node, &index, uid, primary_key)?;
    }
    outcome.renames.set(uid, Some(folder));
    Ok(())
}

/// Sets the primary key of an index, or its name, or both.
pub fn update(
    node: &Node,
    task: &mut Task,
    outcome: &mut Outcome,
    uid: &str,
    primary_key: Option<String>,
    new_uid: Option<String>,
) -> Result<()> {
    let index = node.indexes.get(uid)?;
    if let Some(new_uid) = &new_uid
        && node.indexes.folder_of(new_uid).is_some()
    {
        return Err(already_exists(new_uid));
    }
    let key_taken = match primary_key {
        Some(primary_key) => set_primary_key(node, &index, new_uid.as_deref().unwrap_or(uid), primary_key),
        None => Ok(()),
    };
    if let Err(error) = key_taken {
        if new_uid.is_none() || must_stop(node)() {
            return Err(error);
        }
        // The index has its new name already.
        task.fail(error);
    } else {
        task.set_detail("oldIndexUid", uid);
    }
    if let Some(new_uid) = new_uid {
        outcome.renames.set(&new_uid, node.indexes.folder_of(uid));
        outcome.renames.set(uid, None);
    }
    Ok(())
}

/// Sets the primary key of an index.
pub fn set_primary_key(node: &Node, index: &Index, uid: &str, primary_key: String) -> Result<()> {
    let in_index = |error: milli_core::Error| ApiError::from(error).in_index(uid);
    let mut wtxn = index.write_txn()?;
    let mut builder = Settings::new(&mut wtxn, index, &node.indexer);
    builder.set_primary_key(primary_key);
    builder.execute(|_| (), must_stop(node)).map_err(in_index)?;
    wtxn.commit()?;
    Ok(())
}

/// Deletes an index.
pub fn delete(node: &Node, task: &mut Task, outcome: &mut Outcome, uid: &str) -> Result<()> {
    let index = node.indexes.get(uid)?;
    let rtxn = index.read_txn()?;
    let deleted = index.number_of_documents(&rtxn)?;
    task.set_detail("deletedDocuments", deleted);
    outcome.renames.set(uid, None);
    if let Some(folder) = node.indexes.folder_of(uid) {
        outcome.changes.remove(settings::EXTRAS, &folder.to_string());
    }
    Ok(())
}

/// Swaps names of indexes.
pub fn swap(node: &Node, outcome: &mut Outcome, swaps: &[Swap]) -> Result<()> {
    let mut missing: Vec<&str> = Vec::new();
    for Swap { indexes: (left, right), rename } in swaps {
        if *rename && node.indexes.folder_of(right).is_some() {
            let message = format!(
                "Cannot rename `{left}` to `{right}` as the index already exists. Hint: You can remove `{right}` first \
                 and then do your remove."
            );
            return Err(ApiError::new(Code::IndexAlreadyExists, message));
        }
        missing.extend((node.indexes.folder_of(left).is_none()).then_some(left.as_str()));
        missing.extend((!rename && node.indexes.folder_of(right).is_none()).then_some(right.as_str()));
    }
    missing.sort_unstable();
    match missing.as_slice() {
        [] => {}
        [uid] => return Err(ApiError::index_not_found(uid)),
        several => {
            let names: Vec<_> = several.iter().map(|uid| format!("`{uid}`")).collect();
            return Err(ApiError::new(
                Code::IndexNotFound,
                format!("Indexes {} not found.", names.join(", ")),
            ));
        }
    }
    for Swap { indexes: (left, right), .. } in swaps {
        outcome.renames.set(left, node.indexes.folder_of(right));
        outcome.renames.set(right, node.indexes.folder_of(left));
    }
    Ok(())
}

/// Changes settings.
pub fn settings(
    node: &Node,
    task: &mut Task,
    outcome: &mut Outcome,
    uid: &str,
    body: Value,
    may_create: bool,
) -> Result<()> {
    let wanted = settings::read(body.clone())?;
    let (folder, index) = match node.indexes.folder_of(uid) {
        Some(folder) => (folder, node.indexes.open(folder)?),
        None if may_create => {
            let (folder, index) = node.indexes.create()?;
            outcome.renames.set(uid, Some(folder));
            (folder, index)
        }
        None => return Err(ApiError::index_not_found(uid)),
    };
    let mut wtxn = index.write_txn()?;
    let mut builder = Settings::new(&mut wtxn, &index, &node.indexer);
    settings::apply(wanted, &mut builder);
    if let Err(error) = builder.execute(|_| (), must_stop(node)) {
        let error = ApiError::from(error).in_index(uid);
        if must_stop(node)() {
            return Err(error);
        }
        // A new index exists from now on, even if its settings fail.
        task.fail(error);
        return Ok(());
    }
    settings::record_extras(node, &mut outcome.changes, folder, &body)?;
    wtxn.commit()?;
    Ok(())
}
