//! The HTTP API.

mod documents;
mod indexes;
mod keys;
mod manners;
mod search;
mod settings;
mod system;
mod tasks;

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::from_fn;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use deserr::Deserr;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use mime::Mime;
use serde::Serialize;
use serde_json::{Map, Value};
use tower_http::compression::CompressionLayer;
use tower_http::decompression::RequestDecompressionLayer;

use crate::auth::{Action, Known, Rights};
use crate::error::{ApiError, Code, Result};
use crate::node::Node;
use crate::tasks::Work;
use crate::tasks::view::Summary;
use crate::uid::{IndexUid, RESERVED_PREFIX};
use crate::validate::{self, InvalidJson, InvalidQuery};

/// The result type of handlers.
pub type Answer = Result<Response>;

/// All routes.
pub fn router(node: Arc<Node>) -> Router {
    let routes = Router::new()
        .route("/", get(system::running))
        .route("/health", get(system::health))
        .route("/version", get(system::version))
        .route("/stats", get(system::stats))
        .route("/experimental-features", get(system::features).patch(system::set_features))
        .route("/dumps", post(system::dump))
        .route("/snapshots", post(system::snapshot))
        .route("/webhooks/{uuid}", patch(system::set_webhook))
        .route("/keys", get(keys::list).post(keys::create))
        .route("/keys/{key}", get(keys::one).patch(keys::patch).delete(keys::delete))
        .route("/tasks", get(tasks::list).delete(tasks::delete))
        .route("/tasks/cancel", post(tasks::cancel))
        .route("/tasks/{uid}", get(tasks::one))
        .route("/batches", get(tasks::batches))
        .route("/batches/{uid}", get(tasks::batch))
        .route("/swap-indexes", post(indexes::swap))
        .route("/multi-search", post(search::multi))
        .route("/indexes", get(indexes::list).post(indexes::create))
        .route("/indexes/{index}", get(indexes::one).patch(indexes::update).delete(indexes::delete))
        .route("/indexes/{index}/stats", get(indexes::stats))
        .route("/indexes/{index}/fields", post(indexes::fields))
        .route("/indexes/{index}/search", get(search::by_params).post(search::by_body))
        .route("/indexes/{index}/facet-search", post(search::facets))
        .route("/indexes/{index}/similar", get(search::similar_by_params).post(search::similar_by_body))
        .route(
            "/indexes/{index}/settings",
            get(settings::all).patch(settings::patch_all).delete(settings::reset_all),
        )
        .route(
            "/indexes/{index}/settings/{name}",
            get(settings::one).put(settings::set_one).patch(settings::set_one).delete(settings::reset_one),
        )
        .route(
            "/indexes/{index}/documents",
            get(documents::list).post(documents::replace).put(documents::update).delete(documents::clear),
        )
        .route("/indexes/{index}/documents/fetch", post(documents::fetch))
        .route("/indexes/{index}/documents/edit", post(documents::edit))
        .route("/indexes/{index}/documents/delete", post(documents::delete_by_filter))
        .route("/indexes/{index}/documents/delete-batch", post(documents::delete_batch))
        .route("/indexes/{index}/documents/{id}", get(documents::one).delete(documents::delete_one));
    let routes = routes
        .layer(RequestDecompressionLayer::new())
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(node);
    Router::new().fallback_service(routes).layer(from_fn(manners::manners)).layer(CompressionLayer::new())
}

/// A client's request, as handlers get it.
pub struct Call {
    /// The node.
    pub node: Arc<Node>,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, decompressed.
    pub body: Bytes,
    query: String,
    token: Result<Option<String>>,
    known: Known,
    too_large: bool,
}

impl FromRequest<Arc<Node>> for Call {
    type Rejection = ApiError;

    async fn from_request(request: Request, node: &Arc<Node>) -> Result<Self> {
        let (parts, body) = request.into_parts();
        let (known, token) = (node.keys.known(), bearer(&parts.headers));
        // Like Meilisearch, authorizes the request by its head before it reads the body.
        let body = match &token {
            Ok(token) if !known.is_nobody(token.as_deref()) => body,
            _ => axum::body::Body::empty(),
        };
        let limit = usize::try_from(node.options.http_payload_size_limit).unwrap_or(usize::MAX);
        let (body, too_large) = match Limited::new(body, limit).collect().await {
            Ok(body) => (body.to_bytes(), false),
            Err(error) if is_length_limit(error.as_ref()) => (Bytes::new(), true),
            Err(error) => return Err(ApiError::new(Code::BadRequest, error.to_string())),
        };
        Ok(Self {
            node: node.clone(),
            token,
            known,
            headers: parts.headers,
            query: parts.uri.query().unwrap_or_default().to_string(),
            body,
            too_large,
        })
    }
}

