//! `POST /export`: creates a task in which the control plane sends the documents of all shards to another Meilisearch.

use super::{Sent, Shared, pass_on};
use crate::{
    base::error::Result,
    disguise::messages,
    domain::{export::Export, intent::Intent, task::TaskKind},
    export,
    ledger::{intents, tasks::NewTask},
};
use axum::{
    Json,
    response::{IntoResponse, Response},
};
use byte_unit::UnitType;
use serde_json::{Map, Value, json};

/// A member that no version of Meilisearch knows. It sorts last, so a node that refuses this member has found nothing else
/// wrong.
const UNKNOWN: &str = "\u{10ffff}";

/// `POST /export`.
///
/// # Errors
/// No node answers; or the ledger failed.
pub async fn start(cluster: Shared, mut sent: Sent) -> Result<Response> {
    let client = sent.json();
    // A node must check the request without starting an export: the unknown member makes it refuse.
    if let Some(Value::Object(mut body)) = client.clone() {
        body.insert(UNKNOWN.to_owned(), Value::Null);
        sent.request.body = Value::Object(body).to_string().into();
    }
    let answer = cluster.ask_any(&sent.request).await?;
    let is_right = answer.error().is_some_and(|error| error.message.contains(UNKNOWN));
    let export = client.filter(|_| is_right).and_then(|body| serde_json::from_value::<Export>(body).ok());
    let Some(export) = export else { return Ok(pass_on(&answer)) };
    let new = NewTask {
        index: None,
        kind: TaskKind::Export,
        details: Some(details(&export)),
        custom_metadata: None,
    };
    let intent = Intent::Export { export: export.clone() };
    let clock = cluster.clock.clone();
    let begin = move |connection: &_| intents::begin(connection, &new, &intent, clock.wall());
    let task = cluster.ledger.call(begin).await?;
    let summary = task.summary();
    export::spawn(&cluster.0, task, export);
    // Status 200, not 202: nodes answer this route so too.
    Ok(Json(summary).into_response())
}

/// The details of the task, as clients see them.
fn details(export: &Export) -> Value {
    let mut details = Map::from_iter([("url".to_owned(), json!(export.url))]);
    if let Some(key) = &export.api_key {
        details.insert("apiKey".to_owned(), json!(messages::secret(key)));
    }
    if let Some(size) = export.payload_size() {
        let size = size.get_appropriate_unit(UnitType::Both).to_string();
        details.insert("payloadSize".to_owned(), json!(size));
    }
    details.insert("indexes".to_owned(), json!(export.wanted()));
    Value::Object(details)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_as_nodes_tell_them() {
        let export = json!({"url": "http://a", "apiKey": "masterKeyLong", "payloadSize": "25 MB",
                            "indexes": {"f*": {"filter": "a = 1", "overrideSettings": true}, "g": {}}});
        assert_eq!(
            details(&serde_json::from_value(export).unwrap()),
            json!({"url": "http://a", "apiKey": "maXXXX...", "payloadSize": "23.84185791015625 MiB",
                   "indexes": {"f*": {"filter": "a = 1", "overrideSettings": true},
                               "g": {"filter": null, "overrideSettings": false}}})
        );
        let export = json!({"url": "b", "payloadSize": 123_456_789, "indexes": null});
        assert_eq!(
            details(&serde_json::from_value(export).unwrap()),
            json!({"url": "b", "payloadSize": "117.73756885528564 MiB",
                   "indexes": {"*": {"filter": null, "overrideSettings": false}}})
        );
    }
}
