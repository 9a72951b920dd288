//! API keys: all nodes have the same keys with the same uids, so that the keys' texts are the same too.

use super::{Sent, Shared, all_nodes::everywhere, pass_on};
use crate::{
    base::error::{Error, Result, api_error},
    cluster::Cluster,
    domain::key_holder::{INTERNAL, KeyHolder},
    node::Request,
};
use axum::{
    Json,
    body::Bytes,
    response::{IntoResponse, Response},
};
use miroir_core::path::ApiPath;
use serde_json::{Value, json};

/// If the user runs the cluster without a master key, it has no API keys for clients, although its nodes have keys.
fn needs_master_key(cluster: &Cluster) -> Result<()> {
    if cluster.options.user_master_key {
        return Ok(());
    }
    let message = "Meilisearch is running without a master key. To access this API endpoint, you must have set a \
                   master key at launch.";
    Err(api_error(401, "auth", "missing_master_key", message).into())
}

fn is_internal(key: &Value) -> bool {
    KeyHolder::of(key).is_internal()
}

fn not_found(sent: &Sent) -> Error {
    let segments = sent.request.path.segments();
    let message = format!("API key `{}` not found.", segments.last().unwrap_or(&""));
    api_error(404, "invalid_request", "api_key_not_found", message).into()
}

/// Refuses the name of an internal key: keys with such names are hidden from clients.
fn check_name(sent: &Sent) -> Result<()> {
    if sent.json().is_some_and(|body| is_internal(&body)) {
        let message =
            format!("Invalid value at `.name`: names that begin with `{INTERNAL}` are the cluster's own.");
        return Err(api_error(400, "invalid_request", "invalid_api_key_name", message).into());
    }
    Ok(())
}

/// `GET /keys`, without internal keys.
///
/// # Errors
/// A node's error.
pub async fn list(cluster: Shared, sent: Sent) -> Result<Response> {
    needs_master_key(&cluster)?;
    // First sends the client's own request to a node, which checks it and parses limit and offset.
    let answer = cluster.ask_any(&sent.request).await?;
    let asked = answer.json();
    let number = |name: &str| asked.get(name).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    let (Some(offset), Some(limit)) = (number("offset"), number("limit")) else {
        return Ok(pass_on(&answer));
    };
    let all = cluster.ask_any(&Request::own("GET", "/keys?limit=1000000", None)).await?.json();
    let keys = all.get("results").and_then(Value::as_array).cloned();
    let keys = keys.ok_or_else(|| Error::Other("a node does not list its keys".to_owned()))?;
    let keys: Vec<Value> = keys.into_iter().filter(|key| !is_internal(key)).collect();
    let page: Vec<&Value> = keys.iter().skip(offset).take(limit).collect();
    Ok(Json(json!({"results": page, "offset": offset, "limit": limit, "total": keys.len()})).into_response())
}

/// `GET /keys/{key}`.
///
/// # Errors
/// A node's error.
pub async fn get(cluster: Shared, sent: Sent) -> Result<Response> {
    needs_master_key(&cluster)?;
    let answer = cluster.ask_any(&sent.request).await?;
    if is_internal(&answer.json()) {
        return Err(not_found(&sent));
    }
    Ok(pass_on(&answer))
}

/// `POST /keys`. If the client gives no uid, the control plane adds one, so that all nodes create the same key.
///
/// # Errors
/// A node's error.
pub async fn create(cluster: Shared, mut sent: Sent) -> Result<Response> {
    needs_master_key(&cluster)?;
    check_name(&sent)?;
    if let Some(Value::Object(mut body)) = sent.json()
        && body.get("uid").is_none_or(Value::is_null)
    {
        body.insert("uid".to_owned(), json!(cluster.random.uuid().hyphenated().to_string()));
        sent.request.body = Bytes::from(Value::Object(body).to_string());
    }
    everywhere(&cluster, sent, |_| None).await
}

/// `PATCH` and `DELETE /keys/{key}`.
///
/// # Errors
/// A node's error.
pub async fn change(cluster: Shared, sent: Sent) -> Result<Response> {
    needs_master_key(&cluster)?;
    check_name(&sent)?;
    let own = Request::own("GET", ApiPath::new(sent.request.path.segments()), None);
    if is_internal(&cluster.ask_any(&own).await?.json()) {
        return Err(not_found(&sent));
    }
    everywhere(&cluster, sent, |_| None).await
}
