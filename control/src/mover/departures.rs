//! A node that must leave the cluster leaves it once it holds no replica. What it still has of the cluster is deleted afterwards, however
//! long it is away meanwhile, and over restarts of the control plane.

use super::Mover;
use crate::{
    base::{config::NodeConfig, error::Result, time::Instant},
    cluster::Cluster,
    domain::{cluster_state::ClusterState, key_holder::KeyHolder},
    ledger::departed,
    node::Node,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use url::Url;

/// How often it is looked whether a node leaves.
const TICK: Duration = Duration::from_millis(200);
/// The pause before a node that has left is asked again, and before a ledger that failed.
const PAUSE: Duration = Duration::from_secs(5);

/// Lets nodes leave, forever, unless this runs already.
pub fn spawn(cluster: &Arc<Cluster>) {
    Mover::alone(cluster, "departures".to_owned(), |cluster| async move {
        let mut departures = Departures::default();
        loop {
            if let Err(error) = departures.look(&cluster).await {
                tracing::warn!(error = %error.chain(), "nodes that leave: not done yet, will be tried again");
                tokio::time::sleep(PAUSE).await;
            }
            tokio::time::sleep(TICK).await;
        }
    });
}

#[derive(Default)]
struct Departures {
    /// The nodes that have left and are not cleared yet; `None` until they are read from the ledger.
    departed: Option<Vec<NodeConfig>>,
    /// When a node was asked last that did not answer.
    tried: BTreeMap<Url, Instant>,
}

impl Departures {
    /// Lets nodes leave that hold nothing any more, and clears those that have left and answer.
    async fn look(&mut self, cluster: &Cluster) -> Result<()> {
        let leaving = empty_leaving_nodes(&cluster.cluster_state());
        if !leaving.is_empty() {
            self.departed = None;
            // Before they leave, so that a crash between the two forgets none of them. Members are not cleared.
            cluster.ledger.call(move |connection| departed::add(connection, leaving)).await?;
            leave(cluster).await?;
        }
        let departed = match self.departed.take() {
            Some(departed) => departed,
            None => cluster.ledger.read(departed::all).await?,
        };
        for config in self.departed.insert(departed).clone() {
            let last = self.tried.get(&config.url);
            if last.is_none_or(|last| cluster.clock.since(*last) >= PAUSE) {
                self.clear(cluster, config).await?;
            }
        }
        Ok(())
    }

    async fn clear(&mut self, cluster: &Cluster, config: NodeConfig) -> Result<()> {
        let url = config.url.clone();
        if !is_member(cluster, &url)
            && let Err(error) = clear(cluster, &cluster.outside_node(config)).await
        {
            if self.tried.insert(url.clone(), cluster.clock.monotonic()).is_none() {
                tracing::warn!(%url, error = %error.chain(), "a node that has left keeps its indexes and internal keys until it answers");
            }
            return Ok(());
        }
        self.tried.remove(&url);
        self.departed = None;
        cluster.ledger.call(move |connection| departed::remove(connection, &url)).await
    }
}

/// The nodes that must leave and hold no replica any more.
fn empty_leaving_nodes(cluster_state: &ClusterState) -> Vec<NodeConfig> {
    let holds = |name: &str| cluster_state.replicas.iter().flatten().any(|replica| replica.node == name);
    let leaving = cluster_state.nodes.iter().filter(|member| member.leaving && !holds(&member.config.name));
    leaving.map(|member| member.config.clone()).collect()
}

/// Removes these nodes from the cluster.
async fn leave(cluster: &Cluster) -> Result<()> {
    let mut gone = Vec::new();
    cluster
        .change(|cluster_state| {
            gone = empty_leaving_nodes(cluster_state);
            cluster_state.nodes.retain(|member| !gone.contains(&member.config));
            cluster_state.behind.retain(|name| !gone.iter().any(|config| config.name == *name));
        })
        .await?;
    for config in gone {
        tracing::info!(node = config.name.as_str(), "a node has left the cluster");
    }
    Ok(())
}

/// Whether a node of the cluster has this URL: the one that has left has joined again.
fn is_member(cluster: &Cluster, url: &Url) -> bool {
    cluster.cluster_state().nodes.iter().any(|member| member.config.url == *url)
}

/// Deletes what a node that has left still has of the cluster: indexes and internal keys. The key that gateways read under is the last
/// one: it shows that the node has the cluster's data. A node without it has been emptied, or is another one, and stays as it is.
///
/// # Errors
/// The node did not answer, or refused.
async fn clear(cluster: &Cluster, node: &Node) -> Result<()> {
    if !node.has_joined().await? {
        return Ok(());
    }
    let internal = node.keys().await?.into_iter().filter(|(_, key)| KeyHolder::of(key).is_internal());
    let (reads, others): (Vec<_>, Vec<_>) =
        internal.partition(|(_, key)| KeyHolder::of(key) == KeyHolder::GatewayReads);
    // First the keys with which late requests could make indexes anew.
    let mut deletions: Vec<_> = others.into_iter().map(|(uid, _)| Deletion::Key(uid)).collect();
    deletions.extend(node.index_uids().await?.into_iter().map(Deletion::Index));
    deletions.extend(reads.into_iter().map(|(uid, _)| Deletion::Key(uid)));
    for deletion in deletions {
        if is_member(cluster, &node.url) {
            break;
        }
        match deletion {
            Deletion::Key(uid) => node.delete_key(&uid).await?,
            Deletion::Index(uid) => node.delete_index(&uid).await?,
        }
    }
    Ok(())
}

/// What is deleted on a node that has left.
enum Deletion {
    Key(String),
    Index(String),
}

#[cfg(test)]
mod tests;
