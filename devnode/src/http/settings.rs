//! `/indexes/{index}/settings` and one route for each setting.

use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use serde_json::{Map, Value};

use super::{Answer, Call, blocking, ok};
use crate::auth::Action;
use crate::settings::{self, NAMES, canonical};
use crate::tasks::Work;
use crate::validate;

/// `GET /indexes/{index}/settings`
pub async fn all(Path(index): Path<String>, call: Call) -> Answer {
    call.allow_index(Action::SettingsGet, &index)?;
    let node = call.node.clone();
    ok(&blocking(move || settings::view(&node, &index)).await?)
}

/// `PATCH /indexes/{index}/settings`
pub async fn patch_all(Path(index): Path<String>, call: Call) -> Answer {
    let rights = call.allow_index(Action::SettingsUpdate, &index)?;
    call.check_json_type()?;
    let body: Value = serde_json::from_slice(&call.body).map_err(|error| validate::malformed(&error))?;
    settings::read(body.clone())?;
    settings::check_features(&body, call.node.features())?;
    let may_create = rights.may_create(&index);
    enqueue(call, index, body, false, may_create).await
}

/// `DELETE /indexes/{index}/settings`
pub async fn reset_all(Path(index): Path<String>, call: Call) -> Answer {
    let rights = call.allow_index(Action::SettingsUpdate, &index)?;
    let may_create = rights.may_create(&index);
    let known = NAMES.iter().filter(|name| **name != "vectorStore");
    let body: Map<String, Value> = known.map(|name| ((*name).to_string(), Value::Null)).collect();
    enqueue(call, index, Value::Object(body), true, may_create).await
}

async fn enqueue(call: Call, index: String, body: Value, is_deletion: bool, may_create: bool) -> Answer {
    let details = canonical(&body);
    // A reset never creates an index.
    let may_create = may_create && !is_deletion;
    call.enqueue(Work::Settings { index, settings: body, is_deletion, may_create }, Some(details), None).await
}

/// The setting for a route's name, such as `stop-words`.
fn setting(route: &str) -> Option<&'static str> {
    let kebab = |name: &str| {
        name.chars().fold(String::new(), |mut kebab, c| {
            if c.is_ascii_uppercase() {
                kebab.push('-');
            }
            kebab.push(c.to_ascii_lowercase());
            kebab
        })
    };
    NAMES.iter().copied().find(|name| kebab(name) == route)
}

/// `GET /indexes/{index}/settings/{name}`
pub async fn one(Path((index, route)): Path<(String, String)>, call: Call) -> Answer {
    let Some(name) = setting(&route) else {
        return Ok(StatusCode::NOT_FOUND.into_response());
    };
    call.allow_index(Action::SettingsGet, &index)?;
    let node = call.node.clone();
    let mut all = blocking(move || settings::view(&node, &index)).await?;
    ok(&all.shift_remove(name).unwrap_or_default())
}

/// `PUT` or `PATCH /indexes/{index}/settings/{name}`
pub async fn set_one(
    method: axum::http::Method,
    Path((index, route)): Path<(String, String)>,
    call: Call,
) -> Answer {
    let Some(name) = setting(&route) else {
        return Ok(StatusCode::NOT_FOUND.into_response());
    };
    let patched = ["typoTolerance", "faceting", "pagination", "embedders", "chat"].contains(&name);
    if patched != (method == axum::http::Method::PATCH) {
        return Ok(StatusCode::METHOD_NOT_ALLOWED.into_response());
    }
    let rights = call.allow_index(Action::SettingsUpdate, &index)?;
    call.check_json_type()?;
    let value: Value = serde_json::from_slice(&call.body).map_err(|error| validate::malformed(&error))?;
    settings::check_one(name, value.clone())?;
    let body = Value::Object([(name.to_string(), value)].into_iter().collect());
    settings::read(body.clone())?;
    settings::check_features(&body, call.node.features())?;
    let may_create = rights.may_create(&index);
    enqueue(call, index, body, false, may_create).await
}

/// `DELETE /indexes/{index}/settings/{name}`
pub async fn reset_one(Path((index, route)): Path<(String, String)>, call: Call) -> Answer {
    let Some(name) = setting(&route) else {
        return Ok(StatusCode::NOT_FOUND.into_response());
    };
    let rights = call.allow_index(Action::SettingsUpdate, &index)?;
    let may_create = rights.may_create(&index);
    let body = Value::Object([(name.to_string(), Value::Null)].into_iter().collect());
    enqueue(call, index, body, true, may_create).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_name_settings() {
        assert_eq!(setting("search-cutoff-ms"), Some("searchCutoffMs"));
        assert_eq!(setting("synonyms"), Some("synonyms"));
        assert_eq!(setting("stopWords"), None);
    }
}
