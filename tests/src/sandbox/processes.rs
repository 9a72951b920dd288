//! The processes of a cluster: where they are, and what kills, stops and starts them.

use crate::{Client, MASTER_KEY, Sandbox, wait_until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

fn is_node(process: &Value) -> bool {
    process["name"].as_str().is_some_and(|name| name.starts_with("meili-"))
}

impl Sandbox {
    /// Starts a node that is not in the cluster yet, and returns its name.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn add_node(&self) -> String {
        let started = self.processes().iter().filter(|process| is_node(process)).count();
        self.mount_disk(u16::try_from(started).expect("few nodes"));
        self.miroir_json(&["playground", "add"])["name"].as_str().expect("a name").to_owned()
    }

    /// A node as an argument of `miroir node add`: its name and URL.
    ///
    /// # Panics
    /// There is no such node.
    #[must_use]
    pub fn named(&self, node: &str) -> String {
        format!("{node}={}", self.address(node))
    }

    /// Kills a process of the cluster (SIGKILL).
    ///
    /// # Panics
    /// There is no such process.
    pub fn kill(&self, name: &str) {
        let output = self.miroir(&["playground", "kill", name]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Starts a process that was killed. If it is a node, waits until it answers.
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

    /// The processes: name, process id if it runs, and address.
    #[must_use]
    pub fn processes(&self) -> Vec<Value> {
        self.miroir_json(&["playground", "ps"]).as_array().cloned().unwrap_or_default()
    }

    /// Whether a process of this name runs.
    #[must_use]
    pub fn is_running(&self, name: &str) -> bool {
        self.processes().iter().any(|process| process["name"] == name && !process["pid"].is_null())
    }

    /// A client of one node, without Envoy, with the nodes' master key.
    ///
    /// # Panics
    /// There is no such node.
    #[must_use]
    pub fn node(&self, number: u16) -> Client {
        Client::new(self.address(&format!("meili-{number}")), Some(MASTER_KEY))
    }

    /// A client of one gateway, with the master key if the cluster has one.
    ///
    /// # Panics
    /// There is no such gateway.
    #[must_use]
    pub fn gateway(&self, number: u16) -> Client {
        let key = self.options.master_key.then_some(MASTER_KEY);
        Client::new(self.address(&format!("gateway-{number}")), key)
    }

    /// The address of a process. The administration interfaces of Envoys are named `admin-0` and so on.
    ///
    /// # Panics
    /// There is no such process.
    #[must_use]
    pub fn address(&self, name: &str) -> String {
        let port = &self.state()["ports"][name];
        assert!(port.is_u64(), "{name}: {port}");
        format!("http://127.0.0.1:{port}")
    }

    fn process(&self, name: &str) -> Value {
        self.processes().into_iter().find(|process| process["name"] == name).expect("a process of that name")
    }

    /// Pauses a process (SIGSTOP): it keeps its connections, but does not answer.
    ///
    /// # Panics
    /// No such process is running.
    pub fn freeze(&self, name: &str) {
        self.signal(name, Signal::SIGSTOP);
    }

    /// Resumes a process that was paused with [`Self::freeze`].
    ///
    /// # Panics
    /// No such process is running.
    pub fn thaw(&self, name: &str) {
        self.signal(name, Signal::SIGCONT);
    }

    fn signal(&self, name: &str, signal: Signal) {
        let id = self.process(name)["pid"].as_i64().and_then(|id| i32::try_from(id).ok());
        kill(Pid::from_raw(id.expect("it runs")), signal).expect("it is signalled");
    }

    /// A client of the administration interface of a gateway's Envoy.
    ///
    /// # Panics
    /// The playground's state does not have its address.
    #[must_use]
    pub fn admin(&self, gateway: u16) -> Client {
        Client::new(self.address(&format!("admin-{gateway}")), None)
    }
}
