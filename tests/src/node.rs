//! One node alone: what a cluster is compared with.

use crate::{Client, MASTER_KEY, node_program, wait_until};
use std::{
    net::TcpListener,
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

/// A node with a temporary folder; it ends with this value.
#[derive(Debug)]
pub struct Node {
    process: Child,
    /// Speaks to it under the master key.
    pub client: Client,
    _data: TempDir,
}

impl Node {
    /// Starts a node and waits until it answers.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start() -> Self {
        let data = TempDir::new().expect("a temporary folder");
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|probe| probe.local_addr())
            .expect("a free port")
            .port();
        let address = format!("127.0.0.1:{port}");
        let process = Command::new(node_program())
            .args(["--env", "development", "--no-analytics", "--http-addr", &address])
            .arg("--db-path")
            .arg(data.path().join("data"))
            .env("MEILI_MASTER_KEY", MASTER_KEY)
            .current_dir(data.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a node: run `make build` first");
        let client = Client::new(format!("http://{address}"), Some(MASTER_KEY));
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
