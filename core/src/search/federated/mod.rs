//! `POST /multi-search` with `federation`: merges the hits of many queries into one list.
//!
//! All queries go to the same replicas, so that a node returns a document that matches two queries only once. Source:
//! Meilisearch 1.50, `meilisearch/src/search/federated/`.

mod answer;
mod facets;
pub(in crate::search) mod hybrid;
mod steps;

use super::{
    hit_order::rank::Weighted,
    hits::{answer::Hit, fields::DETAILS},
    merge::{
        Seen,
        pins::{self, Pins},
        ranked, write_list,
    },
    query::{DEEP, IndexQuery, hidden_values::Sorting},
    request::{MOST_HITS, SearchRequest, paging::Paging},
    two_step::{Address, FirstStep, InShares, InSteps, Shares, Winner},
    values::document_values::DocumentValues,
};
use crate::{
    json::{RawObject, to_bytes},
    scatter_query::{Gathered, NodeRequest, Part, QuerySlice, ScatterQuery, shards_of},
    shard::Shard,
    topology::Topology,
};
use serde::Deserialize;
use serde_json::{
    Map,
    value::{RawValue, to_raw_value},
};
use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// A federated search.
#[derive(Debug)]
pub struct Federated {
    pub(super) federation: SearchRequest,
    pub(super) facets_form: FacetsForm,
    /// `facetsByIndex`.
    pub(super) facets: BTreeMap<String, Option<Vec<String>>>,
    pub(super) queries: Vec<IndexQuery>,
    /// Whether a hybrid query was replaced by its keyword query.
    pub(super) by_keywords: bool,
    /// The fewest hits to ask nodes for: with fewer, a node might take a hybrid query's keyword hits as good enough.
    pub(super) least: u64,
    /// Set if hits are requested with only the fields that merging needs.
    pub(super) shares: Option<Shares>,
    /// The cluster's number of shards.
    pub(super) shards: u16,
}

/// How the answer tells facets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FacetsForm {
    /// Of each index.
    ByIndex,
    /// Of all indexes together.
    Merged {
        /// How many values a facet has at most, where the client says so.
        limit: Option<u64>,
        /// Whether the indexes order the values of facets differently; then a node has to say whether the requested facets can
        /// be merged.
        mixed_orders: bool,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MergeFacets {
    max_values_per_facet: Option<u64>,
}

/// The member `_federation` of a hit.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Place {
    pub queries_position: usize,
    weighted_ranking_score: f64,
}

struct FederatedHit<'a> {
    hit: Hit<'a>,
    place: Place,
    weighted: Vec<Weighted>,
    /// The position of the answer that brought the hit, and the hit's position in it.
    address: Address,
}

impl Federated {
    /// Parses a body; `None` if a node would refuse it, or has to say whether it does.
    #[must_use]
    pub fn of(
        topology: &Topology,
        federation: &RawValue,
        queries: Vec<(String, SearchRequest)>,
    ) -> Option<Self> {
        let parameters: BTreeMap<String, Box<RawValue>> = serde_json::from_str(federation.get()).ok()?;
        let merge_facets = match parameters.get("mergeFacets").filter(|value| value.get() != "null") {
            Some(value) => Some(serde_json::from_str::<MergeFacets>(value.get()).ok()?.max_values_per_facet),
            None => None,
        };
        let facets: BTreeMap<String, Option<Vec<String>>> = match parameters.get("facetsByIndex") {
            Some(value) => serde_json::from_str(value.get()).ok()?,
            None => BTreeMap::new(),
        };
        let federation = SearchRequest::new(parameters).ok()?;
        if queries.iter().any(|(_, request)| request.has_paging) {
            return None;
        }
        let queries = queries.into_iter().map(|(index, request)| {
            let config = topology.index(&index);
            let distinct = federation.distinct.clone().or_else(|| request.distinct.clone());
            IndexQuery::with_distinct(index, config, request, distinct)
        });
        let queries: Vec<IndexQuery> = queries.collect();
        let orders = facets.keys().map(|index| topology.index(index).sort_facet_values_by);
        let orders: Vec<_> = orders.collect();
        let mixed_orders = orders.iter().any(|order| Some(order) != orders.first());
        let facets_form = match merge_facets {
            Some(limit) => FacetsForm::Merged { limit, mixed_orders },
            None => FacetsForm::ByIndex,
        };
        let shards = topology.shard_count();
        Some(Self {
            queries,
            federation,
            facets_form,
            facets,
            by_keywords: false,
            least: 0,
            shares: None,
            shards,
        })
    }

