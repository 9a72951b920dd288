//! The documents of a task that nodes have not indexed yet: each node has those of its shards.

use super::{Sent, Shared, tasks};
use crate::{
    base::error::{Error, Result, api_error},
    cluster::Cluster,
    domain::intent::NodeTask,
    ledger::intents,
    node::Request,
    sync::features,
};
use axum::{
    extract::Path,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use futures_util::future::join_all;
use miroir_core::{path::ApiPath, scrub, sequence::DocumentTag, shard::Shard};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeSet;

/// The experimental feature of this route.
const FEATURE: &str = "getTaskDocumentsRoute";

/// `GET /tasks/{uid}/documents`: the documents shard by shard, and within a shard in the order in which the client sent them.
///
/// # Errors
/// There is no such task, or the key may not see it; or nodes have indexed its documents already.
pub async fn get(cluster: Shared, Path(uid): Path<String>, sent: Sent) -> Result<Response> {
    if features::is_on(&cluster, FEATURE).await? != Some(true) {
        return sent.natively(&cluster).await;
    }
    let grant = sent.grant()?;
    let uid = tasks::find(&cluster, grant, &uid).await?.uid;
    let node_tasks = cluster.ledger.call(move |connection| intents::all_node_tasks(connection, uid)).await?;
    match documents(&cluster, &node_tasks).await {
        Some(body) => Ok(([(CONTENT_TYPE, "application/x-ndjson")], body).into_response()),
        None => {
            let message = format!(
                "Task `{uid}` does not contain any documents. Only `documentAdditionOrUpdate` tasks with the \
                 statuses `enqueued` or `processing` contain documents"
            );
            Err(api_error(404, "invalid_request", "task_file_not_found", message).into())
        }
    }
}

/// The documents of these node tasks, each one once and without its shard tag; `None` if those of a shard are not available any
/// more.
async fn documents(cluster: &Cluster, node_tasks: &[NodeTask]) -> Option<Vec<u8>> {
    let parts = node_tasks.iter().filter(|task| task.main && !task.shards.is_empty());
    let mut missing: BTreeSet<Shard> = parts.clone().flat_map(|task| task.shards.iter().copied()).collect();
    if missing.is_empty() {
        return None;
    }
    let asked = parts.map(async |task| {
        let path = ApiPath::new(["tasks", &task.node_task.to_string(), "documents"]);
        let asked = cluster.node(&task.node)?.send(&Request::own("GET", path, None)).await;
        let silent = |error: &Error| {
            tracing::warn!(node = task.node.as_str(), error = %error.chain(), "a node does not tell a task's documents");
        };
        let answer = asked.inspect_err(silent).ok()?;
        answer.is_success().then_some((task, answer.body))
    });
    let mut out = Vec::new();
    for (task, body) in join_all(asked).await.into_iter().flatten() {
        let wanted: BTreeSet<Shard> =
            task.shards.iter().copied().filter(|shard| missing.remove(shard)).collect();
        write(&body, &wanted, &mut out)?;
    }
    missing.is_empty().then_some(out)
}

/// The shard tag of a document as nodes store it.
#[derive(Deserialize)]
struct Tagged {
    #[serde(rename = "_miroir_shard")]
    tag: Box<RawValue>,
}

/// Appends the documents of these shards to `out`, without their shard tags.
fn write(body: &[u8], shards: &BTreeSet<Shard>, out: &mut Vec<u8>) -> Option<()> {
    for document in serde_json::Deserializer::from_slice(body).into_iter::<Box<RawValue>>() {
        let document = document.ok()?;
        let Tagged { tag } = serde_json::from_str(document.get()).ok()?;
        if shards.contains(&DocumentTag::from_json(tag.get())?.shard) {
            out.extend(scrub::document(document.get().as_bytes()));
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use miroir_core::sequence::Sequence;

    #[test]
    fn documents_of_wanted_shards_are_told_as_they_were_sent() {
        let tag = |shard| {
            let sequence = Some(Sequence { write: 3, position: 0 });
            DocumentTag { shard, sequence }
        };
        let (one, other) = (tag(Shard(0)), tag(Shard(1)));
        let body = format!(r#"{{"id":1,"_miroir_shard":{one},"n":1.50}}{{"id":2,"_miroir_shard":{other}}}"#);
        let mut out = Vec::new();
        write(body.as_bytes(), &BTreeSet::from([Shard(0)]), &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), r#"{"id":1,"n":1.50}"#);
        assert!(
            write(b"{\"id\":1}", &BTreeSet::new(), &mut Vec::new()).is_none(),
            "a document without a tag"
        );
    }
}
