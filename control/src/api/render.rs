//! Rendering a template. A document of an index is read from a node that has it, and rendered without its shard tag.

use super::{Sent, Shared, pass_on};
use crate::{
    base::error::Result,
    disguise::embedders,
    node::{Node, Request},
};
use axum::{Json, response::IntoResponse, response::Response};
use miroir_core::{
    path::ApiPath,
    shard::{Shard, TAG_FIELD},
};
use serde_json::{Value, json};

/// `POST /render-template`.
///
/// # Errors
/// No node answers.
pub async fn render(cluster: Shared, mut sent: Sent) -> Result<Response> {
    let mut body = sent.json().unwrap_or_default();
    let text = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).map(ToOwned::to_owned);
    let (id, index) = (text("/input/id"), text("/input/indexUid").unwrap_or_default());
    let cluster_state = cluster.cluster_state();
    let owner = id.as_deref().and_then(|id| {
        let shard = Shard::of_document(id, cluster.config.shards);
        cluster_state.whole(&index, shard).filter_map(|name| cluster.node(name)).find(|node| node.is_up())
    });
    let answer = match owner {
        Some(node) => {
            if let Some(document) = document(&node, &body, &sent).await? {
                body["input"] = json!({"kind": "inlineDocument", "inline": document});
                sent.request.body = body.to_string().into();
            }
            node.send(&sent.request).await?
        }
        None => cluster.ask_any(&sent.request).await?,
    };
    let mut told = answer.json();
    if answer.is_success() && told.get("template").and_then(Value::as_str) == Some(&embedders::template()) {
        told["template"] = json!(embedders::DEFAULT);
        return Ok(Json(told).into_response());
    }
    Ok(pass_on(&answer))
}

/// The document that is to be rendered, without its shard tag, which a template could show; `None` if a node must say what is
/// wrong. The node checks that the client's key may read the document.
async fn document(node: &Node, body: &Value, sent: &Sent) -> Result<Option<Value>> {
    let text = |name: &str| body.pointer(name).and_then(Value::as_str);
    let (Some("indexDocument"), Some(index), Some(id)) =
        (text("/input/kind"), text("/input/indexUid"), text("/input/id"))
    else {
        return Ok(None);
    };
    let path = ApiPath::of_index(index, &["documents", id]).with("retrieveVectors", "true");
    if path.has_dots() {
        return Ok(None);
    }
    let read = Request { authority: sent.request.authority.clone(), ..Request::own("GET", path, None) };
    let answer = node.send(&read).await?;
    let mut document = answer.json();
    let Some(members) = document.as_object_mut().filter(|_| answer.is_success()) else { return Ok(None) };
    members.shift_remove(TAG_FIELD);
    Ok(Some(document))
}
