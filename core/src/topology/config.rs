//! The topology in its JSON form: the configuration of the filter.

use super::StaleReplicas;
use crate::{node_name::NodeName, trace::TracingConfig};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashSet};

/// The newest schema that this build reads.
pub const SCHEMA: u32 = 1;

/// The filter's configuration. The control plane publishes it; a person can write it by hand.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TopologyConfig {
    /// The version of this format: [`SCHEMA`].
    pub schema: u32,
    /// Increases with every publication.
    pub version: u64,
    /// The Meilisearch nodes; `placement` refers to them by their positions in this list.
    pub nodes: Vec<NodeConfig>,
    /// For each shard, the positions of the nodes whose replicas may be read. Its length is the number of shards.
    pub placement: Vec<Vec<u16>>,
    /// Those of these replicas that miss something of an index, and must not be read for it. A filter that does not know this
    /// key refuses a topology that has it: see [`crate::protocol::Report::stale_by_index`].
    #[serde(default, skip_serializing_if = "StaleReplicas::is_empty")]
    pub stale: StaleReplicas,
    /// The index catalogue.
    #[serde(default)]
    pub indexes: BTreeMap<String, IndexConfig>,
    /// The control plane; without one the cluster is read-only.
    #[serde(default)]
    pub control: Option<ControlConfig>,
    /// The key for reads of clients that send none; for clusters whose nodes run without a master key.
    #[serde(default)]
    pub read_key: Option<String>,
    /// The key for what gateways read themselves on behalf of clients that may not read all of it, such as the vector of the
    /// document in a search for similar documents. It has the actions `search` and `documents.get`. Without it the client's own
    /// key must allow these reads.
    #[serde(default)]
    pub internal_key: Option<String>,
    /// How nodes are chosen for a search.
    #[serde(default)]
    pub fan_out: FanOut,
    /// Whether reads of a gateway that knows its zone prefer the nodes there.
    #[serde(default, skip_serializing_if = "ReadZone::is_any")]
    pub read_zone: ReadZone,
    /// What a search answers when a shard has no replica left.
    #[serde(default)]
    pub on_missing_shards: OnMissingShards,
    /// What a gateway does with reads when it has not heard of the control plane for longer than its lease.
    #[serde(default)]
    pub on_lost_control: OnLostControl,
    /// The path prefix under which a host serves the cluster, such as `/meilisearch`: the filter ignores requests outside of
    /// it. Without it the cluster has all paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_prefix: Option<String>,
    /// The name that nodes have in `/network`; the same for all nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_name: Option<String>,
    /// Whether nodes search as before Meilisearch 1.47, or have the experimental feature of this name enabled: totals are then
    /// capped at `pagination.maxTotalHits`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub legacy_search: bool,
    /// Where the filter sends spans; without it the filter makes none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<TracingConfig>,
    /// Bounds on time and memory.
    #[serde(default)]
    pub limits: Limits,
}

/// One Meilisearch node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeConfig {
    /// The node's name in the cluster.
    pub name: NodeName,
    /// The Envoy cluster that reaches it.
    pub cluster: String,
    /// Where it is, as in `locality.zone` of Envoy's node, if that matters to gateways: see [`ReadZone`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// What the filter needs of an index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct IndexConfig {
    /// Absent until the first documents determine it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub primary_key: Option<String>,
    /// The setting `distinctAttribute`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub distinct_attribute: Option<String>,
    /// The setting `rankingRules`; empty for Meilisearch's default.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ranking_rules: Vec<String>,
    /// The setting `pagination.maxTotalHits`.
    pub max_total_hits: u64,
    /// The setting `faceting.maxValuesPerFacet`.
    pub max_values_per_facet: u64,
    /// The setting `faceting.sortFacetValuesBy`: attribute, or `*` for all others, to `alpha` or `count`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sort_facet_values_by: BTreeMap<String, FacetValuesSort>,
    /// The part of the setting `filterableAttributes` that enables filters; absent if not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filterable: Option<Vec<Filterable>>,
    /// The index's settings are being changed: nodes may have the old or the new ones.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub settings_changing: bool,
    /// What dynamic search rules pin in this index, in the order of the rules' precedence.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pins: Vec<Pin>,
    /// Whether totals are capped at `max_total_hits`: see [`TopologyConfig::legacy_search`].
    #[serde(skip)]
    pub totals_stop: bool,
}

/// A member of the setting `filterableAttributes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Filterable {
    /// A name, in which a star is an ordinary character.
    Name(String),
    /// A pattern of a rule.
    Pattern {
        /// The pattern as the client wrote it.
        pattern: String,
    },
}

impl Filterable {
    /// The form that messages show.
    #[must_use]
    pub fn text(&self) -> &str {
        match self {
            Self::Name(text) | Self::Pattern { pattern: text } => text,
        }
    }
}

