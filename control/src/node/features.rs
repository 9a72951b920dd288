//! A node's version, and its experimental features.

use super::{Node, TIMEOUT, health::CHECK};
use crate::base::error::Result;
use serde_json::Value;
use std::time::Duration;

const FEATURES: &str = "/experimental-features";

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
    /// The node did not answer, or refused, or told something else than features.
    pub async fn features(&self) -> Result<Value> {
        self.features_within(TIMEOUT).await
    }

    /// Like [`Self::features`], with the caller's timeout.
    ///
    /// # Errors
    /// The node did not answer in time, or refused, or told something else than features.
    pub async fn features_within(&self, timeout: Duration) -> Result<Value> {
        let features = self.ask_within("GET", FEATURES, None, timeout).await?;
        if !features.is_object() {
            return Err(self.unreadable(format!("GET {FEATURES}"), &features));
        }
        Ok(features)
    }

    /// Switches experimental features.
    ///
    /// # Errors
    /// The node did not answer, or refused.
    pub async fn change_features(&self, change: &Value) -> Result<()> {
        self.ask("PATCH", FEATURES, Some(change)).await.map(drop)
    }
}
