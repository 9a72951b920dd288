//! Rendering a template: of documents of an index, the node that has the document renders it.

use super::{Sent, Shared, pass_on};
use crate::{embedders, error::Result};
use axum::{Json, response::IntoResponse, response::Response};
use miroir_core::shard::Shard;
use serde_json::{Value, json};

/// `POST /render-template`.
///
/// # Errors
/// No node answers.
pub async fn render(cluster: Shared, sent: Sent) -> Result<Response> {
    let body = sent.json().unwrap_or_default();
    let id = body.pointer("/input/id").and_then(Value::as_str);
    let view = cluster.view();
    let owner = id.and_then(|id| {
        let shard = Shard::of_document(id, cluster.config.shards);
        view.active(shard).filter_map(|name| cluster.node(name)).find(|node| node.is_up())
    });
    let answer = match owner {
        Some(node) => node.send(&sent.request).await?,
        None => cluster.ask_any(&sent.request).await?,
    };
    let mut told = answer.json();
    if answer.is_success() && told.get("template").and_then(Value::as_str) == Some(&embedders::template()) {
        told["template"] = json!(embedders::DEFAULT);
        return Ok(Json(told).into_response());
    }
    Ok(pass_on(&answer))
}
