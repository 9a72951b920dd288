//! Routes that change dynamic search rules: on all nodes, under one task of the ledger.

use super::{Sent, Shared, indexes};
use crate::{
    base::error::Result,
    cluster::locks::Scope,
    domain::{
        intent::{Effect, NodeRequest},
        search_rules::{Change, INDEX},
        task::TaskKind,
    },
    indexes::broadcast::{ImmediateEffect, Operation},
    ledger::tasks::NewTask,
    sync::{features, search_rules::FEATURE},
};
use axum::{extract::Path, response::Response};
use serde_json::{Value, json};

/// `PATCH /dynamic-search-rules/{uid}`.
///
/// # Errors
/// A node's error.
pub async fn update(cluster: Shared, Path(uid): Path<String>, sent: Sent) -> Result<Response> {
    let Some(body) = sent.json().filter(Value::is_object) else {
        return indexes::refused(&cluster, &sent).await;
    };
    let details = json!({"rule": body, "updatedRules": 1});
    run(&cluster, &sent, TaskKind::DsrUpdate, details, Change::Update { uid, body }).await
}

/// `DELETE /dynamic-search-rules/{uid}`.
///
/// # Errors
/// A node's error.
pub async fn delete(cluster: Shared, Path(uid): Path<String>, sent: Sent) -> Result<Response> {
    run(&cluster, &sent, TaskKind::DsrUpdate, json!({"updatedRules": 1}), Change::Delete { uid }).await
}

/// `DELETE /dynamic-search-rules`.
///
/// # Errors
/// A node's error.
pub async fn clear(cluster: Shared, sent: Sent) -> Result<Response> {
    run(&cluster, &sent, TaskKind::DsrClear, json!({"deletedDocuments": null}), Change::Clear).await
}

async fn run(
    cluster: &Shared,
    sent: &Sent,
    kind: TaskKind,
    details: Value,
    change: Change,
) -> Result<Response> {
    // If the feature is disabled, a node refuses the request, and gateways need not be told about a changing rule.
    if features::is_on(cluster, FEATURE).await? != Some(true) {
        return indexes::refused(cluster, sent).await;
    }
    let (method, path) = (sent.request.method.clone(), sent.request.path.clone());
    let query = path.query();
    let mut parameters = url::form_urlencoded::parse(query.as_bytes());
    let metadata = parameters.find(|(name, _)| name == "customMetadata").map(|(_, value)| value.into_owned());
    let body = match &change {
        Change::Update { body, .. } => Some(body.clone()),
        Change::Delete { .. } | Change::Clear => None,
    };
    let held = indexes::lock(cluster, sent, Scope::indexes([INDEX])).await?;
    let operation = Operation {
        task: NewTask {
            index: Some(INDEX.to_owned()),
            kind,
            details: Some(details),
            custom_metadata: metadata,
        },
        requests: vec![NodeRequest { method, path, body, main: true }],
        authority: sent.request.authority.clone(),
        at_once: ImmediateEffect::Nothing,
        effect: Effect::Rules { change },
    };
    indexes::run(cluster, held, operation).await
}
