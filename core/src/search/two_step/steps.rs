//! What a search is whose pages can come in two steps.

use super::name::Name;
use crate::{
    http::Reply,
    json::RawObject,
    scatter_query::{NodeRequest, ScatterQuery},
    shard::Shard,
};
use std::fmt::Debug;

/// A search whose pages can come in two steps.
pub(in crate::search) trait InSteps: ScatterQuery + Sized + 'static {
    /// The member of an answer that holds the hits.
    const HITS: &'static str;

    /// What tells the pages of a search from each other.
    type Query: Debug;

    /// What a node is asked for hits of a page, from `offset` on and as the client sees them.
    fn window(&self, query: &Self::Query, shards: &[Shard], offset: u64, limit: u64) -> Vec<u8>;

    /// The request for these windows.
    fn request(&self, windows: Vec<Vec<u8>>) -> NodeRequest;

    /// A node's answers, one for each window.
    fn split<'a>(&self, body: &'a [u8]) -> Option<Vec<&'a [u8]>> {
        Some(vec![body])
    }

    /// Names a hit; `None` where nothing tells it from others.
    fn name(&self, query: &Self::Query, hit: &RawObject<'_>) -> Option<Name>;

    /// Writes the hits of a page as the client sees them.
    fn write_hits(&self, query: &Self::Query, hits: &[&RawObject<'_>], out: &mut Vec<u8>);

    /// The answer of these pages.
    fn reply(&self, pages: Vec<Vec<u8>>) -> Reply {
        Reply::json(200, pages.into_iter().next().unwrap_or_default())
    }

    /// What to ask where writes have come between the steps of these pages.
    fn after_tear(self, torn: &[bool]) -> Self;
}
