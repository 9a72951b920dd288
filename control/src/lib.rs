//! Miroir's control plane: the ledger of writes and tasks, the index catalogue, the publisher of the topology, a command line
//! that uses its API, and a playground that runs a whole cluster on one machine.

#![deny(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "they panic where nobody reads: see base/output.rs"
)]

pub mod api;
pub mod auth;
pub mod base;
pub mod cli;
pub mod cluster;
pub mod disguise;
pub mod domain;
pub mod export;
pub mod fencing;
pub mod indexes;
pub mod ledger;
pub mod membership;
pub mod mover;
pub mod node;
pub mod playground;
pub mod publish;
pub mod recover;
pub mod serve;
pub mod sync;
#[cfg(test)]
mod testing;
pub mod tracking;
pub mod verify;
pub mod writes;
