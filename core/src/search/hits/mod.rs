//! The hits of one node's answer: what of them is read for merging, and what the client sees of them.

pub mod answer;
pub(in crate::search) mod fields;
pub mod selection;
