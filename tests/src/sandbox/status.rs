//! What a cluster says of itself, and waiting until it says something else.

use crate::{Sandbox, sandbox::read_json, wait_until};
use serde_json::Value;

impl Sandbox {
    /// The status of the control plane; null while it does not answer.
    #[must_use]
    pub fn status(&self) -> Value {
        let token = &read_json(&self.data().join("control/secrets.json"))["adminToken"];
        let answer = crate::client::http()
            .get(format!("{}/_miroir/status", self.address("control")))
            .header("x-miroir-token", token.as_str().unwrap_or_default())
            .send();
        answer.and_then(reqwest::blocking::Response::json).unwrap_or_default()
    }

    /// The number of documents of an index on all running nodes, counting every replica.
    #[must_use]
    pub fn copies(&self, index: &str) -> u64 {
        let processes = self.processes();
        let running = processes.iter().filter(|process| process["pid"].is_u64());
        let names = running.filter_map(|process| process["name"].as_str());
        let numbers = names.filter_map(|name| name.strip_prefix("meili-")?.parse().ok());
        numbers.map(|number| self.node(number).count(index)).sum()
    }

    /// Waits until, for the control plane, no replica is stale and every node is reachable.
    ///
    /// # Panics
    /// That does not come.
    pub fn wait_repaired_by_control(&self) {
        wait_until("every replica is repaired", || self.is_repaired());
    }

    /// Whether every node is up, and every replica complete, as the control plane says.
    #[must_use]
    pub fn is_repaired(&self) -> bool {
        let nodes = self.status()["nodes"].as_array().cloned().unwrap_or_default();
        let is_whole = |node: &Value| node["up"] == true && node["behind"] == false && node["stale"] == 0;
        !nodes.is_empty() && nodes.iter().all(is_whole)
    }

    /// Waits until every worker of every gateway uses the newest topology.
    ///
    /// # Panics
    /// They do not.
    pub fn wait_published(&self) {
        wait_until("gateways use the newest topology", || {
            let status = self.status();
            let workers = status["gateways"].as_array().cloned().unwrap_or_default();
            !workers.is_empty() && workers.iter().all(|worker| worker["oldest"] == status["topologyVersion"])
        });
    }

    /// Like [`Self::wait_repaired_by_control`], and waits until Envoy uses every node too.
    ///
    /// # Panics
    /// That does not come.
    pub fn wait_repaired(&self) {
        self.wait_repaired_by_control();
        self.wait_reachable();
    }

    /// Waits until the Envoy of every gateway uses every node.
    ///
    /// # Panics
    /// That does not come.
    pub fn wait_reachable(&self) {
        for gateway in 0..self.options.gateways {
            let admin = self.admin(gateway);
            wait_until("Envoy uses every node", || {
                // A gateway that was just started may not listen yet.
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

    /// Whether no gateway has a client's request or a callout in progress.
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
}
