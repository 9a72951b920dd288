//! The smallest topology.

use super::{
    FanOut, Limits, NodeConfig, OnLostControl, OnMissingShards, ReadZone, SCHEMA, StaleReplicas,
    TopologyConfig,
};
use std::collections::BTreeMap;

impl TopologyConfig {
    /// Version 1 of a topology: these nodes, whose Envoy clusters have their names, and which of them hold each shard. Everything else is
    /// by default.
    #[must_use]
    pub fn of<R: Into<Vec<u16>>>(nodes: &[&str], placement: impl IntoIterator<Item = R>) -> Self {
        let node = |name: &&str| NodeConfig { name: (*name).into(), cluster: (*name).to_owned(), zone: None };
        Self {
            schema: SCHEMA,
            version: 1,
            nodes: nodes.iter().map(node).collect(),
            placement: placement.into_iter().map(Into::into).collect(),
            stale: StaleReplicas::default(),
            indexes: BTreeMap::new(),
            control: None,
            read_key: None,
            internal_key: None,
            fan_out: FanOut::default(),
            read_zone: ReadZone::default(),
            on_missing_shards: OnMissingShards::default(),
            on_lost_control: OnLostControl::default(),
            path_prefix: None,
            server_name: None,
            legacy_search: false,
            tracing: None,
            limits: Limits::default(),
        }
    }
}
