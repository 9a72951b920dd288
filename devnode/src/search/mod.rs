//! Runs searches: passes the client's parameters to the engine, and creates the answer.

pub mod facet;
mod facet_patterns;
pub mod federated;
mod hits;
pub mod query;
pub mod similar;

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use milli_core::score_details::ScoringStrategy;
use milli_core::tokenizer::Language;
use milli_core::vector::Embedder;
use milli_core::{
    AscDesc, DEFAULT_VALUES_PER_FACET, Index, Search, SearchResult, SortError, TimeBudget, UserError, heed,
};
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use self::hits::{Hit, HitMaker};
use self::query::{DEFAULT_LIMIT, SearchQuery};
use crate::embedders;
use crate::error::{ApiError, Code, Result};
use crate::filter;
use crate::node::Features;

const DEFAULT_MAX_TOTAL_HITS: usize = 1000;

/// The answer to a search.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    hits: Vec<Hit>,
    query: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    query_vector: Option<Vec<f32>>,
    processing_time_ms: u128,
    #[serde(flatten)]
    pages: Pages,
    #[serde(flatten)]
    facets: Facets,
    request_uid: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Metadata>,
    #[serde(skip_serializing_if = "Option::is_none")]
    performance_details: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    semantic_hit_count: Option<u32>,
}

/// The search that an answer belongs to, for clients that send `Meili-Include-Metadata`.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    query_uid: Uuid,
    index_uid: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    primary_key: Option<String>,
}

/// The position of the hits among all hits.
#[derive(Debug, Serialize)]
#[serde(untagged, rename_all_fields = "camelCase")]
pub enum Pages {
    /// By page, with exact totals.
    Numbered { hits_per_page: usize, page: usize, total_pages: usize, total_hits: usize },
    /// By offset, with an estimate.
    Window { limit: usize, offset: usize, estimated_total_hits: usize },
}

impl Pages {
    fn new(
        page: Option<usize>,
        hits_per_page: Option<usize>,
        offset: usize,
        limit: usize,
        total: usize,
    ) -> Self {
        if page.or(hits_per_page).is_none() {
            return Self::Window { limit, offset, estimated_total_hits: total };
        }
        let hits_per_page = hits_per_page.unwrap_or(DEFAULT_LIMIT);
        Self::Numbered {
            hits_per_page,
            page: page.unwrap_or(1),
            // Wrapping arithmetic, as in Meilisearch.
            total_pages: match hits_per_page {
                0 => 0,
                _ => total.wrapping_add(hits_per_page).wrapping_sub(1) / hits_per_page,
            },
            total_hits: total,
        }
    }
}

/// The smallest and the largest number of a facet.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Stats {
    min: f64,
    max: f64,
}

/// Counts of facet values.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Facets {
    #[serde(skip_serializing_if = "Option::is_none")]
    facet_distribution: Option<BTreeMap<String, IndexMap<String, u64>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    facet_stats: Option<BTreeMap<String, Stats>>,
}

/// The kind of search that the engine runs.
enum Kind {
    Keyword,
    Semantic(EmbedderChoice),
    Hybrid(EmbedderChoice, f32),
}

struct EmbedderChoice {
    name: String,
    embedder: Arc<Embedder>,
    quantized: bool,
}

impl EmbedderChoice {
    fn find(index: &Index, rtxn: &heed::RoTxn<'_>, name: &str, unknown: UserError) -> Result<Self> {
        let (embedder, _, quantized) = embedders::of_index(index, rtxn)?.get(name).ok_or(unknown)?;
        Ok(Self { name: name.to_string(), embedder, quantized })
    }
}

impl Kind {
    fn of(index: &Index, rtxn: &heed::RoTxn<'_>, query: &SearchQuery) -> Result<Self> {
        let Some(hybrid) = &query.hybrid else {
            if query.vector.is_some() || query.media.is_some() {
                let message =
                    "Invalid request: missing `hybrid` parameter when `vector` or `media` are present.";
                return Err(ApiError::new(Code::MissingSearchHybrid, message));
            }
            return Ok(Self::Keyword);
        };
        let ratio = hybrid.semantic_ratio.0;
        let keyword = ratio == 0.0 || (ratio < 1.0 && query.q.is_none() && query.vector.is_none());
        if keyword {
            return Ok(Self::Keyword);
        }
        let unknown = UserError::InvalidSearchEmbedder(hybrid.embedder.clone());
        let choice = EmbedderChoice::find(index, rtxn, &hybrid.embedder, unknown)?;
        let dimensions = choice.embedder.dimensions();
        if let Some(found) = query.vector.as_ref().map(Vec::len).filter(|found| *found != dimensions) {
            return Err(UserError::InvalidVectorDimensions { expected: dimensions, found }.into());
        }
        let semantic = ratio == 1.0 || query.q.is_none();
        Ok(if semantic { Self::Semantic(choice) } else { Self::Hybrid(choice, ratio) })
    }
}