/// An action of a dynamic search rule: places a document at a position if the rule's conditions are met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pin {
    /// The document's id.
    pub id: String,
    /// Counted from 0.
    pub position: u32,
}

/// How the values of a facet are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FacetValuesSort {
    /// By name.
    Alpha,
    /// By count, the highest first.
    Count,
}

impl Default for IndexConfig {
    fn default() -> Self {
        Self {
            primary_key: None,
            distinct_attribute: None,
            ranking_rules: Vec::new(),
            max_total_hits: 1_000,
            max_values_per_facet: 100,
            sort_facet_values_by: BTreeMap::new(),
            filterable: None,
            settings_changing: false,
            pins: Vec::new(),
            totals_stop: false,
        }
    }
}

impl IndexConfig {
    /// The attributes by which a query with this `sort` is sorted, each with `true` for ascending order. They come from the
    /// query and from the ranking rules, in the order of the rules, each attribute once. Sorts by distance are not included.
    #[must_use]
    pub fn sorts(&self, sort: &[String]) -> Vec<(String, bool)> {
        let default = ["sort".to_owned()];
        let rules = if self.ranking_rules.is_empty() { &default[..] } else { &self.ranking_rules };
        let mut sorts: Vec<(String, bool)> = Vec::new();
        // A client may sort by any number of attributes, so duplicates are found by hash.
        let mut known: HashSet<&str> = HashSet::new();
        for rule in rules {
            let rules = if rule == "sort" { sort } else { std::slice::from_ref(rule) };
            for rule in rules {
                let Some((attribute, direction)) = rule.rsplit_once(':') else { continue };
                let sorts_by = ["asc", "desc"].contains(&direction) && !attribute.starts_with("_geoPoint");
                if sorts_by && known.insert(attribute) {
                    sorts.push((attribute.to_owned(), direction == "asc"));
                }
            }
        }
        sorts
    }

    /// Whether no ranking rule names an attribute to sort by.
    #[must_use]
    pub fn sorts_by_default(&self) -> bool {
        !self.ranking_rules.iter().any(|rule| rule.contains(':'))
    }

    /// The total that an answer reports for this number of hits.
    #[must_use]
    pub fn total(&self, hits: u64) -> u64 {
        if self.totals_stop { hits.min(self.max_total_hits) } else { hits }
    }

    /// Whether the values of this facet are ordered by count.
    #[must_use]
    pub fn sort_facet_values_by_count(&self, facet: &str) -> bool {
        let setting = self.sort_facet_values_by.get(facet).or_else(|| self.sort_facet_values_by.get("*"));
        setting == Some(&FacetValuesSort::Count)
    }
}

/// How the filter reaches the control plane.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ControlConfig {
    /// The Envoy cluster.
    pub cluster: String,
    /// The secret that proves to the control plane that a request comes from a gateway.
    pub secret: String,
}

/// How nodes are chosen for a search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum FanOut {
    /// The nodes of one row; where no row is whole, the smallest set of nodes that holds all shards.
    #[default]
    Fewest,
    /// All nodes, an even share each.
    Spread,
}

/// Whether reads prefer nodes in the gateway's own zone. A filter that does not know this key refuses a topology that has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ReadZone {
    /// Reads are spread over all zones.
    #[default]
    Any,
    /// Reads ask the nodes of other zones for as few shards as possible.
    Prefer,
}

impl ReadZone {
    /// Whether zones do not matter.
    #[must_use]
    pub fn is_any(&self) -> bool {
        *self == Self::Any
    }
}

/// What a search answers when a shard has no replica left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnMissingShards {
    /// The answer of the other shards, with the header `X-Miroir-Missing-Shards`.
    #[default]
    Partial,
    /// 503.
    Error,
}

/// What a gateway does with reads when it has not heard of the control plane for longer than its lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnLostControl {
    /// It answers them by the topology that it has. The header `X-Miroir-Control-Lost` says for how many seconds the control
    /// plane has been lost.
    #[default]
    Serve,
    /// 503.
    Refuse,
}

