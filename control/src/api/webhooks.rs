//! Task webhooks. The control plane posts ended tasks itself, because nodes would post their own tasks. A node checks the form
//! of a request's body.
//!
//! Messages and bounds: Meilisearch 1.50, `routes/webhooks.rs`.

use super::{Sent, Shared, pass_on};
use crate::{
    base::error::{Result, api_error},
    disguise::messages,
    ledger::webhooks::{self, Webhook},
    node::{Authority, Request},
};
use axum::{
    Json,
    extract::Path,
    http::{HeaderName, HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use miroir_core::{error::ApiError, path::ApiPath};
use serde_json::{Value, json};
use uuid::Uuid;

/// The number of webhooks that Meilisearch allows.
const MAX_WEBHOOKS: usize = 20;
/// The number of headers per webhook that Meilisearch allows.
const MAX_HEADERS: usize = 200;

fn refused(status: u16, code: &str, message: impl Into<String>) -> crate::base::error::Error {
    api_error(status, "invalid_request", code, message).into()
}

fn parse(uuid: &str) -> Result<Uuid> {
    Uuid::parse_str(uuid)
        .map_err(|error| refused(400, "invalid_webhook_uuid", format!("Invalid UUID: {error}")))
}

fn not_found(uuid: Uuid) -> crate::base::error::Error {
    refused(404, "webhook_not_found", format!("Webhook `{uuid}` not found."))
}

/// A webhook as clients see it: the value of its `Authorization` header is hidden.
fn cluster_state(uuid: Uuid, webhook: &Webhook) -> Value {
    let shown = |name: &str, value: &str| match value.strip_prefix("Bearer ") {
        _ if !name.eq_ignore_ascii_case("authorization") => value.to_owned(),
        Some(token) => format!("Bearer {}", messages::secret(token)),
        None => messages::secret(value),
    };
    let headers: serde_json::Map<String, Value> =
        webhook.headers.iter().map(|(name, value)| (name.clone(), json!(shown(name, value)))).collect();
    json!({"uuid": uuid.to_string(), "isEditable": true, "url": webhook.url, "headers": headers})
}

/// `GET /webhooks`.
///
/// # Errors
/// The client's key does not allow it.
pub async fn list(cluster: Shared, sent: Sent) -> Result<Response> {
    sent.grant()?;
    let all = cluster.ledger.call(webhooks::all).await?;
    let results: Vec<Value> = all.iter().map(|(uuid, webhook)| cluster_state(*uuid, webhook)).collect();
    Ok(Json(json!({ "results": results })).into_response())
}

/// `GET /webhooks/{uuid}`.
///
/// # Errors
/// The client's key does not allow it, or there is no such webhook.
pub async fn get(cluster: Shared, Path(uuid): Path<String>, sent: Sent) -> Result<Response> {
    sent.grant()?;
    let uuid = parse(&uuid)?;
    let all = cluster.ledger.call(webhooks::all).await?;
    let webhook = all.get(&uuid).ok_or_else(|| not_found(uuid))?;
    Ok(Json(cluster_state(uuid, webhook)).into_response())
}

/// `POST /webhooks`.
///
/// # Errors
/// The client's key does not allow it, or the body is invalid.
pub async fn create(cluster: Shared, sent: Sent) -> Result<Response> {
    sent.grant()?;
    let body = match judged(&cluster, &sent).await? {
        Ok(body) => body,
        Err(refusal) => return Ok(refusal),
    };
    let uuid = cluster.random.uuid();
    if body.get("url").is_none_or(Value::is_null) {
        return Err(missing_url(uuid).into());
    }
    let webhook = merged(uuid, Webhook::default(), &body)?;
    let stored = webhook.clone();
    let fits = cluster
        .ledger
        .call(move |connection| {
            let fits = webhooks::all(connection)?.len() < MAX_WEBHOOKS;
            if fits {
                webhooks::put(connection, uuid, &stored)?;
            }
            Ok(fits)
        })
        .await?;
    if !fits {
        let message = "Defining too many webhooks would crush the server. Please limit the number of webhooks to 20. \
                       You may use a third-party proxy server to dispatch events to more than 20 endpoints.";
        return Err(refused(400, "invalid_webhooks", message));
    }
    Ok((StatusCode::CREATED, Json(cluster_state(uuid, &webhook))).into_response())
}

/// `PATCH /webhooks/{uuid}`.
///
/// # Errors
/// The client's key does not allow it, the body is invalid, or there is no such webhook.
pub async fn update(cluster: Shared, Path(uuid): Path<String>, sent: Sent) -> Result<Response> {
    sent.grant()?;
    let body = match judged(&cluster, &sent).await? {
        Ok(body) => body,
        Err(refusal) => return Ok(refusal),
    };
    let uuid = editable(&uuid)?;
    let old = cluster.ledger.call(webhooks::all).await?.remove(&uuid).ok_or_else(|| not_found(uuid))?;
    let webhook = merged(uuid, old, &body)?;
    let answer = Json(cluster_state(uuid, &webhook)).into_response();
    cluster.ledger.call(move |connection| webhooks::put(connection, uuid, &webhook)).await?;
    Ok(answer)
}

/// `DELETE /webhooks/{uuid}`.
///
/// # Errors
/// The client's key does not allow it, or there is no such webhook.
pub async fn delete(cluster: Shared, Path(uuid): Path<String>, sent: Sent) -> Result<Response> {
    sent.grant()?;
    let uuid = editable(&uuid)?;
    let there = cluster
        .ledger
        .call(move |connection| {
            let there = webhooks::all(connection)?.contains_key(&uuid);
            webhooks::remove(connection, uuid)?;
            Ok(there)
        })
        .await?;
    if there { Ok(StatusCode::NO_CONTENT.into_response()) } else { Err(not_found(uuid)) }
}

fn editable(uuid: &str) -> Result<Uuid> {
    let uuid = parse(uuid)?;
    if uuid.is_nil() {
        let message = format!(
            "Webhook `{uuid}` is immutable. The webhook defined from the command line cannot be modified using the API."
        );
        return Err(refused(400, "immutable_webhook", message));
    }
    Ok(uuid)
}

/// The body, if a node finds its form valid; otherwise the node's error. The body is sent as a change of the webhook whose uuid
/// is nil: a node checks it, and then always refuses to change that webhook.
async fn judged(cluster: &Shared, sent: &Sent) -> Result<Result<Value, Response>> {
    let path = ApiPath::new(["webhooks", &Uuid::nil().to_string()]);
    let request =
        Request { method: "PATCH".into(), path, authority: Authority::Master, ..sent.request.clone() };
    let answer = cluster.ask_any(&request).await?;
    let is_immutable = answer.error().is_some_and(|error| error.code == "immutable_webhook");
    match sent.json().filter(|_| is_immutable) {
        Some(body) => Ok(Ok(body)),
        None => Ok(Err(pass_on(&answer))),
    }
}

fn missing_url(uuid: Uuid) -> ApiError {
    let message = format!("The URL for the webhook `{uuid}` is missing.");
    api_error(400, "invalid_request", "invalid_webhook_url", message)
}

/// Merges a request's body into a webhook. A header whose value is null is removed.
fn merged(uuid: Uuid, mut webhook: Webhook, body: &Value) -> Result<Webhook> {
    match body.get("url") {
        Some(Value::String(url)) => webhook.url.clone_from(url),
        Some(Value::Null) => return Err(missing_url(uuid).into()),
        _ => {}
    }
    match body.get("headers") {
        Some(Value::Object(headers)) => {
            for (name, value) in headers {
                match value.as_str() {
                    Some(value) => webhook.headers.insert(name.clone(), value.to_owned()),
                    None => webhook.headers.remove(name),
                };
            }
        }
        Some(Value::Null) => webhook.headers.clear(),
        _ => {}
    }
    if webhook.url.is_empty() {
        return Err(missing_url(uuid).into());
    }
    if webhook.headers.len() > MAX_HEADERS {
        let message = format!(
            "Too many headers for the webhook `{uuid}`. Please limit the number of headers to 200. Hint: To remove an \
             already defined header set its value to `null`"
        );
        return Err(refused(400, "invalid_webhook_headers", message));
    }
    let code = "invalid_webhook_headers";
    for (name, value) in &webhook.headers {
        HeaderName::from_bytes(name.as_bytes())
            .map_err(|error| refused(400, code, format!("Invalid header name `{name}`: {error}")))?;
        HeaderValue::from_str(value)
            .map_err(|error| refused(400, code, format!("Invalid header value `{value}`: {error}")))?;
    }
    url::Url::parse(&webhook.url).map_err(|error| {
        refused(400, "invalid_webhook_url", format!("Invalid URL `{}`: {error}", webhook.url))
    })?;
    Ok(webhook)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_change_what_they_name() {
        let uuid = Uuid::from_u128(1);
        let hook = |body: Value| merged(uuid, Webhook::default(), &body);
        let first =
            hook(json!({"url": "http://a/", "headers": {"x": "1", "Authorization": "Bearer abc"}})).unwrap();
        let second = merged(uuid, first.clone(), &json!({"headers": {"x": null, "y": "2"}})).unwrap();
        assert_eq!(second.headers.keys().collect::<Vec<_>>(), ["Authorization", "y"]);
        assert_eq!(cluster_state(uuid, &second)["headers"]["Authorization"], "Bearer XXX...");
        assert!(merged(uuid, first, &json!({"headers": null})).unwrap().headers.is_empty());
        for bad in [
            json!({"url": ""}),
            json!({"url": null}),
            json!({"url": "no url"}),
            json!({"url": "http://a/", "headers": {"": "x"}}),
        ] {
            assert!(hook(bad.clone()).is_err(), "{bad}");
        }
    }
}
