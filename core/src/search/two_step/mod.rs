//! Pages in two steps: first only what merging needs of all hits up to the page's end, then the documents of the page.
//!
//! Each node's hits of the page stand together in the node's own order, so they are fetched by `offset` and `limit`. Where
//! they are not those that the first step told of, a write has come between, and the page is asked for again.
//!
//! The first step is a search's own: it asks each node for its share of the hits ([`shares`]), or goes on where it ended before
//! ([`scan`]). The second one is here.

mod fetch;
mod name;
mod page;
mod scan;
mod shares;
mod steps;

pub(super) use fetch::{Fetch, Known};
pub(super) use name::Name;
pub(super) use page::{Address, Winner};
pub(super) use scan::{Scan, first_chunk};
pub(super) use shares::{FirstStep, InShares, Shares};
pub(super) use steps::InSteps;
