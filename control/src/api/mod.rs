//! The HTTP API: the Meilisearch routes that the filter does not handle itself, and `/_miroir/*`.

pub mod admin;
pub mod all_nodes;
pub mod authority;
pub mod backups;
pub mod batches;
pub mod body;
mod dot_segments;
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
    auth::Grant,
    base::error::{Error, Result},
    cluster::Cluster,
    disguise::messages,
    node::{Authority, NodeAnswer, Request},
};
use authority::{BodySize, Judged};
use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, FromRequest},
    http::{
        HeaderMap, HeaderValue, Method, StatusCode,
        header::{ALLOW, CONTENT_TYPE},
        uri::PathAndQuery,
    },
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{any, delete, get, patch, post},
};
use body::BufferedBody;
use miroir_core::{
    content_type::ContentType,
    encoding::Encoding,
    error::{ApiError, Code},
    path::ApiPath,
};
use serde_json::{Value, json};
use std::sync::Arc;

/// The state that all handlers share.
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
        .route("/indexes", get(indexes::read).post(indexes::create))
        .route(
            "/indexes/{index}",
            get(indexes::read).merge(patch(indexes::update)).merge(delete(indexes::delete)),
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
        .route("/keys/{key}", get(keys::get).merge(patch(keys::change)).merge(delete(keys::change)))
        .route("/experimental-features", get(proxy::read).merge(patch(all_nodes::features)))
        .route("/network", get(proxy::read).merge(patch(all_nodes::network)))
        .route("/chats/{workspace}", get(proxy::read).merge(delete(all_nodes::delete_workspace)))
        .route(
            "/chats/{workspace}/settings",
            get(proxy::read).merge(patch(all_nodes::workspace)).merge(delete(all_nodes::reset_workspace)),
        )
        .fallback(any(proxy::other))
        .method_not_allowed_fallback(proxy::read)
        .layer(DefaultBodyLimit::max(INTERNAL_BODY))
        .with_state(cluster.clone());
    // These layers run before a route is chosen.
    Router::new()
        .fallback_service(routes)
        .layer(from_fn_with_state(cluster.clone(), manners))
        .layer(from_fn_with_state(cluster, ready))
}

/// The methods that routes have; nodes refuse all other methods, also `HEAD`.
const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// The largest body of the control plane's own interface, in bytes: a begin may carry a filter, a function, and documents for
/// the preflight.
const INTERNAL_BODY: usize = 256 << 20;

/// The path prefix of xDS, by which gateways subscribe to the topology. These requests are streams, and are authorized by their
/// first message.
const GRPC: &str = "/envoy.service.";

/// The first path segment of the control plane's own interface.
const INTERNAL: &str = "_miroir";

/// The head of a client's request, as judged before any of its body is read.
#[derive(Clone, Debug)]
struct Head {
    path: ApiPath,
    /// The query as the client wrote it.
    query: String,
    judged: Judged,
}

