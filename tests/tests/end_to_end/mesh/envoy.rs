//! Starts an Envoy for a test.

use miroir_tests::{Client, MASTER_KEY, free_port, http, scratch, wait_until};
use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Mutex, PoisonError},
};
use tempfile::TempDir;

/// An Envoy; it is killed when this value is dropped.
pub struct Envoy {
    process: Mutex<Child>,
    pub client: Client,
    pub admin: Client,
    pub folder: TempDir,
}

impl Envoy {
    /// Starts an Envoy. `configuration` returns its bootstrap, from its ports (for clients, for administration) and its folder.
    pub fn start(configuration: impl FnOnce(u16, u16, &Path) -> String) -> Self {
        let folder = scratch();
        let (port, admin) = (free_port(), free_port());
        let file = folder.path().join("envoy.yaml");
        std::fs::write(&file, configuration(port, admin, folder.path())).unwrap();
        let log = std::fs::File::create(folder.path().join("envoy.log")).unwrap();
        let process = Command::new(std::env::var_os("ENVOY_BIN").expect("ENVOY_BIN"))
            .arg("--config-path")
            .arg(file)
            .args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"])
            // Tests wait for access logs, so flush them often.
            .args(["--file-flush-interval-msec", "100"])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let (client, admin) = (Client::new(url(port), Some(MASTER_KEY)), Client::new(url(admin), None));
        Self { process: Mutex::new(process), client, admin, folder }
    }

    pub fn wait_for(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        wait_until(what, || {
            let ended = self.process.lock().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "Envoy ended: {}", self.log());
            condition(self)
        });
    }

    pub fn wait_ready(&self) {
        self.wait_for("Envoy listens", |envoy| {
            let health = envoy.client.try_send("GET", "/health", None, Vec::new());
            health.is_ok_and(|answer| answer.status == 200)
        });
    }

    /// Repeats an action until Envoy's log contains these words.
    pub fn wait_for_log(&self, words: &str, mut attempt: impl FnMut(u64)) {
        let mut attempts = 0;
        wait_until(words, || {
            attempt(attempts);
            attempts += 1;
            self.log().contains(words)
        });
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("envoy.log")).unwrap_or_default()
    }

    pub fn prometheus(&self) -> String {
        prometheus(&self.admin)
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        let process = self.process.get_mut().unwrap_or_else(PoisonError::into_inner);
        // It may have ended already.
        let _ = process.kill();
        let _ = process.wait();
    }
}

/// The statistics of an Envoy, from its administration interface.
pub fn prometheus(admin: &Client) -> String {
    http().get(format!("{}/stats/prometheus", admin.url())).send().unwrap().text().unwrap()
}
