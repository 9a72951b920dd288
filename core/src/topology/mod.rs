//! The topology: a validated configuration.

mod config;
mod hold;
mod plain;
mod slow;
mod stale;

pub use hold::{Hold, Topologies};
pub use stale::{StaleInIndex, StaleReplicas};

pub use config::{
    ControlConfig, FacetValuesSort, FanOut, Filterable, IndexConfig, Limits, NodeConfig, OnLostControl,
    OnMissingShards, Pin, ReadZone, SCHEMA, TopologyConfig,
};

use crate::{
    fan_out::Plans,
    shard::{MAX_SHARDS, Shard},
    trace::TracingConfig,
};
use slow::SlowNodes;
use std::collections::{BTreeSet, HashSet};

/// A topology whose configuration is valid.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    config: TopologyConfig,
    /// Where the gateway is, if that is known and matters.
    zone: Option<String>,
    slow: SlowNodes,
    plans: Plans,
}

/// All errors in a configuration, each naming its key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid topology: {}", .0.join("; "))]
pub struct InvalidTopology(pub Vec<String>);

impl Topology {
    /// Parses and validates the filter's configuration.
    ///
    /// # Errors
    /// All errors in the configuration at once; unreadable JSON is one error.
    pub fn from_json(json: &[u8]) -> Result<Self, InvalidTopology> {
        let config = serde_json::from_slice(json)
            .map_err(|error| InvalidTopology(vec![format!("not a topology: {error}")]))?;
        Self::validate(config)
    }

    /// Validates a configuration.
    ///
    /// # Errors
    /// All errors in the configuration at once.
    pub fn validate(config: TopologyConfig) -> Result<Self, InvalidTopology> {
        let mut errors = Vec::new();
        if config.schema != SCHEMA {
            errors.push(format!("schema: this build reads {SCHEMA}, not {}", config.schema));
        }
        if config.nodes.is_empty() {
            errors.push("nodes: at least one node is needed".to_owned());
        }
        let mut names = HashSet::new();
        let mut clusters = HashSet::new();
        for (position, node) in config.nodes.iter().enumerate() {
            if node.name.is_empty() {
                errors.push(format!("nodes[{position}].name: must not be empty"));
            } else if !names.insert(node.name.as_str()) {
                errors.push(format!("nodes[{position}].name: `{}` is listed twice", node.name));
            }
            if node.cluster.is_empty() {
                errors.push(format!("nodes[{position}].cluster: must not be empty"));
            } else if !clusters.insert(node.cluster.as_str()) {
                errors.push(format!("nodes[{position}].cluster: `{}` is listed twice", node.cluster));
            }
        }
        if config.placement.is_empty() || config.placement.len() > usize::from(MAX_SHARDS) {
            errors.push(format!("placement: {} shards, must be 1 to {MAX_SHARDS}", config.placement.len()));
        }
        for (shard, replicas) in config.placement.iter().enumerate() {
            let mut seen = HashSet::new();
            for node in replicas {
                if usize::from(*node) >= config.nodes.len() {
                    errors.push(format!("placement[{shard}]: there is no node {node}"));
                } else if !seen.insert(node) {
                    errors.push(format!("placement[{shard}]: node {node} is listed twice"));
                }
            }
        }
        for (index, node, shard) in config.stale.iter() {
            let replicas = config.placement.get(usize::from(shard.0));
            if !replicas.is_some_and(|replicas| replicas.contains(&node)) {
                errors
                    .push(format!("stale.{index}: node {node} has no readable replica of shard {}", shard.0));
            }
        }
        errors.extend(config.limits.errors());
        if let Some(control) = &config.control {
            for (key, value) in [("cluster", &control.cluster), ("secret", &control.secret)] {
                if value.is_empty() {
                    errors.push(format!("control.{key}: must not be empty"));
                }
            }
        }
        if let Some(prefix) = &config.path_prefix
            && (!prefix.starts_with('/') || prefix.ends_with('/') || prefix.contains(['?', '#']))
        {
            errors.push(format!("pathPrefix: `{prefix}` must start with `/` and not end with it"));
        }
        errors.extend(config.tracing.iter().flat_map(TracingConfig::errors));
        if errors.is_empty() {
            Ok(Self { config, zone: None, slow: SlowNodes::default(), plans: Plans::default() })
        } else {
            Err(InvalidTopology(errors))
        }
    }

