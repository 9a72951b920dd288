//! The processes of a cluster: where they are, and what kills, stops and starts them.

use crate::{Client, MASTER_KEY, Sandbox, wait_until};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;

impl Sandbox {
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

    /// Speaks to the administration of a gateway's Envoy.
    ///
    /// # Panics
    /// The playground has not said where it is.
    #[must_use]
    pub fn admin(&self, gateway: u16) -> Client {
        Client::new(self.address(&format!("admin-{gateway}")), None)
    }
}
