//! Support for the end-to-end tests: a sandbox that runs `miroir playground` (real Envoy, the control plane, nodes) in a
//! temporary folder on free ports, and a single node to compare with.
//!
//! The programs are those that `make build` builds. Nodes are `miroir-devnode`, or real Meilisearch if `MEILISEARCH_BIN` names
//! a binary.

mod client;
mod disk;
mod end;
mod library;
pub mod model;
mod network;
mod node;
mod published;
mod random;
mod raw;
mod replicas;
mod sandbox;
mod scratch;
mod server;
pub mod trials;
mod upload;

pub use client::{Answer, Client, PATIENCE, http};
pub use end::End;
pub use library::{BOOKS, BOOKS_PATH, books};
pub use network::{Cut, Network};
pub use node::{Node, free_port};
pub use random::Random;
pub use raw::ask_raw;
pub use replicas::{Documents, History};
pub use sandbox::{MASTER_KEY, Options, Sandbox};
pub use scratch::scratch;
pub use server::{serve, serve_at};
pub use upload::Upload;

use std::path::PathBuf;

/// The folder of the programs: the target folder of the profile that the tests were built with (`make build` builds the release
/// profile).
#[must_use]
pub fn programs() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    // The test binary is in the folder `deps` of its profile.
    own.ancestors().nth(2).map_or_else(PathBuf::new, PathBuf::from)
}

/// Whether nodes are real Meilisearch, which can do more than `miroir-devnode`.
#[must_use]
pub fn nodes_are_real() -> bool {
    std::env::var_os("MEILISEARCH_BIN").is_some()
}

/// The program to run as a node.
#[must_use]
pub fn node_program() -> PathBuf {
    std::env::var_os("MEILISEARCH_BIN").map_or_else(|| programs().join("miroir-devnode"), PathBuf::from)
}

/// A number from an environment variable, or its default: a duration, a count, or a seed.
#[must_use]
pub fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Lets time pass, where that is what a test is about: a client that thinks, a crash some time after something else, a process that
/// stays away. What can be waited for is waited for with [`wait_until`].
pub fn pass(time: std::time::Duration) {
    std::thread::sleep(time);
}

/// Waits for a condition.
///
/// # Panics
/// The condition is not met within [`PATIENCE`].
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = std::time::Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}