    /// The queries.
    pub(super) fn queries(&self) -> &[IndexQuery] {
        &self.queries
    }

    /// The same search, split into two steps if its page is deep: scores first, then only the documents of the page.
    pub(super) fn in_steps(self) -> Self {
        let (offset, limit) = self.federation.paging.window();
        let has_pins = self.queries.iter().any(|query| !query.config.pins.is_empty());
        let deep = offset >= DEEP && limit > 0 && !has_pins;
        Self { shares: deep.then(|| Shares::new(self.shards)), ..self }
    }

    /// Makes sure that nodes are asked for at least this many hits, so that they find a hybrid query's keyword hits not good
    /// enough.
    pub(super) fn not_by_keywords(&mut self, least: u64) {
        self.least = self.least.max(least);
    }

    /// Number of hits up to the end of the page.
    pub(super) fn all_hits(&self) -> u64 {
        let (offset, limit) = self.federation.paging.window();
        if limit == 0 { 0 } else { offset.saturating_add(limit).min(MOST_HITS) }
    }

    /// Replaces a hybrid query by its keyword query.
    pub(super) fn by_keywords(&mut self, position: usize) {
        if let Some(query) = self.queries.get_mut(position) {
            query.request = query.request.keywords();
            self.by_keywords = true;
        }
    }

    fn read<'a>(&self, part: usize, body: &'a [u8]) -> Option<(RawObject<'a>, Vec<FederatedHit<'a>>)> {
        let members: RawObject<'a> = serde_json::from_slice(body).ok()?;
        let hits: Vec<RawObject<'a>> = members.read("hits")?;
        let hits = hits.into_iter().enumerate().map(|(position, fields)| {
            let place: Place = fields.read("_federation")?;
            let query = self.queries.get(place.queries_position)?;
            let details = fields.last(DETAILS)?;
            let hit = Hit::new(fields);
            query.reveal(&hit);
            let (weight, score) = (query.request.weight, place.weighted_ranking_score);
            let weighted = Weighted::of(details, weight, score, query.sorted(&hit));
            Some(FederatedHit { hit, place, weighted, address: (part, position as u64) })
        });
        Some((members, hits.collect::<Option<_>>()?))
    }

    fn compare(&self, one: &FederatedHit<'_>, other: &FederatedHit<'_>) -> Ordering {
        let (place, other_place) = (&one.place, &other.place);
        let primary_key =
            || self.queries.get(place.queries_position).and_then(|query| query.config.primary_key.as_deref());
        if place.queries_position == other_place.queries_position {
            let hybrid = self.queries.get(place.queries_position).and_then(|query| query.request.hybrid);
            if let Some(ordering) = hybrid.and_then(|hybrid| hybrid.compare(&one.hit, &other.hit)) {
                return ordering;
            }
            let ranks = one.hit.rank().compare(other.hit.rank());
            return ranks.then_with(|| {
                let key = primary_key();
                one.hit.insertion(key).cmp(other.hit.insertion(key))
            });
        }
        Weighted::compare(&one.weighted, &other.weighted)
            .unwrap_or_else(|| other_place.weighted_ranking_score.total_cmp(&place.weighted_ranking_score))
            .then_with(|| place.queries_position.cmp(&other_place.queries_position))
    }

    /// What a node is asked for these hits. `scan`: they are to show nothing but what merging needs.
    pub(super) fn parameters(
        &self,
        shards: &[Shard],
        added: &[(&str, Option<Box<RawValue>>)],
        left_out: &[&str],
        scan: bool,
    ) -> Vec<u8> {
        let mut parameters = self.federation.without_paging();
        parameters.retain(|name, _| !left_out.contains(name));
        parameters.extend(added.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?))));
        let mut body = b"{\"federation\":".to_vec();
        body.extend(to_bytes(&parameters));
        body.extend_from_slice(b",\"queries\":");
        write_list(&self.queries, &mut body, |query, out| {
            out.extend(match scan {
                true => query.scan().for_federation(shards),
                false => query.for_federation(shards),
            });
        });
        body.push(b'}');
        body
    }

    /// Writes a hit as the client sees it.
    pub(super) fn write_hit(&self, hit: &RawObject<'_>, out: &mut Vec<u8>) {
        let place: Option<Place> = hit.read("_federation");
        let Some(query) = place.and_then(|place| self.queries.get(place.queries_position)) else { return };
        query.request.shown().write(hit, &query.selection, out);
    }
}

