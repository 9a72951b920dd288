//! Merges several nodes' answers: a stable merge of their hits, and sums of their totals.

pub mod pins;

use super::{
    facets::{FacetOrder, FacetPart, counts_of, merge_distributions, merge_stats, repeated_values},
    hits::{
        answer::{Hit, NodeAnswer},
        selection::Selection,
    },
    hybrid::Hybrid,
    request::SearchRequest,
};
use crate::{
    json::{RawObject, to_bytes},
    topology::IndexConfig,
};
use pins::Pins;
use serde_json::value::RawValue;
use std::{cmp::Ordering, collections::HashSet};

/// Writes the merged body. `parts` are the nodes' answers, in the order of the plan; there is at least one.
#[must_use]
pub fn merge(request: &SearchRequest, index: &IndexConfig, parts: &[NodeAnswer<'_>]) -> Vec<u8> {
    let merging =
        Merging { index, distinct: None, selection: &Selection::default(), added_facet: None, counts: &[] };
    merging.merge(request, parts)
}

/// What merging needs besides the query.
#[derive(Clone, Copy, Debug)]
pub struct Merging<'m> {
    /// Settings of the index.
    pub index: &'m IndexConfig,
    /// The distinct attribute: no two hits may share a value of it.
    pub distinct: Option<&'m str>,
    /// Fields that the client does not see.
    pub selection: &'m Selection,
    /// A facet that was requested in addition to the client's.
    pub added_facet: Option<&'m str>,
    /// The nodes' counts of all documents and of the values of `distinct`, if they were asked for them.
    pub counts: &'m [NodeAnswer<'m>],
}

