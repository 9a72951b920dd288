//! A node's API keys.

use super::{Node, Request, TIMEOUT, health::CHECK};
use crate::{
    base::error::Result,
    domain::{key_holder::KeyHolder, serving::Serving},
};
use miroir_core::path::ApiPath;
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

/// The key that a cluster's gateways read under. Nodes get it when they join, so it tells them from nodes of another cluster, and from
/// nodes that have lost their disks.
#[derive(Clone, Debug)]
pub struct ClusterKey {
    /// Its uid.
    pub uid: Uuid,
    /// What requests under it carry.
    pub text: String,
}

impl Node {
    /// All API keys, the newest first, each by its uid.
    ///
    /// # Errors
    /// The node did not answer, or refused.
    pub async fn keys(&self) -> Result<Vec<(String, Value)>> {
        self.keys_within(TIMEOUT).await
    }

    async fn keys_within(&self, timeout: Duration) -> Result<Vec<(String, Value)>> {
        let answer = self.ask_within("GET", "/keys?limit=10000", None, timeout).await?;
        let with_uid = |key: &Value| Ok((self.text("GET /keys", key, "uid")?.to_owned(), key.clone()));
        self.results("GET /keys", &answer)?.iter().map(with_uid).collect()
    }

    /// Whether the node has the data of another cluster: it has the key that another cluster's gateways read under, or that of this
    /// cluster under another ledger. A node without such a key is new.
    ///
    /// # Errors
    /// The node did not answer, or refused.
    pub async fn belongs_to_another(&self) -> Result<bool> {
        let Some(ClusterKey { text: own, .. }) = &self.cluster_key else { return Ok(false) };
        let keys = self.keys_within(CHECK).await?;
        let of_clusters = keys.iter().filter(|(_, key)| KeyHolder::of(key) == KeyHolder::GatewayReads);
        Ok(of_clusters.into_iter().any(|(_, key)| key.get("key").and_then(Value::as_str) != Some(own)))
    }

    /// Whether the node has what it was given when it joined. One that has lost its disk has not, whatever was made on it since, until it
    /// joins again. A node of no cluster has it.
    ///
    /// # Errors
    /// The node did not answer, or refused.
    pub async fn has_joined(&self) -> Result<bool> {
        Ok(self.serving().await?.is_some())
    }

    /// Which control plane serves the node's cluster, as the node tells it; `None` if the node lacks what it was given when it joined.
    ///
    /// # Errors
    /// The node did not answer, or refused.
    pub async fn serving(&self) -> Result<Option<Serving>> {
        let Some(ClusterKey { uid, .. }) = &self.cluster_key else { return Ok(Some(Serving::default())) };
        let request = Request::own("GET", ApiPath::new(["keys", &uid.hyphenated().to_string()]), None);
        let answer = self.send_within(&request, CHECK).await?;
        match answer.status {
            404 => Ok(None),
            _ if answer.is_success() => {
                let key = self.read(&request, &answer)?;
                Serving::of(&key)
                    .map(Some)
                    .ok_or_else(|| self.unreadable(format!("GET {}", request.path), &key))
            }
            _ => Err(self.unexpected(&request, &answer)),
        }
    }

    /// Lets the node tell which control plane serves its cluster.
    ///
    /// # Errors
    /// The node did not answer, or lacks what it was given when it joined.
    pub async fn set_serving(&self, serving: Serving) -> Result<()> {
        let Some(ClusterKey { uid, .. }) = &self.cluster_key else { return Ok(()) };
        let path = ApiPath::new(["keys", &uid.hyphenated().to_string()]);
        let change = json!({ "description": serving.to_string() });
        self.ask_within("PATCH", path, Some(&change), CHECK).await.map(drop)
    }

    /// Deletes an API key by its uid.
    ///
    /// # Errors
    /// The node did not answer, or does not have it.
    pub async fn delete_key(&self, uid: &str) -> Result<()> {
        self.ask("DELETE", ApiPath::new(["keys", uid]), None).await.map(drop)
    }
}
