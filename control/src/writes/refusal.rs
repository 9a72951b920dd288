//! What is wrong with a write, in a node's own words: the client's request goes to a node, but for an index that nobody
//! has, so that nothing comes of it even where the node takes it.

use super::{begin::begin, node_task::ended};
use crate::{
    auth,
    base::error::{Error, Result},
    cluster::Cluster,
    domain::index_uid::check_index_uid,
    indexes::broadcast::refusal,
    node::{Authority, NodeAnswer, Request, answers::task_error},
};
use miroir_core::{
    documents::Doubts,
    error::ErrorBody,
    path::ApiPath,
    protocol::{Begin, BeginReply, WriteOperation},
    route::{Route, WriteKind},
};
use serde_json::Value;
use std::sync::Arc;
use uuid::Uuid;

/// A client's write, as its gateway has sent it on.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Index uid.
    pub index: String,
    /// What was to be done.
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
    /// It is no write.
    pub fn of(request: Request, authorization: Option<String>) -> Result<Self> {
        match Route::of(&request.method, &request.path) {
            Route::Write { index, kind } => Ok(Self { index, kind, request, authorization }),
            _ => Err(Error::Other(format!("`{} {}` is no write", request.method, request.path))),
        }
    }

    /// Checks the client's key.
    ///
    /// # Errors
    /// 401 or 403 in Meilisearch's words.
    pub async fn authorize(&self, cluster: &Cluster) -> Result<()> {
        let action = match self.kind {
            WriteKind::Edit => auth::EVERYTHING,
            WriteKind::Add { .. } => "documents.add",
            _ => "documents.delete",
        };
        auth::authorize(cluster, self.authorization.as_deref(), action, Some(&self.index)).await?;
        Ok(())
    }

    /// Lets a node say what is wrong. `Some` with a task's summary where the node takes the request and its task fails;
    /// `None` where nothing is wrong.
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
            doubts: Doubts::default(),
            doubtful: None,
        };
        match begin(cluster, begin_failed).await? {
            BeginReply::Recorded { task } => Ok(Some(task)),
            _ => Ok(None),
        }
    }
}

/// Asks a node about a request to a route of an index, without anything coming of it.
///
/// # Errors
/// A node's error; or no node answers.
pub async fn check(cluster: &Cluster, kind: &WriteKind, request: Request) -> Result<()> {
    let (_, answer) = ask(cluster, kind, request).await?;
    if answer.is_success() { Ok(()) } else { Err(refusal(&answer)) }
}

/// The uid of the index that nobody has, and the answer.
async fn ask(cluster: &Cluster, kind: &WriteKind, request: Request) -> Result<(String, NodeAnswer)> {
    let probe = format!("miroir-{}", Uuid::new_v4().simple());
    let rest: &[&str] = match kind {
        WriteKind::Add { .. } | WriteKind::DeleteAll => &["documents"],
        // Nodes look at the parameters, and at no id.
        WriteKind::DeleteOne { .. } => &["documents", "0"],
        WriteKind::DeleteBatch => &["documents", "delete-batch"],
        WriteKind::DeleteByFilter => &["documents", "delete"],
        WriteKind::Edit => &["documents", "edit"],
    };
    let path = ApiPath::of_index(&probe, rest).with_query_of(&request.path);
    let request = Request { path, authority: Authority::Master, ..request };
    let answer = cluster.ask_any(&request).await?;
    Ok((probe, answer))
}

/// Waits for the task that a node has made of it, removes the index, and gives how many documents there were and the
/// error, if it failed.
async fn task_failure(cluster: &Cluster, probe: &str, answer: &NodeAnswer) -> Option<(u64, ErrorBody)> {
    let uid = answer.task_uid()?;
    // Which node took it is not known here; only that one has the index.
    let mut failure = None;
    for node in cluster.current() {
        let task = ended(&node, uid, probe).await;
        let Some(task) = task else { continue };
        let documents = task.get("details").and_then(|details| details.get("receivedDocuments")?.as_u64());
        failure = task_error(&task).map(|error| (documents.unwrap_or(0), error));
        if let Err(error) = node.ask("DELETE", ApiPath::of_index(probe, &[]), None).await {
            tracing::warn!(node = node.name, index = probe, %error, "an index made for a question stays");
        }
        break;
    }
    failure
}
