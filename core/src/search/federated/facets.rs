//! Merges the facets of a federated search, for each index or for all indexes together.

use super::{FacetsForm, Federated};
use crate::{
    json::{RawObject, to_bytes, write_string},
    search::{
        facets::{FacetOrder, FacetPart, merge_distributions, merge_stats},
        merge::facet_order,
        request::patterns::fits,
    },
    topology::Topology,
};
use serde_json::value::RawValue;
use std::collections::BTreeMap;

impl Federated {
    /// How `mergeFacets` orders and cuts a facet: as in the first index for which it was requested.
    pub(super) fn merged_order(&self, topology: &Topology, facet: &str) -> FacetOrder {
        let asks = |asked: &Option<Vec<String>>| {
            asked.iter().flatten().any(|name| name == facet || fits(name, facet))
        };
        let index = self.facets.iter().find(|(_, asked)| asks(asked)).map(|(index, _)| index);
        let by_count = index.is_some_and(|index| topology.index(index).sort_facet_values_by_count(facet));
        let limit = match self.facets_form {
            FacetsForm::Merged { limit, .. } => limit.and_then(|limit| usize::try_from(limit).ok()),
            FacetsForm::ByIndex => None,
        };
        let mut asking = self.facets.iter().filter(|(_, asked)| asks(asked));
        if let (Some((index, _)), None, true) = (asking.next(), asking.next(), by_count) {
            // A facet of only one index is cut as in that index.
            let order = facet_order(&topology.index(index), facet);
            return FacetOrder { limit: order.limit.min(limit.unwrap_or(usize::MAX)), ..order };
        }
        FacetOrder { by_count, together: true, limit: limit.unwrap_or(usize::MAX) }
    }

    /// Writes `facetsByIndex`, or with `mergeFacets` the members that replace it.
    pub(super) fn write_facets(&self, topology: &Topology, parts: &[&RawValue], out: &mut Vec<u8>) {
        let mut indexes: BTreeMap<String, Vec<FacetPart<'_>>> = BTreeMap::new();
        for part in parts {
            let Ok(RawObject(members)) = serde_json::from_str(part.get()) else { continue };
            for (index, facets) in members {
                let Ok(facets) = serde_json::from_str::<RawObject<'_>>(facets.get()) else { continue };
                let stats = facets.get("stats");
                let Some(distribution) = facets.get("distribution") else { continue };
                let parts = indexes.entry(index.into_owned()).or_default();
                parts.push(FacetPart { distribution, stats });
            }
        }
        let mut merged: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        for (position, (index, parts)) in indexes.iter().enumerate() {
            let config = topology.index(index);
            let mut distribution = Vec::new();
            let stats = merge_stats(&parts.iter().filter_map(|part| part.stats).collect::<Vec<_>>(), None);
            let order = |facet: &str| facet_order(&config, facet);
            merge_distributions(parts, 0, None, order, &mut distribution);
            let stats = to_bytes(&stats);
            if self.facets_form != FacetsForm::ByIndex {
                merged.push((distribution, stats));
                continue;
            }
            out.extend_from_slice(if position == 0 { b"\"facetsByIndex\":{" } else { b"," });
            write_string(index, out);
            out.extend_from_slice(b":{\"distribution\":");
            out.extend(distribution);
            out.extend_from_slice(b",\"stats\":");
            out.extend(stats);
            out.push(b'}');
        }
        if self.facets_form == FacetsForm::ByIndex {
            out.extend_from_slice(if indexes.is_empty() { b"\"facetsByIndex\":{}" } else { b"}" });
            return;
        }
        let raw = |bytes: &Vec<u8>| serde_json::from_slice::<Box<RawValue>>(bytes).ok();
        let distributions: Vec<Box<RawValue>> = merged.iter().filter_map(|(bytes, _)| raw(bytes)).collect();
        let stats: Vec<Box<RawValue>> = merged.iter().filter_map(|(_, bytes)| raw(bytes)).collect();
        out.extend_from_slice(b"\"facetDistribution\":");
        let parts = distributions.iter().map(|part| FacetPart { distribution: part, stats: None });
        let parts: Vec<FacetPart<'_>> = parts.collect();
        let order = |facet: &str| self.merged_order(topology, facet);
        merge_distributions(&parts, 0, None, order, out);
        out.extend_from_slice(b",\"facetStats\":");
        let parts: Vec<&RawValue> = stats.iter().map(|part| &**part).collect();
        out.extend(to_bytes(&merge_stats(&parts, None)));
    }
}
