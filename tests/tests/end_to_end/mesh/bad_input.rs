//! The published configuration is broken, or does not fit the gateway: the gateway keeps the last good configuration, and the
//! control plane reports the reason.

use super::{Envoy, Mesh, ask, control_metrics, prometheus};
use miroir_tests::{Client, MASTER_KEY, Sandbox, http, programs, scratch, wait_until};
use serde_json::{Value, json};
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

const SEARCH: &str = "/indexes/movies/search";

/// Checks that a gateway still returns complete answers.
fn serves(client: &Client) {
    assert_eq!(client.search("movies", &json!({"limit": 100}))["hits"].as_array().unwrap().len(), 41);
}

fn troubles(cluster: &Sandbox, gateway: &str) -> Vec<Value> {
    let troubles = cluster.status()["troubles"].as_array().cloned().unwrap_or_default();
    troubles.into_iter().filter(|trouble| trouble["gateway"] == gateway).collect()
}

fn has_trouble(cluster: &Sandbox, gateway: &str, kind: &str, what: &str) -> bool {
    let is = |it: &Value| it["kind"] == kind && it["what"].as_str().is_some_and(|text| text.contains(what));
    troubles(cluster, gateway).iter().any(is)
}

/// The folder that gateway-0 watches, and this gateway's statistics and log.
struct Files<'a> {
    cluster: &'a Sandbox,
}

impl Files<'_> {
    fn log(&self) -> String {
        std::fs::read_to_string(self.cluster.data().join("logs/gateway-0.log")).unwrap()
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.cluster.published(name)).unwrap()
    }

    /// The sum of an Envoy statistic, found by the end of its name.
    fn statistic(&self, end: &str) -> u64 {
        let found = prometheus(&self.cluster.admin(0));
        let values = found.lines().filter_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            name.split('{').next()?.ends_with(end).then(|| value.parse::<u64>().ok())?
        });
        values.sum()
    }

    /// Spoils a published file. Checks that Envoy refuses it, and that the control plane restores it and reports this.
    fn spoil(&self, name: &str, statistic: &str, spoil: impl FnOnce(&[u8]) -> Vec<u8>) {
        let (whole, failures) = (self.read(name), self.statistic(statistic));
        self.cluster.publish_instead(name, &spoil(&whole), "Envoy refuses it", || {
            self.statistic(statistic) > failures
        });
        serves(&self.cluster.client);
        wait_until("the control plane writes it again", || self.read(name) == whole);
        let is_told =
            || self.cluster.status()["folder"]["trouble"].as_str().unwrap_or_default().contains(name);
        wait_until("the control plane reports the broken file", is_told);
        assert!(self.cluster.miroir_ok(&["status"]).contains("the files have been written again"));
        serves(&self.cluster.client);
    }

    /// Changes the filter's configuration. Checks that the filter refuses it, and that the reported reason contains `wrong`.
    fn misconfigure(&self, change: impl FnOnce(&mut Value), wrong: &str) {
        let mut ecds: Value = serde_json::from_slice(&self.read("ecds.json")).unwrap();
        let value = &mut ecds["resources"][0]["typed_config"]["config"]["configuration"]["value"];
        let mut topology: Value = serde_json::from_str(value.as_str().unwrap()).unwrap();
        topology["version"] = json!(topology["version"].as_u64().unwrap() + 1_000);
        let version = topology["version"].to_string();
        change(&mut topology);
        *value = topology.to_string().into();
        ecds["version_info"] = json!(version);
        let refused = self.statistic("miroir_topologies_refused_total");
        let what = format!("refuses topology {version}: ");
        let ecds = serde_json::to_vec(&ecds).unwrap();
        self.cluster.publish_instead("ecds.json", &ecds, "the control plane hears why", || {
            has_trouble(self.cluster, "gateway-0", "refused", &what)
                && has_trouble(self.cluster, "gateway-0", "refused", wrong)
        });
        serves(&self.cluster.client);
        assert!(self.statistic("miroir_topologies_refused_total") > refused);
        assert!(self.log().contains("the topology is refused: ") && self.log().contains(wrong));
        let status = self.cluster.miroir_ok(&["status"]);
        assert!(status.contains(&format!("gateway-0 {what}")), "{status}");
        assert!(
            control_metrics(self.cluster).contains("miroir_control_gateway_troubles{kind=\"refused\"} 1")
        );
        // The next published topology is accepted.
        self.cluster.client.create(&format!("after-{version}"), "id", &json!({}));
        wait_until("the next topology is accepted", || troubles(self.cluster, "gateway-0").is_empty());
    }
}

