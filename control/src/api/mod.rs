//! The HTTP server: Meilisearch's routes that the filter lets through, and `/_miroir/*`.

pub mod admin;
pub mod backups;
pub mod batches;
pub mod everywhere;
pub mod export;
pub mod fields;
pub mod indexes;
pub mod internal;
pub mod keys;
pub mod metrics;
pub mod node_metrics;
pub mod operations;
pub mod proxy;
pub mod render;
pub mod rules;
pub mod settings;
pub mod stats;
pub mod task_documents;
pub mod tasks;
pub mod webhooks;

use crate::{
    cluster::Cluster,
    error::{Error, Result},
    node::{NodeAnswer, Request},
    scrub,
};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, FromRequest},
    http::{
        HeaderValue, Method, StatusCode, Uri,
        header::{ALLOW, CONTENT_TYPE},
    },
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{any, delete, get, patch, post},
};
use miroir_core::{
    error::{ApiError, Code},
    http::RequestHead,
};
use serde_json::{Value, json};
use std::sync::Arc;

/// What handlers share.
pub type Shared = axum::extract::State<Arc<Cluster>>;

/// All routes.
pub fn router(cluster: Arc<Cluster>) -> Router {
    let routes = Router::new()
        .route(miroir_core::protocol::BEGIN_PATH, post(internal::begin))
        .route(miroir_core::protocol::COMMIT_PATH, post(internal::commit))
        .route(miroir_core::protocol::REPORT_PATH, post(internal::report))
        .route(&format!("{}/{{*path}}", miroir_core::protocol::REFUSAL_PREFIX), any(internal::refusal))
        .route(
            &format!("{}/{{*path}}", miroir_core::protocol::AUTHORIZATION_PREFIX),
            any(internal::authorization),
        )
        .route("/_miroir/status", get(admin::status))
        .route("/_miroir/shards", get(admin::shards))
        .route("/_miroir/metrics", get(metrics::metrics))
        .route("/_miroir/operations", post(operations::run))
        .route("/_miroir/topology", get(operations::show))
        .route("/_miroir/verify", post(operations::verify))
        .route("/_miroir/repair", post(operations::repair))
        .merge(crate::publish::grpc::routes(&cluster.publisher))
        .route("/health", get(health))
        .route("/stats", get(stats::all))
        .route("/indexes", get(proxy::read).post(indexes::create))
        .route(
            "/indexes/{index}",
            get(proxy::read).merge(patch(indexes::update)).merge(delete(indexes::delete)),
        )
        .route("/indexes/{index}/stats", get(stats::one))
        .route(
            "/indexes/{index}/settings",
            get(proxy::read).merge(patch(settings::update)).merge(delete(settings::reset)),
        )
        .route("/indexes/{index}/settings/{name}", get(proxy::read).fallback(settings::one))
        .route("/indexes/{index}/fields", post(fields::list).fallback(proxy::read))
        .route("/indexes/{index}/compact", post(backups::compact).fallback(proxy::read))
        .route("/dumps", post(backups::dump).fallback(proxy::read))
        .route("/snapshots", post(backups::snapshot).fallback(proxy::read))
        .route("/webhooks", get(webhooks::list).merge(post(webhooks::create)))
        .route(
            "/webhooks/{uuid}",
            get(webhooks::get).merge(patch(webhooks::update)).merge(delete(webhooks::delete)),
        )
        .route("/export", post(export::start).fallback(proxy::read))
        .route("/metrics", get(node_metrics::get).fallback(proxy::read))
        .route("/render-template", post(render::render).fallback(proxy::read))
        .route("/dynamic-search-rules", post(proxy::read).merge(delete(rules::clear)))
        .route(
            "/dynamic-search-rules/{uid}",
            get(proxy::read).merge(patch(rules::update)).merge(delete(rules::delete)),
        )
        .route("/swap-indexes", post(indexes::swap))
        .route("/tasks", get(tasks::list).merge(delete(tasks::delete)))
        .route("/tasks/cancel", post(tasks::cancel))
        .route("/tasks/compact", post(proxy::other).fallback(proxy::read))
        .route("/tasks/{uid}", get(tasks::get))
        .route("/tasks/{uid}/documents", get(task_documents::get))
        .route("/batches", get(batches::list))
        .route("/batches/{uid}", get(batches::get))
        .route("/keys", get(keys::list).merge(post(keys::create)))
        .route("/keys/{key}", get(keys::get).fallback(keys::change))
        .route("/experimental-features", get(proxy::read).fallback(everywhere::features))
        .route("/network", get(proxy::read).merge(patch(everywhere::network)))
        .route("/chats/{workspace}", get(proxy::read).merge(delete(everywhere::delete_workspace)))
        .route(
            "/chats/{workspace}/settings",
            get(proxy::read).merge(patch(everywhere::workspace)).merge(delete(everywhere::reset_workspace)),
        )
        .fallback(any(proxy::other))
        .method_not_allowed_fallback(proxy::read)
        .layer(DefaultBodyLimit::disable())
        .with_state(cluster.clone());
    // What comes before the choice of a route is around all of them.
    Router::new()
        .fallback_service(routes)
        .layer(from_fn_with_state(cluster.clone(), manners))
        .layer(from_fn_with_state(cluster, ready))
}