impl Merging<'_> {
    /// Writes the merged body. `parts` are the nodes' answers, in the order of the plan; there is at least one.
    #[must_use]
    pub fn merge(&self, request: &SearchRequest, parts: &[NodeAnswer<'_>]) -> Vec<u8> {
        let Some(first) = parts.first() else { return Vec::new() };
        self.write(request, &first.members, parts)
    }

    /// The same for a hybrid search whose `keywords` are good enough: `parts` only supply the other members of the answer.
    #[must_use]
    pub fn merge_keywords(
        &self,
        request: &SearchRequest,
        parts: &[NodeAnswer<'_>],
        keywords: &[NodeAnswer<'_>],
    ) -> Vec<u8> {
        let Some(first) = parts.first() else { return Vec::new() };
        let members = first.members.0.iter().filter(|(name, _)| name != "queryVector").cloned();
        self.write(request, &RawObject(members.collect()), keywords)
    }

    /// Whether the keyword hits of these nodes need no semantic hits.
    #[must_use]
    pub fn good_enough(&self, hybrid: Hybrid, request: &SearchRequest, keywords: &[NodeAnswer<'_>]) -> bool {
        let (end, hits) = self.ranked(request, keywords);
        hybrid.good_enough(end, hits.into_iter())
    }

    /// The number of requested hits, counted from the first one, and these hits.
    fn ranked<'p, 'a>(
        &self,
        request: &SearchRequest,
        parts: &'p [NodeAnswer<'a>],
    ) -> (usize, Vec<&'p Hit<'a>>) {
        let (offset, limit) = request.paging.window();
        let end = offset.saturating_add(limit).min(self.index.max_total_hits);
        let end = usize::try_from(end).unwrap_or(usize::MAX);
        let lists = parts.iter().map(|part| part.hits.as_slice()).collect();
        let primary_key = self.index.primary_key.as_deref();
        let compare = |one: &Hit<'_>, other: &Hit<'_>| {
            let mixed = request.hybrid.and_then(|hybrid| hybrid.compare(one, other));
            mixed.unwrap_or_else(|| {
                let ranks = one.rank().compare(other.rank());
                ranks.then_with(|| one.insertion(primary_key).cmp(other.insertion(primary_key)))
            })
        };
        let mut seen = Seen::new(self.distinct);
        let Some(pins) = Pins::of(self.index) else {
            return (end, ranked(lists, end, compare, |hit| seen.is_new(hit)));
        };
        let mut lists: Vec<Vec<&Hit<'_>>> = lists.into_iter().map(|list| list.iter().collect()).collect();
        let pinned = pins::take(&mut lists, |hit| {
            let place = pins.place(hit)?;
            Some((place.position, (place.action, place.position)))
        });
        let lists = lists.iter().map(Vec::as_slice).collect();
        let others = ranked(lists, end, |one, other| compare(one, other), |hit| seen.is_new(hit));
        let others = others.into_iter().copied().collect();
        (end, pins::page(pinned, others, end, self.index.totals_stop))
    }

    /// Writes an answer with these members.
    fn write(&self, request: &SearchRequest, members: &RawObject<'_>, parts: &[NodeAnswer<'_>]) -> Vec<u8> {
        let (offset, _) = request.paging.window();
        let (_, first) = self.ranked(request, parts);
        let hits = first.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let raw = |name: &str| parts.iter().filter_map(|part| part.member(name)).collect::<Vec<&RawValue>>();
        let repeated = self.distinct.map_or(0, |facet| repeated_values(&raw("facetDistribution"), facet));
        let counted = self.counted(&first, offset);
        let total = |name: &str| {
            let sum = parts.iter().map(|part| part.number(name)).fold(0, u64::saturating_add);
            self.index.total(counted.unwrap_or_else(|| sum.saturating_sub(repeated)))
        };
        let hidden_facet = self.added_facet.filter(|facet| !request.asks_for_facet(facet));

        let mut out = Vec::with_capacity(256 + hits.len() * 1024);
        members.write_filtered(&mut out, |name, value, out| {
            let number = match name {
                "hits" => {
                    let fields: Vec<&RawObject<'_>> = hits.iter().map(|hit| &hit.fields).collect();
                    self.write_hits(&fields, request, out);
                    return true;
                }
                "facetDistribution" | "facetStats" if request.facets.is_none() => return false,
                "facetDistribution" => {
                    let parts = parts.iter().filter_map(|part| {
                        Some(FacetPart { distribution: part.member(name)?, stats: part.member("facetStats") })
                    });
                    merge_distributions(
                        &parts.collect::<Vec<_>>(),
                        total("estimatedTotalHits").max(total("totalHits")),
                        hidden_facet,
                        |facet| facet_order(self.index, facet),
                        out,
                    );
                    return true;
                }
                "facetStats" => {
                    let stats = to_bytes(&merge_stats(&raw(name), hidden_facet));
                    out.extend_from_slice(&stats);
                    return true;
                }
                "estimatedTotalHits" | "totalHits" => Some(total(name)),
                "totalPages" => request.paging.pages(total("totalHits")),
                "semanticHitCount" => {
                    // If a hit is pinned, a node counts the semantic hits from the first hit on.
                    let has_pins = !self.index.pins.is_empty() && first.iter().any(|hit| hit.is_pinned());
                    let counted = if has_pins { &first } else { hits };
                    Some(counted.iter().filter(|hit| hit.rank().is_semantic()).count() as u64)
                }
                "processingTimeMs" => parts.iter().map(|part| part.number(name)).max(),
                _ => request.paging.member(name),
            };
            write_number(number, value, out);
            true
        });
        out
    }

    /// The number of remaining documents: all that match, minus those that the first hits exclude as duplicates. `None` if
    /// nodes were not asked to count.
    fn counted(&self, first: &[&Hit<'_>], offset: u64) -> Option<u64> {
        let attribute = self.distinct.filter(|_| !self.counts.is_empty())?;
        let all =
            self.counts.iter().map(|part| part.number("estimatedTotalHits")).fold(0, u64::saturating_add);
        if all < offset {
            return Some(all);
        }
        let parts = self.counts.iter().filter_map(|part| {
            Some(FacetPart {
                distribution: part.member("facetDistribution")?,
                stats: part.member("facetStats"),
            })
        });
        let counts = counts_of(&parts.collect::<Vec<_>>(), attribute);
        let left_out = first.iter().map(|hit| {
            let values = hit.distinct(attribute);
            let same = values.iter().filter_map(|value| counts.get(&value.key())).copied();
            same.max().unwrap_or(0).saturating_sub(1)
        });
        Some(all.saturating_sub(left_out.fold(0, u64::saturating_add)))
    }

    /// Writes hits as the client sees them.
    pub(super) fn write_hits(&self, hits: &[&RawObject<'_>], request: &SearchRequest, out: &mut Vec<u8>) {
        let shown = request.shown();
        write_list(hits, out, |hit, out| shown.write(hit, self.selection, out));
    }
}

/// Writes a number that all nodes determine together, or else one node's value.
pub(super) fn write_number(number: Option<u64>, said: &RawValue, out: &mut Vec<u8>) {
    match number {
        Some(number) => out.extend_from_slice(number.to_string().as_bytes()),
        None => out.extend_from_slice(said.get().as_bytes()),
    }
}

/// The distinct values that earlier hits have.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    attribute: Option<String>,
    values: HashSet<String>,
}

impl Seen {
    pub(super) fn new(attribute: Option<&str>) -> Self {
        Self { attribute: attribute.map(str::to_owned), values: HashSet::new() }
    }

    /// The distinct values of a hit.
    pub(super) fn values(&self, hit: &Hit<'_>) -> Vec<String> {
        let values = self.attribute.iter().flat_map(|attribute| hit.distinct(attribute));
        values.map(|value| value.key()).collect()
    }

    /// Whether no earlier hit has any of this hit's values; if so, they are recorded.
    pub(super) fn is_new(&mut self, hit: &Hit<'_>) -> bool {
        self.are_new(self.values(hit))
    }

    /// The same, for a hit's [`Self::values`].
    pub(super) fn are_new(&mut self, values: Vec<String>) -> bool {
        if values.iter().any(|value| self.values.contains(value)) {
            return false;
        }
        self.values.extend(values);
        true
    }
}

/// How an index orders and cuts the values of a facet.
pub(super) fn facet_order(index: &IndexConfig, facet: &str) -> FacetOrder {
    let by_count = index.sort_facet_values_by_count(facet);
    FacetOrder {
        by_count,
        together: false,
        limit: usize::try_from(index.max_values_per_facet).unwrap_or(usize::MAX),
    }
}

/// The first `end` elements over all lists that `wanted` accepts. The order of each list is kept, including ties; ties between
/// lists go to the earlier list.
pub(crate) fn ranked<'p, T>(
    mut lists: Vec<&'p [T]>,
    end: usize,
    compare: impl Fn(&T, &T) -> Ordering,
    mut wanted: impl FnMut(&T) -> bool,
) -> Vec<&'p T> {
    let mut ranked = Vec::with_capacity(end.min(lists.iter().map(|list| list.len()).sum()));
    while ranked.len() < end {
        let mut best: Option<(&'p T, &mut &'p [T])> = None;
        for list in &mut lists {
            let Some(head) = list.first() else { continue };
            if best.as_ref().is_none_or(|(first, _)| compare(head, first) == Ordering::Less) {
                best = Some((head, list));
            }
        }
        let Some((head, list)) = best else { break };
        if wanted(head) {
            ranked.push(head);
        }
        *list = list.get(1..).unwrap_or_default();
    }
    ranked
}

