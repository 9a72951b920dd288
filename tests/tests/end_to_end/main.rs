//! Tests of whole clusters: an Envoy, a control plane and nodes for each, or for several that share them ([`trials`]).
//!
//! One program, so that tests wait side by side: `make test` runs several at once, whatever the number of cores.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod all_or_nothing;
mod api;
mod attacks;
mod bad_input;
mod broken_nodes;
mod chaos;
mod cluster;
mod crash_points;
mod crashes;
mod dates;
mod depth;
mod durable;
mod equivalence;
mod exhaustion;
mod export;
mod fields;
mod first_payloads;
mod fixtures;
mod freed_names;
mod grow;
mod late_bodies;
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
mod stale_in_index;
mod starts;
mod survive;
mod token;
mod told;
mod trials;
mod vectors;
mod verdicts;
mod webhooks;
mod writes;
mod zones;

use miroir_tests::trials::Trials;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut trials = Trials::from_command_line();
    trials::add_all(&mut trials);
    trials.run()
}
