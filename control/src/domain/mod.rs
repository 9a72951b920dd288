//! What a cluster is, without I/O.

pub mod cluster_state;
