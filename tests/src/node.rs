//! A single node, which a cluster is compared with.

use crate::{Client, MASTER_KEY, node_program, scratch, wait_until};
use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU16, Ordering},
};
use tempfile::TempDir;

/// A node with a temporary folder; it is killed when this value is dropped.
#[derive(Debug)]
pub struct Node {
    process: Child,
    /// A client of the node, with the master key.
    pub client: Client,
    _data: TempDir,
}

impl Node {
    /// Starts a node and waits until it answers.
    ///
    /// # Panics
    /// The node does not start.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with_key(MASTER_KEY)
    }

    /// Starts a node with this master key, and waits until it answers.
    ///
    /// # Panics
    /// The node does not start.
    #[must_use]
    pub fn start_with_key(master_key: &str) -> Self {
        let data = scratch();
        let address = format!("127.0.0.1:{}", free_port());
        let process = Command::new(node_program())
            .args(["--env", "development", "--no-analytics", "--http-addr", &address])
            .arg("--db-path")
            .arg(data.path().join("data"))
            .env("MEILI_MASTER_KEY", master_key)
            // The same limit as the nodes of a playground have.
            .env("MEILI_MAX_INDEXING_MEMORY", "512MiB")
            .current_dir(data.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a node: run `make build` first");
        let client = Client::new(format!("http://{address}"), Some(master_key));
        wait_until("the node answers", || {
            client.try_send("GET", "/health", None, Vec::new()).is_ok_and(|answer| answer.status == 200)
        });
        Self { process, client, _data: data }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A free port, between those of playgrounds and the range that the kernel uses for outgoing connections.
///
/// # Panics
/// There is no free port.
#[must_use]
pub fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() * 37 % 2_700).unwrap_or(0);
    (0..2_700)
        .map(|_| 30_000 + (start + TAKEN.fetch_add(1, Ordering::Relaxed) % 2_700) % 2_700)
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port")
}