    /// The topology as a gateway in this zone uses it.
    #[must_use]
    pub fn in_zone(self, zone: Option<String>) -> Self {
        Self { zone: zone.filter(|_| self.config.read_zone == ReadZone::Prefer), ..self }
    }

    /// Whether a node is known to be in another zone than the gateway, and reads prefer the gateway's own.
    #[must_use]
    pub fn is_far(&self, node: u16) -> bool {
        let zone = self.node(node).and_then(|node| node.zone.as_deref());
        self.zone.as_deref().zip(zone).is_some_and(|(own, zone)| own != zone)
    }

    /// Lets reads that begin from now on avoid these nodes, and no others, where other nodes have what they need.
    pub fn avoid(&self, slow: BTreeSet<u16>) {
        self.slow.set(slow);
    }

    /// The nodes that reads avoid.
    pub(crate) fn slow(&self) -> BTreeSet<u16> {
        self.slow.get()
    }

    /// The configuration that the topology was made from.
    #[must_use]
    pub fn config(&self) -> &TopologyConfig {
        &self.config
    }

    /// The plans for reads of all shards: they are made once.
    pub(crate) fn plans(&self) -> &Plans {
        &self.plans
    }

    /// Strips the cluster's prefix from a client's path (with query); `None` if the path is outside of the prefix.
    #[must_use]
    pub fn own_path<'a>(&self, path: &'a str) -> Option<&'a str> {
        let rest = path.strip_prefix(self.config.path_prefix.as_deref().unwrap_or_default())?;
        rest.starts_with('/').then_some(rest)
    }

    /// Increases with every publication.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.config.version
    }

    /// Number of shards, 1 to 512.
    #[must_use]
    pub fn shard_count(&self) -> u16 {
        u16::try_from(self.config.placement.len()).unwrap_or(MAX_SHARDS)
    }

    /// All shards, ascending.
    pub fn shards(&self) -> impl Iterator<Item = Shard> + use<> {
        (0..self.shard_count()).map(Shard)
    }

    /// The nodes whose replicas of a shard may be read, as positions in [`TopologyConfig::nodes`], but for those that are stale
    /// in an index that is read: [`StaleReplicas::of`].
    pub fn readable(&self, shard: Shard, stale: &[&StaleInIndex]) -> impl Iterator<Item = u16> {
        let replicas = self.config.placement.get(usize::from(shard.0)).map_or(&[][..], Vec::as_slice);
        let is_whole = move |node: &u16| !stale.iter().any(|stale| stale.contains(*node, shard));
        replicas.iter().copied().filter(is_whole)
    }

    /// A node by its position.
    #[must_use]
    pub fn node(&self, node: u16) -> Option<&NodeConfig> {
        self.config.nodes.get(usize::from(node))
    }

    /// The position of the node with this name.
    #[must_use]
    pub fn node_named(&self, name: &str) -> Option<u16> {
        let position = self.config.nodes.iter().position(|node| node.name == name)?;
        u16::try_from(position).ok()
    }

    /// The catalogue's entry for an index; Meilisearch's defaults if the catalogue does not have it.
    #[must_use]
    pub fn index(&self, index: &str) -> IndexConfig {
        let config = self.config.indexes.get(index).cloned().unwrap_or_default();
        IndexConfig { totals_stop: self.config.legacy_search, ..config }
    }

    /// The primary key of an index, if the catalogue has it.
    #[must_use]
    pub fn primary_key(&self, index: &str) -> Option<&str> {
        self.config.indexes.get(index)?.primary_key.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_whole_configuration_is_read() {
        let topology = Topology::from_json(
            br#"{"schema":1,"version":7,"nodes":[{"name":"a","cluster":"ca"},{"name":"b","cluster":"cb"}],
                 "placement":[[0,1],[1]],"indexes":{"movies":{"primaryKey":"id"}},
                 "control":{"cluster":"control","secret":"s"},"limits":{"searchTimeoutMs":100}}"#,
        )
        .unwrap();
        assert_eq!(topology.version(), 7);
        assert_eq!(topology.readable(Shard(0), &[]).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(topology.primary_key("movies"), Some("id"));
        assert_eq!(topology.config().limits.search_timeout_ms, 100);
        assert_eq!(topology.config().limits.max_payload_bytes, 104_857_600);
        assert_eq!(topology.node_named("b"), Some(1));
    }

    #[test]
    fn every_error_is_named_at_once() {
        let error = Topology::from_json(
            br#"{"schema":9,"version":1,"nodes":[{"name":"a","cluster":"x"},{"name":"a","cluster":"x"}],
                 "placement":[[0,0],[4]],"stale":{"movies":{"0":[1],"1":[0,7]}},"control":{"cluster":"","secret":""},"limits":{"writeTimeoutMs":0,"maxReadBytes":0,
                 "maxBufferedBytes":1,"maxBufferedBytesPerClient":2},"tracing":{"cluster":""}}"#,
        )
        .unwrap_err();
        for key in [
            "schema:",
            "nodes[1].name",
            "nodes[1].cluster",
            "placement[0]",
            "placement[1]",
            "stale.movies: node 0 has no readable replica of shard 1",
            "stale.movies: node 1 has no readable replica of shard 0",
            "stale.movies: node 1 has no readable replica of shard 7",
            "control.cluster",
            "control.secret",
            "limits.writeTimeoutMs",
            "limits.maxReadBytes",
            "limits.maxBufferedBytes: ",
            "limits.maxBufferedBytesPerClient: must not be less",
            "limits.maxBufferedBytesPerClient: must not be more",
            "tracing.cluster",
        ] {
            assert!(error.0.iter().any(|text| text.starts_with(key)), "{key} not in {:?}", error.0);
        }
    }

    #[test]
    fn a_prefix_ends_where_a_segment_does() {
        let mut topology = Topology::from_json(
            br#"{"schema":1,"version":1,"nodes":[{"name":"a","cluster":"x"}],"placement":[[0]],"pathPrefix":"/ms"}"#,
        )
        .unwrap();
        assert_eq!(topology.own_path("/ms/indexes?q=/ms"), Some("/indexes?q=/ms"));
        assert_eq!(["/ms", "/msx/indexes", "/indexes"].map(|path| topology.own_path(path)), [None; 3]);
        topology.config.path_prefix = None;
        assert_eq!(topology.own_path("/ms/indexes"), Some("/ms/indexes"));
        topology.config.path_prefix = Some("ms/".into());
        assert!(Topology::validate(topology.config).unwrap_err().0[0].starts_with("pathPrefix"));
    }

    #[test]
    fn sorts_are_those_of_the_query_and_of_the_rules_each_attribute_once() {
        let sort = ["price:asc".to_owned(), "_geoPoint(1,2):asc".to_owned(), "year:asc".to_owned()];
        let mut config = IndexConfig::default();
        assert_eq!(config.sorts(&sort), [("price".to_owned(), true), ("year".to_owned(), true)]);
        config.ranking_rules = ["words", "year:desc", "sort", "price:desc"].map(str::to_owned).to_vec();
        assert_eq!(config.sorts(&sort), [("year".to_owned(), false), ("price".to_owned(), true)]);
    }

    #[test]
    fn long_reads_have_more_time() {
        let limits = Limits::default();
        assert_eq!(
            [0, 1023, 1024, 100 << 10].map(|bytes| limits.search_timeout_of(bytes, 0)),
            [5_000, 5_000, 6_000, 105_000]
        );
        assert_eq!(limits.search_timeout_of(usize::MAX, u64::MAX), 300_000);
        assert_eq!(limits.search_timeout_of(0, 100_000), 25_000);
        assert_eq!(limits.search_deadline_of(1024, 4_999), 12_000);
    }

    #[test]
    fn one_client_can_send_the_largest_payload_and_does_not_fill_a_worker() {
        let limits = Limits::default();
        assert_eq!(limits.buffered_bytes_per_client(), 150 << 20);
        let large = Limits { max_buffered_bytes: 4 << 30, ..limits };
        assert_eq!(large.buffered_bytes_per_client(), 1 << 30);
        let tight = Limits { max_buffered_bytes: limits.max_payload_bytes, ..limits };
        assert_eq!(tight.buffered_bytes_per_client(), tight.max_payload_bytes);
        assert_eq!(Limits { max_payload_bytes: 1_000, ..limits }.read_bytes(), 1_000);
    }

    #[test]
    fn unknown_keys_are_refused() {
        let error = Topology::from_json(br#"{"schema":1,"version":1,"nodes":[],"placement":[],"shards":4}"#)
            .unwrap_err();
        assert!(error.to_string().contains("unknown field `shards`"), "{error}");
    }
}