fn is_length_limit(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<LengthLimitError>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The bearer's text, if the request has one.
fn bearer(headers: &HeaderMap) -> Result<Option<String>> {
    let Some(value) = headers.get(header::AUTHORIZATION) else {
        return Ok(None);
    };
    match value.to_str().unwrap_or_default().split_once(' ') {
        Some(("Bearer", token)) => Ok(Some(token.to_string())),
        None if value == "Bearer" => {
            Err(ApiError::new(Code::InvalidApiKey, "The provided API key is invalid."))
        }
        _ => Err(ApiError::new(
            Code::MissingAuthorizationHeader,
            "The Authorization header is missing. It must use the bearer authorization method.",
        )),
    }
}

impl Call {
    /// Checks that the caller may do this, on this index if the route names one.
    pub fn allow(&self, action: Action, index: Option<&str>) -> Result<Rights> {
        let token = self.token.clone()?;
        let rights = self.known.authorize(token.as_deref(), action, index)?;
        if self.too_large {
            return Err(self.too_large_error());
        }
        Ok(rights)
    }

    /// Like [`Self::allow`], for routes about one index, whose name is checked too.
    pub fn allow_index(&self, action: Action, uid: &str) -> Result<Rights> {
        let rights = self.allow(action, Some(uid))?;
        if uid.starts_with(RESERVED_PREFIX) || uid.parse::<IndexUid>().is_err() {
            return Err(crate::uid::BadIndexUid(uid.to_string()).into());
        }
        Ok(rights)
    }

    fn too_large_error(&self) -> ApiError {
        let limit = self.node.options.http_payload_size_limit;
        let message = format!(
            "The provided payload reached the size limit. The maximum accepted payload size is {}.",
            readable_size(limit)
        );
        ApiError::new(Code::PayloadTooLarge, message)
    }

    /// The body as JSON; its content type is checked first, as Meilisearch does.
    pub fn json<T: Deserr<InvalidJson>>(&self) -> Result<T> {
        self.check_json_type()?;
        validate::json(&self.body)
    }

    /// Refuses a body whose content type is not JSON.
    pub fn check_json_type(&self) -> Result<()> {
        let content_type = self.content_type();
        let mime: Option<Mime> = content_type.and_then(|text| text.parse().ok());
        if mime.is_some_and(|mime| mime.subtype() == mime::JSON || mime.suffix() == Some(mime::JSON)) {
            return Ok(());
        }
        let expected = "Accepted values for the Content-Type header are: `application/json`";
        Err(match content_type {
            None => ApiError::new(
                Code::MissingContentType,
                format!("A Content-Type header is missing. {expected}"),
            ),
            Some(other) => ApiError::new(
                Code::InvalidContentType,
                format!("The Content-Type `{other}` is invalid. {expected}"),
            ),
        })
    }

    /// The query string.
    pub fn params<T: Deserr<InvalidQuery>>(&self) -> Result<T> {
        validate::query(&self.query)
    }

    /// The query string as the client sent it, with the question mark.
    pub fn raw_query(&self) -> String {
        format!("?{}", self.query)
    }

    /// The `Content-Type` header.
    pub fn content_type(&self) -> Option<&str> {
        self.headers.get(header::CONTENT_TYPE)?.to_str().ok()
    }

    /// Whether a header has the value `true`.
    pub fn header_is_true(&self, name: &str) -> bool {
        self.headers
            .get(name)
            .is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true") || value == "1")
    }

    /// Registers a task, and answers 202.
    pub async fn enqueue(
        &self,
        work: Work,
        details: Option<Map<String, Value>>,
        custom_metadata: Option<String>,
    ) -> Answer {
        let node = self.node.clone();
        let task = blocking(move || node.queue.register(&node.store, work, details, custom_metadata)).await?;
        reply(StatusCode::ACCEPTED, &Summary::from(&task))
    }
}

/// Runs blocking work on a separate thread, not on those that serve connections.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work).await?
}

/// An answer with a JSON body.
pub fn reply(status: StatusCode, body: &impl Serialize) -> Answer {
    let body = serde_json::to_vec(body)?;
    Ok((status, [(header::CONTENT_TYPE, "application/json")], body).into_response())
}

/// A 200 with a JSON body.
pub fn ok(body: &impl Serialize) -> Answer {
    reply(StatusCode::OK, body)
}

/// One page of a list.
#[derive(Serialize)]
pub struct Paged<T> {
    results: Vec<T>,
    offset: usize,
    limit: usize,
    total: usize,
}

impl<T> Paged<T> {
    /// Takes a page from the whole list.
    pub fn new(all: Vec<T>, offset: usize, limit: usize) -> Self {
        let total = all.len();
        Self { results: all.into_iter().skip(offset).take(limit).collect(), offset, limit, total }
    }
}

/// Formats a number of bytes with a suitable unit: binary for multiples of 1024, otherwise decimal.
fn readable_size(bytes: u64) -> String {
    let (base, units) = if bytes.is_multiple_of(1024) {
        (1024.0, ["B", "KiB", "MiB", "GiB"])
    } else {
        (1000.0, ["B", "KB", "MB", "GB"])
    };
    let mut value = bytes as f64;
    let mut unit = units[0];
    for next in &units[1..] {
        if value < base {
            break;
        }
        value /= base;
        unit = next;
    }
    format!("{value} {unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        assert_eq!(readable_size(100_000_000), "100 MB");
        assert_eq!(readable_size(10 << 20), "10 MiB");
        assert_eq!(readable_size(3), "3 B");
    }
}
