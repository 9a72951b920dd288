//! Routes that create, change, delete and swap indexes: on all nodes, under one task of the ledger.

use super::{Sent, Shared, accepted};
use crate::{
    base::{
        error::{Error, Result},
        time,
    },
    cluster::locks::Scope,
    domain::{
        deleted_index::DeletedIndex,
        index_uid::check_index_uid,
        intent::{Effect, NodeRequest},
        task::TaskKind,
    },
    indexes::{
        broadcast::{self, Held, ImmediateEffect, Operation},
        creation,
    },
    ledger::{settings, tasks::NewTask},
};
use axum::{
    Json,
    extract::Path,
    response::{IntoResponse, Response},
};
use miroir_core::error::{ApiError, Code};
use serde_json::{Value, json};

fn main(sent: &Sent, body: Option<Value>) -> NodeRequest {
    NodeRequest { method: sent.request.method.clone(), path: sent.request.path.clone(), body, main: true }
}

/// `GET /indexes` and `GET /indexes/{index}`: a node's answer, with the dates of the catalogue. The nodes' own dates differ:
/// each node updates the date when it handles its part of a write, and creates an index when it first gets it.
///
/// # Errors
/// A node's error.
pub async fn read(cluster: Shared, sent: Sent) -> Result<Response> {
    let answer = cluster.ask_any(&sent.request).await?;
    if !answer.is_success() {
        return Ok(super::pass_on(&answer));
    }
    let mut body = answer.json();
    let cluster_state = cluster.cluster_state();
    let date = |index: &mut Value| {
        let known = index.get("uid").and_then(Value::as_str).and_then(|uid| cluster_state.indexes.get(uid));
        if let Some(known) = known {
            index["createdAt"] = json!(time::format(known.created_at));
            index["updatedAt"] = json!(time::format(known.updated_at));
        }
    };
    match body.get_mut("results").and_then(Value::as_array_mut) {
        Some(indexes) => indexes.iter_mut().for_each(date),
        None => date(&mut body),
    }
    Ok(Json(body).into_response())
}

/// `POST /indexes`.
///
/// # Errors
/// A node's error.
pub async fn create(cluster: Shared, sent: Sent) -> Result<Response> {
    let Some((body, uid)) = sent.json().and_then(|body| {
        let uid = body.get("uid")?.as_str()?.to_owned();
        check_index_uid(&uid).ok().map(|()| (body, uid))
    }) else {
        return refused(&cluster, &sent).await;
    };
    if sent.grant()?.check_index(&uid).is_err() {
        return refused(&cluster, &sent).await;
    }
    let primary_key = body.get("primaryKey").and_then(Value::as_str).map(ToOwned::to_owned);
    let held = lock(&cluster, &sent, Scope::indexes([uid.as_str()])).await?;
    let mut requests = vec![main(&sent, Some(body))];
    if !cluster.cluster_state().indexes.contains_key(&uid) {
        requests.extend(creation::initial_settings(&uid, false, false));
    }
    let operation = Operation {
        task: NewTask {
            index: Some(uid.clone()),
            kind: TaskKind::IndexCreation,
            details: Some(json!({ "primaryKey": primary_key })),
            custom_metadata: None,
        },
        requests,
        authority: sent.request.authority.clone(),
        at_once: ImmediateEffect::Created { index: uid, primary_key },
        effect: Effect::None,
    };
    run(&cluster, held, operation).await
}

/// `PATCH /indexes/{index}`: changes the primary key, or the name.
///
/// # Errors
/// A node's error.
pub async fn update(cluster: Shared, Path(index): Path<String>, sent: Sent) -> Result<Response> {
    let body = sent.json().filter(Value::is_object);
    let Some(body) = body.filter(|_| check_index_uid(&index).is_ok()) else {
        return refused(&cluster, &sent).await;
    };
    let text = |name: &str| body.get(name).and_then(Value::as_str).map(ToOwned::to_owned);
    let (primary_key, rename) = (text("primaryKey"), text("uid"));
    let mut details = json!({ "primaryKey": primary_key });
    if let Some(rename) = &rename {
        details["oldIndexUid"] = json!(index);
        details["newIndexUid"] = json!(rename);
    }
    let scope = Scope::indexes(std::iter::once(index.as_str()).chain(rename.as_deref()));
    let held = lock_documents(&cluster, &sent, scope).await?;
    let operation = Operation {
        task: NewTask {
            index: Some(index.clone()),
            kind: TaskKind::IndexUpdate,
            details: Some(details),
            custom_metadata: None,
        },
        requests: vec![main(&sent, Some(body))],
        authority: sent.request.authority.clone(),
        at_once: ImmediateEffect::Nothing,
        effect: Effect::UpdateIndex { index, primary_key, rename },
    };
    run(&cluster, held, operation).await
}

