//! Brings a node that was unreachable, or is new, up to date: keys, experimental features, indexes, settings. The mover copies
//! its documents.

pub mod features;
pub mod health;
pub mod instance_change;
pub mod instance_settings;
pub mod node_queues;
pub mod search_rules;
#[cfg(test)]
mod tests;

use crate::{
    base::error::{Error, Result},
    cluster::{Cluster, locks::Scope},
    disguise::{
        embedders::{self, EMBEDDERS, with_template},
        facet_values::{self, FACETING},
        settings_tag::{self, FILTERABLE},
    },
    domain::{
        key_holder::{KeyHolder, read_key},
        serving::Serving,
    },
    fencing::{in_flight, write_keys::create_key},
    indexes::{creation, fields},
    ledger::settings as stored,
    node::{Node, Request},
};
use miroir_core::path::ApiPath;
use serde_json::{Map, Value, json};
use std::{sync::Arc, time::Duration};

/// How long everything may stay locked for the last changes.
const LONGEST: Duration = Duration::from_secs(1);

/// Gives a node the keys, indexes and settings that it missed.
///
/// # Errors
/// The node became unreachable again, or no other node could be asked.
pub async fn catch_up(cluster: &Arc<Cluster>, name: &str) -> Result<()> {
    let Some(node) = cluster.node(name) else { return Ok(()) };
    if cluster.cluster_state().behind.contains(name) {
        // From here on it is one of the cluster's, and gets keys to be written under. Until it has everything, it stays behind.
        let key = read_key(cluster.options.read_key, Serving::by(cluster.instance.id));
        create_key(&node, &key).await?;
    }
    cluster.write_keys.catch_up(cluster, &node).await?;
    if !cluster.cluster_state().behind.contains(name) {
        return Ok(());
    }
    // A request that was sent before and reaches the node late would undo what it learns now.
    cluster.write_keys.fence_late(cluster, &node).await?;
    // The node still handles the tasks that it accepted before it became unreachable. They could change its settings after
    // those were compared.
    node.wait_for_current_tasks().await?;
    wait_for_holders(cluster).await;
    // First without locks, however long it takes. Then under a lock on everything, so that nothing changes while the node gets
    // the rest.
    let tasks = learn(cluster, reference(cluster, name).as_deref(), &node, false).await?;
    wait_for(&node, &tasks).await?;
    let mut patience = LONGEST / 4;
    loop {
        wait_for_holders(cluster).await;
        let lock = cluster.locks.lock(Scope::everything());
        let Ok(guard) = tokio::time::timeout(patience, lock).await else {
            tokio::time::sleep(patience).await;
            patience = (patience * 2).min(LONGEST * 5);
            continue;
        };
        let reference = reference(cluster, name);
        let is_busy = is_changing(cluster, reference.as_deref()).await?;
        let tasks =
            if is_busy { Vec::new() } else { learn(cluster, reference.as_deref(), &node, true).await? };
        match tokio::time::timeout(LONGEST, wait_for(&node, &tasks)).await {
            Ok(learnt) if !is_busy => {
                learnt?;
                if cluster.write_keys.may_accept_late(name) {
                    return Err(Error::Other(format!(
                        "node `{name}` may still receive an earlier request late"
                    )));
                }
                return caught_up(cluster, name).await;
            }
            _ => {
                drop(guard);
                match tasks.is_empty() {
                    false => wait_for(&node, &tasks).await?,
                    true => tokio::time::sleep(LONGEST / 4).await,
                }
            }
        }
    }
}

/// Waits until no task waits for nodes with the only replicas of some shards: nodes have other indexes under the same names until then, and the
/// locks of everything are not to be had, while writers would wait behind whoever wants them.
async fn wait_for_holders(cluster: &Cluster) {
    while cluster.tracked_tasks.wait_for_holders() {
        tokio::time::sleep(LONGEST).await;
    }
}

