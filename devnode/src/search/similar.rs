//! Searches for similar documents, whose vectors are near that of a given document.

use std::collections::BTreeSet;
use std::time::Instant;

use deserr::Deserr;
use milli_core::{Error, Similar, UserError};
use serde::Serialize;
use serde_json::Value;

use super::hits::{Hit, HitMaker};
use super::query::{DEFAULT_LIMIT, SearchQuery, Threshold};
use super::{EmbedderChoice, Pages, Request};
use crate::error::marker as code;
use crate::error::{ApiError, Code, Result};
use crate::filter;
use crate::validate::{InvalidJson, InvalidQuery, List, Param, Unparsable};

/// The body of a search for similar documents.
#[derive(Debug, Deserr)]
#[deserr(error = InvalidJson, rename_all = camelCase, deny_unknown_fields)]
pub struct SimilarQuery {
    #[deserr(error = InvalidJson<code::InvalidSimilarId>)]
    id: Value,
    #[deserr(default = 0, error = InvalidJson<code::InvalidSimilarOffset>)]
    offset: usize,
    #[deserr(default = DEFAULT_LIMIT, error = InvalidJson<code::InvalidSimilarLimit>)]
    limit: usize,
    #[deserr(default, error = InvalidJson<code::InvalidSimilarFilter>)]
    filter: Option<Value>,
    #[deserr(error = InvalidJson<code::InvalidSimilarEmbedder>)]
    embedder: String,
    #[deserr(default, error = InvalidJson<code::InvalidSimilarAttributesToRetrieve>)]
    attributes_to_retrieve: Option<BTreeSet<String>>,
    #[deserr(default, error = InvalidJson<code::InvalidSimilarRetrieveVectors>)]
    retrieve_vectors: bool,
    #[deserr(default, error = InvalidJson<code::InvalidSimilarShowRankingScore>)]
    show_ranking_score: bool,
    #[deserr(default, error = InvalidJson<code::InvalidSimilarShowRankingScoreDetails>)]
    show_ranking_score_details: bool,
    #[deserr(default, error = InvalidJson<code::InvalidSimilarRankingScoreThreshold>)]
    ranking_score_threshold: Option<Threshold>,
}

/// The parameters of a search for similar documents in a query string.
#[derive(Debug, Deserr)]
#[deserr(error = InvalidQuery, rename_all = camelCase, deny_unknown_fields)]
pub struct SimilarParams {
    #[deserr(error = InvalidQuery<code::InvalidSimilarId>)]
    id: Param<String>,
    #[deserr(default = Param(0), error = InvalidQuery<code::InvalidSimilarOffset>)]
    offset: Param<usize>,
    #[deserr(default = Param(DEFAULT_LIMIT), error = InvalidQuery<code::InvalidSimilarLimit>)]
    limit: Param<usize>,
    #[deserr(default, error = InvalidQuery<code::InvalidSimilarFilter>)]
    filter: Option<String>,
    #[deserr(error = InvalidQuery<code::InvalidSimilarEmbedder>)]
    embedder: String,
    #[deserr(default, error = InvalidQuery<code::InvalidSimilarAttributesToRetrieve>)]
    attributes_to_retrieve: Option<List<String>>,
    #[deserr(default, error = InvalidQuery<code::InvalidSimilarRetrieveVectors>)]
    retrieve_vectors: Param<bool>,
    #[deserr(default, error = InvalidQuery<code::InvalidSimilarShowRankingScore>)]
    show_ranking_score: Param<bool>,
    #[deserr(default, error = InvalidQuery<code::InvalidSimilarShowRankingScoreDetails>)]
    show_ranking_score_details: Param<bool>,
    #[deserr(default, error = InvalidQuery<code::InvalidSimilarRankingScoreThreshold>, try_from(Option<String>) = read_threshold -> Unparsable)]
    ranking_score_threshold: Option<Threshold>,
}

