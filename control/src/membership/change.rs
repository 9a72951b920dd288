//! Applies an operation to the cluster state. Pure: it does no I/O, and reports all errors at once, with what to do about them.

use super::Operation;
use crate::{
    base::config::{NodeConfig, NodeFile, duplicates},
    domain::cluster_state::{ClusterState, Member, Replica, ReplicaState},
};
use miroir_core::{node_name::NodeName, shard::Shard};
use serde::{Deserialize, Serialize};

/// The desired nodes and replication of a cluster: the file of `miroir topology show` and `apply`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TopologyFile {
    /// The number of replicas per shard.
    pub replication: usize,
    /// All nodes. A node of the cluster that is not listed here leaves it, once its replicas have moved to others.
    pub nodes: Vec<NodeFile>,
}

/// Everything that is wrong.
type Refusal = Vec<String>;

/// Changes the cluster state as an operation wants it.
///
/// # Errors
/// Everything that is wrong.
pub fn change(cluster_state: &mut ClusterState, operation: &Operation) -> Result<(), Refusal> {
    let is_lost = matches!(operation, Operation::LostNode { .. });
    // A node may be removed while it is being drained.
    let goes_with_others = is_lost || matches!(operation, Operation::RemoveNode { .. } | Operation::Throttle);
    if cluster_state.is_moving() && !goes_with_others {
        return Err(vec![
            "replicas are being moved: wait until the moves have ended (`miroir status`), then try again"
                .to_owned(),
        ]);
    }
    match operation {
        Operation::AddNode { node } => add(cluster_state, node.clone())?,
        Operation::DrainNode { name } => drain(cluster_state, name, false)?,
        Operation::RemoveNode { name } => return remove(cluster_state, name),
        Operation::ReplaceNode { name, node } => return replace(cluster_state, name, node.clone()),
        Operation::LostNode { name, force } => lose(cluster_state, name, *force)?,
        Operation::Rebalance => {}
        Operation::Throttle => return Ok(()),
        Operation::SetReplication { replicas } => cluster_state.replication = *replicas,
        Operation::Apply { topology } => apply(cluster_state, topology.clone())?,
    }
    has_room(cluster_state)?;
    let desired = match operation {
        Operation::Rebalance | Operation::Apply { .. } => cluster_state.rebalanced(),
        _ => cluster_state.planned(),
    };
    cluster_state.set_desired(desired);
    Ok(())
}

fn has_room(cluster_state: &ClusterState) -> Result<(), Refusal> {
    let takers = cluster_state.nodes.iter().filter(|member| !member.draining).count();
    if cluster_state.replication == 0 {
        return Err(vec!["replication: must be at least 1".to_owned()]);
    }
    if takers < cluster_state.replication {
        return Err(vec![format!(
            "{takers} node(s) would be left for {} replicas of each shard: add a node first, or lower the replication with \
             `miroir replication set`",
            cluster_state.replication
        )]);
    }
    Ok(())
}

fn unknown(cluster_state: &ClusterState, name: &str) -> Refusal {
    let names: Vec<&str> = cluster_state.nodes.iter().map(|member| member.config.name.as_str()).collect();
    vec![format!("there is no node `{name}`; there are {}", names.join(", "))]
}

fn member<'a>(cluster_state: &'a mut ClusterState, name: &str) -> Result<&'a mut Member, Refusal> {
    if cluster_state.member(name).is_none() {
        return Err(unknown(cluster_state, name));
    }
    let found = cluster_state.nodes.iter_mut().find(|member| member.config.name == name);
    found.ok_or_else(Vec::new)
}

fn add(cluster_state: &mut ClusterState, node: NodeFile) -> Result<(), Refusal> {
    let config = node.validate("node")?;
    for member in &cluster_state.nodes {
        let known = &member.config;
        if known.name == config.name {
            return Err(vec![format!("node `{}` is in the cluster already, at {}", known.name, known.url)]);
        }
        if known.url == config.url {
            return Err(vec![format!("{} is in the cluster already, as node `{}`", known.url, known.name)]);
        }
        if known.cluster == config.cluster {
            return Err(vec![format!(
                "the Envoy cluster `{}` is that of node `{}`: choose another with --cluster",
                known.cluster, known.name
            )]);
        }
    }
    insert(cluster_state, config);
    Ok(())
}

fn insert(cluster_state: &mut ClusterState, config: NodeConfig) {
    // The node must get keys, indexes and settings before it gets replicas.
    cluster_state.behind.insert(config.name.clone());
    let since = cluster_state.version + 1;
    cluster_state.nodes.push(Member { config, since, draining: false, leaving: false });
}

fn drain(cluster_state: &mut ClusterState, name: &str, leaving: bool) -> Result<(), Refusal> {
    let member = member(cluster_state, name)?;
    if member.draining && !leaving {
        return Err(vec![format!(
            "node `{name}` is drained already; remove it with `miroir node remove {name}`"
        )]);
    }
    member.draining = true;
    member.leaving |= leaving;
    Ok(())
}

