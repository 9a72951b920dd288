//! Routes of the node itself: health, version, statistics, backups, experimental features.

use std::collections::BTreeMap;

use axum::extract::Path;
use deserr::Deserr;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use uuid::Uuid;

use super::indexes::Stats;
use super::{Answer, Call, blocking, ok};
use crate::auth::Action;
use crate::error::marker as code;
use crate::error::{ApiError, Code};
use crate::indexes::Indexes;
use crate::node::Features;
use crate::tasks::Work;
use crate::validate::InvalidJson;

/// The version of Meilisearch whose API this node implements.
const API_VERSION: &str = "1.50.0";

/// `GET /`
pub async fn running() -> Answer {
    ok(&json!({ "status": "Meilisearch is running" }))
}

/// `GET /health`
pub async fn health() -> Answer {
    ok(&json!({ "status": "available" }))
}

/// `GET /version`
pub async fn version(call: Call) -> Answer {
    call.allow(Action::Version, None)?;
    ok(&json!({ "commitSha": "devnode", "commitDate": "unknown", "pkgVersion": API_VERSION }))
}

/// `GET /stats`
pub async fn stats(call: Call) -> Answer {
    let rights = call.allow(Action::StatsGet, None)?;
    let node = call.node.clone();
    let stats = blocking(move || {
        let mut indexes = BTreeMap::new();
        let mut used = 0;
        let mut last_update: Option<OffsetDateTime> = None;
        for uid in node.indexes.names().into_iter().filter(|uid| rights.covers(uid)) {
            let index = node.indexes.get(&uid)?;
            let rtxn = index.read_txn()?;
            last_update = last_update.max(Some(index.updated_at(&rtxn)?));
            used += index.used_size()?;
            indexes.insert(uid.clone(), Stats::new(&node, &uid)?);
        }
        let last_update = last_update.and_then(|date| date.format(&Rfc3339).ok());
        Ok(json!({
            "databaseSize": Indexes::size_on_disk(&node.options.db_path),
            "usedDatabaseSize": used,
            "lastUpdate": last_update,
            "indexes": indexes,
        }))
    })
    .await?;
    ok(&stats)
}

/// `POST /dumps`
pub async fn dump(call: Call) -> Answer {
    call.allow(Action::DumpsCreate, None)?;
    let details = Map::from_iter([("dumpUid".to_owned(), Value::Null)]);
    call.enqueue(Work::Dump, Some(details), None).await
}

/// `POST /snapshots`
pub async fn snapshot(call: Call) -> Answer {
    call.allow(Action::SnapshotsCreate, None)?;
    call.enqueue(Work::Snapshot, None, None).await
}

#[derive(Debug, Deserr)]
#[deserr(error = InvalidJson, rename_all = camelCase, deny_unknown_fields)]
struct Webhook {
    #[deserr(default, error = InvalidJson<code::InvalidWebhookUrl>)]
    url: Option<String>,
    #[deserr(default, error = InvalidJson<code::InvalidWebhookHeaders>)]
    headers: Option<BTreeMap<String, Option<String>>>,
}

/// `PATCH /webhooks/{uuid}`: this node does not support webhooks. It only checks the form of the body, and refuses to change
/// the immutable webhook.
pub async fn set_webhook(Path(uuid): Path<Uuid>, call: Call) -> Answer {
    call.allow(Action::WebhooksUpdate, None)?;
    let Webhook { url, headers } = call.json()?;
    tracing::debug!("a webhook was checked: {url:?} {headers:?}");
    if uuid.is_nil() {
        let message = format!(
            "Webhook `{uuid}` is immutable. The webhook defined from the command line cannot be modified using the API."
        );
        return Err(ApiError::new(Code::ImmutableWebhook, message));
    }
    Err(ApiError::new(Code::WebhookNotFound, format!("Webhook `{uuid}` not found.")))
}

/// `GET /experimental-features`
pub async fn features(call: Call) -> Answer {
    call.allow(Action::ExperimentalFeaturesGet, None)?;
    ok(&call.node.features())
}

#[derive(Debug, Deserr)]
#[deserr(error = InvalidJson, rename_all = camelCase, deny_unknown_fields)]
struct Patch {
    #[deserr(default)]
    metrics: Option<bool>,
    #[deserr(default)]
    logs_route: Option<bool>,
    #[deserr(default)]
    edit_documents_by_function: Option<bool>,
    #[deserr(default)]
    contains_filter: Option<bool>,
    #[deserr(default)]
    dynamic_search_rules: Option<bool>,
    #[deserr(default)]
    network: Option<bool>,
    #[deserr(default)]
    get_task_documents_route: Option<bool>,
    #[deserr(default)]
    task_queue_compaction_route: Option<bool>,
    #[deserr(default)]
    composite_embedders: Option<bool>,
    #[deserr(default)]
    chat_completions: Option<bool>,
    #[deserr(default)]
    multimodal: Option<bool>,
    #[deserr(default)]
    foreign_keys: Option<bool>,
    #[deserr(default)]
    disable_documents_fetch_queue: Option<bool>,
    #[deserr(default)]
    legacy_search: Option<bool>,
    #[deserr(default)]
    render_route: Option<bool>,
}

/// `PATCH /experimental-features`
pub async fn set_features(call: Call) -> Answer {
    call.allow(Action::ExperimentalFeaturesUpdate, None)?;
    let patch: Patch = call.json()?;
    let old = call.node.features();
    macro_rules! merged {
        ($($name:ident),*) => {
            Features { $($name: patch.$name.unwrap_or(old.$name),)* }
        };
    }
    let features = merged!(
        metrics,
        logs_route,
        edit_documents_by_function,
        contains_filter,
        dynamic_search_rules,
        network,
        get_task_documents_route,
        task_queue_compaction_route,
        composite_embedders,
        chat_completions,
        multimodal,
        foreign_keys,
        disable_documents_fetch_queue,
        legacy_search,
        render_route
    );
    call.node.set_features(features)?;
    ok(&features)
}
