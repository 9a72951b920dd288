//! The messages between gateways and the control plane: begin and commit of a write, and reports.
//!
//! All of them are `POST` requests with JSON to the control plane's cluster, with the cluster's secret in [`SECRET_HEADER`].

use crate::{documents::Preflight, error::ErrorBody, json::to_bytes, node_name::NodeName, shard::Shard};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Path of *begin*. A 200 carries a [`BeginReply`]; any other status is a Meilisearch error for the client.
pub const BEGIN_PATH: &str = "/_miroir/begin";
/// Path of *commit*. A 200 carries the task summary that the client gets with its 202; any other status is an error.
pub const COMMIT_PATH: &str = "/_miroir/commit";
/// Path of a VM's [`Report`]. A 200 carries a [`ReportReply`].
pub const REPORT_PATH: &str = "/_miroir/report";
/// A gateway forwards a write that it refuses here: the path is this prefix followed by the client's path, with the client's
/// method, query, headers and body. The control plane checks the client's key, then lets a node say what is wrong. It answers
/// 204 if the node finds nothing wrong.
pub const REFUSAL_PREFIX: &str = "/_miroir/refusal";
/// The same without the body, and without asking a node: the answer is 204 if the client's key allows the write.
pub const AUTHORIZATION_PREFIX: &str = "/_miroir/authorization";
/// The header that carries the cluster's secret on every internal request. A gateway removes it from clients' requests.
pub const SECRET_HEADER: &str = "x-miroir-secret";

/// How the `customMetadata` begins under which nodes keep their tasks of a write.
const METADATA: &str = "miroir:";

/// The `customMetadata` under which nodes keep their tasks of the write with this uid of the ledger.
#[must_use]
pub fn metadata(uid: u32) -> String {
    format!("{METADATA}{uid}")
}

/// Reads what [`metadata`] wrote; `None` where it is another's.
#[must_use]
pub fn uid_of_metadata(text: &str) -> Option<u32> {
    let uid = text.strip_prefix(METADATA)?.parse().ok()?;
    // A number may be written in several ways, of which this is one.
    (metadata(uid) == text).then_some(uid)
}

/// A write that a gateway has split by shard and wants to send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Begin {
    /// A random id of the worker's VM. It selects the write key under which the write is sent.
    pub gateway: String,
    /// The version of the topology by which the gateway split the write.
    pub topology_version: u64,
    /// The index uid, as the client wrote it.
    pub index: String,
    /// What the write does.
    pub operation: WriteOperation,
    /// The shards that the write touches, in ascending order. All shards, if the operation goes to all.
    pub shards: Vec<Shard>,
    /// The client's `Authorization` header; the control plane checks it.
    pub authorization: Option<String>,
    /// The client's `customMetadata`; the ledger keeps it.
    pub custom_metadata: Option<String>,
    /// The top-level fields of the documents, each once, in the order of their first occurrence.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// The fields inside the documents' objects, as dotted paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nested_fields: Vec<String>,
    /// What nodes may refuse about the documents.
    #[serde(default, skip_serializing_if = "Preflight::is_empty")]
    pub doubts: Preflight,
    /// The documents that may be refused, as a JSON array; only if the control plane has asked for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubtful: Option<String>,
}

/// What a worker's VM reports periodically. The answer gives the VM a *lease*: it may read by its topology for
/// `limits.leaseMs`, counted from the moment when it sent the report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// A random id of the VM, as in [`Begin::gateway`].
    pub vm: String,
    /// The version of the oldest topology that anything in the VM still uses.
    pub oldest: u64,
    /// Nodes of the newest topology that have not answered this VM yet: the VM must not read from them or write to them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreached: Vec<NodeName>,
    /// The last [`ReportReply::needed`] that the VM has received: it reads by no older topology.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed: Option<u64>,
    /// Whether the VM has received an answer before. Only then does an answer give it a lease. Envoy tries each configuration
    /// in a VM that it drops immediately; everybody would have to wait for the lease of that VM. Absent if the filter is of an
    /// older version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_heard: Option<bool>,
    /// Whether a read waits for a newer topology to arrive. The answer may then be delayed a moment, because the VM reports
    /// again when the topology arrives.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waits: bool,
    /// Those of the [unreached](Self::unreached) nodes for which Envoy has no cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without_cluster: Vec<NodeName>,
    /// The version of the newest topology that the VM has; 0 if the filter is of an older version that does not report it.
    #[serde(default)]
    pub newest: u64,
    /// Whether the VM's filter knows [`stale`](crate::topology::TopologyConfig::stale) in a topology.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stale_by_index: bool,
    /// The name of the VM's Envoy, `node.id`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// The configuration that the VM's Envoy has refused since that topology, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedTopology>,
}

/// A configuration that the filter refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedTopology {
    /// The version in the configuration; `None` if it has none.
    pub version: Option<u64>,
    /// All errors in the configuration.
    pub reason: String,
}

impl RefusedTopology {
    /// Describes a configuration that has these errors.
    #[must_use]
    pub fn new(configuration: &[u8], errors: &[String]) -> Self {
        #[derive(Deserialize)]
        struct Versioned {
            version: u64,
        }
        let versioned: Option<Versioned> = serde_json::from_slice(configuration).ok();
        Self { version: versioned.map(|it| it.version), reason: errors.join("; ") }
    }

