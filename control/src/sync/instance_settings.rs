//! Settings of the whole instance, besides keys and experimental features: the servers of `/network`, and the workspaces of
//! chats. Every node has them. The ledger stores them too, for nodes that were unreachable when a client changed them.

use crate::{
    base::error::{Error, Result},
    cluster::Cluster,
    domain::settings_change::merge_members,
    fencing::in_flight,
    ledger,
    node::{Node, Request, TIMEOUT},
    sync::features,
};
use miroir_core::path::ApiPath;
use rusqlite::Connection;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The experimental feature of the route `/network`.
const NETWORK: &str = "network";

/// The experimental feature of the routes of chats.
const CHATS: &str = "chatCompletions";

/// The route that lists all workspaces of chats.
const WORKSPACES: &str = "/chats?limit=100000";

/// How the value of an API key ends when a node hides it.
const HIDDEN: &str = "XXX...";

/// How long a client's answer waits for gateways to get a new topology.
const MOMENT: Duration = Duration::from_secs(1);

/// Down to this depth, a change of a workspace's settings is merged member by member.
const DEPTH: u8 = 2;

/// A change of the instance settings that nodes have accepted.
#[derive(Clone, Debug)]
pub enum InstanceChange {
    /// The new network, as a node reports it.
    Network(Value),
    /// A change of the settings of a workspace, which may be new; `None` resets them.
    Workspace(String, Option<Value>),
    /// A workspace was deleted.
    NoWorkspace(String),
}

impl InstanceChange {
    /// The name that the network gives to this server.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        let Self::Network(told) = self else { return None };
        told.get("self").and_then(Value::as_str).map(ToOwned::to_owned)
    }
}

/// Stores a change.
///
/// # Errors
/// The database failed.
pub fn store(connection: &Connection, changed: InstanceChange) -> Result<()> {
    match changed {
        InstanceChange::Network(told) => {
            let network = network(&told)
                .ok_or_else(|| Error::Other("a node tells something else than its network".to_owned()))?;
            write(connection, NETWORK, &network)
        }
        InstanceChange::Workspace(uid, change) => {
            let mut chats = chats(connection)?;
            let settings = chats.entry(uid).or_insert_with(|| json!({}));
            match (change, settings) {
                (Some(change), Value::Object(settings)) => merge_members(settings, &change, DEPTH),
                (_, settings) => *settings = json!({}),
            }
            write(connection, CHATS, &chats)
        }
        InstanceChange::NoWorkspace(uid) => {
            let mut chats = chats(connection)?;
            chats.remove(&uid);
            write(connection, CHATS, &chats)
        }
    }
}

/// The network that clients have set; empty where they have set none.
fn set_network(connection: &Connection) -> Result<Map<String, Value>> {
    Ok(ledger::meta_json(connection, NETWORK)?.unwrap_or_default())
}

/// By workspace that clients have made: its settings, an object.
fn chats(connection: &Connection) -> Result<Map<String, Value>> {
    let chats: Map<String, Value> = ledger::meta_json(connection, CHATS)?.unwrap_or_default();
    match chats.iter().find(|(_, settings)| !settings.is_object()) {
        None => Ok(chats),
        Some((uid, _)) => Err(Error::UnreadableRow {
            table: "meta",
            row: CHATS.to_owned(),
            column: "value",
            problem: format!("the settings of workspace `{uid}` are no object"),
        }),
    }
}

fn write(connection: &Connection, name: &str, value: &Map<String, Value>) -> Result<()> {
    ledger::set_meta(connection, name, &serde_json::to_string(value)?)
}

/// What can be set of a network that a node tells; `None` where it tells something else.
fn network(told: &Value) -> Option<Map<String, Value>> {
    let told = told.as_object()?;
    let member = |name: &str| (name.to_owned(), told.get(name).cloned().unwrap_or(Value::Null));
    let mut network: Map<String, Value> = ["self", "remotes", "shards"].into_iter().map(member).collect();
    for remote in network.get_mut("remotes").and_then(Value::as_object_mut).into_iter().flatten() {
        if let Some(remote) = remote.1.as_object_mut() {
            remote.remove("status");
        }
    }
    Some(network)
}

/// The instance settings of a node, as far as their experimental features are enabled. The node hides the API keys of chat
/// models; [`sync`] leaves such keys unchanged on nodes.
///
/// # Errors
/// The node did not answer, or refused.
pub async fn of_node(node: &Node, is_on: impl Fn(&str) -> bool) -> Result<Vec<InstanceChange>> {
    let mut found = Vec::new();
    if is_on(NETWORK)
        && let Some(told) = features::ask(node, NETWORK, "GET", "/network", None).await?
    {
        found.push(InstanceChange::Network(told));
    }
    if is_on(CHATS)
        && let Some(told) = features::ask(node, CHATS, "GET", WORKSPACES, None).await?
    {
        for uid in workspaces(node, &told)? {
            let settings = node.workspace_settings(&uid).await?;
            found.push(InstanceChange::Workspace(uid, Some(settings)));
        }
    }
    Ok(found)
}

