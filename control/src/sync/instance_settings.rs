//! What clients set on the server as a whole, besides keys and experimental features: the servers of `/network`, and the
//! workspaces of chats. Every node has it; the ledger has it too, for nodes that were away.

use crate::{
    base::error::Result,
    cluster::Cluster,
    domain::settings_change::merge_members,
    fencing::fenced,
    ledger,
    node::{Node, Request, TIMEOUT},
    sync::features,
};
use miroir_core::path::ApiPath;
use rusqlite::Connection;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The experimental feature without which nodes do not tell of their network.
const NETWORK: &str = "network";

/// The same for chats.
const CHATS: &str = "chatCompletions";

/// All workspaces of chats.
const WORKSPACES: &str = "/chats?limit=100000";

/// How a node shows a key.
const HIDDEN: &str = "XXX...";

/// How long gateways may take to hear of something before its client is answered.
const MOMENT: Duration = Duration::from_secs(1);

/// How deep the settings of a workspace are changed member by member.
const DEPTH: u8 = 2;

/// What a request has changed, once nodes have taken it.
#[derive(Clone, Debug)]
pub enum Changed {
    /// The network is this now, as a node tells it.
    Network(Value),
    /// Settings of a workspace, which may be a new one; `None` resets them.
    Workspace(String, Option<Value>),
    /// A workspace is gone.
    NoWorkspace(String),
}

impl Changed {
    /// What a network calls the nodes.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        let Self::Network(told) = self else { return None };
        told.get("self").and_then(Value::as_str).map(ToOwned::to_owned)
    }
}

/// Stores what has changed.
///
/// # Errors
/// The database failed.
pub fn store(connection: &Connection, changed: Changed) -> Result<()> {
    match changed {
        Changed::Network(told) => write(connection, NETWORK, &network(&told)),
        Changed::Workspace(uid, change) => {
            let mut chats = read(connection, CHATS)?;
            let settings = chats.entry(uid).or_insert_with(|| json!({}));
            match (change, settings) {
                (Some(change), Value::Object(settings)) => merge_members(settings, &change, DEPTH),
                (_, settings) => *settings = json!({}),
            }
            write(connection, CHATS, &chats)
        }
        Changed::NoWorkspace(uid) => {
            let mut chats = read(connection, CHATS)?;
            chats.remove(&uid);
            write(connection, CHATS, &chats)
        }
    }
}

fn read(connection: &Connection, name: &str) -> Result<Map<String, Value>> {
    let stored = ledger::meta(connection, name)?;
    Ok(stored.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default())
}

fn write(connection: &Connection, name: &str, value: &Map<String, Value>) -> Result<()> {
    ledger::set_meta(connection, name, &serde_json::to_string(value)?)
}

/// What can be set of a network that a node tells.
fn network(told: &Value) -> Map<String, Value> {
    let member = |name: &str| (name.to_owned(), told.get(name).cloned().unwrap_or(Value::Null));
    let mut network: Map<String, Value> = ["self", "remotes", "shards"].into_iter().map(member).collect();
    for remote in network.get_mut("remotes").and_then(Value::as_object_mut).into_iter().flatten() {
        if let Some(remote) = remote.1.as_object_mut() {
            remote.remove("status");
        }
    }
    network
}

/// What a node has of it, where the experimental features are on. It hides the keys of chats' models: they stay as they are on
/// nodes.
///
/// # Errors
/// The node did not answer, or refused.
pub async fn of_node(node: &Node, is_on: impl Fn(&str) -> bool) -> Result<Vec<Changed>> {
    let mut found = Vec::new();
    if is_on(NETWORK)
        && let Some(told) = features::told(node, NETWORK, "GET", "/network", None).await?
    {
        found.push(Changed::Network(told));
    }
    if is_on(CHATS)
        && let Some(told) = features::told(node, CHATS, "GET", WORKSPACES, None).await?
    {
        for uid in workspaces(&told) {
            let settings = node.ask("GET", ApiPath::new(["chats", &uid, "settings"]), None).await?;
            found.push(Changed::Workspace(uid, Some(settings)));
        }
    }
    Ok(found)
}