    /// Parses what [`Self::to_json`] wrote.
    #[must_use]
    pub fn from_json(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// Serializes it as JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        to_bytes(self)
    }
}

impl Report {
    /// The request's body.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        to_bytes(self)
    }
}

/// The answer to a [`Report`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportReply {
    /// The oldest version that may still be read by: replicas that older topologies name may be deleted.
    pub needed: u64,
    /// Whether this answer gives a lease; if not, the VM must report once more, immediately.
    #[serde(default = "is_lease")]
    pub lease: bool,
}

/// A control plane of an older version always gives a lease.
fn is_lease() -> bool {
    true
}

impl ReportReply {
    /// Parses the answer's body; `None` if it is something else.
    #[must_use]
    pub fn from_json(body: &[u8]) -> Option<Self> {
        serde_json::from_slice(body).ok()
    }
}

/// The mutations of the data plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum WriteOperation {
    /// Add documents, replacing (`POST`) or updating (`PUT`) those that exist.
    AddDocuments {
        /// `true` for `PUT`.
        update: bool,
        /// Number of documents in the payload.
        documents: u64,
        /// Number of distinct ids among them, which Meilisearch counts as indexed.
        distinct: u64,
        /// The client's `primaryKey` parameter.
        requested_primary_key: Option<String>,
        /// The primary key by which the gateway split the payload: the topology's, or else the requested, or else the inferred
        /// one.
        primary_key: Option<String>,
        /// Whether that key is the topology's, which may be older than a deletion of the index.
        #[serde(default)]
        assumed: bool,
        /// Why nodes would refuse the payload. If set, no document is sent, and the task fails with this error.
        failure: Option<ErrorBody>,
    },
    /// Delete documents by id.
    DeleteDocuments {
        /// Number of ids in the request.
        ids: u64,
        /// The primary key by which the gateway split the ids.
        primary_key: Option<String>,
        /// One of the ids that nodes may not be able to look up. If set, no document is deleted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        odd: Option<String>,
    },
    /// Delete the documents that match a filter.
    DeleteByFilter {
        /// The client's filter; the task shows it.
        filter: serde_json::Value,
    },
    /// Edit documents with a function.
    Edit {
        /// The client's filter. The task shows it, and the context and the function.
        filter: Option<serde_json::Value>,
        /// The client's context.
        context: Option<serde_json::Value>,
        /// The client's function.
        function: String,
    },
    /// Delete all documents.
    DeleteAll,
}

/// The control plane's answer to a [`Begin`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "decision", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum BeginReply {
    /// Send the write under this uid. The shards are locked until the commit.
    Send {
        /// The task's uid; nodes get it as `customMetadata`.
        uid: u32,
        /// The gateway's write key; nodes get it as the bearer token.
        key: String,
        /// The index's primary key; every document addition is sent with it.
        primary_key: Option<String>,
        /// Names of the nodes to which the positions in [`Self::Send::writers`] refer.
        nodes: Vec<NodeName>,
        /// For each shard of the begin, in the same order, the positions in `nodes` of its writers.
        writers: Vec<Vec<u16>>,
        /// Shards that are being copied: the commit must list the ids written to them.
        #[serde(default)]
        record: Vec<Shard>,
        /// A random id that the commit must repeat. It tells two writes apart if a rolled-back write's uid is used again.
        #[serde(default)]
        begun: Option<String>,
    },
    /// The index has this primary key: split the payload by it, and begin again.
    Split {
        /// The index's primary key.
        primary_key: String,
    },
    /// The index no longer has a primary key: split the payload by the requested or the inferred one, and begin again.
    Infer,
    /// With the index's settings, nodes may refuse some documents: begin again and include these.
    Show,
    /// Send nothing: the task is in the ledger and says why. The client gets 202 with this summary.
    Recorded {
        /// Meilisearch's task summary.
        task: serde_json::Value,
    },
}

/// The results of a write's callouts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Commit {
    /// From [`BeginReply::Send`].
    pub uid: u32,
    /// From [`BeginReply::Send`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<String>,
    /// One entry for each node that was asked.
    pub results: Vec<NodeResult>,
    /// The ids written to the shards that [`BeginReply::Send`] listed in `record`. For a listed shard that is missing here, any
    /// document may have been written.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub written: BTreeMap<Shard, BTreeSet<String>>,
}

/// One node's result for a write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeResult {
    /// The node's name.
    pub node: NodeName,
    /// How the node answered.
    pub outcome: NodeOutcome,
}

/// A node's answer to its part of a write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum NodeOutcome {
    /// The node answered 202: it queued the write.
    Enqueued {
        /// The uid of the node's own task.
        task_uid: u32,
    },
    /// The node answered with another status: it did not accept the write.
    Refused {
        /// HTTP status.
        status: u16,
        /// The node's error, if it sent one.
        error: Option<ErrorBody>,
    },
    /// No complete answer came: the node may or may not have accepted the write.
    Unknown,
}
