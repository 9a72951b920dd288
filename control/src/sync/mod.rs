//! Brings a node up to date that was away, or is new: keys, experimental features, indexes, settings. Its documents are the
//! mover's.

pub mod features;
pub mod health;
pub mod instance_settings;
pub mod search_rules;

use crate::{
    base::error::{Error, Result},
    cluster::{Cluster, locks::Scope},
    disguise::{
        embedders::{self, EMBEDDERS, with_template},
        facet_values::{self, FACETING},
        settings_tag::{self, FILTERABLE},
    },
    domain::{key_holder::KeyHolder, task::TaskStatus},
    fencing::{fenced, write_keys::create_key},
    indexes::{catalogue, fields},
    ledger::settings as stored,
    node::{Node, Request},
};
use miroir_core::path::ApiPath;
use serde_json::{Map, Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// How long everything may be locked for the last of it.
const LONGEST: Duration = Duration::from_secs(1);

/// Gives a node what it missed of keys, indexes and settings.
///
/// # Errors
/// The node went away again, or no other node can tell.
pub async fn catch_up(cluster: &Arc<Cluster>, name: &str) -> Result<()> {
    let Some(node) = cluster.node(name) else { return Ok(()) };
    cluster.epochs.catch_up(cluster, &node).await?;
    if !cluster.view().behind.contains(name) {
        return Ok(());
    }
    // What it may still get late would undo what it learns.
    cluster.epochs.settle(cluster, &node).await?;
    // What it took before it went away it does still: after its settings were looked at, that would change them.
    node.has_ended_what_it_took().await?;
    // Without locks first, however long it takes. Then nothing may change while the node learns what is left.
    if let Some(last) = learn(cluster, reference(cluster, name).as_deref(), &node).await? {
        wait(&node, last).await?;
    }
    let mut patience = LONGEST / 4;
    loop {
        let lock = cluster.locks.lock(Scope::everything());
        let Ok(guard) = tokio::time::timeout(patience, lock).await else {
            tokio::time::sleep(patience).await;
            patience = (patience * 2).min(LONGEST * 5);
            continue;
        };
        let reference = reference(cluster, name);
        // What the reference has in its queue, its settings do not show yet.
        let is_busy = reference.as_ref().is_some_and(|it| cluster.settler.has_operations(&it.name));
        let last = if is_busy { None } else { learn(cluster, reference.as_deref(), &node).await? };
        let learnt = async {
            match last {
                Some(last) => wait(&node, last).await,
                None => Ok(()),
            }
        };
        match tokio::time::timeout(LONGEST, learnt).await {
            Ok(learnt) if !is_busy => {
                learnt?;
                if cluster.epochs.owes(name) {
                    return Err(Error::Other(format!("node `{name}` may get something late")));
                }
                return caught_up(cluster, name).await;
            }
            _ => {
                drop(guard);
                match last {
                    Some(last) => wait(&node, last).await?,
                    None => tokio::time::sleep(LONGEST / 4).await,
                }
            }
        }
    }
}

/// A node that has missed nothing.
fn reference(cluster: &Cluster, name: &str) -> Option<Arc<Node>> {
    cluster.current().into_iter().find(|other| other.name != name)
}

async fn caught_up(cluster: &Arc<Cluster>, name: &str) -> Result<()> {
    cluster
        .change(|view| {
            view.behind.remove(name);
        })
        .await?;
    tracing::info!(node = name, "a node has caught up");
    // It may know fields that others do not, and what others learnt while it did.
    let cluster = Arc::clone(cluster);
    tokio::spawn(async move {
        for index in cluster.view().indexes.keys() {
            if let Err(error) = fields::complete(&cluster, index).await {
                tracing::warn!(index, %error, "nodes could not be told each other's fields: the next write will do it");
            }
        }
    });
    Ok(())
}

/// Makes keys, features, indexes and settings of a node those of another; returns the last task to wait for. Where every node has
/// missed something, the catalogue and the ledger say what indexes and settings there are.
async fn learn(cluster: &Cluster, reference: Option<&Node>, node: &Node) -> Result<Option<u64>> {
    if let Some(reference) = reference {
        sync_keys(reference, node).await?;
    }
    instance_settings::sync(cluster, node).await?;
    let mut last = search_rules::sync(cluster, node).await?;
    if let Some(reference) = reference {
        features::sync(reference, node).await?;
    }
    let there = indexes(node).await?;
    let wanted = cluster.view().indexes.clone();
    for index in there.keys().filter(|index| !wanted.contains_key(*index)) {
        let deletion = Request::own("DELETE", ApiPath::of_index(index, &[]), None);
        last = Some(fenced::enqueue(cluster, node, deletion).await?);
    }
    for (index, known) in &wanted {
        let path = ApiPath::of_index(index, &["settings"]);
        let own_key = there.get(index);
        let is_there = match (own_key, &known.primary_key) {
            (Some(own), Some(key)) if own.as_ref() != Some(key) => {
                learn_key(cluster, node, index, key).await?
            }
            (own, _) => own.is_some(),
        };
        let own = if is_there { Some(node.ask("GET", path.clone(), None).await?) } else { None };
        let uid = index.clone();
        let set = cluster.ledger.call(move |connection| stored::settings(connection, &uid)).await?;
        let settings = match reference {
            Some(reference) => reference.ask("GET", path.clone(), None).await,
            None => Ok(of_ledger(own.as_ref(), &set)),
        };
        let mut settings = match settings {
            // It is being made, or was deleted a moment ago.
            Err(Error::Unexpected { status: 404, .. }) => continue,
            settings => settings?,
        };
        if is_there && let Some(missed) = fields::missed(cluster, node, index).await? {
            let request = Request::own(&missed.method, missed.path, missed.body.as_ref());
            last = Some(fenced::enqueue(cluster, node, request).await?);
        }
        // Nodes do not show the keys of embedders: those may differ.
        if set.get(EMBEDDERS).is_none() && own.as_ref() == Some(&settings) {
            continue;
        }
        if !is_there {
            let key = known.primary_key.as_deref();
            let fields = fields::known(cluster, index).await?;
            catalogue::send_all(cluster, node, &catalogue::creation_with(index, key, &fields.names()))
                .await?;
        }
        // The tag's rule is there already, but for an index that was made without this control plane.
        let filterable = settings.get(FILTERABLE).and_then(settings_tag::with_tag);
        let unreadable = || reference.unwrap_or(node).unreadable(format!("GET {path}"), &settings);
        settings[FILTERABLE] = filterable.ok_or_else(unreadable)?;
        if let Some(shown) = settings.get_mut(EMBEDDERS) {
            let (mut embedders, unknown) = embedders::known(shown, set.get(EMBEDDERS));
            let own = own.as_ref().and_then(|own| own.get(EMBEDDERS));
            // One that has them keeps their keys.
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
        last = Some(fenced::enqueue(cluster, node, Request::own("PATCH", path, Some(&settings))).await?);
    }
    Ok(last)
}

/// The settings that clients have set, all others as by default; `own` are all that a node tells.
fn of_ledger(own: Option<&Value>, set: &Map<String, Value>) -> Value {
    let own = own.and_then(Value::as_object).into_iter().flatten();
    // After `miroir recover` only nodes know embedders.
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

/// Gives an index of a node its primary key. One whose documents are of another key is deleted, unless the node's documents are
/// read: then they are the only ones. Says whether the index is there.
async fn learn_key(cluster: &Cluster, node: &Node, index: &str, key: &str) -> Result<bool> {
    let path = ApiPath::of_index(index, &["stats"]);
    let documents = node.ask("GET", path, None).await?.get("numberOfDocuments").and_then(Value::as_u64);
    let path = ApiPath::of_index(index, &[]);
    if documents == Some(0) {
        let change = json!({ "primaryKey": key });
        fenced::enqueue(cluster, node, Request::own("PATCH", path, Some(&change))).await?;
        return Ok(true);
    }
    let view = cluster.view();
    if view.shards().any(|shard| view.active(shard).any(|name| name == node.name)) {
        let name = &node.name;
        return Err(Error::Other(format!(
            "node `{name}` has documents of index `{index}` under another primary key than `{key}`, and nobody else has them"
        )));
    }
    fenced::enqueue(cluster, node, Request::own("DELETE", path, None)).await?;
    Ok(false)
}

fn unknown_key(index: &str, embedder: &str) -> String {
    format!(
        "the key of the embedder `{embedder}` of index `{index}` is not known since the ledger was recovered: set it again, with \
         PATCH /indexes/{index}/settings/embedders and {{\"{embedder}\": {{\"apiKey\": \"…\"}}}}"
    )
}

/// What keeps a new node from learning the settings of all indexes: keys of embedders that nobody knows.
///
/// # Errors
/// The ledger failed.
pub async fn unknown_keys(cluster: &Cluster) -> Result<Vec<String>> {
    let mut all = Vec::new();
    let Some(reference) = cluster.current().into_iter().next() else { return Ok(all) };
    for index in cluster.view().indexes.keys() {
        // What it does not tell now is seen when the node learns it.
        let Ok(settings) = reference.ask("GET", ApiPath::of_index(index, &["settings"]), None).await else {
            continue;
        };
        let uid = index.clone();
        let set = cluster.ledger.call(move |connection| stored::settings(connection, &uid)).await?;
        let shown = settings.get(EMBEDDERS).unwrap_or(&Value::Null);
        let (_, unknown) = embedders::known(shown, set.get(EMBEDDERS));
        all.extend(unknown.iter().map(|name| unknown_key(index, name)));
    }
    Ok(all)
}

/// Gives embedders, if there are any, their keys, which nodes do not tell: `set` is what clients have set.
pub fn with_keys(settings: &mut Value, set: &Map<String, Value>) -> bool {
    let embedders = set.get(EMBEDDERS);
    embedders.into_iter().for_each(|embedders| settings[EMBEDDERS] = embedders.clone());
    embedders.is_some()
}

/// The request for a node's API keys, as errors name it.
const KEYS: &str = "GET /keys";

/// Deletes what a node that has left keeps of the cluster: indexes, and gateways' keys.
///
/// # Errors
/// The node did not answer, or refused.
pub async fn clear(node: &Node) -> Result<()> {
    for index in index_uids(node).await? {
        node.ask("DELETE", ApiPath::of_index(&index, &[]), None).await?;
    }
    let keys = node.ask("GET", "/keys?limit=10000", None).await?;
    for key in node.results(KEYS, &keys)? {
        if KeyHolder::of(key).is_internal() {
            node.ask("DELETE", ApiPath::new(["keys", node.text(KEYS, key, "uid")?]), None).await?;
        }
    }
    Ok(())
}

/// Makes a node's API keys the same as another's. A key's text follows from its uid and the master key.
///
/// # Errors
/// A node did not answer. Expired keys cannot be made again, and are left out.
pub async fn sync_keys(from: &Node, to: &Node) -> Result<()> {
    // Epoch keys come and go on their own.
    let shared = async |node: &Node| -> Result<Vec<(String, Value)>> {
        let answer = node.ask("GET", "/keys?limit=10000", None).await?;
        let keys = node.results(KEYS, &answer)?.iter();
        keys.filter(|key| !matches!(KeyHolder::of(key), KeyHolder::Writer(_)))
            .map(|key| Ok((node.text(KEYS, key, "uid")?.to_owned(), key.clone())))
            .collect()
    };
    let (wanted, there) = (shared(from).await?, shared(to).await?);
    let uids = |keys: &[(String, Value)]| keys.iter().map(|(uid, _)| uid.clone()).collect::<BTreeSet<_>>();
    let (wanted_uids, there_uids) = (uids(&wanted), uids(&there));
    for uid in there_uids.difference(&wanted_uids) {
        to.ask("DELETE", ApiPath::new(["keys", uid]), None).await?;
    }
    // Lists show the newest first: made in the other order, they come in the same.
    for (uid, key) in wanted.iter().rev().filter(|(uid, _)| !there_uids.contains(uid)) {
        let mut body = key.clone();
        if let Some(object) = body.as_object_mut() {
            object.retain(|name, _| {
                ["uid", "name", "description", "actions", "indexes", "expiresAt"].contains(&name.as_str())
            });
        }
        if let Err(error) = create_key(to, &body).await {
            tracing::warn!(node = to.name, uid, %error, "an API key could not be copied");
        }
    }
    Ok(())
}

/// A node's indexes, each with its primary key.
///
/// # Errors
/// The node did not answer, or refused.
async fn indexes(node: &Node) -> Result<BTreeMap<String, Option<String>>> {
    let answer = node.ask("GET", "/indexes?limit=100000", None).await?;
    let index = |told: &Value| {
        let primary_key = told.get("primaryKey").and_then(Value::as_str).map(ToOwned::to_owned);
        Ok((node.text("GET /indexes", told, "uid")?.to_owned(), primary_key))
    };
    node.results("GET /indexes", &answer)?.iter().map(index).collect()
}

/// The uids of a node's indexes.
///
/// # Errors
/// The node did not answer, or refused.
pub async fn index_uids(node: &Node) -> Result<BTreeSet<String>> {
    Ok(indexes(node).await?.into_keys().collect())
}

/// Waits until a node has ended a task.
///
/// # Errors
/// It failed, or the node did not answer.
pub async fn wait(node: &Node, node_task: u64) -> Result<()> {
    let mut pause = Duration::from_millis(20);
    loop {
        let task = node.ask("GET", ApiPath::new(["tasks", &node_task.to_string()]), None).await?;
        match TaskStatus::of_node(&task) {
            Some(TaskStatus::Succeeded) => return Ok(()),
            Some(TaskStatus::Failed | TaskStatus::Canceled) => {
                return Err(Error::Other(format!("task {node_task} of node `{}` failed: {task}", node.name)));
            }
            _ => tokio::time::sleep(pause).await,
        }
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}
