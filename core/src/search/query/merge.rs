//! What nodes' answers to one query mean together.

use super::IndexQuery;
use crate::search::{
    hit_order::rank::Sorted,
    hits::answer::{Hit, NodeAnswer, NotAnAnswer},
    hybrid::Hybrid,
    merge::Merging,
    values::FacetValue,
};
use std::collections::HashMap;

/// The decision on a hybrid query from all nodes' keyword hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    /// The keyword hits are good enough.
    Keywords,
    /// They are not good enough, and every node decides so too.
    Mixed,
    /// They are not good enough, but one node decides that its own are.
    Disputed,
}

/// The merged answers of nodes to one query.
#[derive(Debug)]
pub enum Merged {
    /// The answer.
    Body(Vec<u8>),
    /// A node decided differently from all nodes together: send this query instead.
    Instead(Box<IndexQuery>),
}

impl IndexQuery {
    /// Merges the nodes' answers. `keywords` are their keyword answers and `counts` their counts, in the same order, if they
    /// were requested.
    ///
    /// # Errors
    /// The position of an answer that cannot be parsed.
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

    /// Decides whether the keyword hits of all nodes are good enough.
    #[must_use]
    pub fn decide(&self, hybrid: Hybrid, keywords: &[NodeAnswer<'_>]) -> Decided {
        let good_enough =
            |answers: &[NodeAnswer<'_>]| self.merging().good_enough(hybrid, &self.request, answers);
        // If a sort precedes the scores, one node's first hits can be good enough although the first hits of all are not.
        let own = |answer| good_enough(std::slice::from_ref(answer));
        match good_enough(keywords) {
            true => Decided::Keywords,
            false if keywords.iter().any(own) => Decided::Disputed,
            false => Decided::Mixed,
        }
    }

    /// The fewest hits to ask nodes for so that they find the hits of [`Self::keyword_scores`] not good enough; `None` if they
    /// are good enough.
    ///
    /// # Errors
    /// The position of an answer that cannot be parsed.
    pub fn keywords_not_good_enough(&self, bodies: &[&[u8]]) -> Result<Option<u64>, usize> {
        let parts = self.read(bodies)?;
        let Some(hybrid) = self.request.hybrid else { return Ok(Some(0)) };
        if self.merging().good_enough(hybrid, &self.request, &parts) {
            return Ok(None);
        }
        // A node whose own hits up to the page's end are all good enough decides so in any case.
        let least = parts.iter().map(|part| hybrid.least(&part.hits));
        Ok(Some(least.filter(|least| *least <= self.end()).max().unwrap_or(0)))
    }

    /// The settings for merging the hits of this query.
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

    fn read<'a>(&self, bodies: &[&'a [u8]]) -> Result<Vec<NodeAnswer<'a>>, usize> {
        let read = bodies.iter().enumerate().map(|(position, body)| {
            let answer = NodeAnswer::read(body).map_err(|NotAnAnswer| position)?;
            answer.hits.iter().for_each(|hit| self.reveal(hit));
            Ok(answer)
        });
        read.collect()
    }

    /// Supplies the values that a hit hides, if they are known.
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

    /// The sort values of a hit whose details hide them, if they are known.
    #[must_use]
    pub fn sorted(&self, hit: &Hit<'_>) -> Option<Sorted<'_>> {
        hit.is_hidden().then(|| Some(Sorted { by: &self.sorts, values: self.values(hit)? })).flatten()
    }
}
