//! A node's version, and its experimental features.

use super::{Node, Request, health::CHECK};
use crate::base::error::Result;
use serde_json::Value;

const FEATURES: &str = "/experimental-features";

impl Request {
    /// Asks which experimental features are on.
    #[must_use]
    pub fn features() -> Self {
        Self::own("GET", FEATURES, None)
    }
}

impl Node {
    /// Which version of Meilisearch it runs.
    ///
    /// # Errors
    /// The node did not answer, or refused, or did not say.
    pub async fn version(&self) -> Result<String> {
        let version = self.ask_within("GET", "/version", None, CHECK).await?;
        self.text("GET /version", &version, "pkgVersion").map(ToOwned::to_owned)
    }

    /// Its experimental features, each with whether it is on.
    ///
    /// # Errors
    /// The node did not answer, or refused.
    pub async fn features(&self) -> Result<Value> {
        self.ask("GET", FEATURES, None).await
    }

    /// Switches experimental features.
    ///
    /// # Errors
    /// The node did not answer, or refused.
    pub async fn change_features(&self, change: &Value) -> Result<()> {
        self.ask("PATCH", FEATURES, Some(change)).await.map(drop)
    }
}
