//! Documents: reads payloads of new documents, and returns stored documents.

pub mod payload;
pub mod pointer;
pub mod retrieve;

use std::collections::BTreeSet;

use milli_core::constants::RESERVED_VECTORS_FIELD_NAME;
use milli_core::vector::parsed_vectors::ExplicitVectors;
use milli_core::{FieldsIdsMap, Index, heed, obkv_to_json};
use serde_json::{Map, Value};

use crate::error::Result;

/// A stored document with all its fields.
pub fn whole(
    index: &Index,
    rtxn: &heed::RoTxn<'_>,
    fields: &FieldsIdsMap,
    id: u32,
) -> Result<Map<String, Value>> {
    let stored = index.document(rtxn, id)?;
    let ids: Vec<_> = stored.iter().map(|(field, _)| field).collect();
    Ok(obkv_to_json(&ids, fields, stored)?)
}

/// Replaces `_vectors` by what the client asked for: nothing, or all vectors of the document.
pub fn show_vectors(
    index: &Index,
    rtxn: &heed::RoTxn<'_>,
    id: u32,
    document: &mut Map<String, Value>,
    show: bool,
) -> Result<()> {
    let stored = document.shift_remove(RESERVED_VECTORS_FIELD_NAME);
    if !show {
        return Ok(());
    }
    let mut vectors = match stored {
        Some(Value::Object(vectors)) => vectors,
        _ => Map::new(),
    };
    let user_provided = |name: &str| -> Result<bool> {
        let configs = index.embedding_configs(rtxn)?;
        Ok(configs.iter().any(|config| config.name == name && config.user_provided.contains(id)))
    };
    for (name, embeddings) in index.embeddings(rtxn, id)? {
        let vector =
            ExplicitVectors { embeddings: Some(embeddings.into()), regenerate: !user_provided(&name)? };
        vectors.insert(name, serde_json::to_value(vector)?);
    }
    document.insert(RESERVED_VECTORS_FIELD_NAME.into(), Value::Object(vectors));
    Ok(())
}

/// Keeps the named fields of a document.
pub fn keep(document: &Map<String, Value>, names: &BTreeSet<&str>) -> Map<String, Value> {
    pointer::select(document, names)
}
