//! Publishes the topology: the filter's configuration (ECDS) and the clusters (CDS), as files that Envoy watches, by gRPC, or
//! through a mesh's control plane.

pub mod bootstrap;
pub mod folder;
pub mod grpc;
pub mod json_resources;
pub mod kubernetes;
pub mod protobuf_resources;
pub mod subscribers;
#[cfg(test)]
mod tests;

use crate::{
    base::{
        config::{self, ClusterConfig},
        error::{Error, Result},
        time::Instant,
        tls::UpstreamTls,
    },
    disguise::settings_tag::{self, FILTERABLE},
    domain::{
        cluster_state::{ClusterState, Index},
        search_rules::pins,
    },
};
use folder::Folder;
use miroir_core::{
    node_name::NodeName,
    shard::Shard,
    topology::{ControlConfig, IndexConfig, NodeConfig, SCHEMA, StaleReplicas, Topology, TopologyConfig},
};
use std::sync::Arc;
use subscribers::Subscribers;
use tokio::sync::watch;

/// The name of the filter's configuration.
pub const FILTER: &str = "miroir";

/// Where and how the topology is published.
#[derive(Clone, Debug)]
pub struct Publisher {
    /// The folder that Envoy watches.
    pub folder: Option<Folder>,
    /// The filter's module: its path on the gateways, or its URL.
    pub wasm: String,
    /// Where Envoy reaches the control plane, `host:port`.
    pub control: String,
    /// The Envoy cluster of the control plane: [`config::CONTROL_CLUSTER`], or one that the user has defined.
    pub control_cluster: String,
    /// TLS from gateways to nodes with `https` URLs.
    pub tls: UpstreamTls,
    /// TLS from gateways to the control plane; `None` for plain HTTP.
    pub control_tls: Option<UpstreamTls>,
    /// The gateways' secret.
    pub secret: String,
    /// The key with which gateways read for clients without a key, if the user runs the cluster without a master key.
    pub read_key: Option<String>,
    /// The key with which gateways read what the client itself may not, such as the vector of the document that a
    /// similar-documents search starts from.
    pub internal_key: String,
    /// The last published snapshot.
    pub snapshots: watch::Sender<Option<Arc<Snapshot>>>,
    /// The subscribers that get it.
    pub subscribers: Subscribers,
}

/// One published version.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// When it was published.
    pub at: Instant,
    /// The filter's configuration.
    pub topology: TopologyConfig,
    /// The nodes that have an Envoy cluster.
    pub nodes: Vec<config::NodeConfig>,
    /// Where Envoy reaches the control plane, `host:port`.
    pub control: String,
    /// The Envoy cluster of the control plane.
    pub control_cluster: String,
    /// TLS from gateways to nodes with `https` URLs.
    pub tls: UpstreamTls,
    /// TLS from gateways to the control plane; `None` for plain HTTP.
    pub control_tls: Option<UpstreamTls>,
    /// The filter's module: its path on the gateways, or its URL.
    pub wasm: String,
}

impl Snapshot {
    /// Host and port of the control plane.
    #[must_use]
    pub fn control_address(&self) -> (&str, u16) {
        let (host, port) = self.control.rsplit_once(':').unwrap_or((&self.control, "80"));
        (host, port.parse().unwrap_or(80))
    }
}

