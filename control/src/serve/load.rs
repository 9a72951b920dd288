//! What a control plane reads from its ledger at its start.

use crate::{
    base::{config::ClusterConfig, error::Result},
    cluster::World,
    domain::cluster_state::{ClusterState, Member, Replica},
    ledger::{self, catalogue, leases},
};
use miroir_core::node_name::NodeName;
use uuid::Uuid;

/// What the ledger says of a cluster at its start.
#[derive(Debug)]
pub struct Loaded {
    /// The cluster's state, with the description's addresses.
    pub cluster_state: ClusterState,
    /// The uid of the key of gateways' own reads.
    pub read_key: Uuid,
    /// The VMs that may have a lease from before.
    pub gateways: Option<Vec<String>>,
}

/// Reads the ledger, and initializes it at the first start.
///
/// # Errors
/// The ledger failed.
pub async fn load(world: &World, config: &ClusterConfig) -> Result<Loaded> {
    let first = first_view(config);
    let described = config.clone();
    let random = world.random.clone();
    world
        .ledger
        .call(move |connection| {
            if catalogue::load(connection)?.is_none() {
                leases::know_leases(connection)?;
            }
            let cluster_state = match catalogue::load(connection)? {
                Some(mut cluster_state) => {
                    let old = cluster_state.clone();
                    take_addresses(&mut cluster_state, &described);
                    if cluster_state != old {
                        cluster_state.version += 1;
                        catalogue::store(connection, &old, &cluster_state)?;
                    }
                    cluster_state
                }
                None => {
                    catalogue::store(connection, &ClusterState::default(), &first)?;
                    first
                }
            };
            let read_key = match ledger::meta_as(connection, "read_key")? {
                Some(uid) => uid,
                None => {
                    let uid = random.uuid();
                    ledger::set_meta(connection, "read_key", &uid.hyphenated().to_string())?;
                    uid
                }
            };
            Ok(Loaded { cluster_state, read_key, gateways: leases::leases(connection)? })
        })
        .await
}

fn first_view(config: &ClusterConfig) -> ClusterState {
    let nodes = config.nodes.iter().map(|node| Member {
        config: node.clone(),
        since: 1,
        draining: false,
        leaving: false,
    });
    let mut cluster_state = ClusterState {
        version: 1,
        nodes: nodes.collect(),
        replication: config.replication,
        replicas: vec![Vec::new(); usize::from(config.shards)],
        stale_by_index: true,
        ..ClusterState::default()
    };
    cluster_state.desired = cluster_state.planned();
    let of_shard = |(shard, nodes): (usize, &Vec<NodeName>)| {
        let mut nodes = nodes.clone();
        // Copies are made from the first one: not always from the same row.
        let first = shard % nodes.len().max(1);
        nodes.rotate_left(first);
        nodes.iter().map(Replica::active).collect()
    };
    cluster_state.replicas = cluster_state.desired.iter().enumerate().map(of_shard).collect();
    cluster_state
}

/// Takes the nodes' URLs and Envoy clusters from the description. After the first start, the list of nodes itself comes from
/// the ledger.
fn take_addresses(cluster_state: &mut ClusterState, config: &ClusterConfig) {
    for described in &config.nodes {
        match cluster_state.nodes.iter_mut().find(|member| member.config.name == described.name) {
            Some(member)
                if member.config.url != described.url || member.config.cluster != described.cluster =>
            {
                tracing::info!(node = described.name.as_str(), url = %described.url, "a node's address has changed");
                member.config.url = described.url.clone();
                member.config.cluster.clone_from(&described.cluster);
            }
            Some(_) => {}
            None => tracing::warn!(
                node = described.name.as_str(),
                "the description names a node that is not in the cluster: add it with `miroir node add`"
            ),
        }
    }
}
