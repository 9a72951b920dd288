//! A node's API keys.

use super::Node;
use crate::base::error::Result;
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

    /// Deletes an API key by its uid.
    ///
    /// # Errors
    /// The node did not answer, or does not have it.
    pub async fn delete_key(&self, uid: &str) -> Result<()> {
        self.ask("DELETE", ApiPath::new(["keys", uid]), None).await.map(drop)
    }
}