impl Publisher {
    /// The topology for a cluster state.
    ///
    /// # Errors
    /// The topology is not valid.
    pub fn topology(&self, cluster: &ClusterConfig, cluster_state: &ClusterState) -> Result<Topology> {
        let position = |name: &NodeName| {
            let found = cluster_state.nodes.iter().position(|member| member.config.name == *name);
            found.and_then(|position| u16::try_from(position).ok())
        };
        let rules = cluster_state.rules_in_use();
        let config = TopologyConfig {
            schema: SCHEMA,
            version: cluster_state.version,
            nodes: cluster_state
                .nodes
                .iter()
                .map(|member| &member.config)
                .map(|node| NodeConfig {
                    name: node.name.clone(),
                    cluster: node.cluster.clone(),
                    zone: node.zone.clone().filter(|_| !cluster.read_zone.is_any()),
                })
                .collect(),
            placement: cluster_state
                .shards()
                .map(|shard| readable(cluster_state, shard).into_iter().filter_map(position).collect())
                .collect(),
            stale: stale(cluster_state, position),
            indexes: cluster_state
                .indexes
                .iter()
                .map(|(uid, index)| {
                    let settings_changing = cluster_state.is_changing(uid);
                    let pins = pins(&rules, uid);
                    (uid.clone(), IndexConfig { settings_changing, pins, ..index_config(index) })
                })
                .collect(),
            control: Some(ControlConfig {
                cluster: self.control_cluster.clone(),
                secret: self.secret.clone(),
            }),
            read_key: self.read_key.clone(),
            internal_key: Some(self.internal_key.clone()),
            fan_out: cluster.fan_out,
            read_zone: cluster.read_zone,
            on_missing_shards: cluster.on_missing_shards,
            on_lost_control: cluster.on_lost_control,
            path_prefix: cluster.path_prefix.clone(),
            server_name: cluster_state.server_name.clone(),
            legacy_search: cluster_state.legacy_search,
            tracing: cluster.tracing.clone(),
            limits: cluster.limits,
        };
        Topology::validate(config).map_err(|error| Error::Config(error.0))
    }

    /// Writes both files, and sends the snapshot to subscribers. The clusters of `retired` nodes stay in Envoy, because running
    /// requests may still use them.
    ///
    /// # Errors
    /// The topology is not valid, or a file cannot be written.
    pub fn publish(
        &self,
        cluster: &ClusterConfig,
        cluster_state: &ClusterState,
        retired: &[config::NodeConfig],
        now: Instant,
    ) -> Result<()> {
        let topology = self.topology(cluster, cluster_state)?;
        let nodes = cluster_state.nodes.iter().map(|member| &member.config).chain(retired);
        let snapshot = Arc::new(Snapshot {
            at: now,
            topology: topology.config().clone(),
            nodes: nodes.cloned().collect(),
            control: self.control.clone(),
            control_cluster: self.control_cluster.clone(),
            tls: self.tls.clone(),
            control_tls: self.control_tls.clone(),
            wasm: self.wasm.clone(),
        });
        self.snapshots.send_replace(Some(snapshot.clone()));
        let Some(folder) = &self.folder else { return Ok(()) };
        // Clusters first: the filter's configuration refers to them.
        let (clusters, filter) = (json_resources::clusters(&snapshot), json_resources::filter(&snapshot)?);
        folder.publish(vec![
            ("cds.json", serde_json::to_vec_pretty(&clusters)?),
            ("ecds.json", serde_json::to_vec_pretty(&filter)?),
        ])
    }
}

/// The nodes whose replicas of a shard gateways may read, at least for some index, in the order of rows. As long as not all gateways know which
/// replicas are stale in which index, a replica must have everything.
fn readable(cluster_state: &ClusterState, shard: Shard) -> Vec<&NodeName> {
    let is_known = cluster_state.stale_by_index;
    let is_readable = |node: &&NodeName| is_known || !cluster_state.stale.has(node, shard);
    let mut nodes: Vec<&NodeName> = cluster_state.active(shard).filter(is_readable).collect();
    let wanted = cluster_state.desired.get(usize::from(shard.0)).map_or(&[][..], Vec::as_slice);
    nodes.sort_by_key(|node| wanted.iter().position(|wanted| wanted == *node).unwrap_or(usize::MAX));
    nodes
}

/// Those of these replicas that gateways must not read for an index.
fn stale(cluster_state: &ClusterState, position: impl Fn(&NodeName) -> Option<u16>) -> StaleReplicas {
    let mut stale = StaleReplicas::default();
    for (index, node, shard, _) in cluster_state.stale.iter().filter(|_| cluster_state.stale_by_index) {
        if let Some(position) = position(node) {
            stale.insert(index, position, shard);
        }
    }
    stale
}

