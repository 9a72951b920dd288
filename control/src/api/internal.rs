//! The routes for gateways, which must send the gateway secret: begin, commit, report, refusal, authorization.

use super::{Sent, Shared, admin};
use crate::{
    base::{
        error::{Error, Result, api_error},
        secrets,
    },
    cluster::Cluster,
    fencing::instance,
    ledger::leases,
    node::Request,
    writes::{self, diagnosis::Refused},
};
use axum::{
    Json,
    body::Bytes,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use miroir_core::{
    error::{ApiError, Code},
    protocol::{AUTHORIZATION_PREFIX, BeginReply, REFUSAL_PREFIX, Report, ReportReply, SECRET_HEADER},
};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::time::Duration;

/// The delay of the answer to a gateway that waits for a newer topology and asks again.
const WAIT: Duration = Duration::from_millis(50);

/// `POST /_miroir/begin`.
///
/// # Errors
/// The error that the client gets instead of 202.
pub async fn begin(cluster: Shared, headers: HeaderMap, body: Bytes) -> Result<Json<BeginReply>> {
    let begin = read(&cluster, &headers, &body)?;
    writes::begin::begin(&cluster, begin).await.map(Json)
}

/// `POST /_miroir/commit`.
///
/// # Errors
/// The error that the client gets instead of 202.
pub async fn commit(cluster: Shared, headers: HeaderMap, body: Bytes) -> Result<Json<Value>> {
    let commit = read(&cluster, &headers, &body)?;
    writes::commit::commit(&cluster, commit).await.map(Json)
}

/// `POST /_miroir/report`.
///
/// # Errors
/// The secret is wrong; or the gateway has a newer topology than the ledger.
pub async fn report(cluster: Shared, headers: HeaderMap, body: Bytes) -> Result<Json<ReportReply>> {
    let report: Report = read(&cluster, &headers, &body)?;
    if report.waits {
        tokio::time::sleep(WAIT).await;
    }
    instance::check_topology(&cluster, &report.gateway, report.newest).await?;
    if report.has_heard == Some(false) {
        return Ok(Json(ReportReply { needed: cluster.cluster_state().floor, lease: false }));
    }
    // Stored before the VM gets a lease: after a restart the control plane must know all VMs that may still have one.
    let store = async |vms: Vec<String>| {
        cluster.ledger.call(move |connection| leases::store_leases(connection, &vms)).await
    };
    cluster.gateways.admit(&report.vm, store).await?;
    let (reply, has_another) = cluster.gateways.report(report, cluster.cluster_state().floor);
    if has_another {
        cluster.tracked_tasks.notice();
    }
    let known = cluster.gateways.know_stale_by_index();
    if known.is_some_and(|known| known != cluster.cluster_state().stale_by_index) {
        cluster.change(|cluster_state| cluster_state.stale_by_index = known == Some(true)).await?;
    }
    Ok(Json(reply))
}

/// Any method of `/_miroir/refusal/…`: diagnoses a write that a gateway cannot accept.
///
/// # Errors
/// The error for the client.
pub async fn refusal(cluster: Shared, headers: HeaderMap, sent: Sent) -> Result<Response> {
    let refused = refused(&cluster, &headers, sent, REFUSAL_PREFIX)?;
    refused.authorize(&cluster).await?;
    Ok(match refused.judge(&cluster).await? {
        Some(task) => (StatusCode::ACCEPTED, Json(task)).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

/// Any method of `/_miroir/authorization/…`: whether the client's key allows a write.
///
/// # Errors
/// The error for the client.
pub async fn authorization(cluster: Shared, headers: HeaderMap, sent: Sent) -> Result<StatusCode> {
    refused(&cluster, &headers, sent, AUTHORIZATION_PREFIX)?.authorize(&cluster).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn refused(cluster: &Cluster, headers: &HeaderMap, sent: Sent, prefix: &'static str) -> Result<Refused> {
    require(headers, SECRET_HEADER, &cluster.secrets.gateway_secret)?;
    let path = sent.request.path.beneath(&prefix.into());
    let path = path.ok_or_else(|| {
        Error::Other(format!("`{}` is not a path of a gateway's request", sent.request.path))
    })?;
    Refused::of(Request { path, ..sent.request }, sent.authorization)
}

fn read<T: DeserializeOwned>(cluster: &Cluster, headers: &HeaderMap, body: &Bytes) -> Result<T> {
    require(headers, SECRET_HEADER, &cluster.secrets.gateway_secret)?;
    serde_json::from_slice(body).map_err(|error| {
        ApiError::new(Code::BAD_REQUEST, format!("the body does not follow the gateways' protocol: {error}"))
            .into()
    })
}

/// Checks that a request to the control plane's own interface carries one of its secrets, before its body is read. Each route
/// then requires its own secret.
///
/// # Errors
/// 403.
pub fn require_any(cluster: &Cluster, headers: &HeaderMap) -> Result<()> {
    require(headers, SECRET_HEADER, &cluster.secrets.gateway_secret)
        .or_else(|_| admin::require_token(cluster, headers))
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
