//! The parameters of a search, in a body or in a query string.

use std::collections::{BTreeSet, HashSet};

use deserr::Deserr;
use milli_core::TermsMatchingStrategy;
use serde_json::Value;

use super::federated::FederationOptions;
use crate::error::marker as code;
use crate::error::{ApiError, Code, Result};
use crate::locale::Locale;
use crate::uid::IndexUid;
use crate::validate::{InvalidJson, InvalidQuery, List, Param, Unparsable};

pub(super) const DEFAULT_LIMIT: usize = 20;

/// Which query words may be left out.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Deserr)]
#[deserr(rename_all = camelCase)]
#[allow(missing_docs)]
pub enum MatchingStrategy {
    #[default]
    Last,
    All,
    Frequency,
}

impl From<MatchingStrategy> for TermsMatchingStrategy {
    fn from(strategy: MatchingStrategy) -> Self {
        match strategy {
            MatchingStrategy::Last => Self::Last,
            MatchingStrategy::All => Self::All,
            MatchingStrategy::Frequency => Self::Frequency,
        }
    }
}

/// A number between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Deserr)]
#[deserr(try_from(f64) = TryFrom::try_from -> Unparsable)]
pub struct Threshold(pub f64);

impl TryFrom<f64> for Threshold {
    type Error = Unparsable;
    fn try_from(value: f64) -> Result<Self, Unparsable> {
        let message =
            "the value of `rankingScoreThreshold` is invalid, expected a float between `0.0` and `1.0`."
                .to_string();
        if (0.0..=1.0).contains(&value) { Ok(Self(value)) } else { Err(Unparsable(message)) }
    }
}

/// The weight of semantic hits against keyword hits, between 0 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Deserr)]
#[deserr(try_from(f32) = TryFrom::try_from -> Unparsable)]
pub struct SemanticRatio(pub f32);

impl TryFrom<f32> for SemanticRatio {
    type Error = Unparsable;
    fn try_from(value: f32) -> Result<Self, Unparsable> {
        let message =
            "the value of `semanticRatio` is invalid, expected a float between `0.0` and `1.0`.".to_string();
        if (0.0..=1.0).contains(&value) { Ok(Self(value)) } else { Err(Unparsable(message)) }
    }
}

/// The parameters of a hybrid search.
#[derive(Debug, Clone, PartialEq, Deserr)]
#[deserr(error = InvalidJson<code::InvalidSearchHybridQuery>, rename_all = camelCase, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Hybrid {
    #[deserr(default = SemanticRatio(0.5), error = InvalidJson<code::InvalidSearchSemanticRatio>)]
    pub semantic_ratio: SemanticRatio,
    #[deserr(error = InvalidJson<code::InvalidSearchEmbedder>)]
    pub embedder: String,
}

