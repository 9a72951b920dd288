//! One query in one index: what nodes are asked, and their answers as one.

use super::{
    answer::{Hit, NodeAnswer, NotAnAnswer},
    hit::DETAILS,
    hybrid::Hybrid,
    insertion::Insertion,
    merge::Merging,
    paging::Paging,
    pins,
    rank::{Rank, Sorted},
    request::{Additions, SearchRequest},
    reveal::Revealed,
    selection::Selection,
    two_step::Name,
    values::FacetValue,
};
use crate::{
    json::RawObject,
    shard::{Shard, TAG_FIELD},
    topology::IndexConfig,
};
use std::{collections::HashMap, sync::Arc};

/// Offsets from which on pages are fetched in two steps.
pub(super) const DEEP: u64 = 500;

/// A query with what the topology knows of its index.
#[derive(Clone, Debug)]
pub struct IndexQuery {
    /// The index's uid.
    pub index: String,
    /// Its settings.
    pub config: IndexConfig,
    /// What the client asks.
    pub request: SearchRequest,
    /// The attribute of which no two hits may have the same value.
    pub distinct: Option<String>,
    /// Fields added for merging.
    pub selection: Selection,
    /// Whether the distinct attribute is to be counted as a facet, so that totals are exact.
    count_distinct: bool,
    /// How nodes are asked for the hits up to the page's end.
    hits: Hits,
    /// The attributes that hits are sorted by.
    sorts: Vec<(String, bool)>,
    /// What hits are sorted by, and the values of the distinct attribute, where nodes do not show them.
    revealed: Option<Arc<Revealed>>,
}

/// How nodes are asked for the hits up to the page's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hits {
    /// In two steps where the page is deep.
    InSteps,
    /// All at once, on whatever page they are.
    AtOnce,
    /// So many at once that every node finds a hybrid query's keyword hits not good enough.
    Forced(u64),
}

/// What all nodes' keyword hits say of a hybrid query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    /// They need no semantic ones.
    Keywords,
    /// They do, and every node finds so.
    Mixed,
    /// They do, and a node finds that its own do not.
    Disputed,
}

/// What the nodes' answers to one query mean together.
#[derive(Debug)]
pub enum Merged {
    /// The answer.
    Body(Vec<u8>),
    /// A node decided otherwise than all nodes together: this is to be asked instead.
    Instead(Box<IndexQuery>),
}

impl IndexQuery {
    /// A query in an index.
    #[must_use]
    pub fn new(index: String, config: IndexConfig, request: SearchRequest) -> Self {
        let distinct = request.distinct.clone().or_else(|| config.distinct_attribute.clone());
        Self::with_distinct(index, config, request, distinct)
    }

    /// A query whose hits are deduplicated by this attribute.
    #[must_use]
    pub fn with_distinct(
        index: String,
        config: IndexConfig,
        request: SearchRequest,
        distinct: Option<String>,
    ) -> Self {
        let named = [&config.primary_key, &distinct].into_iter().flatten().map(String::as_str);
        let needed: Vec<&str> = [TAG_FIELD].into_iter().chain(named).collect();
        let selection = Selection::new(request.retrieve.as_deref(), &request.formatted, &needed);
        let count_distinct = distinct.is_some();
        let sorts = config.sorts(&request.sort);
        Self {
            sorts,
            index,
            config,
            request,
            distinct,
            selection,
            count_distinct,
            hits: Hits::InSteps,
            revealed: None,
        }
    }

    /// The same without what a node may refuse; `None` where nothing was added.
    #[must_use]
    pub fn simpler(self) -> Option<Self> {
        self.has_additions().then_some(Self { count_distinct: false, ..self })
    }

    /// Whether something was added that a node may refuse.
    #[must_use]
    pub fn has_additions(&self) -> bool {
        self.counts() || self.added_facet().is_some()
    }

    /// The same without it.
    #[must_use]
    pub fn without_additions(self) -> Self {
        Self { count_distinct: self.count_distinct && !self.has_additions(), ..self }
    }

    /// The same with what its hits are sorted by.
    #[must_use]
    pub fn with(self, revealed: &Arc<Revealed>) -> Self {
        Self { revealed: Some(Arc::clone(revealed)), ..self }
    }

    /// The same with all its hits asked for at once.
    #[must_use]
    pub fn whole(self) -> Self {
        let hits = match self.hits {
            Hits::InSteps | Hits::AtOnce => Hits::AtOnce,
            forced @ Hits::Forced(_) => forced,
        };
        Self { hits, ..self }
    }

