//! Dumps and snapshots: every node makes its own, under one task of the ledger. Compaction of an index works the same way.

use super::{Sent, Shared, indexes};
use crate::{
    base::error::Result,
    cluster::locks::Scope,
    domain::{
        index_uid::check_index_uid,
        intent::{Effect, NodeRequest},
        task::TaskKind,
    },
    indexes::broadcast::{ImmediateEffect, Operation},
    ledger::tasks::NewTask,
};
use axum::{extract::Path, response::Response};
use serde_json::{Value, json};

/// `POST /dumps`. The task shows the name of one node's dump; each node's dump has its own name.
///
/// # Errors
/// A node's error.
pub async fn dump(cluster: Shared, sent: Sent) -> Result<Response> {
    take(&cluster, &sent, None, TaskKind::DumpCreation, Some(json!({"dumpUid": null}))).await
}

/// `POST /snapshots`.
///
/// # Errors
/// A node's error.
pub async fn snapshot(cluster: Shared, sent: Sent) -> Result<Response> {
    take(&cluster, &sent, None, TaskKind::SnapshotCreation, None).await
}

/// `POST /indexes/{index}/compact`.
///
/// # Errors
/// A node's error.
pub async fn compact(cluster: Shared, Path(index): Path<String>, sent: Sent) -> Result<Response> {
    if check_index_uid(&index).is_err() {
        return indexes::refused(&cluster, &sent).await;
    }
    take(&cluster, &sent, Some(index), TaskKind::IndexCompaction, Some(json!({}))).await
}

/// Takes locks so that nothing else is sent meanwhile: on all nodes a dump or snapshot must come between the same writes.
async fn take(
    cluster: &Shared,
    sent: &Sent,
    index: Option<String>,
    kind: TaskKind,
    details: Option<Value>,
) -> Result<Response> {
    let scope = match &index {
        Some(index) => Scope::indexes([index.as_str()]),
        None => Scope::everything(),
    };
    let held = indexes::lock(cluster, sent, scope).await?;
    let (method, path) = (sent.request.method.clone(), sent.request.path.clone());
    let operation = Operation {
        task: NewTask { index, kind, details, custom_metadata: None },
        requests: vec![NodeRequest { method, path, body: None, main: true }],
        authority: sent.request.authority.clone(),
        at_once: ImmediateEffect::Nothing,
        effect: Effect::None,
    };
    indexes::run(cluster, held, operation).await
}
