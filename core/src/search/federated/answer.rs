//! The answer to a federated search.

use super::Federated;
use crate::{
    json::{RawObject, to_bytes, write_string},
    search::{
        facets::{FacetPart, merge_distributions, merge_stats},
        merge::{write_list, write_number},
    },
    topology::Topology,
};
use serde_json::value::RawValue;

impl Federated {
    /// Merges the nodes' answers, with the members of the first one. `shown` are the hits of the page, and a vector found
    /// `semantic` of them. `rejected` is the number of hits that nodes counted although another node has a hit with the same
    /// distinct value.
    pub(super) fn write_answer(
        &self,
        topology: &Topology,
        answers: &[&RawObject<'_>],
        shown: &[&RawObject<'_>],
        semantic: u64,
        rejected: u64,
    ) -> Vec<u8> {
        let numbers =
            |name: &str| answers.iter().filter_map(|answer| answer.read::<u64>(name)).collect::<Vec<_>>();
        let total = |name: &str| numbers(name).into_iter().sum::<u64>().saturating_sub(rejected);
        let raw =
            |name: &str| answers.iter().filter_map(|answer| answer.get(name)).collect::<Vec<&RawValue>>();
        let members = answers.first().map_or(&[][..], |first| first.0.as_slice());
        let has = |name: &str| members.iter().any(|(member, _)| member == name);

        let mut out = Vec::with_capacity(256 + shown.len() * 1024);
        out.push(b'{');
        for (position, (name, value)) in members.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            if name == "facetsByIndex" {
                self.write_facets(topology, &raw(name), &mut out);
                continue;
            }
            write_string(name, &mut out);
            out.push(b':');
            let number = match name.as_ref() {
                "hits" => {
                    write_list(shown, &mut out, |hit, out| self.write_hit(hit, out));
                    continue;
                }
                "facetDistribution" => {
                    let order = |facet: &str| self.merged_order(topology, facet);
                    let parts =
                        raw(name).into_iter().map(|distribution| FacetPart { distribution, stats: None });
                    merge_distributions(&parts.collect::<Vec<_>>(), 0, None, order, &mut out);
                    continue;
                }
                "facetStats" => {
                    out.extend(to_bytes(&merge_stats(&raw(name), None)));
                    continue;
                }
                "estimatedTotalHits" | "totalHits" => Some(total(name)),
                "totalPages" => self.federation.paging.pages(total("totalHits")),
                "semanticHitCount" => Some(semantic),
                "processingTimeMs" => numbers(name).into_iter().max(),
                _ => self.federation.paging.member(name),
            };
            write_number(number, value, &mut out);
        }
        let facets = raw("facetsByIndex");
        if !has("facetsByIndex") && !facets.is_empty() {
            out.push(b',');
            self.write_facets(topology, &facets, &mut out);
        }
        if self.by_keywords && !has("semanticHitCount") {
            out.extend_from_slice(b",\"semanticHitCount\":0");
        }
        out.push(b'}');
        out
    }
}
