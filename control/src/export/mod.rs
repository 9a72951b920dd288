//! Exports send the documents and settings of indexes to another Meilisearch. The control plane reads each shard from one
//! active replica and sends the documents itself: if nodes exported their own documents, the target would get every copy.
//!
//! The list of an index's documents is read when its turn comes. Each document is sent as it is at that time or later.

mod target;

use crate::{
    base::{error::Result, log},
    cluster::Cluster,
    disguise::messages,
    domain::{
        export::{Export, Wanted},
        task::TaskStatus,
    },
    ledger::{
        intents, settings as stored,
        tasks::{self, Ending, Task},
    },
    mover::{copy, document},
    node::Request,
    sync,
};
use miroir_core::path::ApiPath;
use miroir_core::{
    documents::PrimaryKey,
    error::{ApiError, Code, ErrorBody},
    shard::{Shard, tag_filter},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use target::Target;
use tracing::Instrument;

/// What exports are called in logs and metrics.
const EXPORT: &str = "export";
/// The pause before an export is done again that could not be completed. It doubles each time, up to [`LONGEST`].
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(60);

/// Starts an export, or restarts it after a crash.
pub fn spawn(cluster: &Arc<Cluster>, task: Task, export: Export) {
    let uid = task.uid;
    // Locked until the abort handle is stored, so that the export cannot end or be cancelled before.
    let mut running = cluster.exports.running();
    let owned = cluster.clone();
    let span = log::task_span(Some(uid), Some(task.kind.name()), None);
    let exporting = async move {
        let mut pause = PAUSE;
        loop {
            let one = run(&owned, task.clone(), export.clone());
            let Err(error) = owned.supervisor.catch(EXPORT, one).await.flatten() else { return };
            tracing::error!(uid, error = %error.chain(), ?pause, "an export could not be completed, and is done again after a pause");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST);
        }
    };
    running.insert(uid, cluster.supervisor.spawn(EXPORT, exporting.instrument(span)));
}

async fn run(cluster: &Cluster, task: Task, export: Export) -> Result<()> {
    let (uid, mut details) = (task.uid, task.details.unwrap_or_else(|| json!({})));
    let _turn = cluster.exports.turn.lock().await;
    // The export contains the result of all earlier tasks.
    cluster.tracked_tasks.ended(&cluster.tracked_tasks.uids()).await;
    let started_at = cluster.clock.wall();
    cluster.ledger.call(move |connection| tasks::start(connection, uid, started_at)).await?;
    let (status, error) = match all(cluster, &export).await {
        Ok(indexes) => {
            details["indexes"] = json!(indexes);
            (TaskStatus::Succeeded, None)
        }
        Err(error) => (TaskStatus::Failed, Some(error)),
    };
    // If the export was cancelled meanwhile, its task has ended already.
    if !cluster.exports.running().contains_key(&uid) {
        return Ok(());
    }
    let ending = Ending {
        status,
        details: Some(details),
        error,
        started_at: Some(started_at),
        finished_at: cluster.clock.wall(),
    };
    cluster.ledger.call(move |connection| intents::end(connection, uid, &ending)).await?;
    cluster.exports.running().remove(&uid);
    Ok(())
}

/// Exports all wanted indexes. Returns the details of each.
async fn all(cluster: &Cluster, export: &Export) -> std::result::Result<BTreeMap<String, Value>, ErrorBody> {
    let size =
        export.payload_size().map_or(cluster.config.limits.max_payload_bytes / 10 * 9, |size| size.as_u64());
    let outbound = cluster.options.outbound.clone();
    let target = Target::new(outbound, cluster.clock.clone(), &export.url, export.api_key.as_deref(), size);
    let mut details = BTreeMap::new();
    for index in cluster.cluster_state().indexes.keys() {
        let Some(wanted) = export.of(index) else { continue };
        let documents = one(cluster, index, &wanted, &target).await?;
        let mut told = json!(wanted);
        told["matched_documents"] = json!(documents);
        details.insert(index.clone(), told);
    }
    Ok(details)
}