/// Waits until a node has done what it was sent.
///
/// # Errors
/// It did not answer; or it refuses something: the error says of which index, and what to do.
async fn wait_for(node: &Node, tasks: &[u64]) -> Result<()> {
    node.wait_for_tasks(tasks).await.map_err(|error| match error {
        Error::Other(refused) => Error::Other(format!("{refused}. {REFUSED}")),
        error => error,
    })
}

/// What to do about a node that refuses what the others have.
const REFUSED: &str = "It stays behind until it takes it: change the settings of this index so that they suit its documents, such as an \
                       embedder that is to be reset; or give up what only this node has, and start it with an empty data folder";

/// Whether operations are pending that a node cannot learn yet: the settings of the reference do not show what is still in its queue, also of
/// indexes that writes have made. The ledger, which stands in where there is no reference, has settings from when their task has ended.
async fn is_changing(cluster: &Cluster, reference: Option<&Node>) -> Result<bool> {
    if cluster.tracked_tasks.has_operations(reference.map(|it| it.name.as_str())) {
        return Ok(true);
    }
    match reference {
        Some(reference) => Ok(!reference.keeps_its_settings().await?),
        None => Ok(false),
    }
}

/// Another node that is current: the reference that this node is compared with.
fn reference(cluster: &Cluster, name: &str) -> Option<Arc<Node>> {
    cluster.current().into_iter().find(|other| other.name != name)
}

async fn caught_up(cluster: &Arc<Cluster>, name: &str) -> Result<()> {
    cluster
        .change(|cluster_state| {
            cluster_state.behind.remove(name);
        })
        .await?;
    tracing::info!(node = name, "a node has caught up");
    // The node may know fields that others do not, and others may have learnt fields meanwhile.
    let (cluster, supervisor) = (Arc::clone(cluster), &cluster.supervisor);
    supervisor.spawn("fields", async move {
        for index in cluster.cluster_state().indexes.keys() {
            if let Err(error) = fields::complete(&cluster, index).await {
                tracing::warn!(index, error = %error.chain(), "fields could not be registered on all nodes: the next write will do it");
            }
        }
    });
    Ok(())
}

