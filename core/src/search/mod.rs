//! The read path of a search: what is asked of the nodes, and their answers as one.

pub mod answer;
pub mod facets;
pub mod merge;
mod operation;
pub mod query_string;
pub mod rank;
pub mod request;

pub(crate) use operation::native_reply;
pub use operation::{MISSING_SHARDS_HEADER, Search};
