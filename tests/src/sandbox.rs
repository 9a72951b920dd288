//! A whole cluster: `miroir playground` in a temporary folder.

use crate::{Client, node_program, programs, scratch, wait_until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};
use tempfile::TempDir;

/// The master key of every cluster and node in the tests.
pub const MASTER_KEY: &str = "a-master-key-for-tests";

/// What a cluster is like.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Meilisearch nodes.
    pub nodes: u16,
    /// Replicas a shard.
    pub replication: u16,
    /// Shards.
    pub shards: u16,
    /// Gateways.
    pub gateways: u16,
    /// Whether clients need [`MASTER_KEY`].
    pub master_key: bool,
    /// How long a node may take to acknowledge its part of a write, milliseconds: recoveries wait as long.
    pub write_timeout_ms: u64,
    /// How long a silent gateway keeps old copies, milliseconds.
    pub lease_ms: u64,
    /// How long a node may take for its part of a read, milliseconds.
    pub search_timeout_ms: u64,
    /// What a read answers where a shard has no replica left: `partial` or `error`.
    pub on_missing_shards: &'static str,
    /// More of the limits that gateways have: JSON.
    pub limits: &'static str,
    /// A collector of traces, `host:port`.
    pub otlp: Option<&'static str>,
    /// More of the environment of nodes, which run in folders of their own.
    pub node_env: &'static [(&'static str, &'static str)],
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 3,
            replication: 2,
            shards: 16,
            gateways: 1,
            master_key: true,
            write_timeout_ms: 10_000,
            lease_ms: 2_000,
            search_timeout_ms: 5_000,
            on_missing_shards: "partial",
            limits: "{}",
            otlp: None,
            node_env: &[],
        }
    }
}

/// A cluster that runs; it ends with this value, whether the test went well or not.
#[derive(Debug)]
pub struct Sandbox {
    playground: Child,
    options: Options,
    data: TempDir,
    /// Speaks to the first gateway, under the master key where there is one.
    pub client: Client,
}

impl Sandbox {
    /// Starts a cluster and waits until it is ready.
    ///
    /// # Panics
    /// It does not start: its log says why.
    #[must_use]
    pub fn start(options: Options) -> Self {
        let data = scratch();
        let playground = spawn(options, data.path());
        let mut sandbox = Self { playground, options, data, client: Client::new("", None) };
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
            // A state that an earlier playground left says where that one was.
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

    /// Runs `miroir` on this cluster.
    ///
    /// # Panics
    /// It cannot be run.
    #[must_use]
    pub fn miroir(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(programs().join("miroir"));
        command.args(arguments).arg("--data").arg(self.data()).output().expect("miroir runs")
    }

    /// Runs `miroir` on this cluster, and gives what it printed.
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

    /// Starts a node that is not in the cluster yet, and gives its name.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn add_node(&self) -> String {
        self.miroir_json(&["playground", "add"])["name"].as_str().expect("a name").to_owned()
    }

    /// A node as `miroir node add` takes it: its name and its URL.
    ///
    /// # Panics
    /// There is no such node.
    #[must_use]
    pub fn named(&self, node: &str) -> String {
        format!("{node}={}", self.address(node))
    }

    /// Runs `miroir` on this cluster for its JSON.
    ///
    /// # Panics
    /// It fails.
    #[must_use]
    pub fn miroir_json(&self, arguments: &[&str]) -> Value {
        let output = self.miroir(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).expect("JSON")
    }