pub fn what_is_broken_in_files_is_refused_and_told(cluster: &Sandbox) {
    let files = Files { cluster };
    let half = |whole: &[u8]| whole[..whole.len() / 2].to_vec();
    files.spoil("ecds.json", "extension_config_discovery_http_filter_miroir_update_failure", half);
    files.spoil("cds.json", "cluster_manager_cds_update_failure", half);
    files.spoil("cds.json", "cluster_manager_cds_update_rejected", |whole| {
        let mut clusters: Value = serde_json::from_slice(whole).unwrap();
        let resources = clusters["resources"].as_array_mut().unwrap();
        // The same cluster twice.
        resources.push(resources[0].clone());
        clusters["version_info"] = json!("twice");
        clusters.to_string().into_bytes()
    });
    files.misconfigure(|topology| topology["schema"] = json!(2), "schema: this build reads 1, not 2");
    files.misconfigure(|topology| topology["ofLaterTimes"] = json!(true), "unknown field `ofLaterTimes`");
    let metrics = control_metrics(cluster);
    let mended = metrics.lines().find_map(|line| line.strip_prefix("miroir_control_files_mended_total "));
    assert!(mended.and_then(|count| count.parse::<u64>().ok()) >= Some(3), "{metrics}");
}

/// A control plane, which would write to the folder that gateway-0 watches.
struct Another {
    process: Child,
    _data: TempDir,
}

