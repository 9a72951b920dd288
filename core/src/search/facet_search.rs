//! `POST /indexes/{uid}/facet-search`: merges the values of one facet and adds up their counts.
//!
//! Source: Meilisearch 1.50, `milli/src/search/facet/search.rs`.

use super::{
    facets::{FacetOrder, Spellings},
    merge::{facet_order, write_list},
    request::with_shards,
    values::{normalized, without_marks},
};
use crate::{
    http::Reply,
    json::{RawObject, to_bytes, write_string},
    path::ApiPath,
    scatter_query::{Gathered, NodeRequest, Part, QuerySlice, ScatterQuery, shards_of},
    topology::{IndexConfig, Topology},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::{borrow::Cow, collections::BTreeMap};
use xxhash_rust::xxh3::xxh3_64;

/// A search among the values of a facet.
#[derive(Debug)]
pub struct FacetSearch {
    index: String,
    config: IndexConfig,
    facet: String,
    /// With a query, values are ordered by their letters without accents.
    has_query: bool,
    parameters: BTreeMap<String, Box<RawValue>>,
}

#[derive(Deserialize)]
struct FacetHit {
    value: String,
    count: u64,
}

impl FacetSearch {
    /// Parses a body; `None` if a node would refuse it.
    #[must_use]
    pub fn of(topology: &Topology, index: &str, body: &[u8]) -> Option<Box<dyn ScatterQuery>> {
        let parameters: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(body).ok()?;
        let facet = serde_json::from_str(parameters.get("facetName")?.get()).ok()?;
        let has_query = parameters.get("facetQuery").is_some_and(|query| query.get() != "null");
        let config = topology.index(index);
        Some(Box::new(Self { index: index.to_owned(), config, facet, has_query, parameters }))
    }

    fn sort(&self, hits: &mut [FacetHit], order: FacetOrder) {
        if order.by_count {
            hits.sort_by(|one, other| other.count.cmp(&one.count).then_with(|| other.value.cmp(&one.value)));
        } else {
            hits.sort_by_cached_key(|hit| {
                let value = normalized(&hit.value);
                (if self.has_query { without_marks(&value) } else { String::new() }, value)
            });
        }
    }
}

impl ScatterQuery for FacetSearch {
    fn seeds(&self) -> Vec<u64> {
        let body = to_bytes(&self.parameters);
        vec![xxh3_64(&body)]
    }

    fn indexes(&self, _: usize) -> Vec<&str> {
        vec![&self.index]
    }

    fn ask(&self, slices: &[QuerySlice]) -> NodeRequest {
        let shards = shards_of(slices);
        let filter = with_shards(self.parameters.get("filter").map(|filter| &**filter), &shards);
        let mut parameters: BTreeMap<&str, &RawValue> =
            self.parameters.iter().map(|(name, value)| (name.as_str(), &**value)).collect();
        parameters.extend(filter.as_deref().map(|filter| ("filter", filter)));
        let path = ApiPath::of_index(&self.index, &["facet-search"]);
        NodeRequest::new(path, to_bytes(&parameters))
    }

    fn gather(self: Box<Self>, _: &Topology, parts: Vec<Part>) -> Gathered {
        match self.merge(&parts) {
            Ok(body) => Gathered::Reply(Reply::json(200, body)),
            Err(position) => Gathered::broken(self, parts, position),
        }
    }
}

impl FacetSearch {
    /// The nodes' answers as one, or the position of one that cannot be read.
    fn merge(&self, parts: &[Part]) -> Result<Vec<u8>, usize> {
        let mut answers = Vec::with_capacity(parts.len());
        for (position, part) in parts.iter().enumerate() {
            let members = serde_json::from_slice::<RawObject<'_>>(&part.body).ok();
            let hits = members.as_ref().and_then(|members| members.read::<Vec<FacetHit>>("facetHits"));
            match (members, hits) {
                (Some(members), Some(hits)) => answers.push((members, hits)),
                _ => return Err(position),
            }
        }
        // Values that differ only in case are one value, whichever spelling a node shows.
        let mut values: BTreeMap<String, Spellings<'_>> = BTreeMap::new();
        for hit in answers.iter().flat_map(|(_, hits)| hits) {
            values.entry(normalized(&hit.value)).or_default().add(Cow::Borrowed(&hit.value), hit.count);
        }
        let order = facet_order(&self.config, &self.facet);
        let shown = values.into_values().map(Spellings::shown);
        let mut hits: Vec<FacetHit> =
            shown.map(|(value, count)| FacetHit { value: value.into_owned(), count }).collect();
        self.sort(&mut hits, order);
        hits.truncate(order.limit);
        let mut out = Vec::new();
        let Some((first, _)) = answers.first() else { return Err(0) };
        first.write_filtered(&mut out, |name, value, out| {
            match name {
                "facetHits" => write_list(&hits, out, |hit, out| {
                    out.extend_from_slice(b"{\"value\":");
                    write_string(&hit.value, out);
                    out.extend_from_slice(format!(",\"count\":{}}}", hit.count).as_bytes());
                }),
                "processingTimeMs" => {
                    let times = answers.iter().filter_map(|(answer, _)| answer.read::<u64>(name));
                    out.extend_from_slice(times.max().unwrap_or(0).to_string().as_bytes());
                }
                _ => out.extend_from_slice(value.get().as_bytes()),
            }
            true
        });
        Ok(out)
    }
}