/// Tells gateways the server's name in `/network`, and waits a moment until they know it: the client may use that name in its
/// next search.
///
/// # Errors
/// The ledger failed.
pub async fn learn_name(cluster: &Cluster) -> Result<()> {
    let network = cluster.ledger.call(set_network).await?;
    let name = network.get("self").and_then(Value::as_str).map(ToOwned::to_owned);
    if cluster.cluster_state().server_name == name {
        return Ok(());
    }
    cluster.change(|cluster_state| cluster_state.server_name = name).await?;
    let version = cluster.cluster_state().version;
    let heard = async {
        while !cluster.gateways.all_start_with(version) {
            tokio::time::sleep(MOMENT / 50).await;
        }
    };
    // A gateway that does not report now gets the name later.
    if tokio::time::timeout(MOMENT, heard).await.is_err() {
        tracing::info!("not all gateways have the server's name yet");
    }
    Ok(())
}

/// Makes the instance settings of a node those that the ledger has. Leaves the experimental features enabled on the node.
///
/// # Errors
/// The node did not answer, or refused; or the ledger failed.
pub async fn sync(cluster: &Cluster, node: &Node) -> Result<()> {
    let (wanted, chats) =
        cluster.ledger.call(|connection| Ok((set_network(connection)?, chats(connection)?))).await?;
    let change = async |method: &'static str, path: ApiPath, body: Option<&Value>| {
        let request = Request::own(method, path, body);
        let answer = in_flight::send(cluster, node, request.clone(), TIMEOUT).await?;
        if answer.is_success() { Ok(()) } else { Err(node.unexpected(&request, &answer)) }
    };
    if let Some(told) = features::ask(node, NETWORK, "GET", "/network", None).await? {
        let nothing = || [("self", Value::Null), ("remotes", json!({})), ("shards", json!({}))];
        let nothing = || nothing().map(|(name, value)| (name.to_owned(), value)).into_iter().collect();
        let wanted = if wanted.is_empty() { nothing() } else { wanted };
        if network(&told).ok_or_else(|| node.unreadable("GET /network", &told))? != wanted {
            let reset = json!({"self": null, "remotes": null, "shards": null});
            change("PATCH", "/network".into(), Some(&reset)).await?;
            change("PATCH", "/network".into(), Some(&Value::Object(wanted))).await?;
        }
    }
    if let Some(told) = features::ask(node, CHATS, "GET", WORKSPACES, None).await? {
        for uid in workspaces(node, &told)?.iter().filter(|uid| !chats.contains_key(*uid)) {
            change("DELETE", ApiPath::new(["chats", uid]), None).await?;
        }
        for (uid, settings) in chats {
            let path = ApiPath::new(["chats", &uid, "settings"]);
            // Members that are not set get their default.
            let mut all =
                DEFAULT.map(|name| (name.to_owned(), Value::Null)).into_iter().collect::<Map<_, _>>();
            all.extend(
                settings.as_object().into_iter().flatten().map(|(name, set)| (name.clone(), set.clone())),
            );
            // A hidden key in the ledger comes from a recovery. The key itself is unknown, so nodes keep theirs.
            all.retain(|_, value| value.as_str().is_none_or(|text| !text.ends_with(HIDDEN)));
            change("PATCH", path, Some(&Value::Object(all))).await?;
        }
    }
    Ok(())
}

/// The members of a workspace's settings.
const DEFAULT: [&str; 8] =
    ["source", "orgId", "projectId", "apiVersion", "deploymentId", "baseUrl", "apiKey", "prompts"];

/// The uids of the workspaces in a node's answer.
fn workspaces(node: &Node, told: &Value) -> Result<Vec<String>> {
    let request = "GET /chats";
    let workspaces = node.results(request, told)?.iter();
    workspaces.map(|it| Ok(node.text(request, it, "uid")?.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;

    #[tokio::test]
    async fn what_is_set_is_merged_and_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        let workspace = |change| InstanceChange::Workspace("w".to_owned(), change);
        let stored = ledger
            .call(move |connection| {
                let told = json!({"self": "a", "leader": null, "version": "x", "shards": {},
                                  "remotes": {"b": {"url": "http://b", "status": "available"}}});
                store(connection, InstanceChange::Network(told))?;
                store(connection, workspace(Some(json!({"apiKey": "k", "prompts": {"system": "s"}}))))?;
                store(connection, workspace(Some(json!({"orgId": "o", "prompts": {"searchQParam": "q"}}))))?;
                store(connection, workspace(Some(json!({"orgId": null}))))?;
                store(connection, InstanceChange::Workspace("v".to_owned(), None))?;
                store(connection, InstanceChange::NoWorkspace("v".to_owned()))?;
                Ok((set_network(connection)?, chats(connection)?))
            })
            .await
            .unwrap();
        let network = json!({"self": "a", "shards": {}, "remotes": {"b": {"url": "http://b"}}});
        let chats = json!({"w": {"apiKey": "k", "prompts": {"system": "s", "searchQParam": "q"}}});
        assert_eq!((Value::Object(stored.0), Value::Object(stored.1)), (network, chats));
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_not_stored_anew_as_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(folder.path()).unwrap();
        for (name, damaged) in [(CHATS, "{"), (CHATS, r#"{"w": 1}"#), (NETWORK, "[]")] {
            ledger.call(move |connection| ledger::set_meta(connection, name, damaged)).await.unwrap();
            let error = match name {
                CHATS => {
                    let change = InstanceChange::Workspace("v".to_owned(), Some(json!({"orgId": "o"})));
                    ledger.call(move |connection| store(connection, change)).await.unwrap_err()
                }
                _ => ledger.call(set_network).await.unwrap_err(),
            };
            assert!(error.to_string().contains(&format!("row `{name}` in table `meta`")), "{error}");
            let left = ledger.call(move |connection| ledger::meta(connection, name)).await.unwrap();
            assert_eq!(left.as_deref(), Some(damaged));
        }
    }
}