fn read_threshold(text: Option<String>) -> Result<Option<Threshold>, Unparsable> {
    text.map(|text| Threshold::try_from(text.parse::<f64>().unwrap_or(f64::NAN))).transpose()
}

impl From<SimilarParams> for SimilarQuery {
    fn from(params: SimilarParams) -> Self {
        Self {
            id: Value::String(params.id.0),
            offset: params.offset.0,
            limit: params.limit.0,
            filter: params.filter.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text))),
            embedder: params.embedder,
            attributes_to_retrieve: params.attributes_to_retrieve.map(|list| list.0.into_iter().collect()),
            retrieve_vectors: params.retrieve_vectors.0,
            show_ranking_score: params.show_ranking_score.0,
            show_ranking_score_details: params.show_ranking_score_details.0,
            ranking_score_threshold: params.ranking_score_threshold,
        }
    }
}

/// The answer to a search for similar documents.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SimilarAnswer {
    hits: Vec<Hit>,
    id: String,
    processing_time_ms: u128,
    #[serde(flatten)]
    pages: Pages,
}

/// Finds similar documents. `rule` is the filter of the caller's token. A document that it hides counts as absent, also as the
/// document to compare with.
pub fn search(request: &Request<'_>, query: SimilarQuery, rule: Option<Value>) -> Result<SimilarAnswer> {
    let start = Instant::now();
    let index = request.index;
    let rtxn = index.read_txn()?;
    let unknown = UserError::InvalidSimilarEmbedder(query.embedder.clone());
    let choice = EmbedderChoice::find(index, &rtxn, &query.embedder, unknown)?;
    let id = milli_core::documents::validate_document_id_value(query.id)
        .map_err(|error| ApiError::new(Code::InvalidSimilarId, format!("Invalid value at `.id`: {error}")))?;
    let not_found = || ApiError::new(Code::NotFoundSimilarId, format!("Document `{id}` not found."));
    let internal = index.external_documents_ids().get(&rtxn, &id)?.ok_or_else(not_found)?;
    if let Some(rule) = &rule
        && let Some(rule) = filter::parse(rule, Code::InvalidSimilarFilter, request.features)?
        && !rule.evaluate(&rtxn, index).map_err(bad_filter)?.contains(internal)
    {
        return Err(not_found());
    }
    let mut plain: SearchQuery = crate::validate::json(b"{}")?;
    plain.filter = query.filter;
    plain.add_filter(rule);
    plain.attributes_to_retrieve = query.attributes_to_retrieve;
    plain.retrieve_vectors = query.retrieve_vectors;
    plain.show_ranking_score = query.show_ranking_score;
    plain.show_ranking_score_details = query.show_ranking_score_details;
    let (name, embedder) = (choice.name, choice.embedder);
    let mut similar =
        Similar::new(internal, query.offset, query.limit, index, &rtxn, name, embedder, choice.quantized);
    if let Some(filter) = &plain.filter
        && let Some(filter) = filter::parse(filter, Code::InvalidSimilarFilter, request.features)?
    {
        similar.filter(filter);
    }
    if let Some(threshold) = query.ranking_score_threshold {
        similar.ranking_score_threshold(threshold.0);
    }
    let result = similar.execute().map_err(bad_filter)?;
    let hits = HitMaker::new(index, &rtxn, &plain)?.make_all(
        result.matching_words,
        &result.documents_ids,
        &result.document_scores,
    )?;
    let max =
        index.pagination_max_total_hits(&rtxn)?.map_or(super::DEFAULT_MAX_TOTAL_HITS, |max| max as usize);
    let total = (result.candidates.len() as usize).min(max);
    Ok(SimilarAnswer {
        hits,
        id,
        processing_time_ms: start.elapsed().as_millis(),
        pages: Pages::new(None, None, query.offset, query.limit, total),
    })
}

fn bad_filter(error: Error) -> ApiError {
    match error {
        Error::UserError(UserError::InvalidFilter(_)) => {
            ApiError::from(error).recoded(Code::InvalidSimilarFilter)
        }
        error => error.into(),
    }
}