fn remove(cluster_state: &mut ClusterState, name: &str) -> Result<(), Refusal> {
    let held = cluster_state.replicas.iter().flatten().filter(|replica| replica.node == name).count();
    let member = member(cluster_state, name)?;
    if !member.draining {
        return Err(vec![format!(
            "node `{name}` holds {held} replicas: move them away first, with `miroir node drain {name}`"
        )]);
    }
    member.leaving = true;
    Ok(())
}

/// The new node gets exactly the replicas of the old one.
fn replace(cluster_state: &mut ClusterState, name: &str, node: NodeFile) -> Result<(), Refusal> {
    let old = member(cluster_state, name)?.config.clone();
    let node =
        NodeFile { weight: node.weight.or(Some(old.weight)), zone: node.zone.clone().or(old.zone), ..node };
    let new = NodeName::from(node.name.as_str());
    add(cluster_state, node)?;
    drain(cluster_state, name, true)?;
    has_room(cluster_state)?;
    let renamed = cluster_state.desired.iter().map(|nodes| {
        nodes.iter().map(|node| if node == name { new.clone() } else { node.clone() }).collect()
    });
    let desired = renamed.collect();
    cluster_state.set_desired(desired);
    Ok(())
}

fn lose(cluster_state: &mut ClusterState, name: &str, force: bool) -> Result<(), Refusal> {
    if cluster_state.member(name).is_none() {
        return Err(unknown(cluster_state, name));
    }
    let only: Vec<Shard> = cluster_state
        .shards()
        .filter(|shard| cluster_state.active(*shard).any(|node| node == name))
        .filter(|shard| !cluster_state.is_readable(*shard, |other| other != name))
        .collect();
    if !only.is_empty() && !force {
        let numbers: Vec<String> = only.iter().map(|shard| shard.0.to_string()).collect();
        return Err(vec![format!(
            "node `{name}` holds the only complete copy of {} shard(s): {}. Bring it back; or, if it is lost for good, give up these \
             documents with --force",
            only.len(),
            numbers.join(", ")
        )]);
    }
    cluster_state.nodes.retain(|member| member.config.name != name);
    cluster_state.behind.remove(name);
    cluster_state.stale.retain(|_, node, _| node != name);
    for replicas in &mut cluster_state.replicas {
        replicas.retain(|replica| replica.node != name);
    }
    for nodes in &mut cluster_state.desired {
        nodes.retain(|node| node != name);
    }
    has_room(cluster_state)?;
    let desired = cluster_state.planned();
    cluster_state.set_desired(desired);
    // If a shard has no complete replica left, a stale one becomes active: its documents are all that is left.
    for shard in only {
        if cluster_state.active(shard).next().is_some() {
            continue;
        }
        let replicas = cluster_state.replicas.get_mut(usize::from(shard.0)).into_iter().flatten();
        if let Some(first) = replicas.into_iter().find(|replica| replica.state == ReplicaState::Stale) {
            *first = Replica::active(first.node.clone());
        }
    }
    cluster_state.accept_what_is_left();
    Ok(())
}

fn apply(cluster_state: &mut ClusterState, file: TopologyFile) -> Result<(), Refusal> {
    let mut errors = Vec::new();
    let mut wanted = Vec::new();
    for (position, node) in file.nodes.into_iter().enumerate() {
        match node.validate(&format!("nodes[{position}]")) {
            Ok(node) => wanted.push((position, node)),
            Err(wrong) => errors.extend(wrong),
        }
    }
    errors.extend(duplicates(wanted.iter().map(|(position, node)| (*position, node))));
    for (position, node) in &wanted {
        let known = cluster_state.member(&node.name).map(|member| &member.config);
        if known.is_some_and(|known| known.url != node.url || known.cluster != node.cluster) {
            errors.push(format!(
                "nodes[{position}]: `{}` has another address. If the node has moved with its data, change its address in the description \
                 that `miroir serve` reads; a node without the data is a new node, and needs another name",
                node.name
            ));
        }
    }
    if file.replication == 0 || file.replication > wanted.len() {
        errors.push(format!(
            "replication: {} must be 1 to the number of nodes, {}",
            file.replication,
            wanted.len()
        ));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    cluster_state.replication = file.replication;
    for member in &mut cluster_state.nodes {
        match wanted.iter().find(|(_, node)| node.name == member.config.name) {
            Some((_, node)) => {
                member.config = node.clone();
                member.draining = false;
                member.leaving = false;
            }
            None => {
                member.draining = true;
                member.leaving = true;
            }
        }
    }
    for (_, node) in wanted {
        if cluster_state.member(&node.name).is_none() {
            insert(cluster_state, node);
        }
    }
    Ok(())
}

/// The current cluster, as a file that can be applied.
#[must_use]
pub fn topology(cluster_state: &ClusterState) -> TopologyFile {
    let nodes = cluster_state.nodes.iter().filter(|member| !member.leaving).map(|member| &member.config);
    let nodes = nodes.map(|config| NodeFile {
        name: config.name.to_string(),
        url: config.url.to_string(),
        cluster: Some(config.cluster.clone()),
        weight: Some(config.weight),
        zone: config.zone.clone(),
    });
    TopologyFile { replication: cluster_state.replication, nodes: nodes.collect() }
}

#[cfg(test)]
mod tests;
