//! The cluster's description: nodes, shards, replication, limits. Validated whole, with every error at once.

use crate::error::{Error, Result};
use miroir_core::{
    shard::MAX_SHARDS,
    topology::{FanOut, Limits, OnMissingShards},
};
use serde::Deserialize;
use std::{collections::HashSet, path::Path};

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
    /// Replicas a shard.
    #[serde(default = "default_replication")]
    pub replication: usize,
    /// Bounds on time and memory, passed on to gateways.
    #[serde(default)]
    pub limits: Limits,
    /// How gateways choose nodes for a search.
    #[serde(default)]
    pub fan_out: FanOut,
    /// What a search answers when a shard has no replica left.
    #[serde(default)]
    pub on_missing_shards: OnMissingShards,
}

/// A node in the configuration file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeFile {
    /// Its name in the cluster.
    pub name: String,
    /// Where it listens, `http://host:port`.
    pub url: String,
    /// The Envoy cluster that reaches it; its name, where nothing is said.
    #[serde(default)]
    pub cluster: Option<String>,
}

/// Shards of a cluster that says nothing.
#[must_use]
pub fn default_shards() -> u16 {
    64
}

/// Replicas a shard in a cluster that says nothing.
#[must_use]
pub fn default_replication() -> usize {
    2
}

/// A configuration that cannot be wrong.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Meilisearch nodes, at least one.
    pub nodes: Vec<NodeConfig>,
    /// 1 to 512.
    pub shards: u16,
    /// 1 to the number of nodes.
    pub replication: usize,
    /// Bounds.
    pub limits: Limits,
    /// How gateways choose nodes for a search.
    pub fan_out: FanOut,
    /// What a search answers when a shard has no replica left.
    pub on_missing_shards: OnMissingShards,
}

/// A valid node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// Its name in the cluster.
    pub name: String,
    /// Where it listens.
    pub url: url::Url,
    /// The Envoy cluster that reaches it.
    pub cluster: String,
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
            .filter_map(|flag| match flag.split_once('=') {
                Some((name, url)) => {
                    Some(NodeFile { name: name.to_owned(), url: url.to_owned(), cluster: None })
                }
                None => {
                    errors.push(format!("--node {flag}: must be NAME=URL"));
                    None
                }
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
            on_missing_shards: OnMissingShards::default(),
        })
    }

    /// Makes sure that nothing in it can be wrong.
    ///
    /// # Errors
    /// All that is wrong, at once, each error naming its key.
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
        let mut names = HashSet::new();
        let mut clusters = HashSet::new();
        let mut nodes = Vec::new();
        for (position, node) in self.nodes.into_iter().enumerate() {
            let key = format!("nodes[{position}]");
            if node.name.is_empty()
                || !node.name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            {
                errors.push(format!("{key}.name: `{}` must be letters, digits, `-`, `_`, `.`", node.name));
            }
            if !names.insert(node.name.clone()) {
                errors.push(format!("{key}.name: `{}` is there twice", node.name));
            }
            let cluster = node.cluster.unwrap_or_else(|| node.name.clone());
            if cluster == crate::publish::CONTROL_CLUSTER || !clusters.insert(cluster.clone()) {
                errors.push(format!("{key}.cluster: `{cluster}` is there twice"));
            }
            match url::Url::parse(&node.url) {
                Ok(url) if url.scheme() == "http" && url.host_str().is_some() => {
                    nodes.push(NodeConfig { name: node.name, url, cluster });
                }
                Ok(_) => errors.push(format!("{key}.url: `{}` must be http://host:port", node.url)),
                Err(error) => errors.push(format!("{key}.url: `{}`: {error}", node.url)),
            }
        }
        if errors.is_empty() {
            Ok(ClusterConfig {
                nodes,
                shards: self.shards,
                replication: self.replication,
                limits: self.limits,
                fan_out: self.fan_out,
                on_missing_shards: self.on_missing_shards,
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
            "nodes:\n- {name: a, url: 'http://x:1'}\n- {name: a, url: nonsense}\n- {name: 'b c', url: 'ftp://x'}\n\
             shards: 513\nreplication: 9\n",
        )
        .unwrap();
        let Error::Config(errors) = file.validate().unwrap_err() else { panic!("not a configuration error") };
        for key in
            ["shards:", "replication:", "nodes[1].name", "nodes[1].url", "nodes[2].name", "nodes[2].url"]
        {
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