/// HTTP compatibility: treats paths, keys, methods and `Allow` as nodes do. Every request that gets past this layer has been
/// judged.
async fn manners(cluster: Shared, mut request: axum::extract::Request, next: Next) -> Response {
    if request.uri().path().starts_with(GRPC) {
        return next.run(request).await;
    }
    let target = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let query = request.uri().query().unwrap_or_default().to_owned();
    let Ok(path) = ApiPath::parse(target) else { return StatusCode::BAD_REQUEST.into_response() };
    let (method, headers) = (request.method().clone(), request.headers().clone());
    let judged = match judge(&cluster, &method, &headers, &path).await {
        Ok(judged) => judged,
        Err(error) => return unread(request, error),
    };
    if let Some(answer) = dot_segments::answer(&path) {
        return unread(request, answer);
    }
    // Routes go by the path. The query is read from what the client sent.
    match path.route().parse() {
        Ok(uri) => *request.uri_mut() = uri,
        Err(_) => return StatusCode::BAD_REQUEST.into_response(),
    }
    request.extensions_mut().insert(Head { path, query, judged });
    if METHODS.contains(request.method()) {
        let mut response = match is_undivided(&request) {
            true => undivided(&cluster, request, next).await,
            false => next.run(request).await,
        };
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

/// Whether a request may change something, and so is done to its end when whoever sent it leaves.
fn is_undivided(request: &axum::extract::Request) -> bool {
    let path = request.uri().path();
    let is_operators = ["/_miroir/operations", "/_miroir/repair"].contains(&path);
    // What gateways send takes care of that itself: a begin that waits for locks is given up.
    let is_internal = path.split('/').nth(1) == Some(INTERNAL);
    request.method() != Method::GET && (is_operators || !is_internal)
}

/// Runs the rest of a request in a task of its own.
async fn undivided(cluster: &Shared, request: axum::extract::Request, next: Next) -> Response {
    let answer = cluster.supervisor.detach("request", async move { next.run(request).await }).await;
    answer.unwrap_or_else(IntoResponse::into_response)
}

/// Authorizes a request by its head.
async fn judge(cluster: &Cluster, method: &Method, headers: &HeaderMap, path: &ApiPath) -> Result<Judged> {
    if path.segments().first() == Some(&INTERNAL) {
        internal::require_any(cluster, headers)?;
        return Ok(Judged { grant: None, body: BodySize::Large });
    }
    let authorization = header(headers, "authorization");
    Judged::of(cluster, method.as_str(), path, authorization.as_deref()).await
}

/// Answers a request without reading its body.
fn unread(request: axum::extract::Request, answer: impl IntoResponse) -> Response {
    body::drain(request.into_body());
    answer.into_response()
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
}

/// The paths that are answered even before clients can be served. Operations are among them, because the start may wait for a node
/// that only an operator can declare lost.
const AT_ANY_TIME: [&str; 6] = [
    "/_miroir/status",
    "/_miroir/shards",
    "/_miroir/metrics",
    "/_miroir/topology",
    "/_miroir/operations",
    miroir_core::protocol::REPORT_PATH,
];

/// Answers 503 until clients can be served, also to the gateways' `/health`. Writes that were open before a restart must get
/// their locks first; otherwise a new write would not wait for them. Only requests of the command line and gateways' reports
/// are answered at any time.
async fn ready(cluster: Shared, request: axum::extract::Request, next: Next) -> Response {
    if cluster.is_ready() || AT_ANY_TIME.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    Error::from(ApiError::new(Code::UNAVAILABLE, "the cluster is starting")).into_response()
}

/// `GET /health`: 503 while the ledger cannot store anything, since no write and no operation can begin then.
///
/// A single Meilisearch goes on to answer 200 when its disk is full, but it can still be told what to do, such as to delete documents.
async fn health(cluster: Shared) -> Result<Response> {
    if cluster.ledger.is_failing() {
        let message = "The cluster cannot store writes now: its control plane's disk fails, or is full.";
        return Err(ApiError::new(Code::UNAVAILABLE, message).into());
    }
    Ok(Json(json!({"status": "available"})).into_response())
}

/// A client's request.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The request as a node would get it: with the client's `Authorization`, or with the master key if the user runs the
    /// cluster without one.
    pub request: Request,
    /// The client's `Authorization`.
    pub authorization: Option<String>,
    /// The query as the client wrote it.
    pub query: String,
    /// What the client's key allows.
    grant: Option<Grant>,
    #[expect(dead_code, reason = "dropping it releases the memory of the body")]
    body: BufferedBody,
}

impl FromRequest<Arc<Cluster>> for Sent {
    type Rejection = Response;

    async fn from_request(request: axum::extract::Request, cluster: &Arc<Cluster>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let Some(Head { path, query, judged }) = parts.extensions.remove::<Head>() else {
            let error = Error::Other(format!("`{}` was not authorized before its body", parts.uri.path()));
            return Err(error.into_response());
        };
        let header = |name: &str| header(&parts.headers, name);
        let encoding = header("content-encoding");
        let declared = header("content-length").and_then(|length| length.parse().ok());
        let body = cluster.bodies.read(body, judged.body, declared, encoding.as_deref()).await;
        let body = body.map_err(|error| Error::from(error).into_response())?;
        let authorization = header("authorization");
        let authority = match &authorization {
            _ if !cluster.options.user_master_key => Authority::Master,
            Some(authorization) => Authority::Header(authorization.clone()),
            None => Authority::Nobody,
        };
        let request = Request {
            method: parts.method.to_string(),
            path,
            authority,
            content_type: header("content-type"),
            content_encoding: encoding.filter(|_| !body.is_decoded),
            body: body.bytes.clone(),
        };
        Ok(Self { request, authorization, query, grant: judged.grant, body })
    }
}

impl Sent {
    /// What the client's key allows.
    ///
    /// # Errors
    /// The route needs no key.
    pub fn grant(&self) -> Result<&Grant> {
        let missing = || Error::Other(format!("`{}` needs no key", self.request.path.route()));
        self.grant.as_ref().ok_or_else(missing)
    }

    /// The body as JSON; `None` if its content type is not JSON, or if it could not be decompressed. Nodes refuse such a body.
    #[must_use]
    pub fn json(&self) -> Option<Value> {
        // `content_encoding` is still set if the body could not be decoded.
        let is_encoded = Encoding::of(self.request.content_encoding.as_deref()).is_some();
        if is_encoded || !ContentType::of(self.request.content_type.as_deref()).is_json() {
            return None;
        }
        serde_json::from_slice(&self.request.body).ok()
    }

    /// Lets a node answer the request as it is.
    ///
    /// # Errors
    /// No node answers.
    pub async fn natively(&self, cluster: &Cluster) -> Result<Response> {
        Ok(pass_on(&cluster.ask_any(&self.request).await?))
    }
}

/// A node's answer, without the shard tag.
#[must_use]
pub fn pass_on(answer: &NodeAnswer) -> Response {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = match serde_json::from_slice::<Value>(&answer.body) {
        Ok(mut body) => {
            messages::value(&mut body);
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
