//! One control plane serves a cluster, with the cluster's newest ledger.
//!
//! Each start of a control plane is an instance, with a random id. The ledger knows its instances, and each node names the one that
//! serves it, in the description of the key that gateways read under. So nodes tell when a ledger is not the newest: they name an instance
//! that it does not know. Where they name one that it knows, that one may live, with a copy of this ledger: unless the file is where that
//! instance had it, whose folder is claimed now, it is asked.

use crate::{
    base::error::{Error, Result},
    cluster::Cluster,
    domain::serving::Serving,
    ledger::instances::{self, KnownInstances},
    node::Node,
};
use futures_util::future::join_all;
use std::{sync::Arc, time::Duration};
use uuid::Uuid;

/// How often it is looked which instance nodes name.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long an instance has to show that it lives: three looks, and a node that hangs at one of them.
const CHALLENGE: Duration = Duration::from_secs(5);
/// How often it is looked whether it has.
const POLL: Duration = Duration::from_millis(250);
/// How long a gateway may take to report again that its topology is newer than the ledger.
const REPORT: Duration = Duration::from_secs(3);

/// What to do about a ledger that is not the newest.
pub const OLDER: &str = "The ledger is older than the cluster's data, and nothing is changed on nodes. Put the newest ledger in place. If it \
                         is lost, move this one away, with the files -wal and -shm beside it, and make a new one from the nodes with \
                         `miroir recover`";

/// What nodes tell.
#[derive(Default)]
struct Told {
    /// How many nodes answer.
    answers: usize,
    /// Those that have the key. One that has not has lost its disk, or is new.
    serving: Vec<(Arc<Node>, Serving)>,
    /// Those that tell nothing that can be read.
    unreadable: Vec<Arc<Node>>,
}

impl Told {
    async fn by(nodes: impl IntoIterator<Item = Arc<Node>>) -> Self {
        let asked = nodes.into_iter().map(async |node| {
            let serving = node.serving().await;
            (node, serving)
        });
        let mut told = Self::default();
        for (node, serving) in join_all(asked).await {
            match serving {
                Ok(serving) => {
                    told.answers += 1;
                    told.serving.extend(serving.map(|serving| (node, serving)));
                }
                Err(error) => {
                    tracing::debug!(node = node.name.as_str(), error = %error.chain(), "a node does not tell which control plane serves it");
                    told.unreadable.extend(matches!(error, Error::UnreadableAnswer { .. }).then_some(node));
                }
            }
        }
        told
    }

    async fn by_nodes_of(cluster: &Cluster) -> Self {
        Self::by(cluster.nodes().iter().filter(|node| node.is_up()).cloned()).await
    }

    fn instances(&self) -> Vec<Uuid> {
        self.serving.iter().filter_map(|(_, serving)| serving.instance).collect()
    }
}

async fn known(cluster: &Cluster, ids: Vec<Uuid>) -> Result<KnownInstances> {
    cluster.ledger.read(move |connection| instances::known(connection, ids)).await
}

/// Makes this instance the one that serves the cluster. Before this, a start changes nothing on nodes.
///
/// # Errors
/// The ledger is not the newest one; another control plane serves the cluster with a copy of it; no node answers; or the ledger failed.
pub async fn take_over(cluster: &Cluster) -> Result<()> {
    let told = Told::by_nodes_of(cluster).await;
    if told.answers == 0 {
        return Err(Error::NoNode);
    }
    let found = known(cluster, told.instances()).await?;
    let is_unknown = |id: &Uuid| !found.known.contains(id);
    let unknown = told.instances().into_iter().filter(is_unknown).count();
    if unknown > 0 && unknown * 2 >= told.serving.len() {
        return Err(Error::Superseded(format!(
            "{unknown} of {} nodes were served last by a control plane with another ledger, or with a newer state of this one. {OLDER}",
            told.serving.len()
        )));
    }
    let place = cluster.options.place.clone();
    let is_where_it_was = place.is_some() && place == found.place;
    if !told.instances().is_empty() && !is_where_it_was {
        challenge(cluster, &told).await?;
    }
    let id = cluster.instance.id;
    // Before a node names it: a ledger that does not know what nodes name is not the newest.
    cluster.ledger.call(move |connection| instances::store(connection, id, place.as_deref())).await?;
    name(&told.serving, Serving::by(id)).await;
    Ok(())
}

/// Lets nodes name what they are to name. One that fails is told again at the next look. Returns the others.
async fn name(nodes: &[(Arc<Node>, Serving)], serving: Serving) -> Vec<Arc<Node>> {
    let named = nodes.iter().map(async |(node, _)| match node.set_serving(serving).await {
        Ok(()) => Some(node.clone()),
        Err(error) => {
            tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a node could not be told yet which control plane serves it");
            None
        }
    });
    join_all(named).await.into_iter().flatten().collect()
}