impl Another {
    fn start(cluster: &Sandbox) -> Self {
        let data = scratch();
        let mut command = Command::new(programs().join("miroir"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--node", &cluster.named("meili-0")]);
        command.arg("--data").arg(data.path()).arg("--publish-dir").arg(cluster.data().join("xds"));
        let process = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        Self { process, _data: data }
    }

    /// Checks that it exits with an error that names the reason.
    fn gives_up(mut self) {
        wait_until("it ends", || self.process.try_wait().unwrap().is_some());
        let output = self.process.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("another control plane uses"), "{said}");
    }
}

pub fn another_control_plane_for_one_folder_gives_up(cluster: &Sandbox) {
    Another::start(cluster).gives_up();
}

/// A gateway has a newer topology than the ledger: the ledger is an older copy, or another control plane publishes to this gateway. The
/// control plane ends, and says so; the next one starts once no gateway has it any more.
pub fn a_gateway_that_hears_another_ends_the_control_plane(cluster: &Sandbox) {
    let secrets = std::fs::read(cluster.data().join("control/secrets.json")).unwrap();
    let secrets: Value = serde_json::from_slice(&secrets).unwrap();
    let newest = cluster.status()["topologyVersion"].as_u64().unwrap() + 1_000;
    let report = json!({"vm": "one", "gateway": "torn", "oldest": newest, "newest": newest});
    let path = format!("{}{}", cluster.address("control"), miroir_core::protocol::REPORT_PATH);
    let secret = secrets["gatewaySecret"].as_str().unwrap();
    // Its answer may be cut off by the end of the process.
    let _ = http().post(path).header(miroir_core::protocol::SECRET_HEADER, secret).json(&report).send();
    wait_until("the control plane ends", || {
        cluster.processes().iter().any(|it| it["name"] == "control" && it["state"] != "running")
    });
    let what = format!("gateway `torn` has the topology {newest}");
    assert!(cluster.logs().contains(&what), "{}", cluster.logs());
    cluster.revive("control");
    wait_until("the cluster is ready", || cluster.client.get("/health").status == 200);
}

/// An Envoy with its own static clusters, without that of the third node. It subscribes only to the filter's configuration, by
/// delta xDS.
fn with_own_clusters(cluster: &Sandbox) -> Envoy {
    let own = |name: &str, process: &str| {
        let address = cluster.address(process);
        let (host, port) = address.trim_start_matches("http://").rsplit_once(':').unwrap();
        let address =
            json!({"socket_address": {"address": host, "port_value": port.parse::<u16>().unwrap()}});
        let endpoints = json!([{"lb_endpoints": [{"endpoint": {"address": address}}]}]);
        let cluster =
            json!({"name": name, "load_assignment": {"cluster_name": name, "endpoints": endpoints}});
        format!("    - {cluster}\n")
    };
    let clusters = [("meili-0", "meili-0"), ("meili-1", "meili-1"), ("miroir_control", "control")];
    let clusters: String = clusters.iter().map(|(name, process)| own(name, process)).collect();
    Envoy::start(|listen, admin, _| {
        let output = Command::new(programs().join("miroir"))
            .args(["bootstrap", "--name", "own-clusters", "--listen", &format!("127.0.0.1:{listen}")])
            .args(["--admin-port", &admin.to_string()])
            .args(["--grpc", cluster.address("control").trim_start_matches("http://")])
            .arg("--data")
            .arg(cluster.data().join("control"))
            .env_remove("MIROIR_SECRET")
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (begin, end) =
            ("dynamic_resources:\n  ads_config:\n", "  cds_config: { resource_api_version: V3, ads: {} }\n");
        let (before, rest) = text.split_once(begin).unwrap();
        let (ads, after) = rest.split_once(end).unwrap();
        let own: Value =
            serde_yaml_ng::from_str(&ads.replace("api_type: GRPC", "api_type: DELTA_GRPC")).unwrap();
        let source = json!({"resource_api_version": "V3", "api_config_source": own}).to_string();
        let text = format!("{before}{after}").replace("{ resource_api_version: V3, ads: {} }", &source);
        text.replacen("  clusters:\n", &format!("  clusters:\n{clusters}"), 1)
    })
}

pub fn a_cluster_that_envoy_lacks_is_told(cluster: &Sandbox) {
    let envoy = with_own_clusters(cluster);
    envoy.wait_ready();
    for _ in 0..5 {
        serves(&envoy.client);
    }
    wait_until("the control plane hears of it", || {
        has_trouble(cluster, "own-clusters", "unreached", "does not reach meili-2: its Envoy does not have")
    });
    assert!(
        cluster.miroir_ok(&["status"]).contains("own-clusters does not reach meili-2: its Envoy does not")
    );
    assert!(control_metrics(cluster).contains("miroir_control_gateway_troubles{kind=\"unreached\"} 1"));
    // Sooner or later, a read uses each node.
    let query = |number: u64| json!({"q": format!("title {number}"), "limit": 100});
    envoy.wait_for_log("callout to cluster meili-2 cannot be sent", |number| {
        assert_eq!(envoy.client.json("POST", SEARCH, &query(number)).status, 200);
    });
    assert!(envoy.prometheus().contains("miroir_callouts_failed_total{node=\"meili-2\"}"));
    let dump = envoy.admin.get("/config_dump?resource=dynamic_active_clusters").body;
    assert!(dump["configs"].is_null(), "it hears of the filter only: {dump}");
}

/// The sidecar of a mesh may rewrite the host header, before a gateway and behind it.
pub fn hosts_may_be_rewritten(mesh: &Mesh) {
    let (cluster, envoy) = (&mesh.cluster, &mesh.managed);
    for host in ["outbound_.7700_._.meilisearch-0.miroir.svc", "127.0.0.1"] {
        let (status, answer) = ask(envoy, host, "POST", SEARCH, &json!({"limit": 100}));
        assert_eq!(status, 200, "{answer}");
        assert_eq!(
            ask(envoy, host, "POST", "/indexes/movies/documents", &json!([{"id": 40, "title": "by gRPC"}])).0,
            202
        );
        for process in ["control", "meili-0"] {
            let request = http().get(format!("{}/indexes", cluster.address(process)));
            let answer = request.header("host", host).bearer_auth(MASTER_KEY).send().unwrap();
            assert_eq!(answer.status(), 200, "{process}");
        }
    }
}
