//! The read path of searches: builds the requests to nodes, and merges their answers.
//!
//! Each kind of read has a file or a folder here; what they share is in the folders below them, each of which imports only those
//! before it: `values`, `hit_order`, `hits`, `hybrid`, `request`, `facets`, `merge`, `query`, `two_step`.

pub mod documents;
pub mod facet_search;
pub mod federated;
pub mod multi;
pub mod similar;
pub mod single;

pub mod facets;
pub mod hit_order;
pub mod hits;
pub mod hybrid;
pub mod merge;
pub mod query;
pub mod request;
mod two_step;
pub mod values;

pub use documents::DocumentList;
pub use facet_search::FacetSearch;
pub use multi::MultiSearch;
pub use similar::similar;
pub use single::Search;
