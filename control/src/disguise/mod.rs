//! Hides from clients what differs on nodes: the shard tag in settings and messages, embedders' templates and keys, higher
//! facet limits.

pub mod embedders;
pub mod facet_values;
pub mod messages;
pub mod settings_tag;
