//! Returns stored documents: one document, or a page of those that match a filter.

use std::collections::BTreeSet;
use std::str::FromStr;

use milli_core::{AscDesc, Index, Search, SortError, heed};
use roaring::RoaringBitmap;
use serde::Serialize;
use serde_json::{Map, Value};

use super::{keep, show_vectors, whole};
use crate::error::{ApiError, Code, Result};
use crate::filter;
use crate::node::Features;

/// Which documents to return, and which of their fields.
#[derive(Debug, Default)]
#[allow(missing_docs)]
pub struct Browse {
    pub offset: usize,
    pub limit: usize,
    pub fields: Option<Vec<String>>,
    pub retrieve_vectors: bool,
    pub ids: Option<Vec<Value>>,
    pub filter: Option<Value>,
    pub sort: Option<Vec<String>>,
}

/// A page of documents.
#[derive(Debug, Serialize)]
pub struct Page {
    results: Vec<Map<String, Value>>,
    offset: usize,
    limit: usize,
    total: u64,
}

/// One document by its id.
pub fn one(index: &Index, id: &str, fields: Option<&[String]>, vectors: bool) -> Result<Map<String, Value>> {
    let rtxn = index.read_txn()?;
    match index.external_documents_ids().get(&rtxn, id)? {
        Some(internal) => shown(index, &rtxn, internal, fields, vectors),
        None => Err(ApiError::new(Code::DocumentNotFound, format!("Document `{id}` not found."))),
    }
}

/// A page of documents.
pub fn page(index: &Index, features: Features, browse: Browse) -> Result<Page> {
    let rtxn = index.read_txn()?;
    let mut found = match &browse.ids {
        Some(ids) => by_ids(index, &rtxn, ids)?,
        None => index.documents_ids(&rtxn)?,
    };
    let sort = browse.sort.as_deref().map(sort_criteria).transpose()?;
    if let Some(filter) = &browse.filter
        && let Some(filter) = filter::parse(filter, Code::InvalidDocumentFilter, features)?
    {
        found &= filter.evaluate(&rtxn, index).map_err(|error| match error {
            milli_core::Error::UserError(milli_core::UserError::InvalidFilter(_)) => {
                ApiError::from(error).recoded(Code::InvalidDocumentFilter)
            }
            error => error.into(),
        })?;
    }
    let total = found.len();
    let ids: Vec<u32> = match sort {
        Some(sort) if !sort.is_empty() => sorted(index, &rtxn, sort, &found, browse.offset, browse.limit)?,
        _ => found.iter().skip(browse.offset).take(browse.limit).collect(),
    };
    let results: Result<_> = ids
        .into_iter()
        .map(|id| shown(index, &rtxn, id, browse.fields.as_deref(), browse.retrieve_vectors))
        .collect();
    Ok(Page { results: results?, offset: browse.offset, limit: browse.limit, total })
}

fn shown(
    index: &Index,
    rtxn: &heed::RoTxn<'_>,
    id: u32,
    fields: Option<&[String]>,
    vectors: bool,
) -> Result<Map<String, Value>> {
    let names = index.fields_ids_map(rtxn)?;
    let mut document = whole(index, rtxn, &names, id)?;
    if let Some(fields) = fields {
        let fields: BTreeSet<&str> = fields.iter().map(String::as_str).collect();
        document = keep(&document, &fields);
    }
    show_vectors(index, rtxn, id, &mut document, vectors)?;
    Ok(document)
}

fn by_ids(index: &Index, rtxn: &heed::RoTxn<'_>, ids: &[Value]) -> Result<RoaringBitmap> {
    let mut found = RoaringBitmap::new();
    for (i, id) in ids.iter().enumerate() {
        let id = milli_core::documents::validate_document_id_value(id.clone())
            .map_err(|error| ApiError::new(Code::InvalidDocumentIds, format!("In `.ids[{i}]`: {error}")))?;
        found.extend(index.external_documents_ids().get(rtxn, &id)?);
    }
    Ok(found)
}

fn sort_criteria(sort: &[String]) -> Result<Vec<AscDesc>> {
    let parsed: std::result::Result<_, _> = sort.iter().map(|text| AscDesc::from_str(text)).collect();
    parsed.map_err(|error| {
        let error = milli_core::Error::from(SortError::from(error));
        ApiError::from(error).recoded(Code::InvalidDocumentSort)
    })
}

/// The engine sorts only in searches. So an empty search with the sort gives the order, from which the wanted documents are
/// taken.
fn sorted(
    index: &Index,
    rtxn: &heed::RoTxn<'_>,
    sort: Vec<AscDesc>,
    wanted: &RoaringBitmap,
    offset: usize,
    limit: usize,
) -> Result<Vec<u32>> {
    let mut search = Search::new(rtxn, index);
    search.sort_criteria(sort).limit(index.documents_ids(rtxn)?.len() as usize);
    let order = search.execute().map_err(|error| ApiError::from(error).recoded(Code::InvalidDocumentSort))?;
    Ok(order.documents_ids.into_iter().filter(|id| wanted.contains(*id)).skip(offset).take(limit).collect())
}