/// What the engine found.
struct Found {
    result: SearchResult,
    semantic_hits: Option<u32>,
    offset: usize,
    limit: usize,
    max_total: usize,
}

/// The context of a search.
pub struct Request<'r> {
    /// The index's name.
    pub uid: &'r str,
    /// The index.
    pub index: &'r Index,
    /// The experimental features.
    pub features: Features,
    /// Whether the client asked for [`Metadata`].
    pub with_metadata: bool,
}

/// Searches an index.
pub fn search(request: &Request<'_>, query: &SearchQuery) -> Result<Answer> {
    let start = Instant::now();
    check_features(query, request.features)?;
    let rtxn = request.index.read_txn()?;
    let found = find(request, &rtxn, query, None, false)?;
    let Found { result, semantic_hits, offset, limit, max_total } = found;
    let maker = HitMaker::new(request.index, &rtxn, query)?;
    let hits = maker.make_all(result.matching_words, &result.documents_ids, &result.document_scores)?;
    let total = result.candidates.len() as usize;
    let total = if request.features.legacy_search { total.min(max_total) } else { total };
    let facets = match &query.facets {
        Some(names) => facets(request.index, &rtxn, names, result.candidates)?,
        None => Facets::default(),
    };
    let primary_key = request.index.primary_key(&rtxn)?.map(String::from);
    let metadata = request.with_metadata.then(|| Metadata {
        query: query.q.clone(),
        query_uid: Uuid::now_v7(),
        index_uid: request.uid.to_string(),
        primary_key,
    });
    let pages = Pages::new(query.page, query.hits_per_page, offset, limit, total);
    let took = start.elapsed();
    Ok(Answer {
        hits,
        query: query.q.clone().unwrap_or_default(),
        query_vector: query.vector.clone().filter(|_| query.retrieve_vectors && semantic_hits.is_some()),
        processing_time_ms: took.as_millis(),
        pages,
        facets,
        request_uid: Uuid::now_v7(),
        metadata,
        performance_details: query
            .show_performance_details
            .unwrap_or(false)
            .then(|| [("search".to_string(), format!("{took:.2?}"))].into()),
        semantic_hit_count: semantic_hits,
    })
}

/// Refuses parameters whose feature is disabled, or that this node does not support.
fn check_features(query: &SearchQuery, features: Features) -> Result<()> {
    if query.use_network.is_some() {
        let issue = "https://github.com/orgs/meilisearch/discussions/805";
        Features::require(features.network, "passing `useNetwork` in a search query", "network", issue)?;
    }
    if query.media.is_some() {
        let issue = "https://github.com/orgs/meilisearch/discussions/846";
        Features::require(features.multimodal, "passing `media` in a search query", "multimodal", issue)?;
    }
    if query.personalize.is_some() {
        let issue = "https://github.com/orgs/meilisearch/discussions/866";
        Features::require(false, "reranking search results", "personalization", issue)?;
    }
    Ok(())
}

