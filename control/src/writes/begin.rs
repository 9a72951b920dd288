//! *Begin*: authorizes a write, waits for its locks, and assigns a uid, writers and a write key to it.

use super::{
    diagnosis, document_ids, edit,
    preflight::{self, Looked},
    writers,
};
use crate::{
    auth::{self, Grant},
    base::{
        error::{Error, Result, index_not_found},
        log,
    },
    cluster::{
        Cluster,
        locks::{LockGuard, Scope},
        open_writes::OpenWrite,
    },
    domain::{
        index_uid::check_index_uid, intent::Intent, key_holder::WriteKeyHolder, task::TaskKind,
        task_details::nothing_done,
    },
    indexes::{creation, fields::registration::Key},
    ledger::{
        intents,
        tasks::{self, NewTask, Task},
    },
    node::Request,
};
use miroir_core::{
    error::{ApiError, Code, ErrorBody},
    node_name::NodeName,
    path::ApiPath,
    protocol::{Begin, BeginReply, WriteOperation},
    route::WriteKind,
    scrub,
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tracing::Instrument;

/// How long a write by filter waits for earlier edits by function. It is less than a gateway waits for the answer to a begin.
const EDITS: Duration = Duration::from_secs(5);

/// Answers a gateway's begin.
///
/// # Errors
/// The error that the client gets instead of 202.
pub async fn begin(cluster: &Arc<Cluster>, begin: Begin) -> Result<BeginReply> {
    let span = log::write_span(None, &begin.index);
    judge_and_begin(cluster, begin).instrument(span).await
}

async fn judge_and_begin(cluster: &Arc<Cluster>, mut begin: Begin) -> Result<BeginReply> {
    let action = match begin.operation {
        WriteOperation::AddDocuments { .. } => "documents.add",
        WriteOperation::Edit { .. } => auth::EVERYTHING,
        _ => "documents.delete",
    };
    let grant = auth::authorize(cluster, begin.authorization.as_deref(), action, Some(&begin.index)).await?;
    check_index_uid(&begin.index)?;
    if let Some((kind, body)) = judged_by_node(&begin.operation) {
        diagnosis::check(cluster, &kind, Request::own("POST", ApiPath::default(), Some(&body))).await?;
    }
    let known = cluster.cluster_state().shards().count();
    if begin.shards.iter().any(|shard| usize::from(shard.0) >= known) {
        return Err(
            ApiError::new(Code::INTERNAL, "the gateway's topology has another number of shards").into()
        );
    }
    writers::ready(cluster, &begin.index, &begin.shards).await;
    let Some(guard) = lock(cluster, &mut begin).await? else { return Ok(BeginReply::Show) };
    // In a task of its own: if the gateway disconnects from here on, the begin must still be completed.
    let (cluster, supervisor) = (cluster.clone(), cluster.supervisor.clone());
    supervisor.detach("begin", async move { begin_locked(&cluster, begin, grant, guard).await }).await?
}

/// The edits by function that a write by filter must wait for. A function may create fields on some nodes only. Until all nodes
/// know these fields, a condition such as `a != 1` may match differently on different nodes.
fn edits_before(cluster: &Cluster, begin: &Begin) -> Vec<u32> {
    match &begin.operation {
        WriteOperation::DeleteByFilter { filter } | WriteOperation::Edit { filter: Some(filter), .. }
            if filter.to_string().contains("!=") =>
        {
            cluster.tracked_tasks.of_kind(TaskKind::DocumentEdition, &begin.index)
        }
        _ => Vec::new(),
    }
}

async fn wait_for(cluster: &Cluster, edits: &[u32]) -> Result<()> {
    tokio::time::timeout(EDITS, cluster.tracked_tasks.ended(edits)).await.map_err(|_| {
        let message = "Documents are being edited by a function, and which documents this filter finds depends on it. Try \
                       again later.";
        ApiError::new(Code::UNAVAILABLE, message).into()
    })
}

/// Runs the preflight, then takes the locks. Returns `None` if the preflight needs the documents. The preflight takes a while,
/// so it runs before the locks are taken, and runs again if the settings changed in between.
async fn lock(cluster: &Arc<Cluster>, begin: &mut Begin) -> Result<Option<LockGuard>> {
    loop {
        let Looked::Done { settings, failure } = preflight::look(cluster, begin).await? else {
            return Ok(None);
        };
        let guard = cluster.locks.lock(Scope::shards(&begin.index, &begin.shards)).await;
        // Only the locks make sure that no other edit comes before this write.
        let edits = edits_before(cluster, begin);
        if !edits.is_empty() {
            drop(guard);
            wait_for(cluster, &edits).await?;
            continue;
        }
        if let Some(settings) = settings
            && preflight::settings(cluster, &begin.index).await?.1 != settings
        {
            continue;
        }
        if let (WriteOperation::AddDocuments { failure: known, .. }, Some(failure)) =
            (&mut begin.operation, failure)
        {
            *known = Some(failure);
        }
        return Ok(Some(guard));
    }
}

async fn begin_locked(
    cluster: &Arc<Cluster>,
    begin: Begin,
    grant: Grant,
    guard: LockGuard,
) -> Result<BeginReply> {
    if cluster.current().is_empty() {
        return Err(Error::NoNode);
    }
    let index = cluster.cluster_state().indexes.get(&begin.index).cloned();
    let known_key = index.as_ref().and_then(|index| index.primary_key.clone());
    let mut extras = Vec::new();
    let primary_key = match &begin.operation {
        WriteOperation::AddDocuments { requested_primary_key, primary_key, assumed, failure, .. } => {
            if index.is_none() && !grant.may_create(&begin.index) {
                return record(cluster, &begin, index_not_found(&begin.index).body).await;
            }
            if let (Some(known), Some(requested)) = (&known_key, requested_primary_key)
                && known != requested
            {
                return record(cluster, &begin, primary_key_exists(known)).await;
            }
            if let Some(known) = &known_key
                && primary_key.as_ref() != Some(known)
            {
                return Ok(BeginReply::Split { primary_key: known.clone() });
            }
            if known_key.is_none() && *assumed {
                return Ok(BeginReply::Infer);
            }
            if let Some(failure) = failure {
                // As Meilisearch does: it creates the index before it looks at the documents.
                let made = creation::ensure_index(cluster, &begin.index, None).await?;
                creation::wait_until_over(cluster, &made).await;
                return record(cluster, &begin, failure.clone()).await;
            }
            // A payload without documents has no key that it was split by. A node keeps the key that the client requests.
            let key = primary_key.as_ref().or(requested_primary_key.as_ref());
            let content = key.map(|key| creation::Content {
                key: if requested_primary_key.is_some() { Key::Explicit(key) } else { Key::Inferred(key) },
                fields: &begin.fields,
                nested: &begin.nested_fields,
            });
            extras = match creation::ensure_index(cluster, &begin.index, content).await {
                Err(Error::Api(error)) if error.body.code == Code::MAX_FIELDS_LIMIT_EXCEEDED.name() => {
                    return record(cluster, &begin, error.body).await;
                }
                made => made?,
            };
            // Another write, to other shards, may have created the index meanwhile, with another key.
            let known_key =
                cluster.cluster_state().indexes.get(&begin.index).and_then(|index| index.primary_key.clone());
            if let Some(known) = &known_key
                && key != Some(known)
            {
                return Ok(BeginReply::Split { primary_key: known.clone() });
            }
            known_key
        }
        operation => {
            if index.is_none() {
                return record(cluster, &begin, index_not_found(&begin.index).body).await;
            }
            if let WriteOperation::DeleteDocuments { odd: Some(id), .. } = operation
                && begin.shards.len() > 1
                && let Some(error) = document_ids::refused(cluster, &begin.index, id).await
            {
                return record(cluster, &begin, error).await;
            }
            if let (WriteOperation::DeleteDocuments { primary_key, .. }, Some(known)) =
                (operation, &known_key)
                && primary_key.as_ref().is_some_and(|key| key != known)
            {
                return Ok(BeginReply::Split { primary_key: known.clone() });
            }
            known_key
        }
    };
    // The control plane itself sends edits by function, so the gateway needs no key for them: see [`edit`].
    let edits = matches!(begin.operation, WriteOperation::Edit { .. });
    let gateway = begin.gateway.clone();
    let holder = WriteKeyHolder::Gateway(gateway.clone());
    let key = if edits { None } else { Some(cluster.write_keys.key(cluster, &holder).await?) };
    let writers = writers::choose(cluster, &begin.index, &begin.shards).await?;
    let new = new_task(&begin);
    let begun = cluster.random.name();
    let intent = Intent::Write {
        gateway: gateway.clone(),
        index: begin.index.clone(),
        operation: begin.operation.clone(),
        writers: writers.clone().into_iter().collect(),
        begun: begun.clone(),
    };
    let clock = cluster.clock.clone();
    let task = cluster
        .ledger
        .call(move |connection| {
            let task = intents::begin(connection, &new, &intent, clock.wall())?;
            intents::add_node_tasks(connection, task.uid, &extras)?;
            Ok(task)
        })
        .await?;
    let nodes: Vec<NodeName> = cluster.nodes().iter().map(|node| node.name.clone()).collect();
    let position = |name: &NodeName| {
        nodes.iter().position(|node| node == name).and_then(|position| u16::try_from(position).ok())
    };
    let positions = writers.values().map(|names| names.iter().filter_map(position).collect()).collect();
    let uid = task.uid;
    log::learn_uid(uid);
    // Read under the locks: a recording that starts later waits for this write.
    let record = writers::recorded(cluster, &begin);
    let summary = task.summary();
    let write = OpenWrite {
        task,
        gateway,
        key: key.as_ref().map(|(beginning, _)| beginning.uid()),
        index: begin.index,
        operation: begin.operation,
        writers,
        record: record.clone(),
        guard,
        since: cluster.clock.monotonic(),
        begun: begun.clone(),
        decision: watch::Sender::default(),
    };
    // Dropped at the end: a fence that comes before that waits for this write.
    let Some((_beginning, key)) = key else {
        edit::spawn(cluster, write);
        return Ok(BeginReply::Recorded { task: summary });
    };
    cluster.open.insert(write);
    Ok(BeginReply::Send { uid, key, primary_key, nodes, writers: positions, record, begun: Some(begun) })
}

fn primary_key_exists(known: &str) -> ErrorBody {
    let message = format!("Index already has a primary key: `{known}`.");
    ApiError::new(Code::INDEX_PRIMARY_KEY_ALREADY_EXISTS, message).body
}

/// The request that a node checks before there is a task: route and body. Only nodes can find the errors of filters and
/// functions.
fn judged_by_node(operation: &WriteOperation) -> Option<(WriteKind, Value)> {
    let disguised = |filter: &Value| scrub::disguise_value(filter).unwrap_or_else(|| filter.clone());
    match operation {
        WriteOperation::DeleteByFilter { filter } => {
            Some((WriteKind::DeleteByFilter, json!({"filter": disguised(filter)})))
        }
        WriteOperation::Edit { filter, context, function } => {
            let mut body = json!({ "function": function });
            for (name, value) in [("filter", filter.as_ref().map(disguised)), ("context", context.clone())] {
                if let Some(value) = value {
                    body[name] = value;
                }
            }
            Some((WriteKind::Edit, body))
        }
        _ => None,
    }
}

fn new_task(begin: &Begin) -> NewTask {
    let (kind, details) = match &begin.operation {
        WriteOperation::AddDocuments { documents, .. } => (
            TaskKind::DocumentAdditionOrUpdate,
            json!({"receivedDocuments": documents, "indexedDocuments": null}),
        ),
        WriteOperation::DeleteDocuments { ids, .. } => (
            TaskKind::DocumentDeletion,
            json!({"providedIds": ids, "deletedDocuments": null, "originalFilter": null}),
        ),
        WriteOperation::DeleteByFilter { filter } => (
            TaskKind::DocumentDeletion,
            json!({"providedIds": 0, "deletedDocuments": null, "originalFilter": filter.to_string()}),
        ),
        WriteOperation::Edit { filter, context, function } => (
            TaskKind::DocumentEdition,
            json!({
                "deletedDocuments": null,
                "editedDocuments": null,
                "context": context,
                "function": function,
                "originalFilter": filter.as_ref().map(Value::to_string),
            }),
        ),
        WriteOperation::DeleteAll => (TaskKind::DocumentDeletion, json!({"deletedDocuments": null})),
    };
    NewTask {
        index: Some(begin.index.clone()),
        kind,
        details: Some(details),
        custom_metadata: begin.custom_metadata.clone(),
    }
}

/// Stores a task in the ledger that has failed with this error, without asking any node.
async fn record(cluster: &Cluster, begin: &Begin, error: ErrorBody) -> Result<BeginReply> {
    let new = new_task(begin);
    let clock = cluster.clock.clone();
    let task = cluster
        .ledger
        .call(move |connection| {
            let details = |task: &Task| nothing_done(task.details.as_ref());
            tasks::insert_failed(connection, &new, details, error, clock.wall())
        })
        .await?;
    Ok(BeginReply::Recorded { task: task.summary() })
}