impl Sorting for Federated {
    fn queries(&self) -> Vec<&IndexQuery> {
        self.queries.iter().collect()
    }

    fn with(self, revealed: &Arc<DocumentValues>) -> Self {
        Self { queries: self.queries.into_iter().map(|query| query.with(revealed)).collect(), ..self }
    }

    fn unreadable(&self, parts: &[Part]) -> Option<usize> {
        parts.iter().enumerate().position(|(position, part)| self.read(position, &part.body).is_none())
    }

    fn is_in_steps(&self) -> bool {
        self.shares.is_some()
    }

    fn at_once(self) -> Self {
        InShares::with(self, None)
    }
}

impl ScatterQuery for Federated {
    fn seeds(&self) -> Vec<u64> {
        let seed = |seed: u64, query: &IndexQuery| seed.rotate_left(5) ^ query.seed();
        vec![self.queries.iter().fold(self.federation.seed(""), seed)]
    }

    fn indexes(&self, _: usize) -> Vec<&str> {
        let of_queries = self.queries.iter().map(|query| query.index.as_str());
        of_queries.chain(self.facets.keys().map(String::as_str)).collect()
    }

    fn hits(&self) -> u64 {
        self.all_hits()
    }

    fn ask(&self, slices: &[QuerySlice]) -> NodeRequest {
        let shards = shards_of(slices);
        let hits = to_raw_value(&self.hits_of(slices)).ok();
        let mut added = match self.federation.paging {
            Paging::Offset { .. } => vec![("limit", hits)],
            Paging::Page { .. } => vec![("page", to_raw_value(&1).ok()), ("hitsPerPage", hits)],
        };
        if matches!(self.facets_form, FacetsForm::Merged { mixed_orders: true, .. }) {
            added.push(("mergeFacets", to_raw_value(&Map::new()).ok()));
        }
        let body = self.parameters(&shards, &added, &["mergeFacets"], self.shares.is_some());
        NodeRequest::new("/multi-search", body)
    }

    fn gather(self: Box<Self>, topology: &Topology, parts: Vec<Part>) -> Gathered {
        let (search, parts) = match self.revealed(parts) {
            Ok(revealed) => revealed,
            Err(gathered) => return gathered,
        };
        match search.merge(topology, &parts) {
            Ok(step) => step.gathered(*search, &parts),
            Err(position) => Gathered::broken(search, parts, position),
        }
    }
}

