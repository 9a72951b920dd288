//! `/indexes/{index}/documents`.

use axum::extract::Path;
use axum::response::Response;
use deserr::Deserr;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::{Answer, Call, blocking, ok};
use crate::auth::Action;
use crate::documents::payload::Format;
use crate::documents::retrieve::{self, Browse};
use crate::error::marker as code;
use crate::error::{ApiError, Code, Result};
use crate::filter;
use crate::node::Features;
use crate::search::query::split_sort;
use crate::tasks::{Addition, Work};
use crate::validate::{self, InvalidJson, InvalidQuery, List, Param, StarList};

#[derive(Debug, Deserr)]
#[deserr(error = InvalidQuery, rename_all = camelCase, deny_unknown_fields)]
struct Additional {
    #[deserr(default, error = InvalidQuery<code::InvalidIndexPrimaryKey>)]
    primary_key: Option<String>,
    #[deserr(default, try_from(char) = read_delimiter -> InvalidQuery<code::InvalidDocumentCsvDelimiter>, error = InvalidQuery<code::InvalidDocumentCsvDelimiter>)]
    csv_delimiter: Option<u8>,
    #[deserr(default, error = InvalidQuery<code::InvalidIndexCustomMetadata>)]
    custom_metadata: Option<String>,
    #[deserr(default, try_from(&String) = read_skip -> InvalidQuery<code::InvalidSkipCreation>, error = InvalidQuery<code::InvalidSkipCreation>)]
    skip_creation: Option<bool>,
}

#[derive(Debug, Deserr)]
#[deserr(error = InvalidQuery, rename_all = camelCase, deny_unknown_fields)]
struct WithMetadata {
    #[deserr(default, error = InvalidQuery<code::InvalidIndexCustomMetadata>)]
    custom_metadata: Option<String>,
}

fn read_delimiter(c: char) -> Result<Option<u8>, InvalidQuery<code::InvalidDocumentCsvDelimiter>> {
    u8::try_from(c).ok().filter(u8::is_ascii).map(Some).ok_or_else(|| {
        let message = format!("csv delimiter must be an ascii character. Found: `{c}`");
        InvalidQuery::new(message, Code::InvalidDocumentCsvDelimiter)
    })
}

fn read_skip(text: &String) -> Result<Option<bool>, InvalidQuery<code::InvalidSkipCreation>> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(Some(true)),
        "false" => Ok(Some(false)),
        _ => {
            let message = format!("skipCreation must be either `true` or `false`. Found: `{text}`");
            Err(InvalidQuery::new(message, Code::InvalidSkipCreation))
        }
    }
}

/// `POST /indexes/{index}/documents`
pub async fn replace(Path(index): Path<String>, call: Call) -> Answer {
    add(index, call, true).await
}

/// `PUT /indexes/{index}/documents`
pub async fn update(Path(index): Path<String>, call: Call) -> Answer {
    add(index, call, false).await
}

async fn add(index: String, call: Call, replace: bool) -> Answer {
    let rights = call.allow_index(Action::DocumentsAdd, &index)?;
    let params: Additional = call.params()?;
    let format = Format::of_request(call.content_type(), params.csv_delimiter)?;
    let (node, body) = (call.node.clone(), call.body.clone());
    let (file, count) = blocking(move || {
        let (documents, count) = format.read(&body)?;
        let file = Uuid::new_v4();
        write_durably(&node.queue.file(file), &documents)?;
        Ok((file, count))
    })
    .await?;
    let work = Work::AddDocuments(Addition {
        may_create: rights.may_create(&index),
        index,
        replace,
        file,
        primary_key: params.primary_key,
        skip_new: params.skip_creation.unwrap_or(false),
    });
    let details = json!({ "receivedDocuments": count, "indexedDocuments": null });
    call.enqueue(work, object(details), params.custom_metadata).await
}

/// Writes a file durably: it is on disk when this returns. After a kill, it is either complete or absent.
fn write_durably(path: &std::path::Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    if let Some(folder) = path.parent() {
        std::fs::File::open(folder)?.sync_all()?;
    }
    Ok(())
}

fn object(value: Value) -> Option<Map<String, Value>> {
    match value {
        Value::Object(map) => Some(map),
        _ => None,
    }
}

/// `DELETE /indexes/{index}/documents`
pub async fn clear(Path(index): Path<String>, call: Call) -> Answer {
    call.allow_index(Action::DocumentsDelete, &index)?;
    let params: WithMetadata = call.params()?;
    call.enqueue(Work::Clear { index }, object(json!({ "deletedDocuments": null })), params.custom_metadata)
        .await
}

