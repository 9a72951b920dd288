//! Write keys: one API key for each gateway, the same on all nodes. Deleting the key is the fence: nodes then reject the
//! gateway's late callouts. The control plane has write keys of its own, one for each node, for copies, indexes and settings.
//!
//! A fenced key is forgotten only once every node has confirmed its deletion, however long a node is unreachable.

use crate::{
    base::error::Result,
    cluster::{
        Cluster,
        write_keys::{UnfencedKeys, WriteKeys},
    },
    domain::key_holder::WriteKeyHolder,
    ledger::write_keys::{self as stored, WriteKey},
    node::{Node, Request},
};
use futures_util::future::join_all;
use miroir_core::{node_name::NodeName, path::ApiPath};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    sync::{MutexGuard, PoisonError},
    time::Duration,
};
use uuid::Uuid;

/// How long a node may take to create a key. Begins wait for this, and a node that hangs must not block them.
const PATIENCE: Duration = Duration::from_secs(3);

/// How long a fence waits for other writes under the same key, so that it does not interrupt them.
pub const GRACE: Duration = Duration::from_secs(2);

/// How long a node may take to handle a request that it authorized before the key was deleted.
pub const LATE_REQUESTS_END: Duration = Duration::from_secs(1);

/// Creates an API key on a node, unless it exists.
///
/// # Errors
/// The node did not answer, or refused.
pub async fn create_key(node: &Node, body: &Value) -> Result<()> {
    let request = Request::own("POST", "/keys", Some(body));
    let answer = node.send_within(&request, PATIENCE).await?;
    if answer.is_success() || answer.status == 409 {
        return Ok(());
    }
    Err(node.unexpected(&request, &answer))
}

impl WriteKeys {
    /// A holder's key and its text; made on all nodes that answer, if there is none.
    ///
    /// # Errors
    /// The ledger failed. A failure on a node is only logged: the node then refuses the gateway's callouts and is repaired.
    pub async fn key(&self, cluster: &Cluster, holder: &WriteKeyHolder) -> Result<(Uuid, String)> {
        let mut live = self.live.lock().await;
        if let Some(uid) = live.get(holder) {
            return Ok((*uid, cluster.secrets.key_text(*uid)));
        }
        let uid = cluster.random.uuid();
        let write_key = WriteKey { key: uid, holder: Some(holder.clone()), fenced: false };
        cluster.ledger.call(move |connection| stored::store_write_key(connection, &write_key)).await?;
        let body = holder.key(uid);
        join_all(cluster.nodes().iter().filter(|node| node.is_up()).map(|node| create(node, &body))).await;
        live.insert(holder.clone(), uid);
        Ok((uid, cluster.secrets.key_text(uid)))
    }

    /// Fences a key: deletes it on all nodes. The gateway's next begin creates another one. Waits up to `patience` for open
    /// writes under the key. An unreachable node keeps the key until it has synced: see [`Self::nodes_with_fenced_keys`].
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn fence(&self, cluster: &Cluster, uid: Uuid, patience: Duration) -> Result<()> {
        self.live.lock().await.retain(|_, live| *live != uid);
        let begun = cluster.clock.monotonic();
        while cluster.open.uses(uid) && cluster.clock.since(begun) < patience {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cluster.ledger.call(move |connection| stored::fence_write_key(connection, uid)).await?;
        self.mark_unfenced(cluster, uid);
        let all = cluster.nodes();
        let nodes = all.iter().filter(|node| node.is_up());
        let fenced = nodes.map(async |node| (node, self.delete(cluster, node, uid).await));
        for (node, result) in join_all(fenced).await {
            if let Err(error) = result {
                tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a write key could not be deleted yet");
            }
        }
        Ok(())
    }

    /// Fences all keys from before the start. Gateways get new ones with their next begin.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn fence_all(&self, cluster: &Cluster) -> Result<()> {
        for write_key in cluster.ledger.call(stored::write_keys).await? {
            cluster.ledger.call(move |connection| stored::fence_write_key(connection, write_key.key)).await?;
            self.mark_unfenced(cluster, write_key.key);
        }
        Ok(())
    }

