//! What a hit is called between the two steps.

use crate::{
    json::RawObject,
    search::{
        hit_order::{insertion::Insertion, rank::Rank},
        hits::fields::DETAILS,
    },
};

/// Identifies a hit, and distinguishes it from later versions of the same document.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::search) struct Name {
    /// The query that found it.
    pub query: usize,
    /// When its document came.
    pub insertion: Insertion,
    /// The hit's scores by the ranking rules.
    pub rank: Rank,
}

impl Name {
    /// Names a hit of a query, in an index with this primary key.
    pub(in crate::search) fn of(query: usize, hit: &RawObject<'_>, primary_key: Option<&str>) -> Self {
        let rank = hit.last(DETAILS).map(|details| Rank::read(details, None)).unwrap_or_default();
        Self { query, insertion: Insertion::of(hit, primary_key), rank }
    }
}