impl Federated {
    /// The nodes' answers as one, or the position of one that cannot be read.
    fn merge(&self, topology: &Topology, parts: &[Part]) -> Result<FirstStep, usize> {
        let mut answers = Vec::with_capacity(parts.len());
        for (position, part) in parts.iter().enumerate() {
            match self.read(position, &part.body) {
                Some(answer) => answers.push(answer),
                None => return Err(position),
            }
        }
        let (offset, limit) = self.federation.paging.window();
        let end = usize::try_from(offset.saturating_add(limit)).unwrap_or(usize::MAX);
        let everywhere = self.federation.distinct.as_deref();
        let (mut seen, mut rejected) = (Seen::new(everywhere), 0);
        let mut seen_by_query: HashMap<usize, Seen> = HashMap::new();
        // As on one node, each query's own hits are merged first. Their order in a hybrid query is not that of their scores.
        let mut lists: Vec<Vec<Vec<&FederatedHit<'_>>>> = vec![Vec::new(); self.queries.len()];
        let mut pinned = Vec::new();
        let pins: Vec<_> = self.queries.iter().map(|query| Pins::of(&query.config)).collect();
        for (_, hits) in &answers {
            lists.iter_mut().for_each(|lists| lists.push(Vec::new()));
            for hit in hits {
                let query = hit.place.queries_position;
                let place = pins.get(query).and_then(|pins| pins.as_ref()?.place(&hit.hit));
                if let (Some(place), Some(of)) = (place, self.queries.get(query)) {
                    pinned.push((place.position, &of.index, query, place.action, hit));
                    continue;
                }
                let lists = lists.get_mut(query);
                if let Some(list) = lists.and_then(|lists| lists.last_mut()) {
                    list.push(hit);
                }
            }
        }
        let compare = |one: &&FederatedHit<'_>, other: &&FederatedHit<'_>| self.compare(one, other);
        let by_query = lists.iter().map(|lists| {
            let lists = lists.iter().map(Vec::as_slice).collect();
            ranked(lists, usize::MAX, compare, |_| true).into_iter().copied().collect()
        });
        let by_query: Vec<Vec<&FederatedHit<'_>>> = by_query.collect();
        let hits = ranked(by_query.iter().map(Vec::as_slice).collect(), end, compare, |hit| {
            let position = hit.place.queries_position;
            let of_query = self.queries.get(position).and_then(|query| query.distinct.as_deref());
            let is_new = match everywhere {
                Some(_) => seen.is_new(&hit.hit),
                None => seen_by_query.entry(position).or_insert_with(|| Seen::new(of_query)).is_new(&hit.hit),
            };
            rejected += u64::from(!is_new);
            is_new
        });
        pinned.sort_by_key(|(position, index, query, action, _)| (*position, *index, *query, *action));
        let pinned: Vec<_> = pinned.into_iter().map(|(position, .., hit)| (position, hit)).collect();
        // If a hit is pinned, a node counts the semantic hits from the first hit on.
        let is_semantic = |hit: &&&&FederatedHit<'_>| hit.hit.rank().is_semantic();
        let counted = (!pinned.is_empty()).then(|| hits.iter().filter(is_semantic).count() as u64);
        let hits = pins::among(pinned, hits.into_iter().copied().collect(), end);
        let found: Vec<usize> = answers.iter().map(|(_, hits)| hits.len()).collect();
        if self.wants_more(parts, &found, hits.iter().map(|hit| hit.address)) {
            return Ok(FirstStep::More);
        }
        let hits = hits.get(usize::try_from(offset).unwrap_or(usize::MAX)..).unwrap_or_default();
        let members: Vec<&RawObject<'_>> = answers.iter().map(|(members, _)| members).collect();
        let of_page = || hits.iter().filter(|hit| hit.hit.rank().is_semantic()).count() as u64;
        let semantic = counted.unwrap_or_else(of_page);
        let shown: Vec<&RawObject<'_>> = match self.shares {
            Some(_) => Vec::new(),
            None => hits.iter().map(|hit| &hit.hit.fields).collect(),
        };
        let out = self.write_answer(topology, &members, &shown, semantic, rejected);
        // The first step requests no vectors. If the page has no hits, there is no second step that could return the queries'
        // vectors.
        let wants_vectors = || self.queries.iter().any(|query| query.request.wants_vectors());
        if self.shares.is_some() && hits.is_empty() && wants_vectors() {
            return Ok(FirstStep::AtOnce);
        }
        let winners =
            hits.iter().map(|hit| Winner { address: hit.address, name: self.name(&(), &hit.hit.fields) });
        Ok(FirstStep::Answer { frame: out, winners: winners.collect() })
    }
}
