//! Pages of a federated search in two steps.

use super::{Federated, Place};
use crate::{
    json::RawObject,
    scatter_query::NodeRequest,
    search::{
        merge::write_list,
        query::IndexQuery,
        two_step::{InShares, InSteps, Name, Shares},
    },
    shard::Shard,
};
use serde_json::value::to_raw_value;

impl InSteps for Federated {
    const HITS: &'static str = "hits";

    type Query = ();

    fn window(&self, (): &(), shards: &[Shard], offset: u64, limit: u64) -> Vec<u8> {
        let added = [("offset", to_raw_value(&offset).ok()), ("limit", to_raw_value(&limit).ok())];
        self.parameters(shards, &added, &["mergeFacets", "facetsByIndex"], false)
    }

    fn request(&self, windows: Vec<Vec<u8>>) -> NodeRequest {
        NodeRequest::new("/multi-search", windows.concat())
    }

    fn name(&self, (): &(), hit: &RawObject<'_>) -> Option<Name> {
        let place: Place = hit.read("_federation")?;
        let key = self.queries.get(place.queries_position)?.config.primary_key.as_deref();
        Some(Name::of(place.queries_position, hit, key))
    }

    fn write_hits(&self, (): &(), hits: &[&RawObject<'_>], out: &mut Vec<u8>) {
        write_list(hits, out, |hit, out| self.write_hit(hit, out));
    }

    fn after_tear(self, _: &[bool]) -> Self {
        Self { shares: self.shares.and_then(Shares::after_tear), ..self }
    }
}

impl InShares for Federated {
    fn shares(&self) -> Option<Shares> {
        self.shares
    }

    fn with(self, shares: Option<Shares>) -> Self {
        Self { shares, ..self }
    }

    fn end(&self) -> u64 {
        self.all_hits()
    }

    /// True if totals depend on it, or if a vector finds the hits.
    fn needs_all(&self) -> bool {
        let counts = |query: &IndexQuery| {
            query.distinct.is_some()
                || query.request.has("rankingScoreThreshold")
                || query.request.has("hybrid")
        };
        self.queries.iter().any(counts)
    }

    fn least(&self) -> u64 {
        self.least
    }
}
