//! Epoch keys: one API key a gateway, the same on all nodes. Deleting it keeps its late callouts out: the fence.

use crate::{
    cluster::Cluster,
    error::{Error, Result},
    ledger::catalogue::{self, Epoch},
    node::{Node, NodeAnswer, Request},
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use std::{collections::HashMap, time::Duration};
use tokio::sync::Mutex;
use uuid::Uuid;

/// How long a node may take to make a key: begins wait for it, and a node that hangs must not hold them up.
const PATIENCE: Duration = Duration::from_secs(3);

/// Names of internal keys start so; clients do not see them.
pub const INTERNAL: &str = "miroir:";

/// The live epochs, by gateway.
#[derive(Debug, Default)]
pub struct Epochs {
    live: Mutex<HashMap<String, Uuid>>,
}

/// The name under which a gateway edits by function: nodes want a key of all actions for that, which is one of its own.
#[must_use]
pub fn editor(gateway: &str) -> String {
    format!("{gateway}{EDITOR}")
}

const EDITOR: &str = "/edit";

/// The body that creates an epoch key.
fn epoch_key(uid: Uuid, gateway: &str) -> Value {
    let actions = if gateway.ends_with(EDITOR) {
        json!(["*"])
    } else {
        json!(["documents.add", "documents.delete", "documents.get", "indexes.create"])
    };
    json!({
        "uid": uid.hyphenated().to_string(),
        "name": format!("{INTERNAL}epoch"),
        "description": format!("Writes of the gateway {gateway}"),
        "actions": actions,
        "indexes": ["*"],
        "expiresAt": null
    })
}

/// Creates an API key on a node, unless it is there.
///
/// # Errors
/// The node did not answer, or refused.
pub async fn create_key(node: &Node, body: &Value) -> Result<()> {
    let request = Request::own("POST", "/keys", Some(body));
    let answer = node.send_within(&request, PATIENCE).await?;
    if answer.is_success() || answer.status == 409 {
        return Ok(());
    }
    Err(unexpected(node, &request, &answer))
}

impl Epochs {
    /// The text of a gateway's key; made on all nodes that answer, if there is none.
    ///
    /// # Errors
    /// The ledger failed. A node that fails is only logged: it refuses this gateway's callouts, and is repaired.
    pub async fn key(&self, cluster: &Cluster, gateway: &str) -> Result<String> {
        let mut live = self.live.lock().await;
        if let Some(uid) = live.get(gateway) {
            return Ok(cluster.secrets.key_text(*uid));
        }
        let uid = Uuid::new_v4();
        let epoch = Epoch { key: uid, gateway: gateway.to_owned(), fenced: false };
        cluster.ledger.call(move |connection| catalogue::store_epoch(connection, &epoch)).await?;
        let body = epoch_key(uid, gateway);
        join_all(cluster.nodes().iter().filter(|node| node.is_up()).map(|node| create(node, &body))).await;
        live.insert(gateway.to_owned(), uid);
        Ok(cluster.secrets.key_text(uid))
    }

    /// Deletes a gateway's key on all nodes; its next begin makes another one. A node that cannot be reached keeps it
    /// until it has caught up: what it takes under it until then is replaced by repair, which comes after.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn fence(&self, cluster: &Cluster, gateway: &str) -> Result<()> {
        if let Some(uid) = self.live.lock().await.remove(gateway) {
            let epoch = Epoch { key: uid, gateway: gateway.to_owned(), fenced: true };
            cluster.ledger.call(move |connection| catalogue::store_epoch(connection, &epoch)).await?;
            let all = cluster.nodes();
            let nodes = all.iter().filter(|node| node.is_up());
            let fenced = nodes.map(async |node| (node, delete(node, uid).await));
            for (node, result) in join_all(fenced).await {
                if let Err(error) = result {
                    tracing::warn!(node = node.name, %error, "an epoch key could not be deleted yet");
                }
            }
        }
        Ok(())
    }

    /// At a start: fences all keys of before. Gateways get theirs with their next begin.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn fence_all(&self, cluster: &Cluster) -> Result<()> {
        let epochs = cluster.ledger.call(catalogue::epochs).await?;
        for mut epoch in epochs.into_iter().filter(|epoch| !epoch.fenced) {
            epoch.fenced = true;
            cluster.ledger.call(move |connection| catalogue::store_epoch(connection, &epoch)).await?;
        }
        Ok(())
    }

    /// Gives a node that was away the keys that it misses, and takes the fenced ones.
    ///
    /// # Errors
    /// The ledger failed; or the node still has a fenced key.
    pub async fn catch_up(&self, cluster: &Cluster, node: &Node) -> Result<()> {
        let live = self.live.lock().await;
        for (gateway, uid) in live.iter() {
            create(node, &epoch_key(*uid, gateway)).await;
        }
        for epoch in cluster.ledger.call(catalogue::epochs).await? {
            if epoch.fenced {
                delete(node, epoch.key).await?;
            }
        }
        Ok(())
    }
}

async fn create(node: &Node, body: &Value) {
    if let Err(error) = create_key(node, body).await {
        tracing::warn!(node = node.name, %error, "an epoch key could not be made");
    }
}

async fn delete(node: &Node, uid: Uuid) -> Result<()> {
    let request = Request::own("DELETE", format!("/keys/{}", uid.hyphenated()), None);
    let answer = node.send(&request).await?;
    if answer.is_success() || answer.status == 404 {
        return Ok(());
    }
    Err(unexpected(node, &request, &answer))
}

fn unexpected(node: &Node, request: &Request, answer: &NodeAnswer) -> Error {
    Error::Unexpected {
        node: node.name.clone(),
        status: answer.status,
        request: format!("{} {}", request.method, request.path),
        body: String::from_utf8_lossy(&answer.body).chars().take(500).collect(),
    }
}