async fn delete_ids(call: Call, index: String, ids: Vec<String>) -> Answer {
    let params: WithMetadata = call.params()?;
    let details = json!({ "providedIds": ids.len(), "deletedDocuments": null, "originalFilter": null });
    call.enqueue(Work::DeleteIds { index, ids }, object(details), params.custom_metadata).await
}

/// `DELETE /indexes/{index}/documents/{id}`
pub async fn delete_one(Path((index, id)): Path<(String, String)>, call: Call) -> Answer {
    call.allow_index(Action::DocumentsDelete, &index)?;
    delete_ids(call, index, vec![id]).await
}

/// `POST /indexes/{index}/documents/delete-batch`
pub async fn delete_batch(Path(index): Path<String>, call: Call) -> Answer {
    call.allow_index(Action::DocumentsDelete, &index)?;
    call.check_json_type()?;
    let ids: Vec<Value> = serde_json::from_slice(&call.body).map_err(|error| match error.is_data() {
        true => ApiError::new(Code::BadRequest, format!("Json deserialize error: {error}")),
        false => validate::malformed(&error),
    })?;
    let ids = ids.into_iter().map(|id| id.as_str().map_or_else(|| id.to_string(), String::from)).collect();
    delete_ids(call, index, ids).await
}

#[derive(Debug, Deserr)]
#[deserr(error = InvalidJson, rename_all = camelCase, deny_unknown_fields)]
struct ByFilter {
    #[deserr(error = InvalidJson<code::InvalidDocumentFilter>, missing_field_error = InvalidJson::<code::MissingDocumentFilter>::missing)]
    filter: Value,
}

/// `POST /indexes/{index}/documents/delete`
pub async fn delete_by_filter(Path(index): Path<String>, call: Call) -> Answer {
    call.allow_index(Action::DocumentsDelete, &index)?;
    let params: WithMetadata = call.params()?;
    let ByFilter { filter } = call.json()?;
    if filter::parse(&filter, Code::InvalidDocumentFilter, call.node.features())?.is_none() {
        return Err(ApiError::new(Code::InvalidDocumentFilter, "Sending an empty filter is forbidden."));
    }
    let details = json!({ "providedIds": 0, "deletedDocuments": null, "originalFilter": filter.to_string() });
    call.enqueue(Work::DeleteByFilter { index, filter }, object(details), params.custom_metadata).await
}

#[derive(Debug, Deserr)]
#[deserr(error = InvalidJson, rename_all = camelCase, deny_unknown_fields)]
struct Edit {
    #[deserr(default, error = InvalidJson<code::InvalidDocumentFilter>)]
    filter: Option<Value>,
    #[deserr(default, error = InvalidJson<code::InvalidDocumentEditionContext>)]
    context: Option<Value>,
    #[deserr(error = InvalidJson<code::InvalidDocumentEditionFunctionFilter>, missing_field_error = InvalidJson::<code::MissingDocumentEditionFunction>::missing)]
    function: String,
}

/// `POST /indexes/{index}/documents/edit`
pub async fn edit(Path(index): Path<String>, call: Call) -> Answer {
    call.allow_index(Action::DocumentsAll, &index)?;
    let params: WithMetadata = call.params()?;
    Features::require(
        call.node.features().edit_documents_by_function,
        "Using the documents edit route",
        "edit documents by function",
        "https://github.com/orgs/meilisearch/discussions/762",
    )?;
    let Edit { filter, context, function } = call.json()?;
    if let Some(filter) = &filter {
        filter::parse(filter, Code::InvalidDocumentFilter, call.node.features())?;
    }
    if let Err(error) = milli_core::rhai::Engine::new().compile(&function) {
        return Err(ApiError::new(Code::BadRequest, error.to_string()));
    }
    let context = match context {
        None => None,
        Some(Value::Object(context)) => Some(context),
        Some(_) => {
            return Err(ApiError::new(
                Code::InvalidDocumentEditionContext,
                "The context must be an object".to_string(),
            ));
        }
    };
    let details = json!({
        "editedDocuments": null,
        "deletedDocuments": null,
        "originalFilter": filter.as_ref().map(Value::to_string),
        "context": context,
        "function": function,
    });
    let work = Work::Edit { index, filter, context, function };
    call.enqueue(work, object(details), params.custom_metadata).await
}

#[derive(Debug, Deserr)]
#[deserr(error = InvalidQuery, rename_all = camelCase, deny_unknown_fields)]
struct ListParams {
    #[deserr(default = Param(0), error = InvalidQuery<code::InvalidDocumentOffset>)]
    offset: Param<usize>,
    #[deserr(default = Param(20), error = InvalidQuery<code::InvalidDocumentLimit>)]
    limit: Param<usize>,
    #[deserr(default, error = InvalidQuery<code::InvalidDocumentFields>)]
    fields: StarList<String>,
    #[deserr(default, error = InvalidQuery<code::InvalidDocumentRetrieveVectors>)]
    retrieve_vectors: Param<bool>,
    #[deserr(default, error = InvalidQuery<code::InvalidDocumentIds>)]
    ids: Option<List<String>>,
    #[deserr(default, error = InvalidQuery<code::InvalidDocumentFilter>)]
    filter: Option<String>,
    #[deserr(default, error = InvalidQuery<code::InvalidDocumentSort>)]
    sort: Option<String>,
    #[deserr(default, error = InvalidQuery<code::InvalidDocumentUseNetwork>)]
    use_network: Option<Param<bool>>,
}