/// Exports an index. Returns the number of its documents.
async fn one(
    cluster: &Cluster,
    index: &str,
    wanted: &Wanted,
    target: &Target,
) -> std::result::Result<usize, ErrorBody> {
    if let Some(filter) = &wanted.filter {
        judge(cluster, index, filter).await?;
    }
    let key = cluster.cluster_state().indexes.get(index).and_then(|index| index.primary_key.clone());
    let is_there = target.has(index).await?;
    target.prepare(index, key.as_deref(), is_there, wanted.override_settings).await?;
    if !is_there || wanted.override_settings {
        let settings = settings(cluster, index).await.map_err(internal)?;
        target.send("PATCH", &ApiPath::of_index(index, &["settings"]), Some(&settings)).await?;
    }
    // An index without a primary key has no documents.
    let Some(key) = key.map(PrimaryKey::new) else { return Ok(0) };
    let mut left: Vec<Shard> = cluster.cluster_state().shards().collect();
    let (mut sent, mut patience) = (0, 20);
    while !left.is_empty() {
        let mut failed = Vec::new();
        for (node, shards) in cluster.sources(index, left.iter().copied()) {
            match documents(&node, index, wanted, &key, &shards).await {
                Ok(pages) => {
                    for ids in pages.chunks(copy::PAGE) {
                        let page =
                            copy::by_ids(&node, index, &tag_filter(&shards), ids).await.map_err(internal)?;
                        let documents = page.results.iter().map(|document| {
                            miroir_core::scrub::document(document::copied(document).as_bytes())
                        });
                        target.documents(index, documents).await?;
                    }
                    sent += pages.len();
                }
                Err(_) if patience > 0 => failed.extend(shards),
                Err(error) => return Err(internal(error)),
            }
        }
        // Shards without an active replica on a reachable node.
        let found: BTreeSet<Shard> =
            cluster.sources(index, left.iter().copied()).into_iter().flat_map(|(_, shards)| shards).collect();
        failed.extend(left.iter().filter(|shard| !found.contains(shard)));
        left = failed;
        if !left.is_empty() {
            patience -= 1;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
    Ok(sent)
}

fn internal(error: impl std::fmt::Display) -> ErrorBody {
    ApiError::new(Code::INTERNAL, error.to_string()).body
}

/// Lets a node check the client's filter alone, before the condition on shards is added, so that an error is about what the
/// client has written.
async fn judge(cluster: &Cluster, index: &str, filter: &Value) -> std::result::Result<(), ErrorBody> {
    let body = json!({"filter": filter, "limit": 0});
    let request = Request::own("POST", ApiPath::of_index(index, &["documents", "fetch"]), Some(&body));
    let answer = cluster.ask_any(&request).await.map_err(internal)?;
    match answer.error() {
        Some(error) if !answer.is_success() => {
            let message = format!("Index `{index}`: {}", messages::message(&error.message));
            Err(ErrorBody { message, ..error })
        }
        _ => Ok(()),
    }
}

/// The settings of an index as clients see them, with the API keys of embedders.
async fn settings(cluster: &Cluster, index: &str) -> Result<Value> {
    let path = ApiPath::of_index(index, &["settings"]);
    let answer = cluster.ask_any(&Request::own("GET", path, None)).await?;
    let mut settings = answer.json();
    messages::value(&mut settings);
    let uid = index.to_owned();
    let set = cluster.ledger.call(move |connection| stored::settings(connection, &uid)).await?;
    sync::with_keys(&mut settings, &set);
    Ok(settings)
}

/// The ids of the wanted documents of some shards on a node.
async fn documents(
    node: &crate::node::Node,
    index: &str,
    wanted: &Wanted,
    key: &PrimaryKey,
    shards: &[Shard],
) -> Result<Vec<String>> {
    let mut conditions = match &wanted.filter {
        Some(Value::Array(conditions)) => conditions.clone(),
        Some(Value::Null) | None => Vec::new(),
        Some(condition) => vec![condition.clone()],
    };
    conditions.push(tag_filter(shards).into());
    copy::ids(node, index, conditions, key).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_pattern_says_what_is_wanted() {
        let export: Export = serde_json::from_value(json!({
            "url": "x", "indexes": {"films": {"overrideSettings": true}, "fi*": {"filter": "a = 1"}}
        }))
        .unwrap();
        assert_eq!(export.of("fi").unwrap().filter, Some(json!("a = 1")));
        // `*` comes before letters, as in nodes' map of patterns.
        assert_eq!(export.of("films").unwrap().filter, Some(json!("a = 1")));
        assert_eq!(export.of("books"), None);
        let everything: Export = serde_json::from_value(json!({"url": "x"})).unwrap();
        assert_eq!(everything.of("books"), Some(Wanted::default()));
    }
}
