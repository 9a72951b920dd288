//! What a cluster is, without I/O.

pub mod cluster_state;
pub mod export;
pub mod intent;
pub mod search_rules;