/// `GET /indexes/{index}/documents`
pub async fn list(Path(index): Path<String>, call: Call) -> Answer {
    call.allow_index(Action::DocumentsGet, &index)?;
    let params: ListParams = call.params()?;
    check_network(&call, params.use_network.is_some())?;
    let browse = Browse {
        offset: params.offset.0,
        limit: params.limit.0,
        fields: params.fields.0,
        retrieve_vectors: params.retrieve_vectors.0,
        ids: params.ids.map(|ids| ids.0.into_iter().map(Value::String).collect()),
        filter: params.filter.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text))),
        sort: params.sort.map(|sort| split_sort(&sort)),
    };
    page(call, index, browse).await
}

#[derive(Debug, Deserr)]
#[deserr(error = InvalidJson, rename_all = camelCase, deny_unknown_fields)]
struct FetchBody {
    #[deserr(default = 0, error = InvalidJson<code::InvalidDocumentOffset>)]
    offset: usize,
    #[deserr(default = 20, error = InvalidJson<code::InvalidDocumentLimit>)]
    limit: usize,
    #[deserr(default, error = InvalidJson<code::InvalidDocumentFields>)]
    fields: Option<Vec<String>>,
    #[deserr(default, error = InvalidJson<code::InvalidDocumentRetrieveVectors>)]
    retrieve_vectors: bool,
    #[deserr(default, error = InvalidJson<code::InvalidDocumentIds>)]
    ids: Option<Vec<Value>>,
    #[deserr(default, error = InvalidJson<code::InvalidDocumentFilter>)]
    filter: Option<Value>,
    #[deserr(default, error = InvalidJson<code::InvalidDocumentSort>)]
    sort: Option<Vec<String>>,
    #[deserr(default, error = InvalidJson<code::InvalidDocumentUseNetwork>)]
    use_network: Option<bool>,
}

/// `POST /indexes/{index}/documents/fetch`
pub async fn fetch(Path(index): Path<String>, call: Call) -> Answer {
    call.allow_index(Action::DocumentsGet, &index)?;
    let body: FetchBody = call.json()?;
    check_network(&call, body.use_network.is_some())?;
    let browse = Browse {
        offset: body.offset,
        limit: body.limit,
        fields: body.fields.filter(|fields| !fields.iter().any(|field| field == "*")),
        retrieve_vectors: body.retrieve_vectors,
        ids: body.ids,
        filter: body.filter,
        sort: body.sort,
    };
    page(call, index, browse).await
}

/// Refuses `useNetwork` unless the feature is enabled. If it is, the parameter has no effect, because this node has no network.
fn check_network(call: &Call, given: bool) -> Result<()> {
    let issue = "https://github.com/orgs/meilisearch/discussions/805";
    let action = "passing `useNetwork` in a documents query";
    Features::require(!given || call.node.features().network, action, "network", issue)
}

async fn page(call: Call, uid: String, browse: Browse) -> Result<Response> {
    let node = call.node.clone();
    let page = blocking(move || retrieve::page(&node.indexes.get(&uid)?, node.features(), browse)).await?;
    ok(&page)
}

#[derive(Debug, Deserr)]
#[deserr(error = InvalidQuery, rename_all = camelCase, deny_unknown_fields)]
struct OneParams {
    #[deserr(default, error = InvalidQuery<code::InvalidDocumentFields>)]
    fields: StarList<String>,
    #[deserr(default, error = InvalidQuery<code::InvalidDocumentRetrieveVectors>)]
    retrieve_vectors: Param<bool>,
    #[deserr(default, error = InvalidQuery<code::InvalidDocumentUseNetwork>)]
    use_network: Option<Param<bool>>,
}

/// `GET /indexes/{index}/documents/{id}`
pub async fn one(Path((index, id)): Path<(String, String)>, call: Call) -> Answer {
    call.allow_index(Action::DocumentsGet, &index)?;
    let params: OneParams = call.params()?;
    check_network(&call, params.use_network.is_some())?;
    let node = call.node.clone();
    let document = blocking(move || {
        retrieve::one(&node.indexes.get(&index)?, &id, params.fields.0.as_deref(), params.retrieve_vectors.0)
    })
    .await?;
    ok(&document)
}
