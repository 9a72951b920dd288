//! Indexes on all nodes: their creation, operations on whole indexes, and the fields that nodes know of them.

pub mod broadcast;
pub mod creation;
pub mod delivery;
pub mod fields;
