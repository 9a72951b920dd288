//! A node's API keys.

use super::Node;
use crate::{base::error::Result, domain::key_holder::KeyHolder};
use miroir_core::path::ApiPath;
use serde_json::Value;

impl Node {
    /// All API keys, the newest first, each by its uid.
    ///
    /// # Errors
    /// The node did not answer, or refused.
    pub async fn keys(&self) -> Result<Vec<(String, Value)>> {
        let answer = self.ask("GET", "/keys?limit=10000", None).await?;
        let with_uid = |key: &Value| Ok((self.text("GET /keys", key, "uid")?.to_owned(), key.clone()));
        self.results("GET /keys", &answer)?.iter().map(with_uid).collect()
    }

    /// Whether the node has the data of another cluster: it has the key that another cluster's gateways read under, or that of this
    /// cluster under another ledger. A node without such a key is new.
    ///
    /// # Errors
    /// The node did not answer, or refused.
    pub async fn belongs_to_another(&self) -> Result<bool> {
        let Some(own) = &self.cluster_key else { return Ok(false) };
        let keys = self.keys().await?;
        let of_clusters = keys.iter().filter(|(_, key)| KeyHolder::of(key) == KeyHolder::GatewayReads);
        Ok(of_clusters.into_iter().any(|(_, key)| key.get("key").and_then(Value::as_str) != Some(own)))
    }

    /// Deletes an API key by its uid.
    ///
    /// # Errors
    /// The node did not answer, or does not have it.
    pub async fn delete_key(&self, uid: &str) -> Result<()> {
        self.ask("DELETE", ApiPath::new(["keys", uid]), None).await.map(drop)
    }
}
