//! Several searches merged into one list of hits.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use deserr::Deserr;
use indexmap::IndexMap;
use itertools::kmerge_by;
use milli_core::Index;
use milli_core::heed::RoTxn;
use milli_core::score_details::{ScoreDetails, WeightedScoreValue, compare_sort_values};
use serde::Serialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::hits::{Hit, HitMaker};
use super::query::{DEFAULT_LIMIT, SearchQuery};
use super::{Facets, Metadata, Pages, Request, Stats, check_features, facets, find};
use crate::documents::{self, pointer::for_each_leaf};
use crate::error::Result;
use crate::error::marker as code;
use crate::uid::IndexUid;
use crate::validate::{InvalidJson, Unparsable};

/// How a search takes part in a federation.
#[derive(Debug, Clone, PartialEq, Deserr)]
#[deserr(error = InvalidJson, rename_all = camelCase, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct FederationOptions {
    #[deserr(default = Weight(1.0), error = InvalidJson<code::InvalidMultiSearchWeight>)]
    pub weight: Weight,
    #[deserr(default, error = InvalidJson<code::InvalidMultiSearchRemote>)]
    pub remote: Option<String>,
    #[deserr(default, error = InvalidJson<code::InvalidMultiSearchQueryPosition>)]
    pub query_position: Option<usize>,
}

/// A non-negative factor for scores.
#[derive(Debug, Clone, Copy, PartialEq, Deserr)]
#[deserr(try_from(f64) = TryFrom::try_from -> Unparsable)]
pub struct Weight(pub f64);

impl TryFrom<f64> for Weight {
    type Error = Unparsable;
    fn try_from(value: f64) -> Result<Self, Unparsable> {
        let message = "the value of `weight` is invalid, expected a positive float (>= 0.0).";
        if value < 0.0 { Err(Unparsable(message.into())) } else { Ok(Self(value)) }
    }
}

/// How the searches are merged.
#[derive(Debug, Clone, PartialEq, Deserr)]
#[deserr(error = InvalidJson, rename_all = camelCase, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Federation {
    #[deserr(default = DEFAULT_LIMIT, error = InvalidJson<code::InvalidSearchLimit>)]
    pub limit: usize,
    #[deserr(default = 0, error = InvalidJson<code::InvalidSearchOffset>)]
    pub offset: usize,
    #[deserr(default, error = InvalidJson<code::InvalidSearchPage>)]
    pub page: Option<usize>,
    #[deserr(default, error = InvalidJson<code::InvalidSearchHitsPerPage>)]
    pub hits_per_page: Option<usize>,
    #[deserr(default, error = InvalidJson<code::InvalidMultiSearchFacetsByIndex>)]
    pub facets_by_index: BTreeMap<IndexUid, Option<Vec<String>>>,
    #[deserr(default, error = InvalidJson<code::InvalidMultiSearchMergeFacets>)]
    pub merge_facets: Option<MergeFacets>,
    #[deserr(default, error = InvalidJson<code::InvalidSearchDistinct>)]
    pub distinct: Option<String>,
    #[deserr(default, error = InvalidJson<code::InvalidSearchShowPerformanceDetails>)]
    pub show_performance_details: bool,
    #[deserr(default, error = InvalidJson<code::InvalidSearchPersonalize>)]
    pub personalize: Option<Value>,
}

/// How the facets of several indexes are merged.
#[derive(Debug, Clone, PartialEq, Deserr)]
#[deserr(error = InvalidJson<code::InvalidMultiSearchMergeFacets>, rename_all = camelCase, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct MergeFacets {
    #[deserr(default, error = InvalidJson<code::InvalidMultiSearchMaxValuesPerFacet>)]
    pub max_values_per_facet: Option<usize>,
}

/// One search of a federation.
pub struct Part<'r> {
    /// The index, and the context of the request.
    pub request: Request<'r>,
    /// The search.
    pub query: SearchQuery,
    /// The factor for its scores.
    pub weight: f64,
    /// The position of the query among the client's queries.
    pub position: usize,
}

/// The answer to a federated search.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FederatedAnswer {
    hits: Vec<Hit>,
    processing_time_ms: u128,
    #[serde(flatten)]
    pages: Pages,
    #[serde(flatten)]
    facets: Facets,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    facets_by_index: BTreeMap<String, Value>,
    request_uid: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Vec<Metadata>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    semantic_hit_count: Option<u32>,
}

struct Scored {
    hit: Hit,
    score: f64,
    values: Vec<WeightedScoreValue>,
    id: (String, u32),
    order: usize,
    /// The document's values of the distinct attribute.
    distinct: Vec<String>,
}

