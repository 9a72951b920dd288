//! Begin and commit, for gateways that know the secret.

use super::Shared;
use crate::{
    cluster::Cluster,
    error::{Result, api_error},
    secrets, writes,
};
use axum::{Json, body::Bytes, http::HeaderMap};
use miroir_core::{
    error::{ApiError, Code},
    protocol::{BeginReply, SECRET_HEADER},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// `POST /_miroir/begin`.
///
/// # Errors
/// What the client is told instead of 202.
pub async fn begin(cluster: Shared, headers: HeaderMap, body: Bytes) -> Result<Json<BeginReply>> {
    let begin = read(&cluster, &headers, &body)?;
    writes::begin::begin(&cluster, begin).await.map(Json)
}

/// `POST /_miroir/commit`.
///
/// # Errors
/// What the client is told instead of 202.
pub async fn commit(cluster: Shared, headers: HeaderMap, body: Bytes) -> Result<Json<Value>> {
    let commit = read(&cluster, &headers, &body)?;
    writes::commit::commit(&cluster, commit).await.map(Json)
}

fn read<T: DeserializeOwned>(cluster: &Cluster, headers: &HeaderMap, body: &Bytes) -> Result<T> {
    require(headers, SECRET_HEADER, &cluster.secrets.gateway_secret)?;
    serde_json::from_slice(body).map_err(|error| {
        ApiError::new(Code::BAD_REQUEST, format!("not the gateways' protocol: {error}")).into()
    })
}

/// Checks a header that carries a secret.
///
/// # Errors
/// 403.
pub fn require(headers: &HeaderMap, name: &str, secret: &str) -> Result<()> {
    let given = headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if secrets::same(given, secret) {
        return Ok(());
    }
    Err(api_error(403, "auth", "invalid_api_key", "The provided API key is invalid.").into())
}