/// Writes a JSON array.
pub(crate) fn write_list<T>(members: &[T], out: &mut Vec<u8>, mut write: impl FnMut(&T, &mut Vec<u8>)) {
    out.push(b'[');
    for (position, member) in members.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        write(member, out);
    }
    out.push(b']');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn node(hits: &[(u32, f64)], total: u64) -> String {
        let hits: Vec<Value> = hits
            .iter()
            .map(|(id, score)| {
                json!({"id": id, "_miroir_shard": ",,,",
                       "_rankingScoreDetails": {"words": {"order": 0, "score": score}}})
            })
            .collect();
        json!({"hits": hits, "query": "q", "processingTimeMs": total, "limit": 3, "offset": 0,
               "estimatedTotalHits": total, "later": [1]})
        .to_string()
    }

    fn merged(body: &str, nodes: &[String]) -> Value {
        let parts: Vec<NodeAnswer<'_>> =
            nodes.iter().map(|node| NodeAnswer::read(node.as_bytes()).unwrap()).collect();
        let request = SearchRequest::from_body(body.as_bytes()).unwrap();
        serde_json::from_slice(&merge(&request, &IndexConfig::default(), &parts)).unwrap()
    }

    fn ids(answer: &Value) -> Vec<u64> {
        answer["hits"].as_array().unwrap().iter().map(|hit| hit["id"].as_u64().unwrap()).collect()
    }

    #[test]
    fn hits_are_merged_and_totals_added() {
        let nodes = [node(&[(1, 0.9), (2, 0.5)], 20), node(&[(3, 0.9), (4, 0.7), (5, 0.1)], 30)];
        let answer = merged(r#"{"limit":3,"offset":1}"#, &nodes);
        assert_eq!(ids(&answer), [3, 4, 2]);
        assert_eq!(
            answer,
            json!({"hits": [{"id":3},{"id":4},{"id":2}], "query":"q", "processingTimeMs":30, "limit":3, "offset":1,
                   "estimatedTotalHits":50, "later":[1]})
        );
    }

    #[test]
    fn pages_do_not_overlap_whatever_the_ties() {
        let nodes = [node(&[(1, 0.5), (2, 0.5), (3, 0.5)], 3), node(&[(4, 0.5), (5, 0.5)], 2)];
        let all: Vec<u64> = (0..5)
            .flat_map(|offset| ids(&merged(&format!(r#"{{"limit":1,"offset":{offset}}}"#), &nodes)))
            .collect();
        assert_eq!(all, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn details_are_shown_only_to_who_asks() {
        let answer = merged(r#"{"showRankingScoreDetails":true}"#, &[node(&[(1, 0.5)], 1)]);
        assert_eq!(answer["hits"][0]["_rankingScoreDetails"]["words"]["score"], 0.5);
        assert!(merged("{}", &[node(&[(1, 0.5)], 1)])["hits"][0].get("_rankingScoreDetails").is_none());
    }

    #[test]
    fn totals_go_beyond_max_total_hits_but_for_legacy_search() {
        let total = |totals_stop| {
            let index = IndexConfig { totals_stop, ..IndexConfig::default() };
            let parts = [node(&[], 900), node(&[], 300)];
            let parts: Vec<_> = parts.iter().map(|part| NodeAnswer::read(part.as_bytes()).unwrap()).collect();
            let merged = merge(&SearchRequest::from_body(b"{}").unwrap(), &index, &parts);
            serde_json::from_slice::<Value>(&merged).unwrap()["estimatedTotalHits"].clone()
        };
        assert_eq!((total(false), total(true)), (json!(1200), json!(1000)));
    }

    #[test]
    fn pages_are_counted() {
        let page = |total: u64| {
            json!({"hits":[],"query":"","processingTimeMs":1,"hitsPerPage":0,"page":1,"totalPages":9,"totalHits":total})
                .to_string()
        };
        let answer = merged(r#"{"page":2,"hitsPerPage":4}"#, &[page(5), page(4)]);
        assert_eq!(answer["totalHits"], 9);
        assert_eq!(answer["totalPages"], 3);
        assert_eq!(answer["page"], 2);
        assert_eq!(answer["hitsPerPage"], 4);
        assert_eq!(merged(r#"{"hitsPerPage":0}"#, &[page(5)])["totalPages"], 0);
    }

    #[test]
    fn what_is_not_an_answer_is_told() {
        for body in ["", "[]", "{}", r#"{"hits":3}"#, r#"{"hits":[{"id":1}]}"#, r#"{"hits":["#] {
            assert!(NodeAnswer::read(body.as_bytes()).is_err(), "{body}");
        }
    }
}
