//! The cluster's description: nodes, shards, replication, limits. It is validated as a whole, and all errors are reported at
//! once.

use crate::base::error::{Error, Result};
use miroir_core::{
    node_name::NodeName,
    shard::MAX_SHARDS,
    topology::{FanOut, Limits, OnLostControl, OnMissingShards, ReadZone},
    trace::TracingConfig,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, path::Path};

/// The Envoy cluster of the control plane.
pub const CONTROL_CLUSTER: &str = "miroir_control";

/// The configuration file, JSON or YAML.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClusterFile {
    /// Meilisearch nodes.
    #[serde(default)]
    pub nodes: Vec<NodeFile>,
    /// Number of shards; it cannot change later.
    #[serde(default = "default_shards")]
    pub shards: u16,
    /// Number of replicas of each shard.
    #[serde(default = "default_replication")]
    pub replication: usize,
    /// Bounds on time and memory, passed on to gateways.
    #[serde(default)]
    pub limits: Limits,
    /// How gateways choose nodes for a search.
    #[serde(default)]
    pub fan_out: FanOut,
    /// Whether reads prefer nodes in the gateway's own zone.
    #[serde(default)]
    pub read_zone: ReadZone,
    /// What a search answers when a shard has no replica left.
    #[serde(default)]
    pub on_missing_shards: OnMissingShards,
    /// What a gateway does with reads when it has not heard of the control plane for longer than its lease.
    #[serde(default)]
    pub on_lost_control: OnLostControl,
    /// The path prefix under which gateways serve the cluster, such as `/meilisearch`.
    #[serde(default)]
    pub path_prefix: Option<String>,
    /// The collector to which gateways send spans.
    #[serde(default)]
    pub tracing: Option<TracingConfig>,
    /// Limits on moving and repairing replicas.
    #[serde(default)]
    pub moves: Moves,
}

/// A node in the configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeFile {
    /// Its name in the cluster.
    pub name: String,
    /// Where it listens, `http://host:port`.
    pub url: String,
    /// The Envoy cluster that reaches it; by default, the node's name.
    #[serde(default)]
    pub cluster: Option<String>,
    /// Its share of the replicas, relative to the other nodes: 1 to 1000; by default 1.
    #[serde(default)]
    pub weight: Option<u32>,
    /// Replicas of a shard go to different zones if there are enough zones.
    #[serde(default)]
    pub zone: Option<String>,
}

/// Limits on moving and repairing replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Moves {
    /// Documents copied per second, over all moves; 0 for no limit.
    pub documents_per_second: u64,
    /// Number of shards that are copied and handed over at the same time; at least 1.
    pub shards_at_once: u16,
}

impl Default for Moves {
    fn default() -> Self {
        Self { documents_per_second: 0, shards_at_once: 16 }
    }
}

/// Limits of one operation. A limit that is not set here comes from the cluster's description.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::Args)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pace {
    /// Documents copied per second, over all copies; 0 for no limit [default: from the cluster's description]
    #[arg(long)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents_per_second: Option<u64>,
    /// Number of shards that are copied and handed over at the same time [default: from the cluster's description]
    #[arg(long)]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shards_at_once: Option<u16>,
}

impl Pace {
    /// Whether any limit is set.
    #[must_use]
    pub fn is_said(&self) -> bool {
        *self != Self::default()
    }

    /// These limits, completed by the configured ones.
    ///
    /// # Errors
    /// `shards_at_once` is 0: nothing could be moved.
    pub fn over(self, configured: Moves) -> Result<Moves> {
        if self.shards_at_once == Some(0) {
            return Err(Error::Refused(vec!["shardsAtOnce: must not be 0".to_owned()]));
        }
        Ok(Moves {
            documents_per_second: self.documents_per_second.unwrap_or(configured.documents_per_second),
            shards_at_once: self.shards_at_once.unwrap_or(configured.shards_at_once),
        })
    }
}

/// The default number of shards.
#[must_use]
pub fn default_shards() -> u16 {
    64
}

/// The default number of replicas of each shard.
#[must_use]
pub fn default_replication() -> usize {
    2
}

