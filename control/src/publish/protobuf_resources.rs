//! Envoy's resources as protobuf, for gRPC. They are the same as the JSON of [`super::json_resources`].

use super::{FILTER, Snapshot};
use crate::base::{error::Result, tls::UpstreamTls};
use envoy_types::pb::{
    envoy::{
        config::{
            cluster::v3::{
                CircuitBreakers, Cluster, OutlierDetection,
                circuit_breakers::Thresholds,
                cluster::{ClusterDiscoveryType, CommonLbConfig, DiscoveryType},
            },
            core::v3::{
                Address, AsyncDataSource, DataSource, HealthCheck, SocketAddress, TransportSocket,
                TypedExtensionConfig, address, async_data_source, data_source,
                health_check::{HealthChecker, HttpHealthCheck},
                socket_address::PortSpecifier,
                transport_socket::ConfigType,
            },
            endpoint::v3::{
                ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
            },
        },
        extensions::{
            filters::http::wasm::v3::Wasm,
            transport_sockets::tls::v3::{
                CertificateValidationContext, CommonTlsContext, SubjectAltNameMatcher, TlsCertificate,
                UpstreamTlsContext, common_tls_context::ValidationContextType,
                subject_alt_name_matcher::SanType,
            },
            wasm::v3::{FailurePolicy, PluginConfig, VmConfig, plugin_config::Vm},
        },
        r#type::{
            matcher::v3::{StringMatcher, string_matcher::MatchPattern},
            v3::Percent,
        },
    },
    google::protobuf::{Any, BoolValue, Duration, StringValue, UInt32Value},
};
use prost::{Message, Name};
use std::path::Path;

/// A named resource.
#[derive(Clone, Debug)]
pub struct Named {
    /// Its name.
    pub name: String,
    /// The resource.
    pub body: Any,
}

/// The clusters: one for each node, and the control plane's.
#[must_use]
pub fn clusters(snapshot: &Snapshot) -> Vec<Named> {
    let node = |node: &crate::base::config::NodeConfig| {
        let port = node.url.port_or_known_default().unwrap_or(80);
        let host = node.url.host_str().unwrap_or_default();
        let transport_socket = (node.url.scheme() == "https").then(|| tls(host, &snapshot.tls));
        Cluster { transport_socket, ..of_node(cluster(&node.cluster, host, port)) }
    };
    let (host, port) = snapshot.control_address();
    let transport_socket = snapshot.control_tls.as_ref().map(|files| tls(host, files));
    let control = Cluster { transport_socket, ..cluster(&snapshot.control_cluster, host, port) };
    let clusters = snapshot.nodes.iter().map(node).chain([control]);
    clusters.map(|cluster| Named { name: cluster.name.clone(), body: any(&cluster) }).collect()
}

/// The filter with its topology.
///
/// # Errors
/// The topology cannot be written as JSON.
pub fn filter(snapshot: &Snapshot) -> Result<Named> {
    let code = file(Path::new(&snapshot.wasm));
    let vm = VmConfig {
        vm_id: FILTER.to_owned(),
        runtime: "envoy.wasm.runtime.v8".to_owned(),
        code: Some(AsyncDataSource { specifier: Some(async_data_source::Specifier::Local(code)) }),
        ..VmConfig::default()
    };
    let configuration = StringValue { value: serde_json::to_string(&snapshot.topology)? };
    let plugin = PluginConfig {
        name: FILTER.to_owned(),
        root_id: FILTER.to_owned(),
        configuration: Some(any(&configuration)),
        failure_policy: FailurePolicy::FailReload.into(),
        allow_on_headers_stop_iteration: Some(BoolValue { value: true }),
        vm: Some(Vm::VmConfig(vm)),
        ..PluginConfig::default()
    };
    let config = TypedExtensionConfig {
        name: FILTER.to_owned(),
        typed_config: Some(any(&Wasm { config: Some(plugin) })),
    };
    Ok(Named { name: FILTER.to_owned(), body: any(&config) })
}

fn any<M: Message + Name>(message: &M) -> Any {
    Any { type_url: M::type_url(), value: message.encode_to_vec() }
}