/// Bounds on time and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// How long a node may take for its part of a search or read of ordinary size, in milliseconds; see
    /// [`Limits::search_timeout_of`].
    pub search_timeout_ms: u64,
    /// How long a node may take to acknowledge its part of a write, in milliseconds.
    pub write_timeout_ms: u64,
    /// How long the control plane may take for a begin (which may wait for locks) or a commit, in milliseconds.
    pub control_timeout_ms: u64,
    /// The largest body that a client may send, in bytes, as Meilisearch's `--http-payload-size-limit`.
    pub max_payload_bytes: u64,
    /// The largest body of a read, in bytes, as received and as decoded; see [`Limits::read_bytes`].
    pub max_read_bytes: u64,
    /// The most bytes that one step of a read may send to nodes; see [`crate::read::Estimate`].
    pub max_fan_out_bytes: u64,
    /// The most bytes of clients' bodies that one worker of a gateway may hold at a time, as received and as decoded; requests
    /// beyond that get 503. While Envoy sends the bodies on, it holds up to the same amount again for each replica.
    pub max_buffered_bytes: u64,
    /// The part of `max_buffered_bytes` that one client may use; see [`Limits::buffered_bytes_per_client`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_buffered_bytes_per_client: Option<u64>,
    /// The number of reads that one client may have in progress at one worker of a gateway.
    pub max_reads_per_client: u64,
    /// How long a body may take to arrive, from the end of the request's headers, in milliseconds.
    pub body_timeout_ms: u64,
    /// How long a worker of a gateway may read without an answer from the control plane, in milliseconds. If a gateway is
    /// silent, old replicas are kept at least this long.
    pub lease_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            search_timeout_ms: 5_000,
            write_timeout_ms: 60_000,
            control_timeout_ms: 60_000,
            max_payload_bytes: 104_857_600,
            max_read_bytes: 8_388_608,
            max_fan_out_bytes: 33_554_432,
            max_buffered_bytes: 268_435_456,
            max_buffered_bytes_per_client: None,
            max_reads_per_client: 256,
            body_timeout_ms: 300_000,
            lease_ms: 10_000,
        }
    }
}

impl Limits {
    /// The largest body of a read, in bytes: never more than that of a write.
    #[must_use]
    pub fn read_bytes(&self) -> u64 {
        self.max_read_bytes.min(self.max_payload_bytes)
    }

    /// The most bytes that one client may hold at one worker. The default is a quarter of the worker's limit, but enough for
    /// the largest payload and the data derived from each of its documents.
    #[must_use]
    pub fn buffered_bytes_per_client(&self) -> u64 {
        self.max_buffered_bytes_per_client.unwrap_or_else(|| {
            let payload = self.max_payload_bytes.saturating_add(self.max_payload_bytes / 2);
            payload.max(self.max_buffered_bytes / 4).min(self.max_buffered_bytes)
        })
    }

    /// All errors in the limits, each naming its key.
    pub(super) fn errors(&self) -> Vec<String> {
        let positive = [
            ("searchTimeoutMs", self.search_timeout_ms),
            ("writeTimeoutMs", self.write_timeout_ms),
            ("controlTimeoutMs", self.control_timeout_ms),
            ("maxPayloadBytes", self.max_payload_bytes),
            ("maxReadBytes", self.max_read_bytes),
            ("maxFanOutBytes", self.max_fan_out_bytes),
            ("maxReadsPerClient", self.max_reads_per_client),
            ("bodyTimeoutMs", self.body_timeout_ms),
            ("leaseMs", self.lease_ms),
        ];
        let zeros = positive.into_iter().filter(|(_, value)| *value == 0);
        let mut errors: Vec<String> = zeros.map(|(key, _)| format!("limits.{key}: must not be 0")).collect();
        if self.max_buffered_bytes < self.max_payload_bytes {
            errors.push("limits.maxBufferedBytes: must not be less than maxPayloadBytes".to_owned());
        }
        if let Some(share) = self.max_buffered_bytes_per_client {
            if share < self.max_payload_bytes {
                errors.push(
                    "limits.maxBufferedBytesPerClient: must not be less than maxPayloadBytes, or no client \
                     could send the largest payload"
                        .to_owned(),
                );
            }
            if share > self.max_buffered_bytes {
                errors.push(
                    "limits.maxBufferedBytesPerClient: must not be more than maxBufferedBytes".to_owned(),
                );
            }
        }
        errors
    }

    /// How long a node may take for its part of a read whose path and body have this many bytes and whose page ends after this
    /// many hits, in milliseconds. Long lists of queries, long filters and deep pages take longer. Each full kibibyte and each
    /// 5,000 hits add a fifth, up to 60 times the ordinary time.
    #[must_use]
    pub fn search_timeout_of(&self, bytes: usize, hits: u64) -> u64 {
        let kibibytes = u64::try_from(bytes / 1024).unwrap_or(u64::MAX);
        let fifths = kibibytes.saturating_add(hits / 5_000).saturating_add(5).min(300);
        (self.search_timeout_ms / 5).max(1).saturating_mul(fifths).max(self.search_timeout_ms)
    }

    /// How long such a read may take in total, in milliseconds: if one node does not answer in time, another one can still be
    /// asked.
    #[must_use]
    pub fn search_deadline_of(&self, bytes: usize, hits: u64) -> u64 {
        self.search_timeout_of(bytes, hits).saturating_mul(2)
    }
}
