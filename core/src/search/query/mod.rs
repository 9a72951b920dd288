//! One query in one index: what nodes are asked.

pub(in crate::search) mod hidden_values;
mod merge;
pub(in crate::search) mod results;
#[cfg(test)]
mod tests;

pub use merge::{Decided, Merged};

use super::{
    hits::selection::Selection,
    hybrid::Hybrid,
    merge::pins,
    request::{Additions, SearchRequest, paging::Paging},
    values::document_values::DocumentValues,
};
use crate::{
    shard::{Shard, TAG_FIELD},
    topology::IndexConfig,
};
use std::sync::Arc;

/// From this offset on, pages are fetched in two steps.
pub(in crate::search) const DEEP: u64 = 500;

/// A query with the settings of its index.
#[derive(Clone, Debug)]
pub struct IndexQuery {
    /// The index's uid.
    pub index: String,
    /// Its settings.
    pub config: IndexConfig,
    /// What the client asks.
    pub request: SearchRequest,
    /// The distinct attribute: no two hits may share a value of it.
    pub distinct: Option<String>,
    /// Fields added for merging.
    pub selection: Selection,
    /// Whether the distinct attribute is counted as a facet, so that totals are exact.
    count_distinct: bool,
    /// How nodes are asked for the hits up to the page's end.
    hits: Hits,
    /// The attributes that hits are sorted by.
    sorts: Vec<(String, bool)>,
    /// The values of the sort attributes and of the distinct attribute, if nodes do not show them.
    revealed: Option<Arc<DocumentValues>>,
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

impl IndexQuery {
    /// A query in an index.
    #[must_use]
    pub fn new(index: String, config: IndexConfig, request: SearchRequest) -> Self {
        let distinct = request.distinct.clone().or_else(|| config.distinct_attribute.clone());
        Self::with_distinct(index, config, request, distinct)
    }

    /// A query with this distinct attribute.
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

    /// The same query without the parts that a node may refuse; `None` if nothing was added.
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

    /// The same query with its hidden values.
    #[must_use]
    pub fn with(self, revealed: &Arc<DocumentValues>) -> Self {
        Self { revealed: Some(Arc::clone(revealed)), ..self }
    }

    /// The same query with all its hits requested at once.
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

    /// The queries for one node: the client's, its keyword query if [`Self::asks_keywords`], and its counting query if
    /// [`Self::counts`].
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

    /// Whether nodes are also asked for counts without hits. Then only the hits of the page exclude documents with the same
    /// distinct value, and only a merge over all nodes knows these hits.
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

    /// Whether scores are fetched first and then the fields of only the page's hits. This pays off from the offset on where the
    /// hits before the page cost more than another round trip.
    #[must_use]
    pub fn is_deep(&self) -> bool {
        let (offset, limit) = self.request.paging.window();
        offset >= DEEP && limit > 0 && self.hits == Hits::InSteps && self.config.pins.is_empty()
    }

    /// This query with only the fields that merging needs.
    #[must_use]
    pub fn scan(&self) -> Self {
        let request = self.request.without_fields();
        let query =
            Self::with_distinct(self.index.clone(), self.config.clone(), request, self.distinct.clone());
        Self { count_distinct: self.count_distinct, ..query }
    }

    /// The request for the first `hits` of one node, with totals and facets, and if [`Self::asks_keywords`] also the same by
    /// keywords only.
    #[must_use]
    pub fn first(&self, shards: &[Shard], hits: u64) -> Vec<Vec<u8>> {
        let first = |request: &SearchRequest| {
            request.for_shards(shards, Additions { hits: Some(hits), ..self.additions() })
        };
        let keywords = self.asks_keywords().then(|| first(&self.request.keywords()));
        [first(&self.request)].into_iter().chain(keywords).collect()
    }

    /// The same query by keywords only.
    #[must_use]
    pub fn by_keywords(&self) -> Self {
        Self { request: self.request.keywords(), ..self.clone() }
    }

    /// The request for the hits of one node from `offset` on, without facets.
    #[must_use]
    pub fn window(&self, shards: &[Shard], offset: u64, limit: u64) -> Vec<u8> {
        let additions = Additions { facet: None, ..self.additions() };
        self.request.clone().without_facets().window(shards, additions, offset, limit)
    }

    /// The position after the last requested hit.
    #[must_use]
    pub fn end(&self) -> u64 {
        let (offset, limit) = self.request.paging.window();
        offset.saturating_add(limit).min(self.config.max_total_hits)
    }

    /// Whether nodes are also asked for their keyword hits: whether these are good enough must be decided over all nodes.
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

    /// The same query for enough hits that nodes find keyword hits not good enough.
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

    /// The attributes that hits are sorted by.
    #[must_use]
    pub fn sorts(&self) -> &[(String, bool)] {
        &self.sorts
    }
}
