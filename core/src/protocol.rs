//! What gateways and the control plane say to each other: begin and commit of a write.
//!
//! Both are `POST` with JSON to the control plane's cluster, and carry the cluster's secret in [`SECRET_HEADER`].

use crate::{documents::Doubts, error::ErrorBody, shard::Shard};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Path of *begin*. 200 carries a [`BeginReply`]; any other status is a Meilisearch error for the client.
pub const BEGIN_PATH: &str = "/_miroir/begin";
/// Path of *commit*. 200 carries the task summary that the client gets with 202; any other status is an error.
pub const COMMIT_PATH: &str = "/_miroir/commit";
/// Path of a VM's [`Report`]. 200 carries a [`ReportReply`].
pub const REPORT_PATH: &str = "/_miroir/report";
/// A write that a gateway cannot take goes here, after this prefix under its own method, path, query, headers and body: the
/// control plane checks the client's key, then lets a node say what is wrong. 204 where no node finds anything wrong.
pub const REFUSAL_PREFIX: &str = "/_miroir/refusal";
/// The same without the body, and without asking a node: 204 where the client's key allows the write.
pub const AUTHORIZATION_PREFIX: &str = "/_miroir/authorization";
/// Carries the cluster's secret on every internal request. A gateway removes it from what clients send.
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

/// A write that a gateway has split and would send.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Begin {
    /// Random, a number for each worker's VM: whose epoch key the write goes under.
    pub gateway: String,
    /// The version of the topology that the gateway split it with.
    pub topology_version: u64,
    /// Index uid, as the client wrote it.
    pub index: String,
    /// What is to be done.
    pub operation: WriteOperation,
    /// The shards touched, ascending. Every shard, where the operation goes to all.
    pub shards: Vec<Shard>,
    /// The client's `Authorization` header, to be checked by the control plane.
    pub authorization: Option<String>,
    /// The client's `customMetadata`; kept in the ledger.
    pub custom_metadata: Option<String>,
    /// The documents' own fields, each once, in the order in which they come first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<String>,
    /// The fields in their objects, joined by dots.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nested_fields: Vec<String>,
    /// What nodes may refuse of the documents.
    #[serde(default, skip_serializing_if = "Doubts::is_empty")]
    pub doubts: Doubts,
    /// The documents that the doubts are about, a JSON array: where the control plane has asked for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doubtful: Option<String>,
}

/// What a worker's VM tells from time to time. Answered, it has a *lease*: for `limits.leaseMs` from the moment when it was
/// sent, the VM may read by the topology that it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Random, as [`Begin::gateway`].
    pub vm: String,
    /// The version of the oldest topology that anything in the VM still uses.
    pub oldest: u64,
    /// Nodes of the newest topology that have not answered the VM yet: they are not to be read or written through it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreached: Vec<String>,
    /// The last [`ReportReply::needed`] that the VM has heard: it reads by nothing older.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed: Option<u64>,
    /// Whether the VM has heard an answer before: only then one gives it a lease. Envoy tries each configuration in a VM that it lets go at
    /// once, whose lease everybody would wait for. Absent from a filter of before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub has_heard: Option<bool>,
    /// A read waits for a newer topology to arrive: the answer may take a moment, since it is asked again then.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub waits: bool,
    /// Those of them whose cluster Envoy does not have.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub without_cluster: Vec<String>,
    /// The version of the newest topology that the VM has; 0 where a filter of before does not say.
    #[serde(default)]
    pub newest: u64,
    /// The name that its Envoy has been given, `node.id`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub gateway: String,
    /// What its Envoy has refused since that topology.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<RefusedTopology>,
}

/// A configuration that the filter would not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RefusedTopology {
    /// The version that it says; `None` where it says none.
    pub version: Option<u64>,
    /// All that is wrong with it.
    pub reason: String,
}

impl RefusedTopology {
    /// What is told of a configuration with these errors.
    #[must_use]
    pub fn new(configuration: &[u8], errors: &[String]) -> Self {
        #[derive(Deserialize)]
        struct Versioned {
            version: u64,
        }
        let versioned: Option<Versioned> = serde_json::from_slice(configuration).ok();
        Self { version: versioned.map(|it| it.version), reason: errors.join("; ") }
    }

