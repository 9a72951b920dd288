//! One query in one index: what nodes are asked, and their answers as one.

use super::{
    answer::{NodeAnswer, NotAnAnswer},
    merge::Merging,
    request::{Additions, SearchRequest},
    selection::Selection,
};
use crate::{shard::Shard, topology::IndexConfig};

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
        let needed: Vec<&str> =
            [&config.primary_key, &distinct].into_iter().flatten().map(String::as_str).collect();
        let selection = Selection::new(request.retrieve.as_deref(), &request.formatted, &needed);
        Self { index, config, request, count_distinct: distinct.is_some(), distinct, selection }
    }

    /// The same without what a node may refuse; `None` where nothing was added.
    #[must_use]
    pub fn simpler(&self) -> Option<Self> {
        self.added_facet()?;
        Some(Self { count_distinct: false, ..self.clone() })
    }

    /// Chooses the replicas.
    #[must_use]
    pub fn seed(&self, topology_version: u64) -> u64 {
        self.request.seed(&self.index, topology_version)
    }

    /// The query for one node.
    #[must_use]
    pub fn for_shards(&self, shards: &[Shard]) -> Vec<u8> {
        self.request.for_shards(shards, self.additions())
    }

    /// The query for one node, as a part of a federated search.
    #[must_use]
    pub fn for_federation(&self, shards: &[Shard]) -> Vec<u8> {
        let additions = Additions { facet: None, ..self.additions() };
        self.request.for_federation(shards, additions)
    }

    /// The nodes' answers as one.
    ///
    /// # Errors
    /// The position of an answer that cannot be read.
    pub fn merge(&self, bodies: &[&[u8]]) -> Result<Vec<u8>, usize> {
        let read = bodies
            .iter()
            .enumerate()
            .map(|(position, body)| NodeAnswer::read(body).map_err(|NotAnAnswer| position));
        let parts = read.collect::<Result<Vec<_>, usize>>()?;
        let merging = Merging {
            index: &self.config,
            distinct: self.distinct.as_deref(),
            selection: &self.selection,
            added_facet: self.added_facet(),
        };
        Ok(merging.merge(&self.request, &parts))
    }

    fn additions(&self) -> Additions<'_> {
        Additions { fields: self.selection.fields(), facet: self.added_facet() }
    }

    fn added_facet(&self) -> Option<&str> {
        let facet = self.distinct.as_deref().filter(|_| self.count_distinct)?;
        (!self.request.asks_for_facet(facet)).then_some(facet)
    }
}
