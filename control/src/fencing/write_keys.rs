//! Write keys: one API key for each gateway, the same on all nodes. Deleting the key is the fence: nodes then reject the
//! gateway's late callouts. The control plane has write keys of its own, one for each node, for copies, indexes and settings.
//!
//! A fenced key is forgotten only once every node has confirmed its deletion, however long a node is unreachable.

use super::lost_disk;
use crate::{
    base::error::Result,
    cluster::{
        Cluster,
        open_writes::BeginningKey,
        write_keys::{Late, UnfencedKeys, WriteKeys},
    },
    domain::key_holder::WriteKeyHolder,
    fencing::instance,
    ledger::write_keys::{self as stored, WriteKey},
    node::{Node, Probed, Request},
};
use futures_util::future::join_all;
use miroir_core::{node_name::NodeName, path::ApiPath};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
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

/// The same for documents from gateways, before copies are replaced.
const LATE_DOCUMENTS_END: Duration = Duration::from_millis(250);

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
    /// A holder's key and its text; made on all nodes that answer, if there is none. A fence waits for whoever has it.
    ///
    /// # Errors
    /// The ledger failed. A node on which it cannot be made refuses the gateway's callouts until [`Self::give_lacking`] has made it.
    pub async fn key(&self, cluster: &Cluster, holder: &WriteKeyHolder) -> Result<(BeginningKey, String)> {
        let mut live = self.live.lock().await;
        if let Some(uid) = live.get(holder) {
            return Ok((cluster.open.begins(*uid), cluster.secrets.key_text(*uid)));
        }
        let uid = cluster.random.uuid();
        let write_key = WriteKey { key: uid, holder: Some(holder.clone()), fenced: false };
        cluster.ledger.call(move |connection| stored::store_write_key(connection, &write_key)).await?;
        let key = [(uid, holder.key(uid))];
        let nodes = cluster.nodes();
        let given = nodes.iter().filter(|node| node.is_up()).map(|node| self.give(cluster, node, &key));
        join_all(given).await.into_iter().collect::<Result<()>>()?;
        live.insert(holder.clone(), uid);
        Ok((cluster.open.begins(uid), cluster.secrets.key_text(uid)))
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
    pub fn late(&self, node: &str, uid: Uuid, requests: Late) {
        self.unfenced().late.entry(node.into()).or_default().insert(uid, requests);
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
        for uid in late.keys() {
            self.fence(cluster, *uid, cluster.options.commit_timeout).await?;
        }
        self.catch_up(cluster, node).await?;
        if let Some(requests) = late.values().max() {
            tokio::time::sleep(match requests {
                Late::Documents => LATE_DOCUMENTS_END,
                Late::AnyRequest => LATE_REQUESTS_END,
            })
            .await;
            let mut unfenced = self.unfenced();
            if let Some(left) = unfenced.late.get_mut(&node.name) {
                left.retain(|uid, _| !late.contains_key(uid));
            }
            unfenced.late.retain(|_, left| !left.is_empty());
        }
        Ok(())
    }

    /// Lets a node that answers again count as up, once it has all keys: a write that is sent to it is not refused then. Returns
    /// whether it was away before. Keys that are made meanwhile wait, so that they are made on this node too.
    pub async fn admit(&self, cluster: &Cluster, node: &Node, probed: Probed) -> bool {
        let live = self.live.lock().await;
        if let Err(error) = self.give_all(cluster, node, &live).await {
            tracing::warn!(node = node.name.as_str(), error = %error.chain(), "it could not be stored that a node has lost its disk");
        }
        node.learn(probed)
    }

    /// Creates the missing keys on a node, and deletes the fenced ones.
    ///
    /// # Errors
    /// The ledger failed; or the node still has a fenced key.
    pub async fn catch_up(&self, cluster: &Cluster, node: &Node) -> Result<()> {
        let live = self.live.lock().await;
        self.give_all(cluster, node, &live).await?;
        drop(live);
        self.delete_fenced(cluster, node).await
    }

    /// Deletes the fenced keys on a node that was unreachable when they were fenced.
    ///
    /// # Errors
    /// The ledger failed; or the node still has a fenced key.
    pub async fn delete_fenced(&self, cluster: &Cluster, node: &Node) -> Result<()> {
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
        self.lacking().retain(|(name, _)| name != node);
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

    /// Notes that a node has refused a key, which it may lack.
    pub fn refused(&self, node: &NodeName, uid: Uuid) {
        self.lacking().insert((node.clone(), uid));
    }

    /// Creates the keys that a node may lack although it was never away: a hiccup must not make it refuse all writes from then on.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn give_lacking(&self, cluster: &Cluster, node: &Node) -> Result<()> {
        if !self.lacking().iter().any(|(name, _)| *name == node.name) {
            return Ok(());
        }
        let live = self.live.lock().await;
        let is_live = |uid: &Uuid| live.values().any(|live| live == uid);
        self.lacking().retain(|(_, uid)| is_live(uid));
        let keys: Vec<_> = live
            .iter()
            .filter(|(_, uid)| self.lacking().contains(&(node.name.clone(), **uid)))
            .map(|(holder, uid)| (*uid, holder.key(*uid)))
            .collect();
        self.give(cluster, node, &keys).await
    }

    async fn give_all(
        &self,
        cluster: &Cluster,
        node: &Node,
        live: &BTreeMap<WriteKeyHolder, Uuid>,
    ) -> Result<()> {
        let keys: Vec<_> = live.iter().map(|(holder, uid)| (*uid, holder.key(*uid))).collect();
        self.give(cluster, node, &keys).await
    }

    /// Creates write keys on a node, unless it has lost its disk. A node without them refuses all writes, of gateways and of the
    /// control plane: nothing can make its indexes anew without the settings that it had, so that it would look whole.
    ///
    /// # Errors
    /// The ledger failed. A failure on the node is logged, and the node lacks the key.
    async fn give(&self, cluster: &Cluster, node: &Node, keys: &[(Uuid, Value)]) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        // Until it is known that the node has them, whatever interrupts this.
        self.lacking().extend(keys.iter().map(|(uid, _)| (node.name.clone(), *uid)));
        match node.serving().await {
            Ok(None) => return lost_disk::note_loss(cluster, node).await,
            Ok(Some(serving)) if instance::is_anothers(cluster, &serving).await? => return Ok(()),
            Ok(Some(_)) => {}
            Err(error) => {
                tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a node does not tell whether it has its disk: it gets no write key yet");
                return Ok(());
            }
        }
        for (uid, body) in keys {
            match create_key(node, body).await {
                Ok(()) => _ = self.lacking().remove(&(node.name.clone(), *uid)),
                Err(error) => {
                    tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a write key could not be made");
                }
            }
        }
        Ok(())
    }

    fn lacking(&self) -> MutexGuard<'_, BTreeSet<(NodeName, Uuid)>> {
        self.lacking.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unfenced(&self) -> MutexGuard<'_, UnfencedKeys> {
        self.unfenced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fencing::in_flight,
        node::Call,
        testing::{ClusterBuilder, Reply, Script},
    };
    use serde_json::json;
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };

    #[tokio::test]
    async fn a_node_that_has_lost_its_disk_gets_no_write_key() {
        let data = tempfile::tempdir().unwrap();
        let transport = Script::new(|call| {
            let is_lost = call.url.port() == Some(2);
            match (call.method.as_str(), call.url.path()) {
                ("GET", "/keys/00000000-0000-0000-0000-000000000000") if is_lost => {
                    Reply::Answer(404, json!({"code": "api_key_not_found"}))
                }
                _ => {
                    Reply::Answer(200, json!({"results": [], "description": "Reads of gateways themselves"}))
                }
            }
        });
        let cluster = ClusterBuilder::new(data.path()).transport(transport.clone()).build();
        for node in cluster.nodes().iter() {
            node.check().await;
        }
        let gets_key = |port: u16| {
            let calls = transport.calls();
            calls.iter().any(|call| call.method == "POST" && call.url.port() == Some(port))
        };
        let holder = WriteKeyHolder::ControlPlane { node: "b".into() };
        cluster.write_keys.key(&cluster, &holder).await.unwrap();
        assert_eq!((gets_key(1), gets_key(2)), (true, false));
        assert_eq!(cluster.cluster_state().behind, BTreeSet::from(["b".into()]));
        // It comes, and is asked again.
        cluster.write_keys.catch_up(&cluster, &cluster.node("b").unwrap()).await.unwrap();
        assert!(!gets_key(2));
    }

    #[tokio::test]
    async fn a_key_that_a_node_lacks_is_made_once_the_node_answers() {
        let data = tempfile::tempdir().unwrap();
        let hangs = Arc::new(AtomicBool::new(true));
        let is_hanging = hangs.clone();
        let transport = Script::new(move |call| match (call.method.as_str(), call.url.path()) {
            (_, "/health") => Reply::Answer(200, json!({})),
            _ if is_hanging.load(Ordering::Relaxed) => Reply::NoConnection,
            ("POST", "/indexes/books/documents") => Reply::Answer(403, json!({"code": "invalid_api_key"})),
            _ => Reply::Answer(200, json!({"results": [], "description": "Reads of gateways themselves"})),
        });
        let cluster = ClusterBuilder::new(data.path()).transport(transport.clone()).build();
        for node in cluster.nodes().iter() {
            node.check().await;
        }
        let node = cluster.node("b").unwrap();
        let made = || {
            let calls = transport.calls();
            let is_it = |call: &&Call| {
                call.method == "POST" && call.url.path() == "/keys" && call.url.port() == Some(2)
            };
            calls.iter().filter(is_it).count()
        };
        let holder = WriteKeyHolder::ControlPlane { node: "b".into() };
        cluster.write_keys.key(&cluster, &holder).await.unwrap();
        assert_eq!(made(), 0, "it did not tell whether it has its disk");
        hangs.store(false, Ordering::Relaxed);
        for _ in 0..2 {
            cluster.write_keys.give_lacking(&cluster, &node).await.unwrap();
            assert_eq!(made(), 1, "once");
        }
        // It refuses the key, whatever has become of it there.
        let write = Request::own("POST", "/indexes/books/documents", Some(&json!([])));
        in_flight::send(&cluster, &node, write, PATIENCE).await.unwrap();
        cluster.write_keys.give_lacking(&cluster, &node).await.unwrap();
        assert_eq!(made(), 2);
        // A key that was fenced meanwhile is not made again.
        let uid = cluster.write_keys.key(&cluster, &holder).await.unwrap().0.uid();
        cluster.write_keys.refused(&node.name, uid);
        cluster.write_keys.fence(&cluster, uid, Duration::ZERO).await.unwrap();
        cluster.write_keys.give_lacking(&cluster, &node).await.unwrap();
        assert_eq!(made(), 2);
    }
}