/// Copies keys, features, indexes and settings from the reference node. Returns the node's tasks to wait for, oldest first. If every node
/// is behind, there is no reference: then the catalogue and the ledger say which indexes and settings there are. `is_locked`: under
/// the locks of everything.
async fn learn(
    cluster: &Cluster,
    reference: Option<&Node>,
    node: &Node,
    is_locked: bool,
) -> Result<Vec<u64>> {
    if let Some(reference) = reference {
        sync_keys(reference, node).await?;
    }
    instance_settings::sync(cluster, node).await?;
    let mut tasks = search_rules::sync(cluster, node).await?;
    if let Some(reference) = reference {
        features::sync(reference, node).await?;
    }
    let there = node.indexes().await?;
    let wanted = cluster.cluster_state().indexes.clone();
    // Only under the locks is it certain that no operation and no write is creating the index.
    for index in there.keys().filter(|index| is_locked && !wanted.contains_key(*index)) {
        let deletion = Request::own("DELETE", ApiPath::of_index(index, &[]), None);
        tasks.push(in_flight::enqueue(cluster, node, deletion).await?);
    }
    for (index, known) in &wanted {
        let path = ApiPath::of_index(index, &["settings"]);
        let own_key = there.get(index);
        let is_there = match (own_key, &known.primary_key) {
            (Some(own), Some(key)) if own.as_ref() != Some(key) => {
                learn_key(cluster, node, index, key).await?
            }
            // An index without a primary key has no documents: those of the node are from before a swap or a deletion that it
            // has not done. Only under the locks is it certain that no write gives the index a key meanwhile.
            (Some(Some(_)), None) if is_locked => {
                let deletion = Request::own("DELETE", ApiPath::of_index(index, &[]), None);
                in_flight::enqueue(cluster, node, deletion).await?;
                false
            }
            (own, _) => own.is_some(),
        };
        let own = if is_there { Some(node.settings(index).await?) } else { None };
        let uid = index.clone();
        let set = cluster.ledger.call(move |connection| stored::settings(connection, &uid)).await?;
        let settings = match reference {
            Some(reference) => reference.settings(index).await,
            None => Ok(of_ledger(own.as_ref(), &set)),
        };
        let mut settings = match settings {
            // The index is being created, or was just deleted.
            Err(Error::Unexpected { status: 404, .. }) => continue,
            settings => settings?,
        };
        if is_there && let Some(missed) = fields::missed(cluster, node, index).await? {
            let request = Request::own(&missed.method, missed.path, missed.body.as_ref());
            tasks.push(in_flight::enqueue(cluster, node, request).await?);
        }
        // Nodes hide the API keys of embedders, so equal answers do not prove that the keys are equal.
        if set.get(EMBEDDERS).is_none() && own.as_ref() == Some(&settings) {
            continue;
        }
        if !is_there {
            let key = known.primary_key.as_deref();
            let fields = fields::known(cluster, index).await?;
            creation::send_all(
                cluster,
                node,
                &creation::creation_with(index, key, &fields.names(), &*cluster.random),
            )
            .await?;
        }
        // The reference has the shard tag's rule already, unless the index was created without this control plane.
        let filterable = settings.get(FILTERABLE).and_then(settings_tag::with_tag);
        let unreadable = || reference.unwrap_or(node).unreadable(format!("GET {path}"), &settings);
        settings[FILTERABLE] = filterable.ok_or_else(unreadable)?;
        if let Some(shown) = settings.get_mut(EMBEDDERS) {
            let (mut embedders, unknown) = embedders::known(shown, set.get(EMBEDDERS));
            let own = own.as_ref().and_then(|own| own.get(EMBEDDERS));
            // If the node has the embedder already, with its key, it keeps the key.
            let lacks =
                |name: &&String| own.and_then(|own| own.get(name.as_str())?.get(embedders::KEY)).is_none();
            if let Some(name) = unknown.iter().find(lacks) {
                return Err(Error::Other(unknown_key(index, name)));
            }
            with_template(&mut embedders, None);
            for (name, _) in own.and_then(Value::as_object).into_iter().flatten() {
                if embedders.get(name).is_none() {
                    embedders[name] = Value::Null;
                }
            }
            *shown = embedders;
        }
        tasks.push(in_flight::enqueue(cluster, node, Request::own("PATCH", path, Some(&settings))).await?);
    }
    Ok(tasks)
}

/// The settings that clients have set according to the ledger, with all others reset to their defaults. `own` are the settings
/// of the node.
fn of_ledger(own: Option<&Value>, set: &Map<String, Value>) -> Value {
    let own = own.and_then(Value::as_object).into_iter().flatten();
    // After `miroir recover` the ledger does not know embedders: only nodes do.
    let of = |(name, own): (&String, &Value)| {
        (name.clone(), if name == EMBEDDERS { own.clone() } else { Value::Null })
    };
    let mut all: Map<String, Value> = own.map(of).collect();
    all.extend(
        set.iter().filter(|(name, _)| *name != EMBEDDERS).map(|(name, set)| (name.clone(), set.clone())),
    );
    all.entry(EMBEDDERS).or_insert_with(|| json!({}));
    all.entry(FILTERABLE).or_insert_with(|| Value::Array(Vec::new()));
    all.entry(FACETING).or_insert(Value::Null);
    facet_values::with_room(&mut all);
    settings_tag::display_tag(&mut all);
    Value::Object(all)
}

/// Sets the primary key of an index on a node. If the index has documents under another key, it is deleted, unless the node is
/// read for it: these may be the only copies. Returns whether the index still exists.
async fn learn_key(cluster: &Cluster, node: &Node, index: &str, key: &str) -> Result<bool> {
    let path = ApiPath::of_index(index, &[]);
    if node.index_size(index).await? == Some(0) {
        let change = json!({ "primaryKey": key });
        in_flight::enqueue(cluster, node, Request::own("PATCH", path, Some(&change))).await?;
        return Ok(true);
    }
    let cluster_state = cluster.cluster_state();
    if cluster_state.shards().any(|shard| cluster_state.is_whole(index, shard, &node.name)) {
        let name = &node.name;
        return Err(Error::Other(format!(
            "node `{name}` has documents of index `{index}` under another primary key than `{key}`, and no other node has these documents. \
             It stays behind: give them up, and start it with an empty data folder"
        )));
    }
    in_flight::enqueue(cluster, node, Request::own("DELETE", path, None)).await?;
    Ok(false)
}

