//! Envoys of the user: one with a static configuration, which also serves other hosts, and one that is configured by gRPC.

mod bad_input;
mod envoy;
mod limits;
mod tls;
mod traces;

use crate::fixtures::{ClusterChecks, HasCluster};
pub use envoy::Envoy;
use envoy::prometheus;
use miroir_tests::{
    Client, MASTER_KEY, Options, Sandbox, free_port, http, programs,
    trials::{Fixture, Trials},
    wait_until,
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    process::Command,
    sync::{Arc, Mutex},
};
use traces::Collector;

/// A fake node that passes health checks but fails all other requests. Returns its port, and the heads of the requests.
fn failing_node() -> (u16, Arc<Mutex<Vec<String>>>) {
    let port = free_port();
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    let heads = Arc::new(Mutex::new(Vec::new()));
    let asked = heads.clone();
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { return };
            let (mut head, mut buffer) = (Vec::new(), [0; 4096]);
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                match connection.read(&mut buffer) {
                    Ok(read) if read > 0 => head.extend_from_slice(&buffer[..read]),
                    _ => break,
                }
            }
            let head = String::from_utf8_lossy(&head).to_lowercase();
            let is_check = head.starts_with("get /health ");
            let status = if is_check { "200 OK" } else { "500 Internal Server Error" };
            let _ = write!(connection, "HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            if !is_check {
                asked.lock().unwrap().push(head);
            }
        }
    });
    (port, heads)
}

const PLACEMENT: &str = r#""placement": [[0, 1], [1, 2], [2, 0], [0, 1]],"#;

/// An Envoy with the sample configuration without a control plane. It uses the cluster's first two nodes, and another node in
/// place of the third. The cluster is served below a path prefix.
fn unmanaged(cluster: &Sandbox, third: u16, collector: &Collector) -> Envoy {
    let ecds = std::fs::read(cluster.published("ecds.json")).unwrap();
    let ecds: Value = serde_json::from_slice(&ecds).unwrap();
    let topology = ecds["resources"][0]["typed_config"]["config"]["configuration"]["value"].as_str().unwrap();
    let topology: Value = serde_json::from_str(topology).unwrap();
    let port = |node: &str| cluster.address(node).rsplit(':').next().unwrap().to_owned();
    Envoy::start(|listen, admin, folder| {
        let sample = include_str!("../../../../envoy/static.yaml");
        assert!(sample.contains(PLACEMENT));
        let path = |path: &Path| path.display().to_string();
        [
            (
                PLACEMENT,
                format!(
                    "\"placement\": {}, \"pathPrefix\": \"/ms\", \"fanOut\": \"spread\", \"tracing\": {{\"cluster\": \"otlp\"}},",
                    topology["placement"]
                ),
            ),
            ("  clusters:\n", format!("  clusters:\n    - {}\n", collector.cluster("otlp"))),
            ("${LISTEN_ADDRESS}", "127.0.0.1".to_owned()),
            ("${LISTEN_PORT}", listen.to_string()),
            ("${ADMIN_PORT}", admin.to_string()),
            ("${MAX_HEAP_BYTES}", "2147483648".to_owned()),
            ("${WASM}", path(&programs().join("../wasm32-wasip1/release/miroir_filter.wasm"))),
            ("${ACCESS_LOG}", path(&folder.join("access.log"))),
            ("${NODE_0_HOST}", "127.0.0.1".to_owned()),
            ("${NODE_1_HOST}", "127.0.0.1".to_owned()),
            ("${NODE_2_HOST}", "127.0.0.1".to_owned()),
            ("${NODE_0_PORT}", port("meili-0")),
            ("${NODE_1_PORT}", port("meili-1")),
            ("${NODE_2_PORT}", third.to_string()),
        ]
        .into_iter()
        .fold(sample.to_owned(), |text, (from, to)| text.replace(from, &to))
    })
}

