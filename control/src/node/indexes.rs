//! A node's indexes.

use super::{Node, SHORT_QUESTION};
use crate::base::error::Result;
use miroir_core::path::ApiPath;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

impl Node {
    /// Its indexes, each with its primary key.
    ///
    /// # Errors
    /// The node did not answer, or refused.
    pub async fn indexes(&self) -> Result<BTreeMap<String, Option<String>>> {
        let answer = self.ask("GET", "/indexes?limit=100000", None).await?;
        let index = |told: &Value| {
            let primary_key = told.get("primaryKey").and_then(Value::as_str).map(ToOwned::to_owned);
            Ok((self.text("GET /indexes", told, "uid")?.to_owned(), primary_key))
        };
        self.results("GET /indexes", &answer)?.iter().map(index).collect()
    }

    /// When it created each of its indexes, by its own clock: this moves with an index that is swapped or renamed.
    ///
    /// # Errors
    /// The node did not answer in [`SHORT_QUESTION`], or refused.
    pub async fn creation_dates(&self) -> Result<BTreeMap<String, String>> {
        let answer = self.ask_within("GET", "/indexes?limit=100000", None, SHORT_QUESTION).await?;
        let index = |told: &Value| {
            let text = |name| self.text("GET /indexes", told, name).map(ToOwned::to_owned);
            Ok((text("uid")?, text("createdAt")?))
        };
        self.results("GET /indexes", &answer)?.iter().map(index).collect()
    }

    /// The uids of its indexes.
    ///
    /// # Errors
    /// The node did not answer, or refused.
    pub async fn index_uids(&self) -> Result<BTreeSet<String>> {
        Ok(self.indexes().await?.into_keys().collect())
    }

    /// Has the node make an index.
    ///
    /// # Errors
    /// The node did not answer, or refused.
    pub async fn create_index(&self, uid: &str, primary_key: &str) -> Result<()> {
        let body = json!({"uid": uid, "primaryKey": primary_key});
        self.ask("POST", "/indexes", Some(&body)).await.map(drop)
    }

    /// Has the node delete an index.
    ///
    /// # Errors
    /// The node did not answer, or refused.
    pub async fn delete_index(&self, uid: &str) -> Result<()> {
        self.ask("DELETE", ApiPath::of_index(uid, &[]), None).await.map(drop)
    }

    /// How many documents an index has; `None` where the node does not say.
    ///
    /// # Errors
    /// The node did not answer, or does not have the index.
    pub async fn index_size(&self, uid: &str) -> Result<Option<u64>> {
        let stats = self.ask("GET", ApiPath::of_index(uid, &["stats"]), None).await?;
        Ok(stats.get("numberOfDocuments").and_then(Value::as_u64))
    }
}
