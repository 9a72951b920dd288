//! Renders Envoy's bootstrap from the samples in `envoy/`.

use crate::{
    base::{
        error::{Error, Result},
        secrets::{self, Secrets},
        tls::UpstreamTls,
    },
    publish::json_resources::tls,
};
use miroir_core::trace::GATEWAY_HEADER;
use serde_json::json;
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// The Envoy cluster of the trace collector.
pub const OTLP_CLUSTER: &str = "otel_collector";

/// The default limit of an Envoy's heap, in bytes.
pub const MAX_HEAP_BYTES: u64 = 2 << 30;

const FILES: &str = include_str!("../../../envoy/filesystem-xds.yaml");
const GRPC: &str = include_str!("../../../envoy/grpc-xds.yaml");

/// Flags of `miroir bootstrap`.
#[derive(Clone, Debug, clap::Args)]
pub struct BootstrapArgs {
    /// The gateway's name; each Envoy needs its own
    #[arg(long, default_value = "gateway-0")]
    pub name: String,
    /// The zone that the gateway is in: with `readZone: prefer`, it reads from nodes there
    #[arg(long)]
    pub zone: Option<String>,
    /// Address on which clients connect
    #[arg(long, default_value = "0.0.0.0:7700")]
    pub listen: SocketAddr,
    /// Port of Envoy's admin interface, on the loopback address
    #[arg(long, default_value_t = 9901)]
    pub admin_port: u16,
    /// Heap size in bytes at which Envoy starts to reject requests; use three quarters of the process's memory limit
    #[arg(long, default_value_t = MAX_HEAP_BYTES)]
    pub max_heap_bytes: u64,
    /// Path, on Envoy's machine, of the folder that `miroir serve --publish-dir` writes
    #[arg(long, default_value = "/etc/miroir/xds", conflicts_with = "grpc")]
    pub xds_dir: PathBuf,
    /// HOST:PORT on which `miroir serve` listens: Envoy gets topology and clusters from there by gRPC. The gateways' secret
    /// comes from MIROIR_SECRET, from the file that MIROIR_SECRET_FILE names, or from --data
    #[arg(long)]
    pub grpc: Option<String>,
    /// Authorities (PEM) with which Envoy verifies the control plane; a path on Envoy's machine. Turns on TLS for gRPC
    #[arg(long, requires = "grpc")]
    pub grpc_ca: Option<PathBuf>,
    /// Client certificate of Envoy for the control plane (mTLS), with its key in the same file (PEM); a path on Envoy's machine
    #[arg(long, requires = "grpc_ca")]
    pub grpc_identity: Option<PathBuf>,
    /// HOST:PORT of a trace collector (OTLP over HTTP). Envoy starts a trace for each request; the filter adds spans to it if
    /// `miroir serve` has --tracing-cluster otel_collector
    #[arg(long)]
    pub otlp: Option<String>,
    /// The control plane's data folder
    #[arg(long, env = "MIROIR_DATA")]
    pub data: Option<PathBuf>,
}

/// Renders the bootstrap for these flags.
///
/// # Errors
/// The secret is missing, or an address is invalid.
pub fn of(args: &BootstrapArgs) -> Result<String> {
    let secret;
    let (authorities, identity) = (args.grpc_ca.clone(), args.grpc_identity.clone());
    let tls = authorities.map(|authorities| UpstreamTls { authorities, identity });
    let source = match &args.grpc {
        None => Source::Files(&args.xds_dir),
        Some(address) => {
            let (host, port) = host_and_port("--grpc", address)?;
            let given = secrets::given("MIROIR_SECRET", |name| std::env::var(name).ok())?;
            secret = match (given, &args.data) {
                (Some(secret), _) => secret,
                (_, Some(data)) => Secrets::read(data)?.gateway_secret,
                _ => {
                    let error = "--grpc: the gateways' secret is missing: set MIROIR_SECRET or --data";
                    return Err(Error::Config(vec![error.to_owned()]));
                }
            };
            Source::Grpc { host, port, secret: &secret, tls: tls.as_ref() }
        }
    };
    let bootstrap = Bootstrap {
        name: &args.name,
        zone: args.zone.as_deref(),
        listen: args.listen,
        admin_port: args.admin_port,
        max_heap_bytes: args.max_heap_bytes,
        source,
        otlp: args.otlp.as_deref().map(|address| host_and_port("--otlp", address)).transpose()?,
        no_filter: false,
    };
    Ok(bootstrap.render())
}

/// Reads `HOST:PORT`.
///
/// # Errors
/// The address is not `HOST:PORT`.
pub fn host_and_port<'a>(flag: &str, address: &'a str) -> Result<(&'a str, &'a str)> {
    let parts = address.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok());
    parts.ok_or_else(|| Error::Config(vec![format!("{flag}: `{address}` must be HOST:PORT")]))
}

