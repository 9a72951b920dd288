//! `/indexes` and `/swap-indexes`.

use axum::extract::Path;
use deserr::{Deserr, ValuePointerRef};
use milli_core::Index;
use serde::Serialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::{Answer, Call, Paged, blocking, ok};
use crate::auth::Action;
use crate::error::marker as code;
use crate::error::{ApiError, Code, Result};
use crate::node::Node;
use crate::tasks::{Swap, Work};
use crate::uid::IndexUid;
use crate::validate::{self, Invalid, InvalidJson, InvalidQuery, Param};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct View {
    uid: String,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
    primary_key: Option<String>,
}

impl View {
    fn new(uid: String, index: &Index) -> Result<Self> {
        let rtxn = index.read_txn()?;
        let primary_key = index.primary_key(&rtxn)?.map(String::from);
        Ok(Self {
            uid,
            created_at: index.created_at(&rtxn)?,
            updated_at: index.updated_at(&rtxn)?,
            primary_key,
        })
    }
}

#[derive(Debug, Deserr)]
#[deserr(error = InvalidQuery, rename_all = camelCase, deny_unknown_fields)]
struct ListParams {
    #[deserr(default = Param(0), error = InvalidQuery<code::InvalidIndexOffset>)]
    offset: Param<usize>,
    #[deserr(default = Param(20), error = InvalidQuery<code::InvalidIndexLimit>)]
    limit: Param<usize>,
}

/// `GET /indexes`
pub async fn list(call: Call) -> Answer {
    let rights = call.allow(Action::IndexesGet, None)?;
    let params: ListParams = call.params()?;
    let node = call.node.clone();
    let page = blocking(move || {
        let uids: Vec<_> = node.indexes.names().into_iter().filter(|uid| rights.covers(uid)).collect();
        let views: Result<Vec<View>> =
            uids.into_iter().map(|uid| View::new(uid.clone(), &node.indexes.get(&uid)?)).collect();
        Ok(Paged::new(views?, params.offset.0, params.limit.0))
    })
    .await?;
    ok(&page)
}

#[derive(Debug, Deserr)]
#[deserr(error = InvalidJson, rename_all = camelCase, deny_unknown_fields)]
struct NewIndex {
    #[deserr(error = InvalidJson<code::InvalidIndexUid>, missing_field_error = InvalidJson::<code::MissingIndexUid>::missing)]
    uid: IndexUid,
    #[deserr(default, error = InvalidJson<code::InvalidIndexPrimaryKey>)]
    primary_key: Option<String>,
}

/// `POST /indexes`
pub async fn create(call: Call) -> Answer {
    let rights = call.allow(Action::IndexesAdd, None)?;
    let NewIndex { uid, primary_key } = call.json()?;
    if !rights.covers(uid.as_str()) {
        return Err(ApiError::new(Code::InvalidApiKey, "The provided API key is invalid."));
    }
    let details = json!({ "primaryKey": primary_key });
    call.enqueue(Work::CreateIndex { index: uid.to_string(), primary_key }, object(details), None).await
}

fn object(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(map) => Some(map),
        _ => None,
    }
}

/// `GET /indexes/{index}`
pub async fn one(Path(index): Path<String>, call: Call) -> Answer {
    call.allow_index(Action::IndexesGet, &index)?;
    let node = call.node.clone();
    ok(&blocking(move || View::new(index.clone(), &node.indexes.get(&index)?)).await?)
}

#[derive(Debug, Deserr)]
#[deserr(error = InvalidJson, rename_all = camelCase, deny_unknown_fields = deny_immutable)]
struct Update {
    #[deserr(default, error = InvalidJson<code::InvalidIndexPrimaryKey>)]
    primary_key: Option<String>,
    #[deserr(default, error = InvalidJson<code::InvalidIndexUid>)]
    uid: Option<String>,
}

fn deny_immutable(field: &str, accepted: &[&str], at: ValuePointerRef<'_>) -> InvalidJson {
    let code = match field {
        "createdAt" => Code::ImmutableIndexCreatedAt,
        "updatedAt" => Code::ImmutableIndexUpdatedAt,
        _ => return validate::unknown_field(field, accepted, at),
    };
    Invalid::new(validate::immutable_field(field, accepted), code)
}

/// `PATCH /indexes/{index}`
pub async fn update(Path(index): Path<String>, call: Call) -> Answer {
    call.allow_index(Action::IndexesUpdate, &index)?;
    let Update { primary_key, uid } = call.json()?;
    let mut details = Map::new();
    details.insert("primaryKey".into(), json!(primary_key));
    if let Some(uid) = &uid {
        let uid: IndexUid = uid.parse()?;
        details.insert("oldIndexUid".into(), json!(index));
        details.insert("newIndexUid".into(), json!(uid.as_str()));
    }
    call.enqueue(Work::UpdateIndex { index, primary_key, new_uid: uid }, Some(details), None).await
}

/// `DELETE /indexes/{index}`
pub async fn delete(Path(index): Path<String>, call: Call) -> Answer {
    call.allow_index(Action::IndexesDelete, &index)?;
    call.enqueue(Work::DeleteIndex { index }, object(json!({ "deletedDocuments": null })), None).await
}