/// A validated configuration.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Meilisearch nodes, at least one.
    pub nodes: Vec<NodeConfig>,
    /// Number of shards: 1 to 512.
    pub shards: u16,
    /// Number of replicas of each shard: 1 to the number of nodes.
    pub replication: usize,
    /// Bounds on time and memory.
    pub limits: Limits,
    /// How gateways choose nodes for a search.
    pub fan_out: FanOut,
    /// Whether reads prefer nodes in the gateway's own zone.
    pub read_zone: ReadZone,
    /// What a search answers when a shard has no replica left.
    pub on_missing_shards: OnMissingShards,
    /// What a gateway does with reads when it has not heard of the control plane for longer than its lease.
    pub on_lost_control: OnLostControl,
    /// The path prefix under which gateways serve the cluster.
    pub path_prefix: Option<String>,
    /// The collector to which gateways send spans.
    pub tracing: Option<TracingConfig>,
    /// Limits on moving and repairing replicas.
    pub moves: Moves,
}

/// A validated node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeConfig {
    /// Its name in the cluster.
    pub name: NodeName,
    /// Where it listens.
    pub url: url::Url,
    /// The Envoy cluster that reaches it.
    pub cluster: String,
    /// Its share of the replicas, relative to the other nodes.
    pub weight: u32,
    /// Replicas of a shard go to different zones if there are enough zones.
    pub zone: Option<String>,
}

impl NodeFile {
    /// A node with a name and a URL, and defaults for the rest.
    #[must_use]
    pub fn new(name: impl Into<String>, url: impl Into<String>) -> Self {
        Self { name: name.into(), url: url.into(), cluster: None, weight: None, zone: None }
    }

    /// Reads `NAME=URL`.
    ///
    /// # Errors
    /// There is no `=`.
    pub fn from_flag(flag: &str) -> Result<Self, String> {
        let (name, url) = flag.split_once('=').ok_or_else(|| format!("`{flag}` must be NAME=URL"))?;
        Ok(Self::new(name, url))
    }

    /// Validates the node. Each error message starts with `key`.
    ///
    /// # Errors
    /// All errors in the configuration at once.
    pub fn validate(self, key: &str) -> Result<NodeConfig, Vec<String>> {
        let mut errors = Vec::new();
        let name = self.name.parse::<NodeName>();
        let name = name.map_err(|error| errors.push(format!("{key}.name: {error}"))).ok();
        let weight = self.weight.unwrap_or(1);
        if !(1..=1000).contains(&weight) {
            errors.push(format!("{key}.weight: {weight} must be 1 to 1000"));
        }
        let cluster = self.cluster.unwrap_or_else(|| self.name.clone());
        if cluster == CONTROL_CLUSTER {
            errors.push(format!("{key}.cluster: `{cluster}` is the control plane's"));
        }
        let url = match url::Url::parse(&self.url) {
            Ok(url) if ["http", "https"].contains(&url.scheme()) && url.host_str().is_some() => Some(url),
            Ok(_) => {
                errors
                    .push(format!("{key}.url: `{}` must be http://host:port or https://host:port", self.url));
                None
            }
            Err(error) => {
                errors.push(format!("{key}.url: `{}`: {error}", self.url));
                None
            }
        };
        match name.zip(url).filter(|_| errors.is_empty()) {
            Some((name, url)) => Ok(NodeConfig { name, url, cluster, weight, zone: self.zone }),
            None => Err(errors),
        }
    }
}

/// Finds duplicates in a list of nodes with their positions: no two nodes may share a name, a URL or an Envoy cluster.
#[must_use]
pub fn duplicates<'a>(nodes: impl IntoIterator<Item = (usize, &'a NodeConfig)>) -> Vec<String> {
    let mut seen: [BTreeSet<String>; 3] = Default::default();
    let mut errors = Vec::new();
    for (position, node) in nodes {
        let values = [
            ("name", node.name.to_string()),
            ("url", node.url.to_string()),
            ("cluster", node.cluster.clone()),
        ];
        for ((key, value), seen) in values.into_iter().zip(&mut seen) {
            if !seen.insert(value.clone()) {
                errors.push(format!("nodes[{position}].{key}: `{value}` is used by two nodes"));
            }
        }
    }
    errors
}

