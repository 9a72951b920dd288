//! The order of two hits: by the ranking rules' values ([`rank`]), and where these are equal, by the order in which the documents
//! arrived ([`insertion`]).

pub mod geo;
pub mod insertion;
pub mod rank;