macro_rules! search_body {
    ($(#[$doc:meta])* $name:ident { $($first:tt)* } { $($last:tt)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Deserr)]
        #[deserr(error = InvalidJson, rename_all = camelCase, deny_unknown_fields)]
        #[allow(missing_docs)]
        pub struct $name {
            $($first)*
            #[deserr(default, error = InvalidJson<code::InvalidSearchQ>)]
            pub q: Option<String>,
            #[deserr(default, error = InvalidJson<code::InvalidSearchPage>)]
            pub page: Option<usize>,
            #[deserr(default, error = InvalidJson<code::InvalidSearchHitsPerPage>)]
            pub hits_per_page: Option<usize>,
            #[deserr(default, error = InvalidJson<code::InvalidSearchAttributesToRetrieve>)]
            pub attributes_to_retrieve: Option<BTreeSet<String>>,
            #[deserr(default, error = InvalidJson<code::InvalidSearchAttributesToCrop>)]
            pub attributes_to_crop: Option<Vec<String>>,
            #[deserr(default = 10, error = InvalidJson<code::InvalidSearchCropLength>)]
            pub crop_length: usize,
            #[deserr(default = "…".to_string(), error = InvalidJson<code::InvalidSearchCropMarker>)]
            pub crop_marker: String,
            #[deserr(default, error = InvalidJson<code::InvalidSearchAttributesToHighlight>)]
            pub attributes_to_highlight: Option<HashSet<String>>,
            #[deserr(default = "<em>".to_string(), error = InvalidJson<code::InvalidSearchHighlightPreTag>)]
            pub highlight_pre_tag: String,
            #[deserr(default = "</em>".to_string(), error = InvalidJson<code::InvalidSearchHighlightPostTag>)]
            pub highlight_post_tag: String,
            #[deserr(default, error = InvalidJson<code::InvalidSearchShowMatchesPosition>)]
            pub show_matches_position: bool,
            #[deserr(default, error = InvalidJson<code::InvalidSearchFilter>)]
            pub filter: Option<Value>,
            #[deserr(default, error = InvalidJson<code::InvalidSearchSort>)]
            pub sort: Option<Vec<String>>,
            #[deserr(default, error = InvalidJson<code::InvalidSearchDistinct>)]
            pub distinct: Option<String>,
            #[deserr(default, error = InvalidJson<code::InvalidSearchFacets>)]
            pub facets: Option<Vec<String>>,
            #[deserr(default, error = InvalidJson<code::InvalidSearchMatchingStrategy>)]
            pub matching_strategy: MatchingStrategy,
            #[deserr(default, error = InvalidJson<code::InvalidSearchAttributesToSearchOn>)]
            pub attributes_to_search_on: Option<Vec<String>>,
            #[deserr(default, error = InvalidJson<code::InvalidSearchRankingScoreThreshold>)]
            pub ranking_score_threshold: Option<Threshold>,
            #[deserr(default, error = InvalidJson<code::InvalidSearchLocales>)]
            pub locales: Option<Vec<Locale>>,
            #[deserr(default, error = InvalidJson<code::InvalidSearchHybridQuery>)]
            pub hybrid: Option<Hybrid>,
            #[deserr(default, error = InvalidJson<code::InvalidSearchVector>)]
            pub vector: Option<Vec<f32>>,
            #[deserr(default, error = InvalidJson<code::InvalidSearchRetrieveVectors>)]
            pub retrieve_vectors: bool,
            #[deserr(default, error = InvalidJson<code::InvalidSearchMedia>)]
            pub media: Option<Value>,
            #[deserr(default, error = InvalidJson<code::InvalidSearchPersonalize>)]
            pub personalize: Option<Value>,
            #[deserr(default, error = InvalidJson<code::InvalidSearchUseNetwork>)]
            pub use_network: Option<bool>,
            #[deserr(default, error = InvalidJson<code::InvalidSearchShowRankingScore>)]
            pub show_ranking_score: bool,
            #[deserr(default, error = InvalidJson<code::InvalidSearchShowRankingScoreDetails>)]
            pub show_ranking_score_details: bool,
            #[deserr(default, error = InvalidJson<code::InvalidSearchShowPerformanceDetails>)]
            pub show_performance_details: Option<bool>,
            $($last)*
        }
    };
}

search_body! {
    /// A search in the index of the route.
    SearchQuery {
        // Neither may be null here.
        #[deserr(default, from(usize) = Some, error = InvalidJson<code::InvalidSearchOffset>)]
        pub offset: Option<usize>,
        #[deserr(default, from(usize) = Some, error = InvalidJson<code::InvalidSearchLimit>)]
        pub limit: Option<usize>,
    } {}
}

search_body! {
    /// A search of a multi-search.
    IndexedQuery {
        #[deserr(error = InvalidJson<code::InvalidIndexUid>, missing_field_error = InvalidJson::<code::MissingIndexUid>::missing)]
        pub index_uid: IndexUid,
        #[deserr(default, error = InvalidJson<code::InvalidSearchOffset>)]
        pub offset: Option<usize>,
        #[deserr(default, error = InvalidJson<code::InvalidSearchLimit>)]
        pub limit: Option<usize>,
    } {
        #[deserr(default)]
        pub federation_options: Option<FederationOptions>,
    }
}

macro_rules! same_fields {
    ($from:expr; $($extra:tt)*) => {{
        let from = $from;
        SearchQuery {
            q: from.q,
            offset: from.offset,
            limit: from.limit,
            page: from.page,
            hits_per_page: from.hits_per_page,
            attributes_to_retrieve: from.attributes_to_retrieve,
            attributes_to_crop: from.attributes_to_crop,
            crop_length: from.crop_length,
            crop_marker: from.crop_marker,
            attributes_to_highlight: from.attributes_to_highlight,
            highlight_pre_tag: from.highlight_pre_tag,
            highlight_post_tag: from.highlight_post_tag,
            show_matches_position: from.show_matches_position,
            filter: from.filter,
            sort: from.sort,
            distinct: from.distinct,
            facets: from.facets,
            matching_strategy: from.matching_strategy,
            attributes_to_search_on: from.attributes_to_search_on,
            ranking_score_threshold: from.ranking_score_threshold,
            locales: from.locales,
            hybrid: from.hybrid,
            vector: from.vector,
            retrieve_vectors: from.retrieve_vectors,
            media: from.media,
            personalize: from.personalize,
            use_network: from.use_network,
            show_ranking_score: from.show_ranking_score,
            show_ranking_score_details: from.show_ranking_score_details,
            show_performance_details: from.show_performance_details,
            $($extra)*
        }
    }};
}

impl IndexedQuery {
    /// Splits it into the index, the search, and the options for a federation.
    pub fn split(self) -> (IndexUid, SearchQuery, Option<FederationOptions>) {
        let (index, options) = (self.index_uid.clone(), self.federation_options.clone());
        (index, same_fields!(self;), options)
    }
}

impl SearchQuery {
    /// Whether the client asks for pages, and therefore for exact totals.
    pub fn is_paged(&self) -> bool {
        self.page.or(self.hits_per_page).is_some()
    }

    /// Adds a filter that must hold too.
    pub fn add_filter(&mut self, filter: Option<Value>) {
        let parts = |filter: Value| match filter {
            Value::Array(parts) => parts,
            other => vec![other],
        };
        self.filter = match (self.filter.take(), filter) {
            (Some(left), Some(right)) => Some(Value::Array([parts(left), parts(right)].concat())),
            (left, right) => left.or(right),
        };
    }
}

/// A search in a query string.
#[derive(Debug, Deserr)]
#[deserr(error = InvalidQuery, rename_all = camelCase, deny_unknown_fields)]
pub struct SearchParams {
    #[deserr(default, error = InvalidQuery<code::InvalidSearchQ>)]
    q: Option<String>,
    #[deserr(default = Param(0), error = InvalidQuery<code::InvalidSearchOffset>)]
    offset: Param<usize>,
    #[deserr(default = Param(DEFAULT_LIMIT), error = InvalidQuery<code::InvalidSearchLimit>)]
    limit: Param<usize>,
    #[deserr(default, error = InvalidQuery<code::InvalidSearchPage>)]
    page: Option<Param<usize>>,
    #[deserr(default, error = InvalidQuery<code::InvalidSearchHitsPerPage>)]
    hits_per_page: Option<Param<usize>>,
    #[deserr(default, error = InvalidQuery<code::InvalidSearchAttributesToRetrieve>)]
    attributes_to_retrieve: Option<List<String>>,
    #[deserr(default, error = InvalidQuery<code::InvalidSearchAttributesToCrop>)]
    attributes_to_crop: Option<List<String>>,
    #[deserr(default = Param(10), error = InvalidQuery<code::InvalidSearchCropLength>)]
    crop_length: Param<usize>,
    #[deserr(default = "…".to_string(), error = InvalidQuery<code::InvalidSearchCropMarker>)]
    crop_marker: String,
    #[deserr(default, error = InvalidQuery<code::InvalidSearchAttributesToHighlight>)]
    attributes_to_highlight: Option<List<String>>,
    #[deserr(default = "<em>".to_string(), error = InvalidQuery<code::InvalidSearchHighlightPreTag>)]
    highlight_pre_tag: String,
    #[deserr(default = "</em>".to_string(), error = InvalidQuery<code::InvalidSearchHighlightPostTag>)]
    highlight_post_tag: String,
    #[deserr(default, error = InvalidQuery<code::InvalidSearchShowMatchesPosition>)]
    show_matches_position: Param<bool>,
    #[deserr(default, error = InvalidQuery<code::InvalidSearchFilter>)]
    filter: Option<String>,
    #[deserr(default, error = InvalidQuery<code::InvalidSearchSort>)]
    sort: Option<String>,
    #[deserr(default, error = InvalidQuery<code::InvalidSearchDistinct>)]
    distinct: Option<String>,
    #[deserr(default, error = InvalidQuery<code::InvalidSearchFacets>)]
    facets: Option<List<String>>,
    #[deserr(default, error = InvalidQuery<code::InvalidSearchMatchingStrategy>)]
    matching_strategy: MatchingStrategy,
    #[deserr(default, error = InvalidQuery<code::InvalidSearchAttributesToSearchOn>)]
    attributes_to_search_on: Option<List<String>>,
    #[deserr(default, error = InvalidQuery<code::InvalidSearchRankingScoreThreshold>, try_from(Option<String>) = read_threshold -> Unparsable)]
    ranking_score_threshold: Option<Threshold>,
    #[deserr(default, error = InvalidQuery<code::InvalidSearchLocales>)]
    locales: Option<List<Locale>>,
    #[deserr(default, error = InvalidQuery<code::InvalidSearchEmbedder>)]
    hybrid_embedder: Option<String>,
    #[deserr(default, error = InvalidQuery<code::InvalidSearchSemanticRatio>, try_from(Option<String>) = read_ratio -> Unparsable)]
    hybrid_semantic_ratio: Option<SemanticRatio>,
    #[deserr(default, error = InvalidQuery<code::InvalidSearchVector>)]
    vector: Option<List<f32>>,
    #[deserr(default, error = InvalidQuery<code::InvalidSearchRetrieveVectors>)]
    retrieve_vectors: Param<bool>,
    #[deserr(default, error = InvalidQuery<code::InvalidSearchPersonalizeUserContext>)]
    personalize_user_context: Option<String>,
    #[deserr(default, error = InvalidQuery<code::InvalidSearchUseNetwork>)]
    use_network: Option<Param<bool>>,
    #[deserr(default, error = InvalidQuery<code::InvalidSearchShowRankingScore>)]
    show_ranking_score: Param<bool>,
    #[deserr(default, error = InvalidQuery<code::InvalidSearchShowRankingScoreDetails>)]
    show_ranking_score_details: Param<bool>,
    #[deserr(default, error = InvalidQuery<code::InvalidSearchShowPerformanceDetails>)]
    show_performance_details: Param<bool>,
}

fn read_threshold(text: Option<String>) -> Result<Option<Threshold>, Unparsable> {
    text.map(|text| Threshold::try_from(text.parse::<f64>().unwrap_or(f64::NAN))).transpose()
}

fn read_ratio(text: Option<String>) -> Result<Option<SemanticRatio>, Unparsable> {
    text.map(|text| SemanticRatio::try_from(text.parse::<f32>().unwrap_or(f32::NAN))).transpose()
}

impl TryFrom<SearchParams> for SearchQuery {
    type Error = ApiError;

    fn try_from(params: SearchParams) -> Result<Self> {
        let filter = params.filter.map(|text| serde_json::from_str(&text).unwrap_or(Value::String(text)));
        let hybrid = match (params.hybrid_embedder, params.hybrid_semantic_ratio) {
            (None, None) => None,
            (None, Some(_)) => {
                let message = "`hybridEmbedder` is mandatory when `hybridSemanticRatio` is present";
                return Err(ApiError::new(Code::InvalidSearchHybridQuery, message));
            }
            (Some(embedder), ratio) => {
                Some(Hybrid { semantic_ratio: ratio.unwrap_or(SemanticRatio(0.5)), embedder })
            }
        };
        if params.vector.is_some() && hybrid.is_none() {
            let message = "`hybridEmbedder` is mandatory when `vector` is present";
            return Err(ApiError::new(Code::MissingSearchHybrid, message));
        }
        Ok(Self {
            q: params.q,
            offset: Some(params.offset.0),
            limit: Some(params.limit.0),
            page: params.page.map(|page| page.0),
            hits_per_page: params.hits_per_page.map(|hits| hits.0),
            attributes_to_retrieve: params.attributes_to_retrieve.map(|list| list.0.into_iter().collect()),
            attributes_to_crop: params.attributes_to_crop.map(|list| list.0),
            crop_length: params.crop_length.0,
            crop_marker: params.crop_marker,
            attributes_to_highlight: params.attributes_to_highlight.map(|list| list.0.into_iter().collect()),
            highlight_pre_tag: params.highlight_pre_tag,
            highlight_post_tag: params.highlight_post_tag,
            show_matches_position: params.show_matches_position.0,
            filter,
            sort: params.sort.map(|sort| split_sort(&sort)),
            distinct: params.distinct,
            facets: params.facets.map(|list| list.0),
            matching_strategy: params.matching_strategy,
            attributes_to_search_on: params.attributes_to_search_on.map(|list| list.0),
            ranking_score_threshold: params.ranking_score_threshold,
            locales: params.locales.map(|list| list.0),
            hybrid,
            vector: params.vector.map(|list| list.0),
            retrieve_vectors: params.retrieve_vectors.0,
            media: None,
            personalize: params.personalize_user_context.map(Value::String),
            use_network: params.use_network.map(|on| on.0),
            show_ranking_score: params.show_ranking_score.0,
            show_ranking_score_details: params.show_ranking_score_details.0,
            show_performance_details: Some(params.show_performance_details.0),
        })
    }
}

/// Splits a list of sorts at its commas, but not at the comma inside `_geoPoint(lat,lng)`.
pub fn split_sort(sort: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    let mut inside = false;
    for part in sort.trim_matches('"').split(',').map(str::trim) {
        match parts.last_mut() {
            Some(last) if inside => {
                last.push(',');
                last.push_str(part);
                inside = !(part.ends_with("):asc") || part.ends_with("):desc"));
            }
            _ => {
                inside = part.starts_with("_geoPoint(");
                parts.push(part.to_string());
            }
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorts_are_split_outside_of_points() {
        assert_eq!(
            split_sort("a:asc, _geoPoint(1, 2):desc,b:desc"),
            ["a:asc", "_geoPoint(1,2):desc", "b:desc"]
        );
    }
}
