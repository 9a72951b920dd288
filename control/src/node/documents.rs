//! A node's documents.

use super::{Node, Request};
use crate::base::error::Result;
use axum::body::Bytes;
use miroir_core::path::ApiPath;
use serde_json::{Value, json};
use std::time::Duration;

impl Node {
    /// A page of documents, as the node writes it. `query` is the body of `POST …/documents/fetch`.
    ///
    /// # Errors
    /// The node did not answer in time, or refused.
    pub async fn fetch_documents(&self, index: &str, query: &Value, timeout: Duration) -> Result<Bytes> {
        let request = Request::own("POST", ApiPath::of_index(index, &["documents", "fetch"]), Some(query));
        let answer = self.send_within(&request, timeout).await?;
        if answer.is_success() { Ok(answer.body) } else { Err(self.unexpected(&request, &answer)) }
    }

    /// Has the node delete documents by their ids; gives the task.
    ///
    /// # Errors
    /// The node did not answer, or refused.
    pub async fn delete_documents(&self, index: &str, ids: &[&str]) -> Result<u32> {
        let path = ApiPath::of_index(index, &["documents", "delete-batch"]);
        let answer = self.ask("POST", path, Some(&json!(ids))).await?;
        let uid = answer.get("taskUid").and_then(Value::as_u64).and_then(|uid| u32::try_from(uid).ok());
        uid.ok_or_else(|| self.unreadable("POST /indexes/…/documents/delete-batch", &answer))
    }

    /// How many documents a filter finds; `None` where the answer does not say.
    ///
    /// # Errors
    /// The node did not answer, or refused.
    pub async fn count_documents(&self, index: &str, filter: &str) -> Result<Option<u64>> {
        let query = json!({"filter": filter, "limit": 0});
        let answer =
            self.ask("POST", ApiPath::of_index(index, &["documents", "fetch"]), Some(&query)).await?;
        Ok(answer.get("total").and_then(Value::as_u64))
    }
}