    /// Reads what [`Self::to_json`] wrote.
    #[must_use]
    pub fn from_json(json: &[u8]) -> Option<Self> {
        serde_json::from_slice(json).ok()
    }

    /// As JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl Report {
    /// The request's body.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// The answer to a [`Report`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportReply {
    /// Copies that older topologies name may be gone: what has an older one must not read.
    pub needed: u64,
    /// Whether this is a lease; else the VM is to report once more, at once.
    #[serde(default = "is_lease")]
    pub lease: bool,
}

/// A control plane of before gives nothing else.
fn is_lease() -> bool {
    true
}

impl ReportReply {
    /// Reads the answer's body; `None` where it is something else.
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
        /// Documents in the payload.
        documents: u64,
        /// Different ids among them: what Meilisearch counts as indexed.
        distinct: u64,
        /// The client's `primaryKey` parameter.
        requested_primary_key: Option<String>,
        /// The key that the gateway split by: the topology's, else the requested, else the inferred one.
        primary_key: Option<String>,
        /// That key is the topology's, which may be of before the index was deleted.
        #[serde(default)]
        assumed: bool,
        /// Why the payload would fail on a node; then no document is sent, and the task fails with this.
        failure: Option<ErrorBody>,
    },
    /// Delete documents by id.
    DeleteDocuments {
        /// Ids in the request.
        ids: u64,
        /// The key that the gateway hashed by.
        primary_key: Option<String>,
        /// One of them that nodes may not be able to look for: then no document is deleted.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        odd: Option<String>,
    },
    /// Delete the documents that a filter finds.
    DeleteByFilter {
        /// The client's filter, shown in the task.
        filter: serde_json::Value,
    },
    /// Edit documents by a function.
    Edit {
        /// The client's filter; shown in the task, as the rest.
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
    /// Send it, under this uid; the shards are locked until the commit.
    Send {
        /// The task's uid; goes to the nodes as `customMetadata`.
        uid: u32,
        /// The gateway's epoch key, to be sent to the nodes as the bearer.
        key: String,
        /// The index's primary key; sent with every document addition.
        primary_key: Option<String>,
        /// Names of the nodes that [`Self::Send::writers`] counts in.
        nodes: Vec<String>,
        /// For each shard of the begin, in its order, the positions in `nodes` of its writers.
        writers: Vec<Vec<u16>>,
        /// Shards that are being copied: the commit tells which ids were written to them.
        #[serde(default)]
        record: Vec<Shard>,
        /// Random: the commit is to say it. A uid is given again where its write was taken back.
        #[serde(default)]
        begun: Option<String>,
    },
    /// The index's primary key is this one: split again by it, and begin again.
    Split {
        /// The index's primary key.
        primary_key: String,
    },
    /// The index has no primary key any more: split by the requested or the inferred one, and begin again.
    Infer,
    /// The index's settings make the doubts matter: begin again with the doubtful documents.
    Show,
    /// Nothing is to be sent: the task is in the ledger and will tell why. The client gets 202 with this summary.
    Recorded {
        /// Meilisearch's task summary.
        task: serde_json::Value,
    },
}

/// What became of a write's callouts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Commit {
    /// From [`BeginReply::Send`].
    pub uid: u32,
    /// From [`BeginReply::Send`] too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<String>,
    /// One entry for each node that was asked.
    pub results: Vec<NodeResult>,
    /// The ids written to the shards that [`BeginReply::Send`] named in `record`. A shard that is not here may have been
    /// written all over.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub written: BTreeMap<Shard, BTreeSet<String>>,
}

/// What one node did with a write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeResult {
    /// The node's name.
    pub node: String,
    /// What it said.
    pub outcome: NodeOutcome,
}

/// A node's answer to its part of a write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum NodeOutcome {
    /// 202: the node queued it.
    Enqueued {
        /// The node's own task uid.
        task_uid: u32,
    },
    /// The node answered otherwise: it has not taken the write.
    Refused {
        /// HTTP status.
        status: u16,
        /// The node's error, where it sent one.
        error: Option<ErrorBody>,
    },
    /// No whole answer: the node may or may not have taken the write.
    Unknown,
}