fn cluster(name: &str, host: &str, port: u16) -> Cluster {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_ip = host.parse::<std::net::IpAddr>().is_ok();
    let discovery = if is_ip { DiscoveryType::Static } else { DiscoveryType::StrictDns };
    let address = SocketAddress {
        address: host.to_owned(),
        port_specifier: Some(PortSpecifier::PortValue(port.into())),
        ..SocketAddress::default()
    };
    let address = Address { address: Some(address::Address::SocketAddress(address)) };
    let endpoint = Endpoint { address: Some(address), ..Endpoint::default() };
    let endpoint =
        LbEndpoint { host_identifier: Some(HostIdentifier::Endpoint(endpoint)), ..LbEndpoint::default() };
    let endpoints = LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..LocalityLbEndpoints::default() };
    let many = number(100_000);
    // The filter decides what happens after a failure, so Envoy must not queue, reject or retry requests itself.
    let thresholds = Thresholds {
        max_connections: many,
        max_pending_requests: many,
        max_requests: many,
        max_retries: number(0),
        ..Thresholds::default()
    };
    Cluster {
        name: name.to_owned(),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(discovery.into())),
        connect_timeout: Some(milliseconds(1_000)),
        per_connection_buffer_limit_bytes: number(1_048_576),
        circuit_breakers: Some(CircuitBreakers {
            thresholds: vec![thresholds],
            ..CircuitBreakers::default()
        }),
        load_assignment: Some(ClusterLoadAssignment {
            cluster_name: name.to_owned(),
            endpoints: vec![endpoints],
            ..ClusterLoadAssignment::default()
        }),
        ..Cluster::default()
    }
}

/// Adds health checks, outlier detection and load-balancing options to a node's cluster. [`super::json_resources::clusters`]
/// has the reasons.
fn of_node(cluster: Cluster) -> Cluster {
    let health = HttpHealthCheck { path: "/health".to_owned(), ..HttpHealthCheck::default() };
    let health = HealthCheck {
        timeout: Some(milliseconds(1_000)),
        interval: Some(milliseconds(1_000)),
        no_traffic_interval: Some(milliseconds(1_000)),
        unhealthy_interval: Some(milliseconds(250)),
        unhealthy_threshold: number(2),
        healthy_threshold: number(1),
        health_checker: Some(HealthChecker::HttpHealthCheck(health)),
        ..HealthCheck::default()
    };
    let outliers = OutlierDetection {
        consecutive_5xx: number(1_000),
        consecutive_gateway_failure: number(3),
        enforcing_consecutive_gateway_failure: number(100),
        interval: Some(milliseconds(250)),
        base_ejection_time: Some(milliseconds(250)),
        max_ejection_time: Some(milliseconds(250)),
        max_ejection_percent: number(100),
        ..OutlierDetection::default()
    };
    let balancing = CommonLbConfig {
        healthy_panic_threshold: Some(Percent { value: 0.0 }),
        update_merge_window: Some(milliseconds(0)),
        ..CommonLbConfig::default()
    };
    Cluster {
        health_checks: vec![health],
        outlier_detection: Some(outliers),
        common_lb_config: Some(balancing),
        ..cluster
    }
}

/// TLS to a node or to the control plane. The server's certificate must be valid for `host`.
fn tls(host: &str, files: &UpstreamTls) -> TransportSocket {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_ip = host.parse::<std::net::IpAddr>().is_ok();
    let name = SubjectAltNameMatcher {
        san_type: if is_ip { SanType::IpAddress } else { SanType::Dns }.into(),
        matcher: Some(StringMatcher {
            match_pattern: Some(MatchPattern::Exact(host.to_owned())),
            ..StringMatcher::default()
        }),
        ..SubjectAltNameMatcher::default()
    };
    let validation = CertificateValidationContext {
        trusted_ca: Some(file(&files.authorities)),
        match_typed_subject_alt_names: vec![name],
        ..CertificateValidationContext::default()
    };
    let identity = files.identity.as_ref().map(|identity| TlsCertificate {
        certificate_chain: Some(file(identity)),
        private_key: Some(file(identity)),
        ..TlsCertificate::default()
    });
    let context = UpstreamTlsContext {
        sni: if is_ip { String::new() } else { host.to_owned() },
        common_tls_context: Some(CommonTlsContext {
            tls_certificates: identity.into_iter().collect(),
            validation_context_type: Some(ValidationContextType::ValidationContext(validation)),
            ..CommonTlsContext::default()
        }),
        ..UpstreamTlsContext::default()
    };
    TransportSocket {
        name: "envoy.transport_sockets.tls".to_owned(),
        config_type: Some(ConfigType::TypedConfig(any(&context))),
    }
}

fn file(path: &Path) -> DataSource {
    let specifier = data_source::Specifier::Filename(path.display().to_string());
    DataSource { specifier: Some(specifier), ..DataSource::default() }
}

fn number(value: u32) -> Option<UInt32Value> {
    Some(UInt32Value { value })
}

fn milliseconds(value: i32) -> Duration {
    Duration { seconds: (value / 1_000).into(), nanos: value % 1_000 * 1_000_000 }
}
