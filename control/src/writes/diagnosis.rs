//! Finds out what is wrong with a write, in a node's own words: sends the client's request to a node, but for a temporary index
//! with a random name, so that it has no effect even if the node accepts it.

use super::{begin::begin, node_task::ended};
use crate::{
    auth,
    base::error::{Error, Result},
    cluster::Cluster,
    domain::index_uid::check_index_uid,
    indexes::broadcast::refusal,
    node::{Authority, NodeAnswer, Request},
};
use miroir_core::{
    documents::Preflight,
    error::ErrorBody,
    path::ApiPath,
    protocol::{Begin, BeginReply, WriteOperation},
    route::{Route, WriteKind},
};
use serde_json::Value;
use std::sync::Arc;

/// A client's write that its gateway could not accept and has forwarded.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Index uid.
    pub index: String,
    /// The kind of write.
    pub kind: WriteKind,
    /// The client's request.
    pub request: Request,
    /// The client's `Authorization`.
    pub authorization: Option<String>,
}

impl Refused {
    /// Reads a client's request.
    ///
    /// # Errors
    /// The request is not a write.
    pub fn of(request: Request, authorization: Option<String>) -> Result<Self> {
        match Route::of(&request.method, &request.path) {
            Route::Write { index, kind } => Ok(Self { index, kind, request, authorization }),
            _ => Err(Error::Other(format!("`{} {}` is not a write", request.method, request.path))),
        }
    }

    /// Checks the client's key.
    ///
    /// # Errors
    /// 401 or 403, as Meilisearch words them.
    pub async fn authorize(&self, cluster: &Cluster) -> Result<()> {
        let action = match self.kind {
            WriteKind::Edit => auth::EVERYTHING,
            WriteKind::Add { .. } => "documents.add",
            _ => "documents.delete",
        };
        auth::authorize(cluster, self.authorization.as_deref(), action, Some(&self.index)).await?;
        Ok(())
    }

    /// Lets a node say what is wrong. Returns the summary of a failed task if the node accepts the request and its task fails;
    /// `None` if nothing is wrong.
    ///
    /// # Errors
    /// A node's error; or no node answers.
    pub async fn judge(self, cluster: &Arc<Cluster>) -> Result<Option<Value>> {
        let is_addition = matches!(self.kind, WriteKind::Add { .. } | WriteKind::DeleteAll);
        if is_addition {
            check_index_uid(&self.index)?;
        }
        let (probe, answer) = ask(cluster, &self.kind, self.request.clone()).await?;
        if !answer.is_success() {
            return Err(refusal(&answer));
        }
        check_index_uid(&self.index)?;
        let failure = if is_addition { task_failure(cluster, &probe, &answer).await } else { None };
        let Some((documents, mut failure)) = failure else { return Ok(None) };
        failure.message = failure.message.replace(&probe, &self.index);
        let begin_failed = Begin {
            gateway: String::new(),
            topology_version: 0,
            index: self.index,
            operation: WriteOperation::AddDocuments {
                update: self.request.method == "PUT",
                documents,
                distinct: 0,
                requested_primary_key: None,
                primary_key: None,
                assumed: false,
                failure: Some(failure),
            },
            shards: Vec::new(),
            authorization: self.authorization,
            custom_metadata: None,
            fields: Vec::new(),
            nested_fields: Vec::new(),
            doubts: Preflight::default(),
            doubtful: None,
        };
        match begin(cluster, begin_failed).await? {
            BeginReply::Recorded { task } => Ok(Some(task)),
            _ => Ok(None),
        }
    }
}

/// Lets a node check a request to a route of an index, without any effect.
///
/// # Errors
/// A node's error; or no node answers.
pub async fn check(cluster: &Cluster, kind: &WriteKind, request: Request) -> Result<()> {
    let (_, answer) = ask(cluster, kind, request).await?;
    if answer.is_success() { Ok(()) } else { Err(refusal(&answer)) }
}

/// The query parameter of a client's metadata.
const METADATA: &str = "customMetadata";

/// Sends a request to a node for a temporary index. Returns the index's uid, and the answer.
async fn ask(cluster: &Cluster, kind: &WriteKind, request: Request) -> Result<(String, NodeAnswer)> {
    let probe = format!("miroir-{}", cluster.random.name());
    let rest: &[&str] = match kind {
        WriteKind::Add { .. } | WriteKind::DeleteAll => &["documents"],
        // Nodes check only the query parameters of this route, not the id.
        WriteKind::DeleteOne { .. } => &["documents", "0"],
        WriteKind::DeleteBatch => &["documents", "delete-batch"],
        WriteKind::DeleteByFilter => &["documents", "delete"],
        WriteKind::Edit => &["documents", "edit"],
    };
    // A node's task with metadata of the client's would count as a part of the write that the metadata names.
    let path = ApiPath::of_index(&probe, rest).with_query_of(&request.path).without(METADATA);
    let request = Request { path, authority: Authority::Master, ..request };
    let answer = cluster.ask_any(&request).await?;
    Ok((probe, answer))
}

/// Waits for the node task that the request created, and deletes the temporary index. If the task failed, returns the number of
/// received documents and the error.
async fn task_failure(cluster: &Cluster, probe: &str, answer: &NodeAnswer) -> Option<(u64, ErrorBody)> {
    let uid = answer.task_uid()?;
    // It is not known here which node accepted the request; but only that node has a task for the temporary index.
    let mut failure = None;
    for node in cluster.current() {
        let task = ended(&node, uid, probe).await;
        let Some(task) = task else { continue };
        let documents = task.get("details").and_then(|details| details.get("receivedDocuments")?.as_u64());
        failure = task.error().map(|error| (documents.unwrap_or(0), error));
        if let Err(error) = node.delete_index(probe).await {
            tracing::warn!(node = node.name.as_str(), index = probe, error = %error.chain(), "a temporary index could not be deleted");
        }
        break;
    }
    failure
}