/// The parameters of a gateway's bootstrap.
#[derive(Clone, Debug)]
pub struct Bootstrap<'a> {
    /// Its name.
    pub name: &'a str,
    /// Where it is, if that is known.
    pub zone: Option<&'a str>,
    /// Address on which clients connect.
    pub listen: SocketAddr,
    /// The port of Envoy's admin interface.
    pub admin_port: u16,
    /// The heap size in bytes at which Envoy starts to reject requests.
    pub max_heap_bytes: u64,
    /// Where Envoy gets topology and clusters.
    pub source: Source<'a>,
    /// Host and port of a trace collector.
    pub otlp: Option<(&'a str, &'a str)>,
    /// Whether to leave the filter out.
    pub no_filter: bool,
}

/// Where Envoy gets topology and clusters.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// The folder that the control plane publishes to.
    Files(&'a Path),
    /// The control plane, by gRPC.
    Grpc {
        /// Its host.
        host: &'a str,
        /// Its port.
        port: &'a str,
        /// The gateways' secret.
        secret: &'a str,
        /// TLS to it; `None` for plain gRPC.
        tls: Option<&'a UpstreamTls>,
    },
}

impl Bootstrap<'_> {
    /// Renders the bootstrap as YAML.
    #[must_use]
    pub fn render(&self) -> String {
        let (sample, source) = match self.source {
            Source::Files(folder) => (FILES, vec![("${XDS_DIR}", folder.display().to_string())]),
            Source::Grpc { host, port, secret, .. } => {
                let values = [("${CONTROL_HOST}", host), ("${CONTROL_PORT}", port), ("${SECRET}", secret)];
                (GRPC, values.map(|(name, value)| (name, value.to_owned())).to_vec())
            }
        };
        let sample = if self.no_filter { without_filter(sample) } else { sample.to_owned() };
        let sample = match self.source {
            Source::Grpc { host, tls: Some(files), .. } => with_tls(&sample, host, files),
            _ => sample,
        };
        let sample = match self.zone {
            Some(zone) => with_zone(&sample, zone),
            None => sample,
        };
        let sample = match self.otlp {
            Some((host, port)) => with_tracing(&sample, host, port),
            None => sample,
        };
        let text = sample
            .lines()
            // Drop comments: they name the placeholders too.
            .filter(|line| !line.trim_start().starts_with('#'))
            .collect::<Vec<_>>()
            .join("\n");
        [
            ("${NODE_ID}", self.name.to_owned()),
            ("${LISTEN_ADDRESS}", self.listen.ip().to_string()),
            ("${LISTEN_PORT}", self.listen.port().to_string()),
            ("${ADMIN_PORT}", self.admin_port.to_string()),
            ("${MAX_HEAP_BYTES}", self.max_heap_bytes.to_string()),
        ]
        .into_iter()
        .chain(source)
        .fold(text, |text, (placeholder, value)| text.replace(placeholder, &value))
    }
}

/// Adds the locality to the node of the sample.
fn with_zone(sample: &str, zone: &str) -> String {
    let before = "node:\n";
    sample.replacen(before, &format!("{before}  locality: {}\n", json!({"zone": zone})), 1)
}

/// Inserts a TLS socket into the sample as JSON, which is valid YAML.
fn with_tls(sample: &str, host: &str, files: &UpstreamTls) -> String {
    let socket = format!("      transport_socket: {}\n", tls(host, files));
    let before = "      load_assignment:\n        cluster_name: miroir_xds\n";
    sample.replacen(before, &format!("{socket}{before}"), 1)
}

/// Adds tracing to the sample, and a filter that passes Envoy's span to Miroir's filter in a header. Without it, Envoy passes
/// its spans to upstreams only.
fn with_tracing(sample: &str, host: &str, port: &str) -> String {
    let uri = format!("http://{host}:{port}/v1/traces");
    let provider = json!({
        "name": "envoy.tracers.opentelemetry",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.config.trace.v3.OpenTelemetryConfig",
            "service_name": "envoy",
            "http_service": {"http_uri": {"uri": uri, "cluster": OTLP_CLUSTER, "timeout": "5s"}}
        }
    });
    let header = json!({"key": GATEWAY_HEADER, "value": "00-%TRACE_ID%-%SPAN_ID%-01"});
    let filter = json!({
        "name": "span",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.header_mutation.v3.HeaderMutation",
            "mutations": {"request_mutations": [
                {"append": {"header": header, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}}
            ]}
        }
    });
    let address =
        json!({"socket_address": {"address": host, "port_value": port.parse::<u16>().unwrap_or(4318)}});
    let cluster = json!({
        "name": OTLP_CLUSTER,
        "type": "STRICT_DNS",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": OTLP_CLUSTER,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
        }
    });
    let (prefix, filters) = ("                stat_prefix: miroir\n", "                http_filters:\n");
    let sample = sample.replacen(
        prefix,
        &format!("{prefix}                tracing: {}\n", json!({"provider": provider})),
        1,
    );
    let sample = sample.replacen(filters, &format!("{filters}                  - {filter}\n"), 1);
    let clusters = "  clusters:\n";
    match sample.contains(clusters) {
        true => sample.replacen(clusters, &format!("{clusters}    - {cluster}\n"), 1),
        false => format!("{}\n{clusters}    - {cluster}\n", sample.trim_end()),
    }
}

