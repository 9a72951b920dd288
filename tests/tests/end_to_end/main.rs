//! Tests of whole clusters, each with an Envoy, a control plane and nodes of its own.
//!
//! One program, so that tests wait side by side: `make test` runs several at once, whatever the number of cores. They begin in the
//! order of their names: the longest are not to be last.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod all_or_nothing;
mod api;
mod attacks;
mod bad_input;
mod broken_nodes;
mod chaos;
mod checks;
mod cluster;
mod crashes;
mod dates;
mod depth;
mod durable;
mod equivalence;
mod exhaustion;
mod export;
mod fields;
mod first_payloads;
mod grow;
mod mesh;
mod missing_shards;
mod neighbours;
mod one_order;
mod operations;
mod payloads;
mod reads;
mod restore;
mod rules;
mod same_bytes;
mod sdk;
mod seen;
mod settings_changing;
mod similar;
mod survive;
mod token;
mod told;
mod vectors;
mod verdicts;
mod webhooks;
mod writes;
