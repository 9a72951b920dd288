//! A complete cluster: `miroir playground` in a temporary folder.

mod disks;
mod options;
mod processes;
mod status;

pub use options::Options;

use crate::{
    Client, Network, disk::Disk, node_program, programs, scratch, tell, trials::Fixture, wait_until,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    fmt::Write as _,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Mutex,
};
use tempfile::TempDir;

/// The master key of every cluster and node in the tests.
pub const MASTER_KEY: &str = "a-master-key-for-tests";

/// A running cluster. It is stopped when this value is dropped, even if the test fails.
#[derive(Debug)]
pub struct Sandbox {
    playground: Child,
    options: Options,
    /// Unmounted before the folder goes that they are in.
    disks: Mutex<Vec<(String, Disk)>>,
    data: TempDir,
    /// A client of the first gateway, with the master key if the cluster has one.
    pub client: Client,
}

impl Sandbox {
    /// Starts a cluster and waits until it is ready.
    ///
    /// # Panics
    /// The cluster does not start; its log says why.
    #[must_use]
    pub fn start(options: Options) -> Self {
        Self::start_through(options, &Network::default())
    }

    /// Starts a cluster whose processes this network may connect.
    ///
    /// # Panics
    /// As [`Self::start`].
    #[must_use]
    pub fn start_through(options: Options, network: &Network) -> Self {
        let data = scratch();
        network.connect(data.path().join("data"));
        let disks = (0..options.nodes).filter_map(|node| mount(options, &data.path().join("data"), node));
        let disks = Mutex::new(disks.collect());
        let playground = spawn(options, data.path());
        let mut sandbox = Self { playground, options, disks, data, client: Client::new("", None) };
        sandbox.wait_ready();
        sandbox
    }

    fn wait_ready(&mut self) {
        let key = self.options.master_key.then_some(MASTER_KEY);
        wait_until("the cluster is ready", || {
            if let Ok(Some(status)) = self.playground.try_wait() {
                let log =
                    std::fs::read_to_string(self.data.path().join("playground.log")).unwrap_or_default();
                panic!("the playground ended with {status}:\n{log}");
            }
            let state = self.state();
            // The file may still describe an earlier playground.
            if state["pid"] != self.playground.id() {
                return false;
            }
            self.client = Client::new(state["url"].as_str().unwrap_or_default(), key);
            self.client.try_send("GET", "/health", None, Vec::new()).is_ok_and(|answer| answer.status == 200)
        });
    }

    /// How many gateways it has.
    #[must_use]
    pub fn gateways(&self) -> u16 {
        self.options.gateways
    }

    /// The playground's data folder.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.data.path().join("data")
    }

    /// Runs `miroir` for this cluster.
    ///
    /// # Panics
    /// It cannot be run.
    #[must_use]
    pub fn miroir(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(programs().join("miroir"));
        command.args(arguments).arg("--data").arg(self.data()).output().expect("miroir runs")
    }

    /// Runs `miroir` for this cluster, and returns its output.
    ///
    /// # Panics
    /// It fails.
    pub fn miroir_ok(&self, arguments: &[&str]) -> String {
        let output = self.miroir(arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{arguments:?}: {said}{printed}");
        printed
    }

    /// Runs `miroir --json` for this cluster, and returns the JSON.
    ///
    /// # Panics
    /// It fails.
    #[must_use]
    pub fn miroir_json(&self, arguments: &[&str]) -> Value {
        let output = self.miroir(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// The state file of the playground; null before it exists.
    fn state(&self) -> Value {
        read_json(&self.data().join("playground.json"))
    }

    /// Sends a signal to the playground, and waits until it has ended.
    ///
    /// # Panics
    /// It cannot be signalled.
    pub fn stop(&mut self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.playground.id()).expect("a process id"));
        kill(id, signal).expect("it is signalled");
        self.playground.wait().expect("it ends");
    }

    /// Starts the playground again on the same data, after [`Self::stop`].
    pub fn restart(&mut self) {
        self.playground = spawn(self.options, self.data.path());
        self.wait_ready();
    }

    /// What the playground and the control plane have said, and the gateways of answers without some shards.
    #[must_use]
    pub fn logs(&self) -> String {
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap_or_default();
        let playground = read(self.data.path().join("playground.log"));
        let control = read(self.data().join("logs/control.log"));
        let mut told = format!("the playground said:\n{playground}\nthe control plane said:\n{control}\n");
        for gateway in 0..self.options.gateways {
            let said = read(self.data().join(format!("logs/gateway-{gateway}.log")));
            let lacking: Vec<&str> = said.lines().filter(|line| line.contains("lacks the shards")).collect();
            let _ = writeln!(told, "gateway-{gateway} said:\n{}", lacking.join("\n"));
        }
        told
    }
}

impl Fixture for Sandbox {
    /// Deletes the indexes that a check has left.
    fn clean(&self) {
        self.client.delete_indexes();
    }

    fn logs(&self) -> String {
        Sandbox::logs(self)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let id = i32::try_from(self.playground.id()).map(Pid::from_raw);
        // It may have ended already. A playground that gets SIGTERM stops its processes.
        let _ = id.map(|id| kill(id, Signal::SIGTERM));
        let _ = self.playground.wait();
        if std::thread::panicking() {
            tell!("{}", self.logs());
        }
    }
}

/// Mounts the disk of a node, and returns it with the node's name.
fn mount(options: Options, data: &Path, node: u16) -> Option<(String, Disk)> {
    let name = format!("meili-{node}");
    let disk = Disk::mount(&data.join("nodes").join(&name), options.disk_mib?)?;
    Some((name, disk))
}

pub(crate) fn read_json(path: &Path) -> Value {
    std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn spawn(options: Options, folder: &Path) -> Child {
    let log =
        || File::options().create(true).append(true).open(folder.join("playground.log")).expect("a log");
    let mut command = Command::new(programs().join("miroir"));
    command
        .arg("playground")
        .args(["--nodes", &options.nodes.to_string()])
        .args(["--replication", &options.replication.to_string()])
        .args(["--shards", &options.shards.to_string()])
        .args(["--gateways", &options.gateways.to_string()])
        .args(["--write-timeout-ms", &options.write_timeout_ms.to_string()])
        .args(["--lease-ms", &options.lease_ms.to_string()])
        .args(["--search-timeout-ms", &options.search_timeout_ms.to_string()])
        .args(["--on-missing-shards", options.on_missing_shards])
        .args(["--limits", options.limits])
        .args(["--listen", "127.0.0.1:0"])
        .arg("--node-bin")
        .arg(node_program())
        .arg("--data")
        .arg(folder.join("data"))
        .env_remove("MEILI_MASTER_KEY")
        // Embedders, webhooks and exports of tests use this address. Other loopback addresses are refused.
        .args(["--allowed-ip-networks", "127.0.0.1"])
        .envs(options.env.iter().copied())
        .stdin(Stdio::null())
        .stdout(log())
        .stderr(log());
    if options.zones > 0 {
        command.args(["--zones", &options.zones.to_string()]);
    }
    if let Some(otlp) = options.otlp {
        command.args(["--otlp", otlp]);
    }
    if options.master_key {
        command.env("MEILI_MASTER_KEY", MASTER_KEY);
    }
    command.spawn().expect("miroir: run `make build` first")
}