fn without_filter(sample: &str) -> String {
    let start = sample.find("                  - name: miroir\n");
    let end = sample.find("                  - name: envoy.filters.http.router\n");
    match (start, end) {
        (Some(start), Some(end)) => {
            let mut text = sample.to_owned();
            text.replace_range(start..end, "");
            text
        }
        _ => sample.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_idle_for_longer_than_writes_wait() {
        let limits = miroir_core::topology::Limits::default();
        let longest = 2 * limits.control_timeout_ms + limits.write_timeout_ms;
        for sample in [FILES, GRPC] {
            let seconds = sample.lines().find_map(|line| {
                let value = line.trim().strip_prefix("stream_idle_timeout: ")?;
                value.strip_suffix('s')?.parse::<u64>().ok()
            });
            assert!(seconds.is_some_and(|seconds| seconds * 1_000 > longest), "{seconds:?} s, {longest} ms");
        }
    }

    #[test]
    fn everything_is_filled_in() {
        let mut bootstrap = Bootstrap {
            name: "gateway-0",
            zone: None,
            listen: "127.0.0.1:7700".parse().unwrap(),
            admin_port: 9901,
            max_heap_bytes: MAX_HEAP_BYTES,
            source: Source::Files(Path::new("/data/xds")),
            otlp: None,
            no_filter: false,
        };
        let text = bootstrap.render();
        assert!(!text.contains("${"), "{text}");
        let read: serde_json::Value = serde_yaml_ng::from_str(&text).unwrap();
        let filters = |read: &serde_json::Value| {
            let chain = &read["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0];
            chain["typed_config"]["http_filters"].as_array().unwrap().len()
        };
        assert_eq!(filters(&read), 4);
        assert_eq!(
            read["dynamic_resources"]["cds_config"]["path_config_source"]["path"],
            "/data/xds/cds.json"
        );
        assert!(read["node"]["locality"].is_null());
        let zoned = Bootstrap { zone: Some("eu: 1"), ..bootstrap.clone() }.render();
        let read: serde_json::Value = serde_yaml_ng::from_str(&zoned).unwrap();
        assert_eq!(
            read["node"],
            json!({"id": "gateway-0", "cluster": "miroir", "locality": {"zone": "eu: 1"}})
        );
        bootstrap.source = Source::Grpc { host: "control", port: "7799", secret: "s", tls: None };
        let grpc = bootstrap.render();
        assert!(!grpc.contains("${"), "{grpc}");
        assert_eq!(filters(&serde_yaml_ng::from_str(&grpc).unwrap()), 4);
        let files = UpstreamTls { authorities: "/certs/ca.pem".into(), identity: None };
        bootstrap.source = Source::Grpc { host: "control", port: "7799", secret: "s", tls: Some(&files) };
        let read: serde_json::Value = serde_yaml_ng::from_str(&bootstrap.render()).unwrap();
        assert_eq!(
            read["static_resources"]["clusters"][0]["transport_socket"]["typed_config"]["sni"],
            "control"
        );
        for (source, clusters) in [(bootstrap.source, 2), (Source::Files(Path::new("/data/xds")), 1)] {
            let traced = Bootstrap { source, otlp: Some(("collector", "4318")), ..bootstrap.clone() };
            let read: serde_json::Value = serde_yaml_ng::from_str(&traced.render()).unwrap();
            assert_eq!(filters(&read), 5);
            let resources = &read["static_resources"];
            assert_eq!(resources["clusters"].as_array().unwrap().len(), clusters);
            assert_eq!(resources["clusters"][0]["name"], OTLP_CLUSTER);
            let manager = &resources["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"];
            assert!(
                manager["tracing"]["provider"].is_object() && manager["http_filters"][0]["name"] == "span"
            );
        }
        bootstrap.no_filter = true;
        assert_eq!(filters(&serde_yaml_ng::from_str(&bootstrap.render()).unwrap()), 3);
    }
}
