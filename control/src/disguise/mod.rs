//! What clients must not see of what nodes are told: the shard tag in settings and sentences, embedders' templates and keys,
//! higher facet limits.

pub mod embedders;
pub mod facet_values;
pub mod scrub;
pub mod settings_tag;