/// Tells gateways what nodes are called, and gives them a moment to hear it: the client may search by that name next.
///
/// # Errors
/// The ledger failed.
pub async fn learn_name(cluster: &Cluster) -> Result<()> {
    let network = cluster.ledger.call(|connection| read(connection, NETWORK)).await?;
    let name = network.get("self").and_then(Value::as_str).map(ToOwned::to_owned);
    if cluster.view().server_name == name {
        return Ok(());
    }
    cluster.change(|view| view.server_name = name).await?;
    let version = cluster.view().version;
    let heard = async {
        while !cluster.gateways.begin_by(version) {
            tokio::time::sleep(MOMENT / 50).await;
        }
    };
    // A gateway that is away hears it later.
    if tokio::time::timeout(MOMENT, heard).await.is_err() {
        tracing::info!("not all gateways have heard the name yet");
    }
    Ok(())
}

/// Gives a node what clients have set, and takes from it what they have not. It leaves experimental features on.
///
/// # Errors
/// The node did not answer, or refused; or the ledger failed.
pub async fn sync(cluster: &Cluster, node: &Node) -> Result<()> {
    let (wanted, chats) =
        cluster.ledger.call(|connection| Ok((read(connection, NETWORK)?, read(connection, CHATS)?))).await?;
    let change = async |method: &'static str, path: ApiPath, body: Option<&Value>| {
        let request = Request::own(method, path, body);
        let answer = fenced::send(cluster, node, request.clone(), TIMEOUT).await?;
        if answer.is_success() { Ok(()) } else { Err(node.unexpected(&request, &answer)) }
    };
    if let Some(told) = features::told(node, NETWORK, "GET", "/network", None).await? {
        let nothing = json!({"self": null, "remotes": {}, "shards": {}});
        let wanted = if wanted.is_empty() { network(&nothing) } else { wanted };
        if network(&told) != wanted {
            let reset = json!({"self": null, "remotes": null, "shards": null});
            change("PATCH", "/network".into(), Some(&reset)).await?;
            change("PATCH", "/network".into(), Some(&Value::Object(wanted))).await?;
        }
    }
    if let Some(told) = features::told(node, CHATS, "GET", WORKSPACES, None).await? {
        for uid in workspaces(&told).iter().filter(|uid| !chats.contains_key(*uid)) {
            change("DELETE", ApiPath::new(["chats", uid]), None).await?;
        }
        for (uid, settings) in chats {
            let path = ApiPath::new(["chats", &uid, "settings"]);
            // What is not set is as by default.
            let mut all =
                DEFAULT.map(|name| (name.to_owned(), Value::Null)).into_iter().collect::<Map<_, _>>();
            all.extend(settings.as_object().cloned().unwrap_or_default());
            // Nobody knows it since the ledger was recovered.
            all.retain(|_, value| value.as_str().is_none_or(|text| !text.ends_with(HIDDEN)));
            change("PATCH", path, Some(&Value::Object(all))).await?;
        }
    }
    Ok(())
}

/// The settings of a workspace.
const DEFAULT: [&str; 8] =
    ["source", "orgId", "projectId", "apiVersion", "deploymentId", "baseUrl", "apiKey", "prompts"];

/// The workspaces that a node tells.
fn workspaces(told: &Value) -> Vec<String> {
    let workspaces = told.get("results").and_then(Value::as_array).into_iter().flatten();
    workspaces.filter_map(|it| it.get("uid")?.as_str().map(ToOwned::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;

    #[tokio::test]
    async fn what_is_set_is_merged_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        let workspace = |change| Changed::Workspace("w".to_owned(), change);
        let stored = ledger
            .call(move |connection| {
                let told = json!({"self": "a", "leader": null, "version": "x", "shards": {},
                                  "remotes": {"b": {"url": "http://b", "status": "available"}}});
                store(connection, Changed::Network(told))?;
                store(connection, workspace(Some(json!({"apiKey": "k", "prompts": {"system": "s"}}))))?;
                store(connection, workspace(Some(json!({"orgId": "o", "prompts": {"searchQParam": "q"}}))))?;
                store(connection, workspace(Some(json!({"orgId": null}))))?;
                store(connection, Changed::Workspace("v".to_owned(), None))?;
                store(connection, Changed::NoWorkspace("v".to_owned()))?;
                Ok((read(connection, NETWORK)?, read(connection, CHATS)?))
            })
            .await
            .unwrap();
        let network = json!({"self": "a", "shards": {}, "remotes": {"b": {"url": "http://b"}}});
        let chats = json!({"w": {"apiKey": "k", "prompts": {"system": "s", "searchQParam": "q"}}});
        assert_eq!((Value::Object(stored.0), Value::Object(stored.1)), (network, chats));
    }
}
