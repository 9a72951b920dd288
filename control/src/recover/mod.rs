//! `miroir recover`: rebuilds a lost ledger from the nodes' data. Catalogue, settings and keys come from the nodes; the
//! placement follows from the documents' tags. Past tasks are lost; new tasks get higher uids.

mod node_content;

use crate::{
    base::{
        config::ClusterConfig,
        error::{Error, Result},
        files::{self, Claim},
        time::{self, Clock, SystemClock},
    },
    cluster::Cluster,
    disguise::{
        embedders::{self, EMBEDDERS},
        messages,
    },
    domain::{
        cluster_state::{ClusterState, Index, Member, Replica, ReplicaState},
        key_holder::KeyHolder,
        serving::Serving,
    },
    ledger::{
        self, Ledger, catalogue, instances, settings,
        write_keys::{self, WriteKey},
    },
    serve::{self, ServeArgs},
    sync::instance_settings::{self, InstanceChange},
};
use miroir_core::{node_name::NodeName, shard::Shard};
use node_content::{NodeContent, look};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The result of a recovery.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Number of indexes.
    pub indexes: usize,
    /// Number of documents, each counted once.
    pub documents: u64,
    /// Shards whose copies differ, each with the node whose copy is used.
    pub disputed: Vec<(Shard, NodeName)>,
    /// Embedders whose keys are lost, each with its index.
    pub keyless: BTreeSet<(String, String)>,
}

/// Rebuilds the ledger.
///
/// # Errors
/// There is a ledger already; or a node does not answer, or has documents of another number of shards. Nothing is written then.
pub async fn recover(args: &ServeArgs) -> Result<Recovered> {
    let config = serve::describe(args)?;
    files::make_folder(&args.data, files::PRIVATE)?;
    let _claim = Claim::of(&args.data).await?;
    let ledger = Ledger::open(&args.data)?;
    if ledger.call(catalogue::load).await?.is_some() {
        return Err(Error::Refused(vec![format!(
            "there is a ledger in {}: nothing is lost, run `miroir serve`",
            args.data.display()
        )]));
    }
    let nodes = Cluster::outside_nodes(&config, &args.data, &args.tls)?;
    let mut errors = Vec::new();
    let mut found = BTreeMap::new();
    for node in &nodes {
        match look(node, config.shards).await {
            Ok(of_node) => drop(found.insert(node.name.clone(), of_node)),
            Err(error) => errors.push(error.chain().to_string()),
        }
    }
    if !errors.is_empty() {
        errors.push(
            "every node must answer: start it, or remove it from the description if it is lost".to_owned(),
        );
        return Err(Error::Refused(errors));
    }
    one_cluster(&found)?;
    let (cluster_state, mut recovered) = cluster_state(&config, &found);
    for (index, settings) in found.values().flat_map(|of_node| &of_node.settings) {
        let shown = settings.get(EMBEDDERS).unwrap_or(&Value::Null);
        let (_, unknown) = embedders::known(shown, None);
        recovered.keyless.extend(unknown.into_iter().map(|name| (index.clone(), name)));
    }
    store(&ledger, cluster_state, found).await?;
    Ok(recovered)
}

/// Checks that no two nodes have the data of different clusters.
fn one_cluster(found: &BTreeMap<NodeName, NodeContent>) -> Result<()> {
    let mut clusters: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, of_node) in found {
        let own = of_node.keys.iter().filter(|key| KeyHolder::of(key) == KeyHolder::GatewayReads);
        for uid in own.filter_map(|key| key.get("uid")?.as_str()) {
            clusters.entry(uid).or_insert(name.as_str());
        }
    }
    let named: Vec<&str> = clusters.into_values().collect();
    match named.as_slice() {
        [_, _, ..] => Err(Error::Refused(vec![format!(
            "nodes have the data of different clusters, among them {}: leave those out that are not of this cluster",
            named.join(", ")
        )])),
        _ => Ok(()),
    }
}

