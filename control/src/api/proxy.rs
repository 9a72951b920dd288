//! Requests that one node can answer for all: the client's own key goes along, and the tag is taken out.

use super::{Sent, Shared};
use crate::error::Result;
use axum::response::Response;
use miroir_core::error::{ApiError, Code};

/// Asks a node.
///
/// # Errors
/// No node answers.
pub async fn read(cluster: Shared, sent: Sent) -> Result<Response> {
    sent.natively(&cluster).await
}

/// First segments of routes that would change one node only.
const OF_ONE_NODE: [&str; 10] = [
    "dumps",
    "snapshots",
    "export",
    "network",
    "webhooks",
    "chats",
    "dynamic-search-rules",
    "logs",
    "multi-search",
    "metrics",
];

/// Everything else: a node's own 404, unless it would change one node, or answer for one node's share of documents.
///
/// # Errors
/// The route is not for a cluster; or no node answers.
pub async fn other(cluster: Shared, sent: Sent) -> Result<Response> {
    let path = sent.request.path.split('?').next().unwrap_or_default();
    let mut segments = path.split('/').skip(1);
    let first = segments.next().unwrap_or_default();
    let third = segments.nth(1);
    let is_read = matches!(sent.request.method.as_str(), "GET" | "HEAD");
    let is_share = first == "indexes" && third.is_some();
    let is_one = OF_ONE_NODE.contains(&first) && (!is_read || ["multi-search", "metrics"].contains(&first));
    if is_share || is_one {
        let message =
            format!("`{} {path}` is not supported by the cluster's control plane.", sent.request.method);
        return Err(ApiError::new(Code::BAD_REQUEST, message).into());
    }
    read(cluster, sent).await
}
