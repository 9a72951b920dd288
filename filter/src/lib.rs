//! The Proxy-Wasm plugin: a thin shell that maps Envoy's callbacks to `miroir-core`'s state machines and back.
//!
//! A panic kills the worker's VM and every request in it, so nothing here may panic: a call that the host refuses counts as a
//! failed callout.
#![allow(missing_docs, reason = "nothing is public but what the macro makes")]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod budget;
mod callouts;
mod gateway;
mod latency;
mod lease;
mod metrics;
mod observed;
mod reachability;
mod refused_topology;
mod stream;
#[cfg(test)]
mod tests;
mod traces;
mod writes;

use gateway::{Gateway, gateway_name, vm_name};
use proxy_wasm::{traits::RootContext, types::LogLevel};

/// 64 random bits.
fn random() -> u64 {
    getrandom::u64().unwrap_or_else(|error| {
        log::error!("no random numbers: {error}; workers and spans have no unique ids");
        0
    })
}

proxy_wasm::main! {{
    proxy_wasm::set_log_level(LogLevel::Info);
    proxy_wasm::set_root_context(|context_id| -> Box<dyn RootContext> { Box::new(Gateway::new(context_id)) });
}}