    /// Kills a process of the cluster (SIGKILL).
    ///
    /// # Panics
    /// There is no such process.
    pub fn kill(&self, name: &str) {
        let output = self.miroir(&["playground", "kill", name]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts a process that was killed; a node answers again when this returns.
    ///
    /// # Panics
    /// It cannot be started.
    pub fn revive(&self, name: &str) {
        let output = self.miroir(&["playground", "start", name]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        if let Some(number) = name.strip_prefix("meili-").and_then(|number| number.parse().ok()) {
            let node = self.node(number);
            wait_until("the node answers again", || {
                node.try_send("GET", "/health", None, Vec::new()).is_ok_and(|answer| answer.status == 200)
            });
        }
    }

    /// The processes: name, process id where it runs, and address.
    #[must_use]
    pub fn processes(&self) -> Vec<Value> {
        self.miroir_json(&["playground", "ps"]).as_array().cloned().unwrap_or_default()
    }

    /// Speaks to one node, past Envoy, under the master key that nodes have.
    ///
    /// # Panics
    /// There is no such node.
    #[must_use]
    pub fn node(&self, number: u16) -> Client {
        Client::new(self.address(&format!("meili-{number}")), Some(MASTER_KEY))
    }

    /// Speaks to one gateway, under the master key where there is one.
    ///
    /// # Panics
    /// There is no such gateway.
    #[must_use]
    pub fn gateway(&self, number: u16) -> Client {
        let key = self.options.master_key.then_some(MASTER_KEY);
        Client::new(self.address(&format!("gateway-{number}")), key)
    }

    /// What the playground says of itself; null before it has said anything.
    fn state(&self) -> Value {
        read_json(&self.data().join("playground.json"))
    }

    /// Where a process listens; of an Envoy's administration, `admin-0` and so on.
    ///
    /// # Panics
    /// There is no such process.
    #[must_use]
    pub fn address(&self, name: &str) -> String {
        let port = &self.state()["ports"][name];
        assert!(port.is_u64(), "{name}: {port}");
        format!("http://127.0.0.1:{port}")
    }

    /// The control plane's status; null while it does not answer.
    #[must_use]
    pub fn status(&self) -> Value {
        let token = &read_json(&self.data().join("control/secrets.json"))["adminToken"];
        let answer = crate::client::http()
            .get(format!("{}/_miroir/status", self.address("control")))
            .header("x-miroir-token", token.as_str().unwrap_or_default())
            .send();
        answer.and_then(reqwest::blocking::Response::json).unwrap_or_default()
    }

    fn process(&self, name: &str) -> Value {
        self.processes().into_iter().find(|process| process["name"] == name).expect("a process of that name")
    }

    /// Stops a process where it is (SIGSTOP): it keeps its connections, and answers nobody.
    ///
    /// # Panics
    /// There is no such process that runs.
    pub fn freeze(&self, name: &str) {
        self.signal(name, Signal::SIGSTOP);
    }

    /// Lets a process go on that was stopped with [`Self::freeze`].
    ///
    /// # Panics
    /// There is no such process that runs.
    pub fn thaw(&self, name: &str) {
        self.signal(name, Signal::SIGCONT);
    }

    fn signal(&self, name: &str, signal: Signal) {
        let id = self.process(name)["pid"].as_i64().and_then(|id| i32::try_from(id).ok());
        kill(Pid::from_raw(id.expect("it runs")), signal).expect("it is signalled");
    }

    /// Documents of an index on all nodes that run: every replica counts.
    #[must_use]
    pub fn copies(&self, index: &str) -> u64 {
        let processes = self.processes();
        let running = processes.iter().filter(|process| process["pid"].is_u64());
        let names = running.filter_map(|process| process["name"].as_str());
        let numbers = names.filter_map(|name| name.strip_prefix("meili-")?.parse().ok());
        numbers.map(|number| self.node(number).count(index)).sum()
    }

    /// Waits until no replica is stale, and every node is up, to the control plane.
    ///
    /// # Panics
    /// That does not come.
    pub fn wait_repaired_by_control(&self) {
        wait_until("every replica is repaired", || {
            let nodes = self.status()["nodes"].as_array().cloned().unwrap_or_default();
            !nodes.is_empty()
                && nodes
                    .iter()
                    .all(|node| node["up"] == true && node["behind"] == false && node["stale"] == 0)
        });
    }

    /// Speaks to the administration of a gateway's Envoy.
    ///
    /// # Panics
    /// The playground has not said where it is.
    #[must_use]
    pub fn admin(&self, gateway: u16) -> Client {
        Client::new(self.address(&format!("admin-{gateway}")), None)
    }

    /// Every worker of every gateway uses the newest topology.
    ///
    /// # Panics
    /// They do not.
    pub fn wait_told(&self) {
        wait_until("gateways use the newest topology", || {
            let status = self.status();
            let workers = status["gateways"].as_array().cloned().unwrap_or_default();
            !workers.is_empty() && workers.iter().all(|worker| worker["oldest"] == status["topologyVersion"])
        });
    }

    /// Waits until no replica is stale, and every node is up, to the control plane and to Envoy.
    ///
    /// # Panics
    /// That does not come.
    pub fn wait_repaired(&self) {
        self.wait_repaired_by_control();
        for gateway in 0..self.options.gateways {
            let admin = self.admin(gateway);
            wait_until("Envoy uses every node", || {
                // A gateway that was started a moment ago does not listen yet.
                let answer = admin.try_send("GET", "/clusters?format=json", None, Vec::new());
                let clusters = answer.map(|answer| answer.body).unwrap_or_default();
                let clusters = clusters["cluster_statuses"].as_array().cloned().unwrap_or_default();
                let hosts =
                    || clusters.iter().flat_map(|cluster| cluster["host_statuses"].as_array()).flatten();
                hosts().count() > usize::from(self.options.nodes)
                    && hosts().all(|host| {
                        host["health_status"] == serde_json::json!({"eds_health_status": "HEALTHY"})
                    })
            });
        }
    }

    /// Whether no gateway has a request of a client, or a callout, under way.
    pub(crate) fn gateways_are_idle(&self) -> bool {
        (0..self.options.gateways).all(|gateway| {
            let path = "/stats?format=json&filter=rq_active$";
            let Ok(answer) = self.admin(gateway).try_send("GET", path, None, Vec::new()) else {
                return false;
            };
            let stats = answer.body;
            let stats = stats["stats"].as_array().cloned().unwrap_or_default();
            let own = |name: &Value| name.as_str().is_some_and(|name| name.starts_with("http.admin."));
            stats.iter().all(|stat| own(&stat["name"]) || stat["value"] == 0)
        })
    }

    /// Ends the playground with a signal, and waits for its end.
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
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        let id = i32::try_from(self.playground.id()).map(Pid::from_raw);
        // It may have ended already. A playground that is terminated takes its processes with it.
        let _ = id.map(|id| kill(id, Signal::SIGTERM));
        let _ = self.playground.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.data.path().join("playground.log")).unwrap_or_default();
            eprintln!("the playground said:\n{log}");
            let control = std::fs::read_to_string(self.data().join("logs/control.log")).unwrap_or_default();
            eprintln!("the control plane said:\n{control}");
        }
    }
}

fn read_json(path: &Path) -> Value {
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
        // Embedders, webhooks and exports of tests go there. The rest of the loopback is refused.
        .args(["--allowed-ip-networks", "127.0.0.1"])
        .envs(options.node_env.iter().copied())
        .stdin(Stdio::null())
        .stdout(log())
        .stderr(log());
    if let Some(otlp) = options.otlp {
        command.args(["--otlp", otlp]);
    }
    if options.master_key {
        command.env("MEILI_MASTER_KEY", MASTER_KEY);
    }
    command.spawn().expect("miroir: run `make build` first")
}
