//! Indexes on all nodes: the catalogue, changes of whole indexes, and the fields that they have.

pub mod broadcast;
pub mod catalogue;
pub mod fields;