fn unknown_key(index: &str, embedder: &str) -> String {
    format!(
        "the key of the embedder `{embedder}` of index `{index}` is not known since the ledger was recovered: set it again, with \
         PATCH /indexes/{index}/settings/embedders and {{\"{embedder}\": {{\"apiKey\": \"…\"}}}}"
    )
}

/// Messages about embedders whose API keys the ledger does not know. Such an embedder cannot be set up on a new node.
///
/// # Errors
/// The ledger failed.
pub async fn unknown_keys(cluster: &Cluster) -> Result<Vec<String>> {
    let mut all = Vec::new();
    let Some(reference) = cluster.current().into_iter().next() else { return Ok(all) };
    for index in cluster.cluster_state().indexes.keys() {
        // If the reference does not answer now, the new node finds the problem when it gets the settings.
        let Ok(settings) = reference.settings(index).await else { continue };
        let uid = index.clone();
        let set = cluster.ledger.call(move |connection| stored::settings(connection, &uid)).await?;
        let shown = settings.get(EMBEDDERS).unwrap_or(&Value::Null);
        let (_, unknown) = embedders::known(shown, set.get(EMBEDDERS));
        all.extend(unknown.iter().map(|name| unknown_key(index, name)));
    }
    Ok(all)
}

/// Replaces the embedders in `settings` by those in `set`, which are what clients have set, with the API keys that nodes hide.
/// Returns whether there are any.
pub fn with_keys(settings: &mut Value, set: &Map<String, Value>) -> bool {
    let embedders = set.get(EMBEDDERS);
    embedders.into_iter().for_each(|embedders| settings[EMBEDDERS] = embedders.clone());
    embedders.is_some()
}

/// Makes sure that what a node has told until now was from the disk that it had when it joined: what an empty disk tells must not be
/// copied.
///
/// # Errors
/// It has lost that disk; or it did not answer.
async fn must_have_joined(node: &Node) -> Result<()> {
    if node.has_joined().await? {
        return Ok(());
    }
    Err(Error::Other(format!("node `{}` has lost its disk, and cannot be copied from", node.name)))
}

/// Copies the API keys of one node to another. A key's text is derived from its uid and the master key, so it is the same on
/// both.
///
/// # Errors
/// A node did not answer. Expired keys cannot be created again, so they are left out.
pub async fn sync_keys(from: &Node, to: &Node) -> Result<()> {
    // Write keys are created and deleted by the fencing code.
    let shared = async |node: &Node| -> Result<Vec<(String, Value)>> {
        let mut keys = node.keys().await?;
        keys.retain(|(_, key)| !matches!(KeyHolder::of(key), KeyHolder::Writer(_) | KeyHolder::Unknown));
        Ok(keys)
    };
    let (wanted, there) = (shared(from).await?, shared(to).await?);
    must_have_joined(from).await?;
    let is_in = |keys: &[(String, Value)], uid: &str| keys.iter().any(|(other, _)| other == uid);
    for (uid, _) in there.iter().filter(|(uid, _)| !is_in(&wanted, uid)) {
        to.delete_key(uid).await?;
    }
    // Nodes list the newest key first, so the keys are created in reverse to keep their order.
    for (uid, key) in wanted.iter().rev().filter(|(uid, _)| !is_in(&there, uid)) {
        let mut body = key.clone();
        if let Some(object) = body.as_object_mut() {
            object.retain(|name, _| {
                ["uid", "name", "description", "actions", "indexes", "expiresAt"].contains(&name.as_str())
            });
        }
        if let Err(error) = create_key(to, &body).await {
            tracing::warn!(node = to.name.as_str(), uid, error = %error.chain(), "an API key could not be copied");
        }
    }
    Ok(())
}