/// Runs the search in the engine. `window` overrides the client's offset and limit; `detailed` computes scores in any case.
fn find(
    request: &Request<'_>,
    rtxn: &heed::RoTxn<'_>,
    query: &SearchQuery,
    window: Option<(usize, usize)>,
    detailed: bool,
) -> Result<Found> {
    let index = request.index;
    let in_index = |error: milli_core::Error| ApiError::from(error).in_index(request.uid);
    let kind = Kind::of(index, rtxn, query)?;
    let mut search = Search::new(rtxn, index);
    let cutoff = index.search_cutoff(rtxn)?;
    search.time_budget(
        cutoff.map_or_else(TimeBudget::default, |ms| TimeBudget::new(Duration::from_millis(ms))),
    );
    prepare(&mut search, query);
    let detailed = detailed
        || query.show_ranking_score
        || query.show_ranking_score_details
        || query.ranking_score_threshold.is_some();
    search.scoring_strategy(if detailed { ScoringStrategy::Detailed } else { ScoringStrategy::Skip });
    let max_total = index.pagination_max_total_hits(rtxn)?.map_or(DEFAULT_MAX_TOTAL_HITS, |max| max as usize);
    let (offset, limit) = window.unwrap_or_else(|| own_window(query));
    let first = offset.min(max_total);
    search.offset(first).limit(limit.min(max_total - first));
    if let Some(filter) = &query.filter
        && let Some(filter) = filter::parse(filter, Code::InvalidSearchFilter, request.features)?
    {
        search.filter(filter);
    }
    if let Some(sort) = &query.sort {
        let parsed: std::result::Result<Vec<_>, _> =
            sort.iter().map(|text| AscDesc::from_str(text)).collect();
        search.sort_criteria(parsed.map_err(|error| milli_core::Error::from(SortError::from(error)))?);
    }
    let (result, semantic_hits) = match kind {
        Kind::Keyword => {
            query.q.as_ref().map(|q| search.query(q));
            (search.execute().map_err(in_index)?, None)
        }
        Kind::Semantic(choice) => {
            let vector = match (&query.vector, &query.q) {
                (Some(vector), _) => vector.clone(),
                (None, q) => embed(&choice.embedder, q.as_deref().unwrap_or_default())?,
            };
            search.semantic(choice.name, choice.embedder, choice.quantized, Some(vector));
            let result = search.execute().map_err(in_index)?;
            let count = result.document_scores.len() as u32;
            (result, Some(count))
        }
        Kind::Hybrid(choice, ratio) => {
            query.q.as_ref().map(|q| search.query(q));
            search.semantic(choice.name, choice.embedder, choice.quantized, query.vector.clone());
            search.execute_hybrid(ratio).map_err(in_index)?
        }
    };
    Ok(Found { result, semantic_hits, offset, limit, max_total })
}

fn embed(embedder: &Embedder, text: &str) -> Result<Vec<f32>> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let vector = embedder.embed_search(text, Some(deadline)).map_err(milli_core::vector::Error::from);
    Ok(vector.map_err(UserError::from)?)
}

fn prepare<'a>(search: &mut Search<'a>, query: &'a SearchQuery) {
    if let Some(threshold) = query.ranking_score_threshold {
        search.ranking_score_threshold(threshold.0);
    }
    if let Some(distinct) = &query.distinct {
        search.distinct(distinct.clone());
    }
    if let Some(attributes) = &query.attributes_to_search_on {
        search.searchable_attributes(attributes);
    }
    if let Some(locales) = &query.locales {
        search.locales(languages(locales));
    }
    search.terms_matching_strategy(query.matching_strategy.into());
    search.exhaustive_number_hits(query.is_paged());
}

fn languages(locales: &[crate::locale::Locale]) -> Vec<Language> {
    locales.iter().map(|locale| locale.0).collect()
}

/// The offset and limit of the client's query, which may count in hits or in pages.
fn own_window(query: &SearchQuery) -> (usize, usize) {
    if query.is_paged() {
        let limit = query.hits_per_page.unwrap_or(DEFAULT_LIMIT);
        // Page 0 is empty. The multiplication wraps, as in Meilisearch.
        query.page.unwrap_or(1).checked_sub(1).map_or((0, 0), |page| (limit.wrapping_mul(page), limit))
    } else {
        (query.offset.unwrap_or(0), query.limit.unwrap_or(DEFAULT_LIMIT))
    }
}

/// Counts the values of facets among the candidates.
fn facets(
    index: &Index,
    rtxn: &heed::RoTxn<'_>,
    names: &[String],
    candidates: roaring::RoaringBitmap,
) -> Result<Facets> {
    let orders = index.sort_facet_values_by(rtxn)?;
    let mut distribution = index.facets_distribution(rtxn);
    let max = index.max_values_per_facet(rtxn)?.map_or(DEFAULT_VALUES_PER_FACET, |max| max as usize);
    distribution.max_values_per_facet(max);
    let chosen = facet_patterns::chosen(index, rtxn, names)?;
    distribution.facets(chosen.iter().map(|name| (name, orders.get(name))));
    distribution.candidates(candidates).default_order_by(orders.get("*"));
    let counts = distribution.execute()?;
    let stats = distribution.compute_stats()?;
    Ok(Facets {
        facet_distribution: Some(counts),
        facet_stats: Some(stats.into_iter().map(|(name, (min, max))| (name, Stats { min, max })).collect()),
    })
}

/// The point of the first geographic sort in a query.
fn geo_point(sorts: &[String]) -> Option<[f64; 2]> {
    sorts.iter().find_map(|sort| match AscDesc::from_str(sort).ok()? {
        AscDesc::Asc(member) | AscDesc::Desc(member) => member.geo_point().copied(),
    })
}

fn number(value: Option<&Value>) -> Option<f64> {
    match value? {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}