    /// Whether [`Self::with`] has been called.
    #[must_use]
    pub fn is_revealed(&self) -> bool {
        self.revealed.is_some()
    }

    /// Chooses the replicas.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.request.seed(&self.index)
    }

    /// The queries for one node: the client's, and where [`Self::asks_keywords`] the same by keywords only.
    #[must_use]
    pub fn for_shards(&self, shards: &[Shard]) -> Vec<Vec<u8>> {
        let mut queries = vec![self.request.for_shards(shards, self.additions())];
        if self.asks_keywords() {
            queries.push(self.request.keywords().for_shards(shards, self.additions()));
        }
        if let Some(counting) = self.counting() {
            queries.push(counting.for_shards(shards, Additions::default()));
        }
        queries
    }

    /// Whether nodes are asked, besides, for no hits and all counts: the hits that a node leaves out for one of the same value are those
    /// of the page then, and which these are is for all nodes to say.
    #[must_use]
    pub fn counts(&self) -> bool {
        self.count_distinct
            && self.distinct.is_some()
            && matches!(self.request.paging, Paging::Offset { .. })
            && self.request.is_placeholder()
            && self.sorts.is_empty()
            && self.config.sorts_by_default()
            && self.config.pins.is_empty()
            && !self.is_deep()
    }

    /// This query by keywords only, for the scores of its first hits.
    #[must_use]
    pub fn keyword_scores(&self, hits: u64) -> Self {
        let request = self.request.keyword_scores(hits);
        let query =
            Self::with_distinct(self.index.clone(), self.config.clone(), request, self.distinct.clone());
        Self { count_distinct: false, hits: Hits::Forced(hits), ..query }
    }

    /// How many hits nodes have to be asked for at least to find these of [`Self::keyword_scores`] not good enough; `None`
    /// where they are.
    ///
    /// # Errors
    /// The position of an answer that cannot be read.
    pub fn keywords_not_good_enough(&self, bodies: &[&[u8]]) -> Result<Option<u64>, usize> {
        let parts = self.read(bodies)?;
        let Some(hybrid) = self.request.hybrid else { return Ok(Some(0)) };
        if self.merging().good_enough(hybrid, &self.request, &parts) {
            return Ok(None);
        }
        // A node whose own are good enough finds so in any case.
        let least = parts.iter().map(|part| hybrid.least(&part.hits));
        Ok(Some(least.filter(|least| *least <= self.end()).max().unwrap_or(0)))
    }

    /// Whether scores are fetched first, and then the fields of the page's hits only: from the offset on where the hits
    /// before the page weigh more than another round.
    #[must_use]
    pub fn is_deep(&self) -> bool {
        let (offset, limit) = self.request.paging.window();
        offset >= DEEP && limit > 0 && self.hits == Hits::InSteps && self.config.pins.is_empty()
    }

    /// This query for hits that show nothing but what merging needs.
    #[must_use]
    pub fn scan(&self) -> Self {
        let request = self.request.without_fields();
        let query =
            Self::with_distinct(self.index.clone(), self.config.clone(), request, self.distinct.clone());
        Self { count_distinct: self.count_distinct, ..query }
    }

    /// The first `hits` of one node, with totals and facets; where [`Self::asks_keywords`] the same by keywords only, too.
    #[must_use]
    pub fn first(&self, shards: &[Shard], hits: u64) -> Vec<Vec<u8>> {
        let first = |request: &SearchRequest| {
            request.for_shards(shards, Additions { hits: Some(hits), ..self.additions() })
        };
        let keywords = self.asks_keywords().then(|| first(&self.request.keywords()));
        [first(&self.request)].into_iter().chain(keywords).collect()
    }

    /// The same by keywords only.
    #[must_use]
    pub fn by_keywords(&self) -> Self {
        Self { request: self.request.keywords(), ..self.clone() }
    }

    /// The hits of one node from `offset` on, without facets.
    #[must_use]
    pub fn window(&self, shards: &[Shard], offset: u64, limit: u64) -> Vec<u8> {
        let additions = Additions { facet: None, ..self.additions() };
        self.request.clone().without_facets().window(shards, additions, offset, limit)
    }

    /// The position after the last hit that is wanted.
    #[must_use]
    pub fn end(&self) -> u64 {
        let (offset, limit) = self.request.paging.window();
        offset.saturating_add(limit).min(self.config.max_total_hits)
    }

    /// Names a hit.
    #[must_use]
    pub(super) fn name(&self, hit: &RawObject<'_>) -> Name {
        let insertion = Insertion::of(hit, self.config.primary_key.as_deref());
        let rank = hit.last(DETAILS).map(|details| Rank::read(details, None)).unwrap_or_default();
        Name { query: 0, insertion, rank }
    }

    /// How hits of this query are merged.
    #[must_use]
    pub fn merging(&self) -> Merging<'_> {
        Merging {
            index: &self.config,
            distinct: self.distinct.as_deref(),
            selection: &self.selection,
            added_facet: self.added_facet(),
            counts: &[],
        }
    }

    /// Whether nodes are asked for their keyword hits too: whether these are good enough is for all of them to say.
    #[must_use]
    pub fn asks_keywords(&self) -> bool {
        !matches!(self.hits, Hits::Forced(_)) && self.request.hybrid.is_some_and(Hybrid::is_open)
    }

    /// The query for one node, as a part of a federated search.
    #[must_use]
    pub fn for_federation(&self, shards: &[Shard]) -> Vec<u8> {
        let additions = Additions { facet: None, ..self.additions() };
        self.request.for_federation(shards, additions)
    }

    /// The nodes' answers as one. `keywords` are their keyword hits, and `counts` what they have counted, in the same order, where these
    /// are asked for.
    ///
    /// # Errors
    /// The position of an answer that cannot be read.
    pub fn merge(&self, bodies: &[&[u8]], keywords: &[&[u8]], counts: &[&[u8]]) -> Result<Merged, usize> {
        let (parts, counts) = (self.read(bodies)?, self.read(counts)?);
        let merging = Merging { counts: &counts, ..self.merging() };
        let Some(hybrid) = self.request.hybrid.filter(|_| self.asks_keywords()) else {
            return Ok(Merged::Body(merging.merge(&self.request, &parts)));
        };
        let keywords = self.read(keywords)?;
        Ok(match self.decide(hybrid, &keywords) {
            Decided::Keywords => Merged::Body(merging.merge_keywords(&self.request, &parts, &keywords)),
            Decided::Mixed => Merged::Body(merging.merge(&self.request, &parts)),
            Decided::Disputed => Merged::Instead(Box::new(self.forced())),
        })
    }

    /// Whether these keyword hits of all nodes are good enough.
    #[must_use]
    pub fn decide(&self, hybrid: Hybrid, keywords: &[NodeAnswer<'_>]) -> Decided {
        let good_enough =
            |answers: &[NodeAnswer<'_>]| self.merging().good_enough(hybrid, &self.request, answers);
        // With sorts first, a node's best hits can be good enough where the best of all are not.
        let own = |answer| good_enough(std::slice::from_ref(answer));
        match good_enough(keywords) {
            true => Decided::Keywords,
            false if keywords.iter().any(own) => Decided::Disputed,
            false => Decided::Mixed,
        }
    }

    /// The same for so many hits that nodes find keyword hits not good enough.
    #[must_use]
    pub fn forced(&self) -> Self {
        let (offset, limit) = self.request.paging.window();
        let forced = offset.saturating_add(limit).saturating_mul(4).saturating_add(1000);
        Self { hits: Hits::Forced(forced.min(self.config.max_total_hits)), ..self.clone() }
    }

    fn counting(&self) -> Option<SearchRequest> {
        self.request.counting(self.distinct.as_deref().filter(|_| self.counts())?)
    }

    fn additions(&self) -> Additions<'_> {
        let (offset, limit) = self.request.paging.window();
        let reach = Some(pins::reach(&self.config)).filter(|_| limit > 0);
        let reach = reach.filter(|reach| *reach > offset.saturating_add(limit));
        let hits = match self.hits {
            Hits::Forced(forced) => Some(forced).max(reach),
            Hits::InSteps | Hits::AtOnce => reach,
        };
        let rules = !self.config.pins.is_empty();
        Additions { fields: self.selection.fields(), facet: self.added_facet(), hits, rules }
    }

    fn added_facet(&self) -> Option<&str> {
        let facet = self.distinct.as_deref().filter(|_| self.count_distinct && !self.counts())?;
        (!self.request.asks_for_facet(facet)).then_some(facet)
    }

    fn read<'a>(&self, bodies: &[&'a [u8]]) -> Result<Vec<NodeAnswer<'a>>, usize> {
        let read = bodies.iter().enumerate().map(|(position, body)| {
            let answer = NodeAnswer::read(body).map_err(|NotAnAnswer| position)?;
            answer.hits.iter().for_each(|hit| self.reveal(hit));
            Ok(answer)
        });
        read.collect()
    }

    /// Tells what a hit hides, where it is known.
    pub fn reveal(&self, hit: &Hit<'_>) {
        if let Some(sorted) = self.sorted(hit) {
            hit.reveal(sorted);
        }
        let values = self.distinct.as_ref().and_then(|distinct| self.values(hit)?.get(distinct));
        if let Some(values) = values {
            hit.reveal_distinct(values);
        }
    }

    fn values(&self, hit: &Hit<'_>) -> Option<&HashMap<String, Vec<FacetValue>>> {
        let revealed = self.revealed.as_ref()?;
        revealed.values(&self.index, hit.id(self.config.primary_key.as_deref()?)?)
    }

    /// What a hit whose details hide it is sorted by, where it is known.
    #[must_use]
    pub fn sorted(&self, hit: &Hit<'_>) -> Option<Sorted<'_>> {
        hit.is_hidden().then(|| Some(Sorted { by: &self.sorts, values: self.values(hit)? })).flatten()
    }

    /// The attributes that hits are sorted by.
    #[must_use]
    pub fn sorts(&self) -> &[(String, bool)] {
        &self.sorts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn query(body: &Value) -> IndexQuery {
        let config = IndexConfig {
            distinct_attribute: Some("group".into()),
            primary_key: Some("id".into()),
            ..IndexConfig::default()
        };
        IndexQuery::new("i".into(), config, SearchRequest::from_body(body.to_string().as_bytes()).unwrap())
    }

    #[test]
    fn totals_are_without_what_the_hits_of_the_page_leave_out() {
        let body = json!({"limit": 2});
        let query = query(&body);
        let asked = query.for_shards(&[Shard(0)]);
        assert_eq!(asked.len(), 2);
        let counting: Value = serde_json::from_slice(&asked[1]).unwrap();
        assert_eq!((&counting["limit"], &counting["facets"]), (&json!(0), &json!(["group"])));
        assert!(serde_json::from_slice::<Value>(&asked[0]).unwrap().get("facets").is_none());
        let hits = |ids: &[(u64, &str)]| {
            let hits =
                ids.iter().map(|(id, group)| json!({"id": id, "group": group, "_rankingScoreDetails": {}}));
            json!({"hits": hits.collect::<Vec<_>>(), "limit": 2, "offset": 0, "estimatedTotalHits": 9})
                .to_string()
        };
        let counts = |total: u64, groups: Value| {
            json!({"hits": [], "limit": 0, "offset": 0, "estimatedTotalHits": total, "facetDistribution": {"group": groups},
                "facetStats": {}})
            .to_string()
        };
        let own = [hits(&[(1, "A"), (4, "b")]), hits(&[(2, "a"), (3, "c")])];
        let told = [counts(7, json!({"A": 4, "b": 3})), counts(5, json!({"a": 2, "c": 3}))];
        let bytes = |list: &[String; 2]| list.each_ref().map(|it| it.as_bytes().to_vec());
        let (own, told) = (bytes(&own), bytes(&told));
        fn refs(list: &[Vec<u8>; 2]) -> Vec<&[u8]> {
            list.iter().map(Vec::as_slice).collect()
        }
        let Merged::Body(merged) = query.merge(&refs(&own), &[], &refs(&told)).unwrap() else {
            panic!("once")
        };
        let merged: Value = serde_json::from_slice(&merged).unwrap();
        // Six have the first hit's group, and three the second's.
        assert_eq!(
            (&merged["hits"][1]["id"], &merged["estimatedTotalHits"]),
            (&json!(3), &json!(12 - 5 - 2))
        );
    }

    #[test]
    fn only_placeholders_are_counted_so() {
        for body in [
            json!({"q": "a"}),
            json!({"sort": ["x:asc"]}),
            json!({"page": 1}),
            json!({"hybrid": {"embedder": "e"}, "vector": [1.0]}),
        ] {
            assert_eq!(
                query(&body)
                    .for_shards(&[Shard(0)])
                    .iter()
                    .filter(|it| it.windows(9).any(|w| w == br#""limit":0"#))
                    .count(),
                0,
                "{body}"
            );
        }
        assert!(query(&json!({"q": " "})).counts());
    }
}