/// `DELETE /indexes/{index}`.
///
/// # Errors
/// A node's error.
pub async fn delete(cluster: Shared, Path(index): Path<String>, sent: Sent) -> Result<Response> {
    if check_index_uid(&index).is_err() {
        return refused(&cluster, &sent).await;
    }
    let held = lock_documents(&cluster, &sent, Scope::indexes([index.as_str()])).await?;
    let uid = index.clone();
    let settings = cluster.ledger.read(move |connection| settings::settings(connection, &uid)).await?;
    let was = DeletedIndex::of(&cluster.cluster_state(), &index, settings);
    let operation = Operation {
        task: NewTask {
            index: Some(index.clone()),
            kind: TaskKind::IndexDeletion,
            details: Some(json!({"deletedDocuments": null})),
            custom_metadata: None,
        },
        requests: vec![main(&sent, None)],
        authority: sent.request.authority.clone(),
        at_once: ImmediateEffect::Deleted { index: index.clone() },
        effect: Effect::Deletion { index, was, is_undone: false },
    };
    run(&cluster, held, operation).await
}

/// `POST /swap-indexes`.
///
/// # Errors
/// A node's error.
pub async fn swap(cluster: Shared, sent: Sent) -> Result<Response> {
    let body = sent.json();
    let pairs = body.as_ref().and_then(Value::as_array).and_then(|swaps| {
        swaps
            .iter()
            .map(|swap| {
                let names = swap.get("indexes")?.as_array()?;
                let [left, right] = names.as_slice() else { return None };
                let rename = swap.get("rename").and_then(Value::as_bool).unwrap_or(false);
                Some((left.as_str()?.to_owned(), right.as_str()?.to_owned(), rename))
            })
            .collect::<Option<Vec<_>>>()
    });
    let Some(pairs) = pairs else { return refused(&cluster, &sent).await };
    let names: Vec<&str> =
        pairs.iter().flat_map(|(left, right, _)| [left.as_str(), right.as_str()]).collect();
    let grant = sent.grant()?;
    if names.iter().any(|name| grant.check_index(name).is_err()) {
        return refused(&cluster, &sent).await;
    }
    let swaps: Vec<Value> = pairs
        .iter()
        .map(|(left, right, rename)| json!({"indexes": [left, right], "rename": rename}))
        .collect();
    let held = lock_documents(&cluster, &sent, Scope::indexes(names)).await?;
    let operation = Operation {
        task: NewTask {
            index: None,
            kind: TaskKind::IndexSwap,
            details: Some(json!({ "swaps": swaps })),
            custom_metadata: None,
        },
        requests: vec![main(&sent, body)],
        authority: sent.request.authority.clone(),
        at_once: ImmediateEffect::Nothing,
        effect: Effect::Swap { pairs },
    };
    run(&cluster, held, operation).await
}

/// Waits for the locks of an operation that the client's key allows.
///
/// # Errors
/// The client's key does not allow it.
pub async fn lock(cluster: &Shared, sent: &Sent, scope: Scope) -> Result<Held> {
    Ok(broadcast::lock(cluster, sent.grant()?, scope).await)
}

/// Waits for the locks of an operation that moves or deletes the documents of whole indexes, or that nodes may refuse because of them.
///
/// # Errors
/// The client's key does not allow it; or the operation would not reach every shard.
pub async fn lock_documents(cluster: &Shared, sent: &Sent, scope: Scope) -> Result<Held> {
    broadcast::lock_documents(cluster, sent.grant()?, scope).await
}

/// Runs an operation.
///
/// # Errors
/// A node's error.
pub async fn run(cluster: &Shared, held: Held, operation: Operation) -> Result<Response> {
    Ok(accepted(&broadcast::run(cluster, held, operation).await?))
}

/// Sends a node a request that it will refuse, so that the client gets the node's own error.
///
/// # Errors
/// No node answers; or the node accepted the request.
pub async fn refused(cluster: &Shared, sent: &Sent) -> Result<Response> {
    let answer = cluster.ask_any(&sent.request).await?;
    if answer.is_success() {
        tracing::error!(path = %sent.request.path, "a node accepted a request that it should have refused");
        return Err(Error::from(ApiError::new(Code::BAD_REQUEST, "The request cannot be understood.")));
    }
    Ok(super::pass_on(&answer))
}
