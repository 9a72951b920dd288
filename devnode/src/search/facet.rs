//! Searching among the values of a facet.

use std::time::Instant;

use deserr::Deserr;
use milli_core::{Index, PatternMatch, Search, SearchForFacetValues};
use serde::Serialize;
use serde_json::{Value, json};

use super::query::{Hybrid, MatchingStrategy, SearchQuery, Threshold};
use super::{Kind, languages, prepare};
use crate::error::marker as code;
use crate::error::{ApiError, Code, Result};
use crate::filter;
use crate::locale::Locale;
use crate::node::Features;
use crate::validate::InvalidJson;

/// The body of a facet search. Parameters of ordinary searches are accepted, so that a client can send both together.
#[derive(Debug, Deserr)]
#[deserr(error = InvalidJson, rename_all = camelCase, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct FacetQuery {
    #[deserr(default, error = InvalidJson<code::InvalidFacetSearchQuery>)]
    facet_query: Option<String>,
    #[deserr(error = InvalidJson<code::InvalidFacetSearchFacetName>, missing_field_error = InvalidJson::<code::MissingFacetSearchFacetName>::missing)]
    facet_name: String,
    #[deserr(default, error = InvalidJson<code::InvalidSearchQ>)]
    q: Option<String>,
    #[deserr(default, error = InvalidJson<code::InvalidSearchVector>)]
    vector: Option<Vec<f32>>,
    #[deserr(default, error = InvalidJson<code::InvalidSearchMedia>)]
    media: Option<Value>,
    #[deserr(default, error = InvalidJson<code::InvalidSearchHybridQuery>)]
    hybrid: Option<Hybrid>,
    #[deserr(default, error = InvalidJson<code::InvalidSearchFilter>)]
    pub filter: Option<Value>,
    #[deserr(default, error = InvalidJson<code::InvalidSearchMatchingStrategy>)]
    matching_strategy: MatchingStrategy,
    #[deserr(default, error = InvalidJson<code::InvalidSearchAttributesToSearchOn>)]
    attributes_to_search_on: Option<Vec<String>>,
    #[deserr(default, error = InvalidJson<code::InvalidSearchRankingScoreThreshold>)]
    ranking_score_threshold: Option<Threshold>,
    #[deserr(default, error = InvalidJson<code::InvalidSearchLocales>)]
    locales: Option<Vec<Locale>>,
    #[deserr(default, error = InvalidJson<code::InvalidFacetSearchExhaustiveFacetCount>)]
    exhaustive_facet_count: Option<bool>,
    #[deserr(default, error = InvalidJson<code::InvalidSearchUseNetwork>)]
    use_network: Option<bool>,
}

/// The values found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FacetAnswer {
    facet_hits: Vec<Value>,
    facet_query: Option<String>,
    processing_time_ms: u128,
}

/// Searches among the values of a facet. `rule` is a filter that the caller's token adds.
pub fn search(
    index: &Index,
    features: Features,
    query: FacetQuery,
    rule: Option<Value>,
) -> Result<FacetAnswer> {
    let start = Instant::now();
    let rtxn = index.read_txn()?;
    if query.use_network.is_some() {
        let issue = "https://github.com/orgs/meilisearch/discussions/805";
        Features::require(features.network, "passing `useNetwork` in a search query", "network", issue)?;
    }
    if !index.facet_search(&rtxn)? {
        let message = "The facet search is disabled for this index";
        return Err(ApiError::new(Code::FacetSearchDisabled, message));
    }
    let (facet_query, facet_name) = (query.facet_query.clone(), query.facet_name.clone());
    let exhaustive = query.exhaustive_facet_count.unwrap_or(false);
    let mut plain: SearchQuery = crate::validate::json(b"{}")?;
    plain.q = query.q;
    plain.vector = query.vector;
    plain.media = query.media;
    plain.hybrid = query.hybrid;
    plain.filter = query.filter;
    plain.matching_strategy = query.matching_strategy;
    plain.attributes_to_search_on = query.attributes_to_search_on;
    plain.ranking_score_threshold = query.ranking_score_threshold;
    plain.locales = query.locales;
    plain.add_filter(rule);
    let kind = Kind::of(index, &rtxn, &plain)?;
    let mut search = Search::new(&rtxn, index);
    prepare(&mut search, &plain);
    if let Some(q) = &plain.q {
        search.query(q);
    }
    if exhaustive {
        search.exhaustive_number_hits(true);
    }
    if let Some(filter) = &plain.filter
        && let Some(filter) = filter::parse(filter, Code::InvalidSearchFilter, features)?
    {
        search.filter(filter);
    }
    let rules = index.localized_attributes_rules(&rtxn)?.unwrap_or_default();
    let of_facet = rules.into_iter().find(|rule| rule.match_str(&facet_name) == PatternMatch::Match);
    let asked = plain.locales.as_deref().map(languages);
    let mut values = SearchForFacetValues::new(facet_name, search, matches!(kind, Kind::Hybrid(..)));
    if let Some(text) = &facet_query {
        values.query(text);
    }
    if let Some(max) = index.max_values_per_facet(&rtxn)? {
        values.max_values(max as usize);
    }
    if let Some(rule) = of_facet {
        let known = rule.locales.into_iter();
        values.locales(known.filter(|one| asked.as_ref().is_none_or(|asked| asked.contains(one))).collect());
    }
    let found = values.execute()?;
    Ok(FacetAnswer {
        facet_hits: found.into_iter().map(|hit| json!({ "value": hit.value, "count": hit.count })).collect(),
        facet_query,
        processing_time_ms: start.elapsed().as_millis(),
    })
}