/// The bootstrap that `miroir bootstrap` prints.
pub fn bootstrap(cluster: &Sandbox, name: &str, (listen, admin): (u16, u16), more: &[&str]) -> String {
    let output = Command::new(programs().join("miroir"))
        .args(["bootstrap", "--name", name, "--listen", &format!("127.0.0.1:{listen}")])
        .args(["--admin-port", &admin.to_string()])
        .args(["--grpc", cluster.address("control").trim_start_matches("http://")])
        .args(more)
        .arg("--data")
        .arg(cluster.data().join("control"))
        .env_remove("MIROIR_SECRET")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// An Envoy with the bootstrap of `miroir bootstrap`.
fn managed(cluster: &Sandbox, collector: &Collector) -> Envoy {
    Envoy::start(|listen, admin, _| {
        bootstrap(cluster, "by-grpc", (listen, admin), &["--otlp", collector.address()])
    })
}

/// Sends a request with a host header.
fn ask(envoy: &Envoy, host: &str, method: &str, path: &str, body: &Value) -> (u16, String) {
    let request = http()
        .request(method.parse().unwrap(), format!("{}{path}", envoy.client.url()))
        .header("host", host)
        .header("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
        .bearer_auth(MASTER_KEY)
        .json(body);
    let answer = request.send().unwrap();
    (answer.status().as_u16(), answer.text().unwrap())
}

const HOST: &str = "search.example.com";
const SEARCH: &str = "/ms/indexes/movies/search";

/// The clusters that an Envoy got from its control plane, from its configuration dump.
fn clusters(admin: &Client) -> BTreeSet<String> {
    let dump = admin.get("/config_dump?resource=dynamic_active_clusters").body;
    let configs = dump["configs"].as_array().unwrap().iter();
    configs.map(|config| config["cluster"].to_string()).collect()
}

fn no_secret_is_logged(cluster: &Sandbox) {
    let secrets = std::fs::read(cluster.data().join("control/secrets.json")).unwrap();
    let secrets: Value = serde_json::from_slice(&secrets).unwrap();
    let secrets: Vec<&str> = secrets.as_object().unwrap().values().filter_map(Value::as_str).collect();
    assert!(secrets.len() >= 3 && secrets.contains(&MASTER_KEY), "{}", secrets.len());
    let logs = std::fs::read_dir(cluster.data().join("logs")).unwrap();
    for path in logs.map(|entry| entry.unwrap().path()) {
        let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned();
        assert!(!secrets.iter().any(|secret| text.contains(secret)), "{}", path.display());
    }
}

/// Checks that Envoy's administration interface and the files for Envoy contain no other secrets than those that a gateway
/// needs.
fn only_gateways_own_secrets_are_shown(mesh: &Mesh) {
    let Mesh { cluster, managed, .. } = mesh;
    let secrets = std::fs::read(cluster.data().join("control/secrets.json")).unwrap();
    let secrets: Value = serde_json::from_slice(&secrets).unwrap();
    let own = secrets["gatewaySecret"].as_str().unwrap();
    let keys = cluster.node(0).get("/keys?limit=1000").body["results"].as_array().unwrap().clone();
    let (read, others): (Vec<_>, Vec<_>) = keys.iter().partition(|key| key["name"] == "miroir:read");
    let key = |key: &Value| key["key"].as_str().unwrap().to_owned();
    let mut hidden: Vec<String> = others.into_iter().map(key).collect();
    assert!(
        keys.iter().any(|key| key["name"].as_str().is_some_and(|name| name.starts_with("miroir:epoch"))),
        "{keys:?}"
    );
    hidden.extend(["masterKey", "adminToken"].map(|name| secrets[name].as_str().unwrap().to_owned()));
    let dump = |admin: &Client| admin.get("/config_dump").body.to_string();
    let file = |name: &str| std::fs::read_to_string(cluster.published(name)).unwrap();
    for shown in [dump(&cluster.admin(0)), dump(&managed.admin), file("ecds.json") + &file("cds.json")] {
        assert!(shown.contains(own) && shown.contains(&key(read[0])), "{}", shown.len());
        assert!(!hidden.iter().any(|secret| shown.contains(secret)));
    }
}

/// The metrics of the control plane.
fn control_metrics(cluster: &Sandbox) -> String {
    let secrets = std::fs::read(cluster.data().join("control/secrets.json")).unwrap();
    let secrets: Value = serde_json::from_slice(&secrets).unwrap();
    let request = http().get(format!("{}/_miroir/metrics", cluster.address("control")));
    let answer = request.bearer_auth(secrets["adminToken"].as_str().unwrap()).send().unwrap();
    assert_eq!(answer.status(), 200);
    answer.text().unwrap()
}

/// The statistics that the dashboard and the alerts use.
fn named() -> BTreeSet<String> {
    let files = [
        include_str!("../../../../envoy/observability/alerts.yaml"),
        include_str!("../../../../envoy/observability/dashboard.json"),
    ];
    let words = files.iter().flat_map(|text| text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_'));
    words
        .filter(|word| word.starts_with("miroir_") || word.starts_with("envoy_"))
        .map(str::to_owned)
        .collect()
}

/// A cluster with Envoys of both kinds.
pub struct Mesh {
    collector: Collector,
    cluster: Sandbox,
    /// Has a node that fails in place of the cluster's third, until Envoy takes it out of the list.
    unmanaged: Envoy,
    /// Heads of what the node that fails was asked.
    heads: Arc<Mutex<Vec<String>>>,
    managed: Envoy,
}

impl Mesh {
    /// With 41 documents, the last of which has come through the Envoy that hears by gRPC.
    fn start() -> Self {
        let collector = Collector::start();
        let options = Options { shards: 4, otlp: Some(collector.address()), ..Options::default() };
        let cluster = Sandbox::start(options);
        let (third, heads) = failing_node();
        cluster.client.create("movies", "id", &json!({"filterableAttributes": ["id"]}));
        let document = |id: u64| json!({"id": id, "title": format!("title {id}")});
        cluster.client.add("movies", &json!((0..40).map(document).collect::<Vec<_>>()));
        // Start all Envoys concurrently.
        let (unmanaged, managed) = (unmanaged(&cluster, third, &collector), managed(&cluster, &collector));
        let expected = cluster.client.search("movies", &json!({"limit": 100}))["hits"].clone();
        assert_eq!(expected.as_array().unwrap().len(), 40);
        managed.wait_ready();
        assert_eq!(managed.client.search("movies", &json!({"limit": 100}))["hits"], expected);
        managed.client.add("movies", &json!([{"id": 40, "title": "by gRPC"}]));
        assert_eq!(cluster.client.count("movies"), 41);
        unmanaged.wait_for("the unmanaged Envoy reaches its nodes", |envoy| {
            // Envoy may not listen yet.
            envoy.client.try_send("GET", "/", None, Vec::new()).is_ok()
                && ask(envoy, HOST, "POST", SEARCH, &json!({"limit": 100})).0 == 200
        });
        Self { collector, cluster, unmanaged, heads, managed }
    }
}

impl Fixture for Mesh {
    fn logs(&self) -> String {
        let (unmanaged, managed) = (self.unmanaged.log(), self.managed.log());
        format!(
            "{}\nthe unmanaged Envoy said:\n{unmanaged}\nthe managed one:\n{managed}",
            self.cluster.logs()
        )
    }
}

impl HasCluster for Mesh {
    fn cluster(&self) -> &Sandbox {
        &self.cluster
    }
}

pub fn trials(trials: &mut Trials) {
    trials
        .sharing(Mesh::start)
        // Before Envoy takes that node out of the list.
        .check(25, traces::a_node_that_fails_and_its_stand_in_are_spans)
        .check(1, traces::a_request_is_one_trace_below_envoys_own_span)
        .check(1, an_envoy_without_a_control_plane_reads_for_one_host)
        .check(1, an_envoy_hears_news_by_grpc)
        .of_cluster(13, limits::clients_that_stop_talking_are_let_go)
        .check(1, only_gateways_own_secrets_are_shown)
        .check(1, bad_input::hosts_may_be_rewritten)
        .of_cluster(9, bad_input::a_cluster_that_envoy_lacks_is_told)
        .of_cluster(2, bad_input::what_is_broken_in_files_is_refused_and_told)
        .of_cluster(3, bad_input::another_control_plane_for_one_folder_gives_up)
        .of_cluster(6, bad_input::a_gateway_that_hears_another_ends_the_control_plane)
        // It kills a node.
        .check(1, what_is_missing_is_told_and_counted);
    trials.alone(12, tls::nothing_is_said_in_plain_text_nor_to_strangers);
}

fn an_envoy_hears_news_by_grpc(mesh: &Mesh) {
    let Mesh { cluster, managed, .. } = mesh;
    let all = |client: &Client| client.search("movies", &json!({"limit": 100}))["hits"].clone();
    assert_eq!(all(&managed.client), all(&cluster.client));
    assert_eq!(clusters(&managed.admin), clusters(&cluster.admin(0)));
    cluster.client.create("more", "id", &json!({}));
    wait_until("the control plane hears that Envoy has the newest topology", || {
        let status = cluster.status();
        let newest = status["topologyVersion"].to_string();
        status["subscribers"].as_array().is_some_and(|all| {
            assert!(all.iter().all(|one| one["refused"].is_null()), "{all:?}");
            all.iter()
                .any(|one| one["name"] == "by-grpc" && one["accepted"]["filter"].as_str() == Some(&*newest))
        })
    });
    assert!(cluster.miroir_ok(&["status"]).contains("by-grpc by gRPC has clusters"));
}

/// The node that fails is stood in for.
fn an_envoy_without_a_control_plane_reads_for_one_host(mesh: &Mesh) {
    let unmanaged = &mesh.unmanaged;
    let whole = ask(unmanaged, HOST, "POST", SEARCH, &json!({"limit": 100}));
    let whole: Value = serde_json::from_str(&whole.1).unwrap();
    assert_eq!(whole["hits"].as_array().unwrap().len(), 41);
    assert_eq!(ask(unmanaged, HOST, "POST", "/ms/indexes/movies/documents", &json!([{"id": 1}])).0, 503);
    let beside = ask(unmanaged, HOST, "POST", "/indexes/movies/search", &json!({}));
    assert_eq!(beside, (503, "This cluster is read-only.".to_owned()));
    let other = ask(unmanaged, "www.example.com", "POST", SEARCH, &json!({}));
    assert_eq!(other, (200, "not Miroir's".to_owned()));

    // The content of access logs.
    unmanaged.wait_for("the access log has the last request", |envoy| {
        let log = std::fs::read_to_string(envoy.folder.path().join("access.log")).unwrap_or_default();
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let lines: Vec<Value> = lines.collect();
        let is = |line: &Value, operation: Value| line["operation"] == operation;
        lines.iter().any(|line| {
            is(line, json!("search"))
                && line["index"] == "movies"
                && line["nodes"].as_str().unwrap().contains("meili-2")
        }) && lines.last().is_some_and(|line| is(line, Value::Null) && line["status"] == 200)
    });
}

/// Some shards have no replica: answers are partial, and the missing shards are counted.
fn what_is_missing_is_told_and_counted(mesh: &Mesh) {
    let Mesh { cluster, unmanaged, .. } = mesh;
    let whole = ask(unmanaged, HOST, "POST", SEARCH, &json!({"limit": 100}));
    cluster.kill("meili-1");
    unmanaged.wait_for("the answer is partial", |envoy| {
        ask(envoy, HOST, "POST", SEARCH, &json!({"limit": 100})).1.len() < whole.1.len()
    });
    unmanaged.wait_for("the access log has what is missing", |envoy| {
        let log = std::fs::read_to_string(envoy.folder.path().join("access.log")).unwrap_or_default();
        log.lines().any(|line| line.contains(r#""missing_shards":""#))
    });
    no_secret_is_logged(cluster);
    assert!(
        unmanaged.prometheus().contains("miroir_requests_total{operation=\"search\",outcome=\"partial\"}")
    );
    let without_token = http().get(format!("{}/_miroir/metrics", cluster.address("control"))).send().unwrap();
    assert_eq!(without_token.status(), 403);
    let control = control_metrics(cluster);
    // Envoy shows histograms only after its next flush.
    unmanaged.wait_for("every statistic that dashboard and alerts name is there", |envoy| {
        let all = envoy.prometheus() + &control;
        let is_there = |name: &String| {
            all.lines()
                .any(|line| line.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with([' ', '{'])))
        };
        let missing: Vec<String> = named().into_iter().filter(|name| !is_there(name)).collect();
        let later = ["miroir_callout_milliseconds", "miroir_fan_out_nodes", "miroir_merge_microseconds"];
        let lost = missing.iter().find(|name| later.iter().all(|later| !name.starts_with(later)));
        assert_eq!(lost, None, "{all}");
        missing.is_empty()
    });
}
