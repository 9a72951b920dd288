//! The pure logic of Miroir: no I/O, no clock, no host. It builds for the host and for wasm32.
//!
//! Every operation on the data plane is a state machine ([`operation::Operation`]): it returns the callouts it wants as data,
//! takes in their answers, and ends with a reply. The filter, or a test, sends the callouts.
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod budget;
pub mod content_type;
pub mod cors;
pub mod document_read;
pub mod documents;
pub mod encoding;
pub mod error;
pub mod fan_out;
pub mod http;
pub mod intake;
mod json;
pub mod lease;
pub mod node_name;
pub mod operation;
pub mod path;
pub mod placement;
pub mod progress;
pub mod protocol;
mod query;
pub mod read;
pub mod route;
pub mod scatter_query;
pub mod scrub;
pub mod search;
pub mod sequence;
pub mod settings_changes;
pub mod shard;
mod tenant;
pub mod topology;
pub mod trace;
pub mod write;
