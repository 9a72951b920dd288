//! Settings of a node's indexes and workspaces.

use super::Node;
use crate::base::error::Result;
use miroir_core::path::ApiPath;
use serde_json::Value;

impl Node {
    /// All settings of an index, with the shard tag.
    ///
    /// # Errors
    /// The node did not answer, or does not have the index.
    pub async fn settings(&self, index: &str) -> Result<Value> {
        self.ask("GET", ApiPath::of_index(index, &["settings"]), None).await
    }

    /// The settings of a workspace of chats.
    ///
    /// # Errors
    /// The node did not answer, or does not have the workspace.
    pub async fn workspace_settings(&self, workspace: &str) -> Result<Value> {
        self.ask("GET", ApiPath::new(["chats", workspace, "settings"]), None).await
    }

    /// Has the node change settings of an index.
    ///
    /// # Errors
    /// The node did not answer, or refused.
    pub async fn change_settings(&self, index: &str, change: &Value) -> Result<()> {
        self.ask("PATCH", ApiPath::of_index(index, &["settings"]), Some(change)).await.map(drop)
    }
}
