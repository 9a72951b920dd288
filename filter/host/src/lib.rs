//! What Envoy is to the filter, inside a test that runs natively.
//!
//! A Proxy-Wasm plugin is a library: its host calls its exported functions (`proxy_on_…`), and it calls its host's (`proxy_…`). In
//! Envoy a Wasm engine stands between them; here they are linked to each other. Nothing is sent anywhere: a test reads which callouts
//! the plugin wants, and answers them.
//!
//! A [`Vm`] is what a worker of Envoy has: one plugin, its root context, and the streams of that worker. The SDK keeps a plugin's
//! contexts in thread-local variables, so that each VM is used in a thread of its own: [`in_vm`] makes it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "for tests")]

mod calls;
mod plugin;
mod state;
mod unused;
mod vm;

pub use state::{Callout, Reply};
pub use vm::{Stream, Vm, in_vm};
