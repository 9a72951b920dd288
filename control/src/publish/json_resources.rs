//! Envoy's resources as JSON. The names come from Envoy 1.40's API reference (`envoy.config.cluster.v3.Cluster`,
//! `envoy.extensions.filters.http.wasm.v3.Wasm`, `envoy.service.discovery.v3.DiscoveryResponse`).

use super::Snapshot;
use crate::base::{error::Result, tls::UpstreamTls};
use serde_json::{Value, json};

/// The type of a cluster resource.
const CLUSTER: &str = "type.googleapis.com/envoy.config.cluster.v3.Cluster";
/// The type of a named extension's configuration.
const EXTENSION: &str = "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig";
/// The type of TLS to an upstream.
const UPSTREAM_TLS: &str = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext";
/// The type of the filter's configuration.
const WASM: &str = "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm";

/// `cds.json`: one cluster for each node, and the control plane's cluster.
#[must_use]
pub fn clusters(snapshot: &Snapshot) -> Value {
    let mut resources: Vec<Value> = snapshot
        .nodes
        .iter()
        .map(|node| {
            let port = node.url.port_or_known_default().unwrap_or(80);
            let host = node.url.host_str().unwrap_or_default();
            let mut cluster = cluster(&node.cluster, host, port, true);
            if node.url.scheme() == "https" {
                cluster["transport_socket"] = tls(host, &snapshot.tls);
            }
            cluster
        })
        .collect();
    let (host, port) = snapshot.control_address();
    let mut control = cluster(&snapshot.control_cluster, host, port, false);
    if let Some(files) = &snapshot.control_tls {
        control["transport_socket"] = tls(host, files);
    }
    resources.push(control);
    json!({"version_info": snapshot.topology.version.to_string(), "type_url": CLUSTER, "resources": resources})
}

fn cluster(name: &str, host: &str, port: u16, node: bool) -> Value {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_ip = host.parse::<std::net::IpAddr>().is_ok();
    // The filter decides what happens after a failure, so Envoy must not queue, reject or retry requests itself.
    let thresholds = json!({
        "max_connections": 100_000, "max_pending_requests": 100_000, "max_requests": 100_000, "max_retries": 0
    });
    let mut cluster = json!({
        "@type": CLUSTER,
        "name": name,
        "type": if is_ip { "STATIC" } else { "STRICT_DNS" },
        "connect_timeout": "1s",
        "per_connection_buffer_limit_bytes": 1_048_576,
        "circuit_breakers": {"thresholds": [thresholds]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {
                "address": {"socket_address": {"address": host, "port_value": port}}
            }}]}]
        }
    });
    if node && let Some(cluster) = cluster.as_object_mut() {
        cluster.insert(
            "health_checks".to_owned(),
            json!([{
                "timeout": "1s", "interval": "1s", "no_traffic_interval": "1s", "unhealthy_interval": "0.25s",
                "unhealthy_threshold": 2, "healthy_threshold": 1,
                "http_health_check": {"path": "/health"}
            }]),
        );
        cluster.insert(
            "outlier_detection".to_owned(),
            json!({
                "consecutive_5xx": 1000, "consecutive_gateway_failure": 3, "enforcing_consecutive_gateway_failure": 100,
                "interval": "0.25s", "base_ejection_time": "0.25s", "max_ejection_time": "0.25s", "max_ejection_percent": 100
            }),
        );
        // Each cluster has one endpoint, so panic mode would send requests to a node that is known to be unreachable. Without a
        // merge window, workers learn at once that a node is back; by default Envoy collects such updates for a second.
        cluster.insert(
            "common_lb_config".to_owned(),
            json!({"healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"}),
        );
    }
    cluster
}

/// TLS to a node or to the control plane. The server's certificate must be valid for `host`.
pub(crate) fn tls(host: &str, files: &UpstreamTls) -> Value {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let is_ip = host.parse::<std::net::IpAddr>().is_ok();
    let mut common = json!({"validation_context": {
        "trusted_ca": {"filename": files.authorities},
        "match_typed_subject_alt_names": [
            {"san_type": if is_ip { "IP_ADDRESS" } else { "DNS" }, "matcher": {"exact": host}}
        ]
    }});
    if let Some(identity) = &files.identity {
        common["tls_certificates"] =
            json!([{"certificate_chain": {"filename": identity}, "private_key": {"filename": identity}}]);
    }
    let mut context = json!({"@type": UPSTREAM_TLS, "common_tls_context": common});
    if !is_ip {
        context["sni"] = json!(host);
    }
    json!({"name": "envoy.transport_sockets.tls", "typed_config": context})
}

/// `ecds.json`: the filter with its topology.
///
/// # Errors
/// The topology cannot be written as JSON.
pub fn filter(snapshot: &Snapshot) -> Result<Value> {
    Ok(json!({
        "version_info": snapshot.topology.version.to_string(),
        "type_url": EXTENSION,
        "resources": [extension(snapshot)?]
    }))
}

/// The filter with its topology, as one resource.
///
/// # Errors
/// The topology cannot be written as JSON.
pub fn extension(snapshot: &Snapshot) -> Result<Value> {
    // The mesh's agent downloads the module and gives Envoy a file.
    let is_remote = ["oci://", "http://", "https://"].iter().any(|scheme| snapshot.wasm.starts_with(scheme));
    let code = if is_remote {
        json!({"remote": {"http_uri": {"uri": snapshot.wasm}}})
    } else {
        json!({"local": {"filename": snapshot.wasm}})
    };
    Ok(json!({
        "@type": EXTENSION,
        "name": super::FILTER,
        "typed_config": {
            "@type": WASM,
            "config": {
                "name": super::FILTER,
                "root_id": super::FILTER,
                "vm_config": {"vm_id": super::FILTER, "runtime": "envoy.wasm.runtime.v8", "code": code},
                "configuration": {
                    "@type": "type.googleapis.com/google.protobuf.StringValue",
                    "value": serde_json::to_string(&snapshot.topology)?
                },
                "failure_policy": "FAIL_RELOAD",
                "allow_on_headers_stop_iteration": true
            }
        }
    }))
}