impl ClusterFile {
    /// Reads a file; YAML is a superset of JSON.
    ///
    /// # Errors
    /// The file cannot be read, or is not a cluster's description.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(Error::file(path))?;
        serde_yaml_ng::from_str(&text)
            .map_err(|error| Error::Config(vec![format!("{}: {error}", path.display())]))
    }

    /// A description from `name=url` flags.
    ///
    /// # Errors
    /// A flag has no `=`.
    pub fn from_flags(nodes: &[String]) -> Result<Self> {
        let mut errors = Vec::new();
        let nodes = nodes
            .iter()
            .filter_map(|flag| {
                NodeFile::from_flag(flag).map_err(|error| errors.push(format!("--node {error}"))).ok()
            })
            .collect();
        if !errors.is_empty() {
            return Err(Error::Config(errors));
        }
        Ok(Self {
            nodes,
            shards: default_shards(),
            replication: default_replication(),
            limits: Limits::default(),
            fan_out: FanOut::default(),
            read_zone: ReadZone::default(),
            on_missing_shards: OnMissingShards::default(),
            on_lost_control: OnLostControl::default(),
            path_prefix: None,
            tracing: None,
            moves: Moves::default(),
        })
    }

    /// Validates a configuration.
    ///
    /// # Errors
    /// All errors at once. Each error names its key.
    pub fn validate(self) -> Result<ClusterConfig> {
        let mut errors = Vec::new();
        if self.nodes.is_empty() {
            errors.push("nodes: at least one node is needed".to_owned());
        }
        if self.shards == 0 || self.shards > MAX_SHARDS {
            errors.push(format!("shards: {} must be 1 to {MAX_SHARDS}", self.shards));
        }
        if self.replication == 0 || self.replication > self.nodes.len().max(1) {
            errors.push(format!(
                "replication: {} must be 1 to the number of nodes, {}",
                self.replication,
                self.nodes.len()
            ));
        }
        if self.moves.shards_at_once == 0 {
            errors.push("moves.shardsAtOnce: must not be 0".to_owned());
        }
        errors.extend(self.tracing.iter().flat_map(TracingConfig::errors));
        let mut nodes = Vec::new();
        for (position, node) in self.nodes.into_iter().enumerate() {
            match node.validate(&format!("nodes[{position}]")) {
                Ok(node) => nodes.push((position, node)),
                Err(wrong) => errors.extend(wrong),
            }
        }
        errors.extend(duplicates(nodes.iter().map(|(position, node)| (*position, node))));
        if errors.is_empty() {
            Ok(ClusterConfig {
                nodes: nodes.into_iter().map(|(_, node)| node).collect(),
                shards: self.shards,
                replication: self.replication,
                limits: self.limits,
                fan_out: self.fan_out,
                read_zone: self.read_zone,
                on_missing_shards: self.on_missing_shards,
                on_lost_control: self.on_lost_control,
                path_prefix: self.path_prefix,
                tracing: self.tracing,
                moves: self.moves,
            })
        } else {
            Err(Error::Config(errors))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_is_named_at_once() {
        let file: ClusterFile = serde_yaml_ng::from_str(
            "nodes:\n- {name: a, url: 'http://x:1'}\n- {name: b, url: nonsense}\n- {name: 'b c', url: 'ftp://x'}\n\
             - {name: a, url: 'http://y:1', weight: 2}\nshards: 513\nreplication: 9\nmoves: {shardsAtOnce: 0}\n\
             tracing: {cluster: otel, sampling: 2}\n",
        )
        .unwrap();
        let Error::Config(errors) = file.validate().unwrap_err() else { panic!("not a configuration error") };
        for key in [
            "shards:",
            "replication:",
            "moves.shardsAtOnce:",
            "tracing.sampling:",
            "nodes[3].name",
            "nodes[1].url",
            "nodes[2].name",
            "nodes[2].url",
        ] {
            assert!(errors.iter().any(|error| error.starts_with(key)), "{key} not in {errors:?}");
        }
    }

    #[test]
    fn json_is_read_too() {
        let file: ClusterFile = serde_yaml_ng::from_str(
            r#"{"nodes":[{"name":"a","url":"http://127.0.0.1:7700"}],"replication":1}"#,
        )
        .unwrap();
        let config = file.validate().unwrap();
        assert_eq!((config.shards, config.nodes[0].cluster.as_str()), (64, "a"));
        assert!(serde_yaml_ng::from_str::<ClusterFile>("nodes: []\nshardz: 3").is_err());
    }
}