#[derive(Debug, Deserr)]
#[deserr(error = InvalidJson, rename_all = camelCase, deny_unknown_fields)]
struct SwapBody {
    #[deserr(error = InvalidJson<code::InvalidSwapIndexes>, missing_field_error = InvalidJson::<code::MissingSwapIndexes>::missing)]
    indexes: Vec<IndexUid>,
    #[deserr(default, error = InvalidJson<code::InvalidSwapRename>)]
    rename: bool,
}

/// `POST /swap-indexes`
pub async fn swap(call: Call) -> Answer {
    let rights = call.allow(Action::IndexesSwap, None)?;
    let body: Vec<SwapBody> = call.json()?;
    let mut swaps = Vec::new();
    for SwapBody { indexes, rename } in body {
        let [left, right] = indexes.as_slice() else {
            let names: Vec<_> = indexes.iter().map(|uid| format!("\"{uid}\"")).collect();
            let message = format!(
                "Two indexes must be given for each swap. The list `[{}]` contains {} indexes.",
                names.join(", "),
                indexes.len()
            );
            return Err(ApiError::new(Code::InvalidSwapIndexes, message));
        };
        if !rights.covers(left.as_str()) || !rights.covers(right.as_str()) {
            return Err(ApiError::new(Code::InvalidApiKey, "The provided API key is invalid."));
        }
        swaps.push(Swap { indexes: (left.to_string(), right.to_string()), rename });
    }
    check_duplicates(&swaps)?;
    let details = json!({ "swaps": swaps });
    call.enqueue(Work::SwapIndexes { swaps }, object(details), None).await
}

fn check_duplicates(swaps: &[Swap]) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    let mut twice = std::collections::BTreeSet::new();
    for name in swaps.iter().flat_map(|swap| [&swap.indexes.0, &swap.indexes.1]) {
        if !seen.insert(name) {
            twice.insert(format!("`{name}`"));
        }
    }
    let names: Vec<_> = twice.into_iter().collect();
    let were = if names.len() == 1 { "was" } else { "were" };
    if names.is_empty() {
        return Ok(());
    }
    let message = format!(
        "Indexes must be declared only once during a swap. {} {were} specified several times.",
        names.join(", ")
    );
    Err(ApiError::new(Code::InvalidSwapDuplicateIndexFound, message))
}

/// `GET /indexes/{index}/stats`
pub async fn stats(Path(index): Path<String>, call: Call) -> Answer {
    call.allow_index(Action::StatsGet, &index)?;
    let node = call.node.clone();
    ok(&blocking(move || Stats::new(&node, &index)).await?)
}

/// The statistics of an index.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    number_of_documents: u64,
    raw_document_db_size: u64,
    avg_document_size: u64,
    is_indexing: bool,
    number_of_embeddings: u64,
    number_of_embedded_documents: u64,
    field_distribution: milli_core::FieldDistribution,
}

impl Stats {
    /// Computes the statistics.
    pub fn new(node: &Node, uid: &str) -> Result<Self> {
        let index = node.indexes.get(uid)?;
        let rtxn = index.read_txn()?;
        let documents = index.documents_stats(&rtxn)?.unwrap_or_default();
        let vectors = index.arroy_stats(&rtxn)?;
        Ok(Self {
            number_of_documents: index.number_of_documents(&rtxn)?,
            raw_document_db_size: documents.total_size(),
            avg_document_size: documents.average_value_size(),
            is_indexing: node.queue.is_indexing(uid),
            number_of_embeddings: vectors.number_of_embeddings,
            number_of_embedded_documents: vectors.documents.len(),
            field_distribution: index.field_distribution(&rtxn)?,
        })
    }
}

#[derive(Debug, Deserr)]
#[deserr(error = InvalidJson, rename_all = camelCase, deny_unknown_fields)]
struct FieldsBody {
    #[deserr(default, error = InvalidJson<code::InvalidIndexOffset>)]
    offset: usize,
    #[deserr(default = 20, error = InvalidJson<code::InvalidIndexLimit>)]
    limit: usize,
}

/// `POST /indexes/{index}/fields`, without its filter.
pub async fn fields(Path(index): Path<String>, call: Call) -> Answer {
    call.allow_index(Action::FieldsPost, &index)?;
    let FieldsBody { offset, limit } = call.json()?;
    let node = call.node.clone();
    let fields = blocking(move || {
        let index = node.indexes.get(&index)?;
        let rtxn = index.read_txn()?;
        let known = index.fields_ids_map_with_metadata(&rtxn)?;
        let rules = index.filterable_attributes_rules(&rtxn)?;
        let displayed = index.displayed_fields(&rtxn)?;
        let is_displayed = |name: &str| {
            displayed.as_ref().is_none_or(|shown| shown.iter().any(|shown| ["*", name].contains(shown)))
        };
        let mut fields: Vec<Value> = known
            .iter()
            .map(|(_, name, metadata)| {
                let features = metadata.filterable_attributes_features(&rules);
                json!({
                    "name": name,
                    "displayed": {"enabled": is_displayed(name)},
                    "searchable": {"enabled": metadata.is_searchable()},
                    "sortable": {"enabled": metadata.is_sortable()},
                    "distinct": {"enabled": metadata.is_distinct()},
                    "rankingRule": {"enabled": metadata.is_asc_desc()},
                    "filterable": {"enabled": features.is_filterable()},
                })
            })
            .collect();
        fields.sort_by_cached_key(|field| field["name"].as_str().unwrap_or_default().to_owned());
        Ok(fields)
    });
    ok(&Paged::new(fields.await?, offset, limit))
}
