//! `GET /_miroir/metrics`: the metrics of the control plane, in Prometheus' format. Envoy has the metrics of searches and
//! writes.

use super::{
    Shared,
    admin::{Status, require_token},
};
use crate::base::error::Result;
use axum::{
    http::HeaderMap,
    response::{IntoResponse, Response},
};
use std::fmt::Write;

/// Prometheus' text format.
const CONTENT_TYPE: (&str, &str) = ("content-type", "text/plain; version=0.0.4; charset=utf-8");

/// `GET /_miroir/metrics`. It needs the admin token, in its own header or as a bearer token, which Prometheus can send.
///
/// # Errors
/// The token is wrong.
pub async fn metrics(cluster: Shared, headers: HeaderMap) -> Result<Response> {
    require_token(&cluster, &headers)?;
    Ok(([CONTENT_TYPE], render(&Status::of(&cluster))).into_response())
}

/// A status in Prometheus' text format.
#[must_use]
pub fn render(status: &Status) -> String {
    let mut text = String::new();
    let mut family = |name: &str, kind: &str, help: &str, samples: Vec<(String, u64)>| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let number = |value: usize| u64::try_from(value).unwrap_or(u64::MAX);
    let refusing = status.subscribers.iter().filter(|subscriber| subscriber.refused.is_some()).count();
    let alone = |value: u64| vec![(String::new(), value)];
    for (name, help, value) in [
        ("ready", "Clients can be served.", u64::from(status.ready)),
        ("topology_version", "Version of the topology.", status.topology_version),
        ("indexes", "Indexes in the catalogue.", number(status.indexes)),
        ("shards", "Shards.", number(status.shards)),
        (
            "shards_missing",
            "Shards without an active replica on a node that answers.",
            number(status.shards_missing),
        ),
        ("replicas_stale", "Replicas that have missed a write to some index.", number(status.replicas_stale)),
        ("replicas_missing", "Replicas that must be created or repaired.", number(status.replicas_missing)),
        ("replicas_surplus", "Copies that will be deleted.", number(status.replicas_surplus)),
        ("open_writes", "Writes that have begun and are not decided.", number(status.open_writes)),
        ("waiting_mutations", "Mutations that wait for locks.", number(status.waiting)),
        ("unsettled_tasks", "Tasks that nodes have not ended.", number(status.unsettled_tasks)),
        ("gateway_workers", "Workers of gateways that have a lease.", number(status.gateways.len())),
        (
            "subscribers",
            "Clients that subscribe to the topology by gRPC or in Kubernetes.",
            number(status.subscribers.len()),
        ),
        ("subscribers_refusing", "Subscribers that refused what was published.", number(refusing)),
        (
            "ledger_failing",
            "The ledger could not store the last change: writes are refused.",
            u64::from(status.ledger_failing),
        ),
        (
            "publishing_fails",
            "The topology cannot be written to its folder.",
            u64::from(status.folder.as_ref().is_some_and(|folder| folder.failing)),
        ),
    ] {
        family(&format!("miroir_control_{name}"), "gauge", help, alone(value));
    }
    let of_kind = |kind: &str| number(status.troubles.iter().filter(|trouble| trouble.kind == kind).count());
    let kinds = ["refused", "behind", "unreached"];
    family(
        "miroir_control_gateway_troubles",
        "gauge",
        "Problems of gateways with the published topology.",
        kinds.map(|kind| (format!("{{kind=\"{kind}\"}}"), of_kind(kind))).to_vec(),
    );
    family(
        "miroir_control_files_mended_total",
        "counter",
        "Published files that somebody had changed and that were restored, since the start.",
        alone(status.folder.as_ref().map_or(0, |folder| folder.mended)),
    );
    family(
        "miroir_control_ledger_failures_total",
        "counter",
        "Calls that the ledger's database failed, since the start.",
        alone(status.ledger_failures),
    );
    let work =
        status.work_failures.iter().map(|(name, count)| (format!("{{work=\"{name}\"}}"), *count)).collect();
    family(
        "miroir_control_work_failures_total",
        "counter",
        "Background work that has panicked or ended, since the start. Loops are started again.",
        work,
    );
    let oldest = status.gateways.iter().map(|vm| vm.oldest).min().unwrap_or(status.topology_version);
    family(
        "miroir_control_oldest_topology_in_use",
        "gauge",
        "The oldest version of the topology that a gateway still uses.",
        alone(oldest),
    );
    for (name, help, value) in [
        ("moved_documents_total", "Documents that were copied, since the start.", status.moved.documents),
        ("moved_bytes_total", "Bytes that were copied, since the start.", status.moved.bytes),
    ] {
        family(&format!("miroir_control_{name}"), "counter", help, alone(value));
    }
    let of_nodes = |value: &dyn Fn(&super::admin::NodeStatus) -> u64| {
        let sample = |node: &super::admin::NodeStatus| (format!("{{node=\"{}\"}}", node.name), value(node));
        status.nodes.iter().map(sample).collect()
    };
    family("miroir_node_up", "gauge", "The node answers.", of_nodes(&|node| u64::from(node.up)));
    family(
        "miroir_node_behind",
        "gauge",
        "The node missed an operation on indexes, and has not caught up.",
        of_nodes(&|node| u64::from(node.behind)),
    );
    let replicas = status.nodes.iter().flat_map(|node| {
        [("active", node.active), ("stale", node.stale), ("old", node.old)]
            .map(|(state, count)| (format!("{{node=\"{}\",state=\"{state}\"}}", node.name), number(count)))
    });
    family("miroir_node_replicas", "gauge", "Replicas of a node.", replicas.collect());
    let stale = status.nodes.iter().flat_map(|node| {
        let labels = |index: &str| format!("{{node=\"{}\",index=\"{index}\"}}", node.name);
        node.stale_in_indexes.iter().map(move |(index, count)| (labels(index), number(*count)))
    });
    family(
        "miroir_node_replicas_stale_in_index",
        "gauge",
        "Replicas of a node that have missed a write to an index, and are read for others.",
        stale.collect(),
    );
    text
}