/// Asks the instance that nodes name whether it lives: it finds the question within a second, and puts its own name back.
async fn challenge(cluster: &Cluster, told: &Told) -> Result<()> {
    let own = cluster.instance.id;
    tracing::info!(
        wait = ?CHALLENGE,
        "the ledger is not where it was: it is found out whether another control plane serves the cluster with a copy of it"
    );
    let asked = told.serving.iter().map(async |(node, serving)| {
        let question = Serving { challenger: Some(own), ..*serving };
        name(&[(node.clone(), *serving)], question).await
    });
    let asked: Vec<_> = join_all(asked).await.into_iter().flatten().collect();
    if asked.is_empty() {
        return Err(Error::NoNode);
    }
    let begun = cluster.clock.monotonic();
    while cluster.clock.since(begun) < CHALLENGE {
        tokio::time::sleep(POLL).await;
        cluster.instance.check()?;
        let answers = Told::by(asked.iter().cloned()).await.serving;
        if let Some((_, answer)) = answers.iter().find(|(_, serving)| serving.challenger != Some(own)) {
            let what = match answer.challenger {
                Some(_) => "another control plane starts",
                None => "another control plane serves this cluster",
            };
            return Err(Error::Superseded(format!(
                "{what} with a copy of this ledger. Run one control plane a cluster, and stop the other one before its ledger is moved"
            )));
        }
    }
    Ok(())
}

/// Looks each second whether nodes name this instance, forever.
pub async fn watch(cluster: Arc<Cluster>) {
    while !cluster.instance.is_stopped() {
        tokio::time::sleep(INTERVAL).await;
        if let Err(error) = look(&cluster).await {
            tracing::warn!(error = %error.chain(), "it could not be found out whether another control plane serves the cluster");
        }
    }
    std::future::pending().await
}

/// Ends this instance where another one has taken over, and otherwise lets nodes name this one: those that were away, and those at which
/// another one has asked whether this one lives.
async fn look(cluster: &Cluster) -> Result<()> {
    let own = Serving::by(cluster.instance.id);
    let mut told = Told::by_nodes_of(cluster).await;
    let all = told.serving.len();
    told.serving.retain(|(_, serving)| *serving != own);
    let found = known(cluster, told.instances()).await?;
    let others = told.instances().into_iter().filter(|id| !found.known.contains(id)).count();
    if found.newest.is_some_and(|newest| newest != cluster.instance.id) || others * 2 > all {
        cluster.instance.stop(
            "another control plane serves this cluster now. What this one has done since is not in the other one's ledger",
        );
        return Ok(());
    }
    for (node, serving) in &told.serving {
        if serving.challenger.is_some() || serving.instance.is_some_and(|id| !found.known.contains(&id)) {
            tracing::error!(
                node = node.name.as_str(),
                "another control plane wants to serve this cluster with a copy of this one's ledger: it is told that this one lives"
            );
        }
    }
    let unreadable = told.unreadable.into_iter().map(|node| (node, Serving::default()));
    told.serving.extend(unreadable);
    name(&told.serving, own).await;
    Ok(())
}

/// Whether a node that tells this is another control plane's now: then it gets nothing from this one.
///
/// # Errors
/// The ledger failed.
pub async fn is_anothers(cluster: &Cluster, serving: &Serving) -> Result<bool> {
    let Some(other) = serving.instance.filter(|id| *id != cluster.instance.id) else { return Ok(false) };
    Ok(!known(cluster, vec![other]).await?.known.contains(&other))
}

/// A node has a task of a write that this ledger has not begun: it ends this instance.
pub fn has_unknown_write(cluster: &Cluster, node: &Node, uid: u32) -> Error {
    cluster.instance.stop(format!(
        "node `{}` has taken a write with the task uid {uid}, which this ledger has not given yet. {OLDER}",
        node.name
    ));
    cluster.instance.check().err().unwrap_or(Error::NoNode)
}

/// A gateway reports its newest topology. One that is newer than the ledger ends this instance.
///
/// # Errors
/// It is newer.
pub async fn check_topology(cluster: &Cluster, gateway: &str, newest: u64) -> Result<()> {
    let own = cluster.cluster_state().version;
    if newest <= own {
        return Ok(());
    }
    cluster.instance.stop(format!(
        "gateway `{gateway}` has the topology {newest}, and {own} is the ledger's newest. {OLDER}. If the cluster is new, or was restored, restart its \
         gateways"
    ));
    // The next start waits for the gateway's report before it publishes anything.
    cluster.ledger.call(move |connection| instances::note_ahead(connection, newest)).await?;
    cluster.instance.check()
}

/// Waits for gateways' reports, if the start before this one has ended because a gateway had a newer topology.
///
/// # Errors
/// A gateway has one still; or the ledger failed.
pub async fn hear_gateways(cluster: &Cluster) -> Result<()> {
    let ahead = cluster.ledger.call(instances::take_ahead).await?;
    if ahead.is_none_or(|ahead| ahead <= cluster.cluster_state().version) {
        return Ok(());
    }
    // Whoever reports notes it again.
    tokio::time::timeout(REPORT, cluster.instance.stopped()).await.map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests;
