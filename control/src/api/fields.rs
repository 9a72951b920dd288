//! The fields of an index, merged from all nodes.

use super::{Sent, Shared, pass_on};
use crate::{base::error::Result, node::Request};
use axum::{
    Json,
    body::Bytes,
    response::{IntoResponse, Response},
};
use futures_util::future::join_all;
use miroir_core::shard::TAG_FIELD;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// `POST /indexes/{index}/fields`: the fields that reachable nodes know, sorted by name.
///
/// # Errors
/// A node's error.
pub async fn list(cluster: Shared, sent: Sent) -> Result<Response> {
    // First sends the client's own request to a node, which checks it and parses limit and offset.
    let answer = cluster.ask_any(&sent.request).await?;
    let asked = answer.json();
    let number = |name: &str| asked.get(name).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    let (true, Some(offset), Some(limit)) = (answer.is_success(), number("offset"), number("limit")) else {
        return Ok(pass_on(&answer));
    };
    let mut body = sent.json().filter(Value::is_object).unwrap_or_else(|| json!({}));
    body["offset"] = json!(0);
    body["limit"] = json!(u32::MAX);
    let request = Request { body: Bytes::from(body.to_string()), ..sent.request.clone() };
    let nodes = cluster.current();
    let answers = join_all(nodes.iter().map(|node| node.send(&request))).await;
    let mut fields = BTreeMap::new();
    for answer in answers.into_iter().flatten() {
        for field in answer.json().get("results").and_then(Value::as_array).into_iter().flatten() {
            let name = field.get("name").and_then(Value::as_str).unwrap_or_default();
            if name != TAG_FIELD {
                fields.entry(name.to_owned()).or_insert_with(|| field.clone());
            }
        }
    }
    let page: Vec<&Value> = fields.values().skip(offset).take(limit).collect();
    let body = json!({"results": page, "offset": offset, "limit": limit, "total": fields.len()});
    Ok(Json(body).into_response())
}