/// What gateways need to know of an index. Invalid settings do not occur here, because nodes have checked them; they would be
/// ignored.
fn index_config(index: &Index) -> IndexConfig {
    let mut config = IndexConfig { primary_key: index.primary_key.clone(), ..IndexConfig::default() };
    let setting = |group: &str, name: &str| index.settings.get(group)?.get(name).cloned();
    if let Some(hits) = setting("pagination", "maxTotalHits").and_then(|hits| hits.as_u64()) {
        config.max_total_hits = hits;
    }
    if let Some(values) = setting("faceting", "maxValuesPerFacet").and_then(|values| values.as_u64()) {
        config.max_values_per_facet = values;
    }
    if let Some(Ok(sorts)) = setting("faceting", "sortFacetValuesBy").map(serde_json::from_value) {
        config.sort_facet_values_by = sorts;
    }
    if let Some(rules) = index.settings.get("rankingRules").and_then(|rules| rules.as_array()) {
        config.ranking_rules = rules.iter().filter_map(|rule| rule.as_str().map(str::to_owned)).collect();
    }
    let distinct = index.settings.get("distinctAttribute").and_then(|attribute| attribute.as_str());
    config.distinct_attribute = distinct.map(str::to_owned);
    config.filterable = Some(settings_tag::filters(index.settings.get(FILTERABLE)));
    config
}

#[cfg(test)]
mod file_tests {
    use super::*;
    use crate::{
        base::config::ClusterFile,
        domain::cluster_state::{Index, Member, Replica},
    };

    fn movies() -> Index {
        let settings = serde_json::json!({
            "distinctAttribute": "series",
            "rankingRules": ["words", "sort", "year:desc"],
            "pagination": {"maxTotalHits": 5},
            "faceting": {"maxValuesPerFacet": 7, "sortFacetValuesBy": {"*": "count"}}
        });
        let settings = settings.as_object().cloned().unwrap();
        Index { primary_key: Some("id".into()), settings, ..Index::default() }
    }

    #[test]
    fn files_carry_a_valid_topology_of_active_replicas() {
        let folder = tempfile::tempdir().unwrap();
        let mut file =
            ClusterFile::from_flags(&["a=http://127.0.0.1:1".into(), "b=http://meili-b:2".into()]).unwrap();
        file.shards = 2;
        file.tracing = Some(miroir_core::trace::TracingConfig::new("otel"));
        let cluster = file.validate().unwrap();
        let publisher = Publisher {
            folder: Some(Folder::new(folder.path().to_owned(), crate::base::files::PRIVATE)),
            ..crate::testing::publisher()
        };
        let member = |config: &config::NodeConfig| Member {
            config: config.clone(),
            since: 1,
            draining: false,
            leaving: false,
        };
        let cluster_state = ClusterState {
            version: 4,
            replicas: vec![
                vec![Replica::active("b"), Replica::active("a")],
                vec![Replica::active("a"), Replica::stale("b")],
            ],
            nodes: cluster.nodes.iter().map(member).collect(),
            // The first row is node a's.
            desired: vec![vec!["a".into(), "b".into()]; 2],
            indexes: [("movies".to_owned(), movies())].into(),
            ..ClusterState::default()
        };
        publisher.publish(&cluster, &cluster_state, &[], Instant::now()).unwrap();
        let read = |name: &str| -> serde_json::Value {
            serde_json::from_slice(&std::fs::read(folder.path().join(name)).unwrap()).unwrap()
        };
        let ecds = read("ecds.json");
        let text = ecds["resources"][0]["typed_config"]["config"]["configuration"]["value"].as_str().unwrap();
        let topology = Topology::from_json(text.as_bytes()).unwrap();
        assert_eq!((topology.version(), topology.primary_key("movies")), (4, Some("id")));
        let movies = &topology.config().indexes["movies"];
        assert_eq!((movies.max_total_hits, movies.max_values_per_facet), (5, 7));
        assert_eq!(movies.sort_facet_values_by.len(), 1);
        assert_eq!(movies.ranking_rules, ["words", "sort", "year:desc"]);
        assert_eq!(movies.distinct_attribute.as_deref(), Some("series"));
        assert_eq!(movies.filterable, Some(Vec::new()));
        assert_eq!(topology.config().tracing.as_ref().map(|tracing| &*tracing.cluster), Some("otel"));
        assert_eq!(topology.config().placement, [vec![0, 1], vec![0]]);
        let cds = read("cds.json");
        let names: Vec<_> =
            cds["resources"].as_array().unwrap().iter().map(|r| (&r["name"], &r["type"])).collect();
        assert_eq!(
            names,
            [
                (&"a".into(), &"STATIC".into()),
                (&"b".into(), &"STRICT_DNS".into()),
                (&"miroir_control".into(), &"STATIC".into()),
            ] as [(&serde_json::Value, &serde_json::Value); 3]
        );
    }
}