/// Derives the cluster state from the nodes' data.
fn cluster_state(
    config: &ClusterConfig,
    found: &BTreeMap<NodeName, NodeContent>,
) -> (ClusterState, Recovered) {
    // Versions grow by one with each change, so the time in seconds is later than any version that a gateway has.
    let version = u64::try_from(SystemClock.wall() / 1_000_000_000).unwrap_or(1);
    let nodes = config.nodes.iter().map(|node| Member {
        config: node.clone(),
        since: version,
        draining: false,
        leaving: false,
    });
    let mut cluster_state = ClusterState {
        version,
        nodes: nodes.collect(),
        replication: config.replication,
        replicas: vec![Vec::new(); usize::from(config.shards)],
        floor: version,
        ..ClusterState::default()
    };
    let mut recovered = Recovered::default();
    for (uid, index) in found.values().flat_map(|of_node| &of_node.indexes) {
        let known = cluster_state.indexes.entry(uid.clone()).or_insert_with(|| index.clone());
        known.created_at = known.created_at.min(index.created_at);
        known.updated_at = known.updated_at.max(index.updated_at);
        known.primary_key = known.primary_key.take().or_else(|| index.primary_key.clone());
    }
    recovered.indexes = cluster_state.indexes.len();
    cluster_state.server_name =
        found.values().flat_map(|of_node| &of_node.server).find_map(InstanceChange::name);
    cluster_state.rules = found
        .values()
        .map(|of_node| &of_node.rules)
        .max_by_key(|rules| rules.len())
        .cloned()
        .unwrap_or_default();
    // Nodes that lack an index are behind and get it when they sync. Its settings are those of the first node that has it.
    let lacks = |of_node: &NodeContent| {
        cluster_state.indexes.keys().any(|index| !of_node.indexes.contains_key(index))
    };
    let behind: BTreeSet<NodeName> =
        found.iter().filter(|(_, of_node)| lacks(of_node)).map(|(name, _)| name.clone()).collect();
    cluster_state.behind = if behind.len() == found.len() { BTreeSet::new() } else { behind };
    let mut held = Vec::new();
    for shard in cluster_state.shards() {
        let copies: Vec<(&NodeName, &node_content::ShardCopy)> =
            found.iter().filter_map(|(name, of_node)| Some((name, of_node.shards.get(&shard)?))).collect();
        let best = copies.iter().max_by_key(|(_, copy)| {
            let same = copies.iter().filter(|(_, other)| other.digest == copy.digest).count();
            (same, copy.documents)
        });
        let Some((node, best)) = best.copied() else {
            held.push(Vec::new());
            continue;
        };
        recovered.documents += best.documents;
        if copies.iter().any(|(_, copy)| copy.digest != best.digest) {
            recovered.disputed.push((shard, node.clone()));
        }
        let is_right = |copy: &node_content::ShardCopy| copy.digest == best.digest;
        let (right, wrong): (Vec<_>, Vec<_>) = copies.into_iter().partition(|(_, copy)| is_right(copy));
        held.push(right.iter().chain(&wrong).map(|(name, _)| (*name).clone()).collect());
        if let Some(replicas) = cluster_state.replicas.get_mut(usize::from(shard.0)) {
            replicas.extend(right.iter().map(|(name, _)| Replica::active((*name).clone())));
            replicas.extend(wrong.iter().map(|(name, _)| Replica::stale((*name).clone())));
        }
    }
    cluster_state.desired = held;
    let desired = cluster_state.planned();
    for (shard, nodes) in desired.iter().enumerate() {
        // A shard without documents is complete on every node.
        if let Some(replicas) = cluster_state.replicas.get_mut(shard).filter(|replicas| replicas.is_empty()) {
            replicas.extend(nodes.iter().map(|node| Replica::active(node.clone())));
        }
    }
    cluster_state.set_desired(desired);
    // No gateway reads by a topology older than this version.
    for replica in cluster_state.replicas.iter_mut().flatten() {
        if let ReplicaState::Leaving { written, .. } = replica.state {
            replica.state = ReplicaState::Leaving { since: version, written };
        }
    }
    (cluster_state, recovered)
}

async fn store(
    ledger: &Ledger,
    cluster_state: ClusterState,
    found: BTreeMap<NodeName, NodeContent>,
) -> Result<()> {
    ledger
        .call(move |connection| {
            catalogue::store(connection, &ClusterState::default(), &cluster_state)?;
            let next = found.values().filter_map(|of_node| of_node.last_uid).max().map_or(0, |uid| uid + 1);
            ledger::set_meta(connection, "next_task", &next.to_string())?;
            for (index, told) in found.values().flat_map(|of_node| &of_node.settings) {
                if settings::settings(connection, index)?.is_empty() {
                    settings::merge_settings(connection, index, Some(&set(told)))?;
                }
            }
            for changed in found.values().flat_map(|of_node| &of_node.server) {
                instance_settings::store(connection, changed.clone())?;
            }
            for key in found.values().flat_map(|of_node| &of_node.keys) {
                let text = key.get("uid").and_then(Value::as_str).unwrap_or_default();
                let uid = || {
                    Uuid::parse_str(text)
                        .map_err(|error| Error::Other(format!("an API key has the uid `{text}`: {error}")))
                };
                match KeyHolder::of(key) {
                    KeyHolder::Client => {}
                    KeyHolder::GatewayReads => {
                        ledger::set_meta(connection, "read_key", &uid()?.hyphenated().to_string())?;
                        // It may still serve: the start asks it.
                        let told = Serving::of(key).ok_or_else(|| {
                            Error::Other(format!(
                                "the key `{text}` does not tell which control plane serves the node: {key}"
                            ))
                        })?;
                        told.instance.map_or(Ok(()), |id| instances::know(connection, id))?;
                    }
                    // Fence old write keys: gateways get new ones with their next writes.
                    KeyHolder::Writer(holder) => {
                        write_keys::store_write_key(
                            connection,
                            &WriteKey { key: uid()?, holder: Some(holder), fenced: true },
                        )?;
                    }
                    // Whoever holds it may still write with it.
                    KeyHolder::Unknown => {
                        tracing::warn!(
                            key = text,
                            "an internal key does not tell its holder: it will be deleted on all nodes"
                        );
                        write_keys::store_write_key(
                            connection,
                            &WriteKey { key: uid()?, holder: None, fenced: true },
                        )?;
                    }
                }
            }
            Ok(())
        })
        .await
}

/// Settings as a client would have set them. Embedders are left out, because nodes mask their keys: they stay as they are on
/// nodes.
fn set(settings: &Value) -> Value {
    let mut settings = settings.clone();
    messages::value(&mut settings);
    if let Some(settings) = settings.as_object_mut() {
        settings.retain(|name, value| name != EMBEDDERS && !value.is_null());
    }
    settings
}

/// An index as a node tells it; `None` where that is not as Meilisearch tells it.
fn index(told: &Value, settings: &Value) -> Option<Index> {
    let moment = |name: &str| time::parse(told.get(name)?.as_str()?);
    let primary_key = match told.get("primaryKey")? {
        Value::Null => None,
        key => Some(key.as_str()?.to_owned()),
    };
    Some(Index {
        primary_key,
        settings: Index::published(set(settings).as_object()?.clone()),
        created_at: moment("createdAt")?,
        updated_at: moment("updatedAt")?,
    })
}

#[cfg(test)]
mod tests;