/// Runs the searches and merges their hits. `proxied` adds what another node needs to merge further.
pub fn search(parts: &[Part<'_>], federation: &Federation, proxied: bool) -> Result<FederatedAnswer> {
    let start = Instant::now();
    let paged = federation.page.or(federation.hits_per_page).is_some();
    let (offset, limit) = if paged {
        let limit = federation.hits_per_page.unwrap_or(DEFAULT_LIMIT);
        federation.page.unwrap_or(1).checked_sub(1).map_or((0, 0), |page| (limit.wrapping_mul(page), limit))
    } else {
        (federation.offset, federation.limit)
    };
    // By index: the list of hits of each query.
    let mut lists = BTreeMap::<String, Vec<Vec<Scored>>>::new();
    let mut totals = 0;
    let mut semantic_hit_count = None;
    let mut candidates = BTreeMap::<String, roaring::RoaringBitmap>::new();
    for (order, part) in parts.iter().enumerate() {
        let at = |error: crate::error::ApiError| {
            let message = format!("Inside `.queries[{}]`: {}", part.position, error.message);
            crate::error::ApiError { message, ..error }
        };
        check_features(&part.query, part.request.features).map_err(at)?;
        let rtxn = part.request.index.read_txn()?;
        let mut query = part.query.clone();
        query.distinct = query.distinct.or_else(|| federation.distinct.clone());
        let wanted = Some((0, offset.saturating_add(limit)));
        let found = find(&part.request, &rtxn, &query, wanted, true).map_err(at)?;
        if let Some(count) = found.semantic_hits {
            *semantic_hit_count.get_or_insert(0) += count;
        }
        let result = found.result;
        let maker = HitMaker::new(part.request.index, &rtxn, &query)?;
        let hits = maker.make_all(result.matching_words, &result.documents_ids, &result.document_scores)?;
        let mut scored = Vec::with_capacity(hits.len());
        for ((mut hit, details), id) in
            hits.into_iter().zip(&result.document_scores).zip(&result.documents_ids)
        {
            let score = ScoreDetails::global_score(details.iter()) * part.weight;
            let values: Vec<_> = ScoreDetails::weighted_score_values(details.iter(), part.weight).collect();
            let mut about = json!({
                "indexUid": part.request.uid,
                "queriesPosition": part.position,
                "weightedRankingScore": score,
            });
            if proxied && let Some(about) = about.as_object_mut() {
                about.insert("weightedScoreValues".into(), serde_json::to_value(&values)?);
            }
            hit.document.insert("_federation".into(), about);
            let distinct = match &federation.distinct {
                Some(attribute) => facet_values(part.request.index, &rtxn, *id, attribute)?,
                None => Vec::new(),
            };
            let id = (part.request.uid.to_string(), *id);
            scored.push(Scored { hit, score, values, id, order, distinct });
        }
        lists.entry(part.request.uid.to_string()).or_default().push(scored);
        let of_index = candidates.entry(part.request.uid.to_string()).or_default();
        let before = of_index.len();
        *of_index |= result.candidates;
        totals += of_index.len() - before;
    }
    // Some hits cannot be compared, so there is no total order of all hits. Like Meilisearch, merges the lists, each in its own
    // order.
    let first = |left: &Scored, right: &Scored| match compare(left, right) {
        Ordering::Greater => true,
        Ordering::Equal => left.order < right.order,
        Ordering::Less => false,
    };
    let of_indexes = lists.into_values().map(|of_index| kmerge_by(of_index, first));
    let mut scored: Vec<Scored> = kmerge_by(of_indexes, first).collect();
    let mut seen = BTreeSet::new();
    let mut taken = BTreeSet::new();
    scored.retain(|scored| {
        let is_new =
            seen.insert(scored.id.clone()) && scored.distinct.iter().all(|value| !taken.contains(value));
        if is_new {
            taken.extend(scored.distinct.iter().cloned());
        }
        is_new
    });
    let hits = scored.into_iter().skip(offset).take(limit).map(|scored| scored.hit).collect();
    let (facets, facets_by_index) = all_facets(parts, federation, &candidates)?;
    let metadata = parts.first().is_some_and(|part| part.request.with_metadata).then(|| {
        let about = |part: &Part<'_>| Metadata {
            query: part.query.q.clone(),
            query_uid: Uuid::now_v7(),
            index_uid: part.request.uid.to_string(),
            primary_key: None,
        };
        parts.iter().map(about).collect()
    });
    Ok(FederatedAnswer {
        hits,
        processing_time_ms: start.elapsed().as_millis(),
        pages: Pages::new(federation.page, federation.hits_per_page, offset, limit, totals as usize),
        facets,
        facets_by_index,
        request_uid: Uuid::now_v7(),
        metadata,
        semantic_hit_count,
    })
}

