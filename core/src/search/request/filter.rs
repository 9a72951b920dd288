//! The filter that a node is asked by: the client's, and the shards'.

use crate::shard::{Shard, tag_filter};
use serde_json::value::{RawValue, to_raw_value};

/// The client's filter combined with the filter for the shards, as an array whose members Meilisearch joins by AND.
#[must_use]
pub fn with_shards(filter: Option<&RawValue>, shards: &[Shard]) -> Option<Box<RawValue>> {
    let mut members = members(filter);
    members.push(to_raw_value(&tag_filter(shards)).ok()?);
    to_raw_value(&members).ok()
}

/// The same, with the shards first.
pub(super) fn shards_and(filter: Option<&RawValue>, shards: &[Shard]) -> Option<Box<RawValue>> {
    let mut all = vec![to_raw_value(&tag_filter(shards)).ok()?];
    all.extend(members(filter));
    to_raw_value(&all).ok()
}

fn members(filter: Option<&RawValue>) -> Vec<Box<RawValue>> {
    let Some(filter) = filter.filter(|filter| filter.get() != "null") else { return Vec::new() };
    serde_json::from_str(filter.get()).unwrap_or_else(|_| vec![filter.to_owned()])
}