    /// Notes that a request under this key had no answer, and that the node may still receive it.
    pub fn late(&self, node: &str, uid: Uuid) {
        self.unfenced().late.entry(node.into()).or_default().insert(uid);
    }

    /// Whether a node may still accept a request under a key that is fenced or must be.
    #[must_use]
    pub fn may_accept_late(&self, node: &str) -> bool {
        let unfenced = self.unfenced();
        unfenced.late.contains_key(node) || unfenced.fenced.values().any(|nodes| nodes.contains(node))
    }

    /// The nodes that have not confirmed the deletion of some fenced key.
    #[must_use]
    pub fn nodes_with_fenced_keys(&self) -> BTreeSet<NodeName> {
        self.unfenced().fenced.values().flatten().cloned().collect()
    }

    /// Makes sure that the node accepts no request that was sent before now and had no answer, so that its copies can be
    /// replaced. Gateways that sent such requests get new keys; their old keys are deleted once their open writes are over.
    ///
    /// # Errors
    /// The ledger failed; or the node still has a fenced key.
    pub async fn fence_late(&self, cluster: &Cluster, node: &Node) -> Result<()> {
        let late = self.unfenced().late.get(&node.name).cloned().unwrap_or_default();
        for uid in &late {
            self.fence(cluster, *uid, cluster.options.commit_timeout).await?;
        }
        self.catch_up(cluster, node).await?;
        if !late.is_empty() {
            tokio::time::sleep(LATE_REQUESTS_END).await;
            let mut unfenced = self.unfenced();
            if let Some(left) = unfenced.late.get_mut(&node.name) {
                left.retain(|uid| !late.contains(uid));
            }
            unfenced.late.retain(|_, left| !left.is_empty());
        }
        Ok(())
    }

    /// Creates the missing keys on a node that was unreachable, and deletes the fenced ones.
    ///
    /// # Errors
    /// The ledger failed; or the node still has a fenced key.
    pub async fn catch_up(&self, cluster: &Cluster, node: &Node) -> Result<()> {
        let live = self.live.lock().await;
        for (holder, uid) in live.iter() {
            create(node, &holder.key(*uid)).await;
        }
        drop(live);
        let fenced: Vec<Uuid> = {
            let unfenced = self.unfenced();
            unfenced
                .fenced
                .iter()
                .filter(|(_, nodes)| nodes.contains(&node.name))
                .map(|(uid, _)| *uid)
                .collect()
        };
        for uid in fenced {
            self.delete(cluster, node, uid).await?;
        }
        Ok(())
    }

    /// Forgets a node that has left the cluster: what it may still accept does not matter.
    pub fn forget(&self, node: &str) {
        let mut unfenced = self.unfenced();
        unfenced.late.remove(node);
        unfenced.fenced.values_mut().for_each(|nodes| {
            nodes.remove(node);
        });
    }

    fn mark_unfenced(&self, cluster: &Cluster, uid: Uuid) {
        let nodes = cluster.nodes().iter().map(|node| node.name.clone()).collect();
        self.unfenced().fenced.insert(uid, nodes);
    }

    /// Deletes a key on a node, and forgets the key if no other node has it.
    async fn delete(&self, cluster: &Cluster, node: &Node, uid: Uuid) -> Result<()> {
        let request = Request::own("DELETE", ApiPath::new(["keys", &uid.hyphenated().to_string()]), None);
        let answer = node.send_within(&request, PATIENCE).await?;
        if !answer.is_success() && answer.status != 404 {
            return Err(node.unexpected(&request, &answer));
        }
        let is_last = {
            let mut unfenced = self.unfenced();
            let left = unfenced.fenced.get_mut(&uid).is_some_and(|nodes| {
                nodes.remove(&node.name);
                nodes.is_empty()
            });
            left && unfenced.fenced.remove(&uid).is_some()
        };
        if is_last {
            cluster.ledger.call(move |connection| stored::forget_write_key(connection, uid)).await?;
        }
        Ok(())
    }

    fn unfenced(&self) -> MutexGuard<'_, UnfencedKeys> {
        self.unfenced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn create(node: &Node, body: &Value) {
    if let Err(error) = create_key(node, body).await {
        tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a write key could not be made");
    }
}