/// A document's values of an attribute, normalized like facet values.
fn facet_values(index: &Index, rtxn: &RoTxn<'_>, id: u32, attribute: &str) -> Result<Vec<String>> {
    let mut document = documents::whole(index, rtxn, &index.fields_ids_map(rtxn)?, id)?;
    let mut values = Vec::new();
    for_each_leaf(&mut document, &[attribute], &mut |_, _, value| match value {
        Value::String(text) => values.push(milli_core::normalize_facet(text)),
        Value::Number(_) | Value::Bool(_) => values.push(value.to_string()),
        _ => {}
    });
    Ok(values)
}

/// Compares two hits: by the values of their ranking rules if these can be compared, otherwise by their scores.
fn compare(left: &Scored, right: &Scored) -> Ordering {
    use WeightedScoreValue as V;
    let by_score = || left.score.partial_cmp(&right.score).unwrap_or(Ordering::Equal);
    let near = |a: f64, b: f64| (a - b).abs() <= f64::EPSILON;
    let mut pairs = (left.values.iter(), right.values.iter());
    loop {
        match (pairs.0.next(), pairs.1.next()) {
            (None, None) => return Ordering::Equal,
            (None, Some(_)) => return Ordering::Less,
            (Some(_), None) => return Ordering::Greater,
            (Some(V::WeightedScore(a)), Some(V::WeightedScore(b)))
            | (Some(V::VectorSort(a)), Some(V::VectorSort(b))) => {
                if !near(*a, *b) {
                    return a.partial_cmp(b).unwrap_or(Ordering::Equal);
                }
            }
            (Some(V::Sort { asc: a, value: x }), Some(V::Sort { asc: b, value: y })) if a == b => {
                let order = compare_sort_values(*a, x, y);
                if order != Ordering::Equal {
                    return order;
                }
            }
            (Some(V::GeoSort { asc: a, distance: x }), Some(V::GeoSort { asc: b, distance: y }))
                if a == b =>
            {
                let order = match (x, y) {
                    (None, None) => Ordering::Equal,
                    (None, Some(_)) => Ordering::Less,
                    (Some(_), None) => Ordering::Greater,
                    (Some(x), Some(y)) if near(*x, *y) => Ordering::Equal,
                    (Some(x), Some(y)) if *a => y.partial_cmp(x).unwrap_or(Ordering::Equal),
                    (Some(x), Some(y)) => x.partial_cmp(y).unwrap_or(Ordering::Equal),
                };
                if order != Ordering::Equal {
                    return order;
                }
            }
            // If the values cannot be compared, the hit with more remaining rules comes first.
            _ => return pairs.0.len().cmp(&pairs.1.len()).then_with(by_score),
        }
    }
}

/// The facets of each index, or all of them merged.
fn all_facets(
    parts: &[Part<'_>],
    federation: &Federation,
    candidates: &BTreeMap<String, roaring::RoaringBitmap>,
) -> Result<(Facets, BTreeMap<String, Value>)> {
    let mut by_index = BTreeMap::new();
    for (uid, names) in &federation.facets_by_index {
        let Some(names) = names else { continue };
        let Some(part) = parts.iter().find(|part| part.request.uid == uid.as_str()) else {
            continue;
        };
        let rtxn = part.request.index.read_txn()?;
        let found = candidates.get(uid.as_str()).cloned().unwrap_or_default();
        by_index.insert(uid.as_str().to_string(), facets(part.request.index, &rtxn, names, found)?);
    }
    let Some(merge) = &federation.merge_facets else {
        let shown = by_index
            .into_iter()
            .map(|(uid, facets)| {
                (uid, json!({ "distribution": facets.facet_distribution, "stats": facets.facet_stats }))
            })
            .collect();
        return Ok((Facets::default(), shown));
    };
    let mut distribution = BTreeMap::<String, IndexMap<String, u64>>::new();
    let mut stats = BTreeMap::<String, Stats>::new();
    for facets in by_index.into_values() {
        for (name, counts) in facets.facet_distribution.unwrap_or_default() {
            let merged = distribution.entry(name).or_default();
            for (value, count) in counts {
                *merged.entry(value).or_default() += count;
            }
        }
        for (name, more) in facets.facet_stats.unwrap_or_default() {
            let merged = stats.entry(name).or_insert(more);
            *merged = Stats { min: merged.min.min(more.min), max: merged.max.max(more.max) };
        }
    }
    for counts in distribution.values_mut() {
        counts.sort_keys();
        if let Some(max) = merge.max_values_per_facet {
            counts.truncate(max);
        }
    }
    Ok((Facets { facet_distribution: Some(distribution), facet_stats: Some(stats) }, BTreeMap::new()))
}
