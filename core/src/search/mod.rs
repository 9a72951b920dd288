//! The read path of searches: builds the requests to nodes, and merges their answers.

pub mod answer;
mod deep;
pub mod documents;
pub mod facet_search;
pub mod facets;
pub mod federated;
mod federated_answer;
mod federated_facets;
mod federated_hybrid;
mod federated_steps;
pub mod geo;
mod hidden_values;
mod hit_fields;
pub mod hybrid;
mod insertion;
pub mod merge;
pub mod multi;
pub mod paging;
pub mod patterns;
pub mod pins;
pub mod query;
pub mod query_string;
pub mod rank;
pub mod remotes;
pub mod request;
mod results;
pub mod selection;
pub mod similar;
pub mod single;
mod two_step;
pub mod values;

pub use documents::DocumentList;
pub use facet_search::FacetSearch;
pub use multi::MultiSearch;
pub use similar::similar;
pub use single::Search;