/// Methods that have routes; nodes refuse all others, `HEAD` too.
const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// Paths, methods and `Allow` as nodes have them.
async fn manners(cluster: Shared, mut request: axum::extract::Request, next: Next) -> Response {
    if let Some(uri) = normalized(request.uri()) {
        *request.uri_mut() = uri;
    }
    if METHODS.contains(request.method()) {
        let mut response = next.run(request).await;
        if response.status() != StatusCode::METHOD_NOT_ALLOWED {
            response.headers_mut().remove(ALLOW);
        }
        return response;
    }
    match Sent::from_request(request, &cluster.0).await {
        Ok(sent) => proxy::read(cluster, sent).await.into_response(),
        Err(refused) => refused,
    }
}

/// The address with one slash for several and none at the end; `None` where it is so already.
fn normalized(uri: &Uri) -> Option<Uri> {
    let path = uri.path_and_query()?.as_str();
    let head = RequestHead { path: path.to_owned(), ..RequestHead::default() }.normalized();
    (head.path != path).then(|| head.path.parse().ok()).flatten()
}

/// What is answered before clients can be served.
const AT_ANY_TIME: [&str; 4] =
    ["/_miroir/status", "/_miroir/shards", "/_miroir/metrics", miroir_core::protocol::REPORT_PATH];

/// 503 until clients can be served; the gateways' `/health` is no exception. What a crash left has its locks again by then:
/// a write that came before would not wait for them. Only the command line and gateways' reports are answered at any time.
async fn ready(cluster: Shared, request: axum::extract::Request, next: Next) -> Response {
    if cluster.is_ready() || AT_ANY_TIME.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    Error::from(ApiError::new(Code::UNAVAILABLE, "the cluster is starting")).into_response()
}

async fn health() -> Response {
    Json(json!({"status": "available"})).into_response()
}

/// What a client sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// As for a node, with the client's `Authorization`, or the master key where the user has none.
    pub request: Request,
    /// The client's `Authorization`.
    pub authorization: Option<String>,
}

impl FromRequest<Arc<Cluster>> for Sent {
    type Rejection = Response;

    async fn from_request(request: axum::extract::Request, cluster: &Arc<Cluster>) -> Result<Self, Response> {
        let (parts, body) = request.into_parts();
        let header = |name: &str| {
            parts.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        };
        let authorization = header("authorization");
        let with_keys = cluster.options.user_master_key;
        let mut sent = Self {
            request: Request {
                method: parts.method.to_string(),
                path: parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
                authorization: authorization.clone().filter(|_| with_keys),
                anonymous: with_keys && authorization.is_none(),
                content_type: header("content-type"),
                content_encoding: header("content-encoding"),
                body: Bytes::new(),
            },
            authorization,
        };
        let whole = axum::extract::Request::from_parts(parts, body);
        sent.request.body = Bytes::from_request(whole, cluster).await.map_err(IntoResponse::into_response)?;
        Ok(sent)
    }
}

impl Sent {
    /// The body as JSON, where it is said to be that: nodes refuse any other.
    #[must_use]
    pub fn json(&self) -> Option<Value> {
        let kind = self.request.content_type.as_deref()?.split(';').next()?;
        if !kind.trim().eq_ignore_ascii_case("application/json") {
            return None;
        }
        serde_json::from_slice(&self.request.body).ok()
    }

    /// Lets a node judge the request as it is.
    ///
    /// # Errors
    /// No node answers.
    pub async fn natively(&self, cluster: &Cluster) -> Result<Response> {
        Ok(pass_on(&cluster.ask_any(&self.request).await?))
    }
}

/// A node's answer, without the tag.
#[must_use]
pub fn pass_on(answer: &NodeAnswer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = match serde_json::from_slice::<Value>(&answer.body) {
        Ok(mut body) => {
            scrub::value(&mut body);
            (status, Json(body)).into_response()
        }
        Err(_) => {
            let mut response = (status, answer.body.clone()).into_response();
            response.headers_mut().remove(CONTENT_TYPE);
            response
        }
    };
    for (name, value) in [(CONTENT_TYPE, &answer.content_type), (ALLOW, &answer.allow)] {
        if let Some(value) = value.as_deref().and_then(|value| HeaderValue::from_str(value).ok()) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// 202 with a task's summary.
#[must_use]
pub fn accepted(task: &crate::ledger::tasks::Task) -> Response {
    (StatusCode::ACCEPTED, Json(task.summary())).into_response()
}
