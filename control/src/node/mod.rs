//! A Meilisearch node: what it is asked, and what is known of its health. Requests leave by a [`Transport`].

pub mod answers;
mod documents;
mod features;
mod health;
mod http;
mod indexes;
mod keys;
mod settings;
mod tasks;
#[cfg(test)]
mod tests;
mod transport;

pub use health::{FOREIGN, Health};
pub use http::Http;
pub use keys::ClusterKey;
pub use tasks::{TaskInfo, TaskPage};
pub use transport::{Call, NoAnswer, Transport};

use crate::base::{
    error::{Error, Result},
    time::{Instant, SharedClock},
};
use axum::{body::Bytes, http::Method};
use futures_util::future::{Either, select};
use health::{CHECK, Check};
use miroir_core::{error::ErrorBody, node_name::NodeName, path::ApiPath};
use serde_json::Value;
use std::{
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// Timeout of the control plane's requests to a node.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// How long a node may take to answer a question while locks are held, or while another node can be asked.
pub const SHORT_QUESTION: Duration = Duration::from_secs(4);

/// One Meilisearch node.
#[derive(Debug)]
pub struct Node {
    /// Its name in the cluster.
    pub name: NodeName,
    /// Where it listens.
    pub url: url::Url,
    /// The Envoy cluster that reaches it.
    pub cluster: String,
    config: crate::base::config::NodeConfig,
    transport: Arc<dyn Transport>,
    clock: SharedClock,
    master_key: String,
    /// The key that tells the cluster's nodes from another cluster's; `None` for a node of no cluster.
    cluster_key: Option<ClusterKey>,
    health: Mutex<Health>,
    /// Counts how often it has gone away: what is under way to it then is given up.
    departures: watch::Sender<u64>,
}

/// What a node answered to the question for its health.
#[derive(Debug)]
pub struct Probed {
    check: Check,
    begun: Instant,
    version: Option<String>,
    /// Whether it has the data of another cluster, where it was asked.
    is_foreign: Option<bool>,
}

impl Probed {
    /// Whether the node answers, and has not the data of another cluster.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        matches!(self.check, Check::Answered)
    }
}

/// A node's complete answer.
#[derive(Clone, Debug)]
pub struct NodeAnswer {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Allow`: the route's methods, if it does not support the requested one.
    pub allow: Option<String>,
    /// The body.
    pub body: Bytes,
}

impl NodeAnswer {
    /// The body as JSON; `null` if it is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or(Value::Null)
    }

    /// 2xx.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The uid of the task that was enqueued.
    #[must_use]
    pub fn task_uid(&self) -> Option<u32> {
        self.json().get("taskUid")?.as_u64().and_then(|uid| u32::try_from(uid).ok())
    }

    /// The body as a Meilisearch error.
    #[must_use]
    pub fn error(&self) -> Option<ErrorBody> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// The authorization that a request to a node carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Authority {
    /// The master key. Never for requests whose route a client chose.
    #[default]
    Master,
    /// An `Authorization` header: the client's own, or one with a key that the control plane created.
    Header(String),
    /// No authorization.
    Nobody,
}

/// A request to a node, with the parts that may come from a client.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// HTTP method, upper case.
    pub method: String,
    /// Path and query.
    pub path: ApiPath,
    /// Its authorization.
    pub authority: Authority,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// The body.
    pub body: Bytes,
}

impl Request {
    /// A request that the control plane sends itself, with the master key.
    #[must_use]
    pub fn own(method: &str, path: impl Into<ApiPath>, body: Option<&Value>) -> Self {
        Self {
            method: method.to_owned(),
            path: path.into(),
            content_type: body.map(|_| "application/json".to_owned()),
            body: body.map(|body| Bytes::from(body.to_string())).unwrap_or_default(),
            ..Self::default()
        }
    }
}

impl Node {
    /// A node that counts as down until its first health check.
    #[must_use]
    pub fn new(
        config: crate::base::config::NodeConfig,
        transport: Arc<dyn Transport>,
        master_key: String,
        clock: SharedClock,
    ) -> Self {
        let health = Health::unknown(clock.monotonic());
        Self {
            name: config.name.clone(),
            url: config.url.clone(),
            cluster: config.cluster.clone(),
            config,
            transport,
            clock,
            master_key,
            cluster_key: None,
            health: Mutex::new(health),
            departures: watch::Sender::default(),
        }
    }

    /// A node of the cluster whose gateways read under this key. It counts as away as long as it has the data of another cluster.
    #[must_use]
    pub fn of_cluster(self, cluster_key: ClusterKey) -> Self {
        Self { cluster_key: Some(cluster_key), ..self }
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self) -> crate::base::config::NodeConfig {
        self.config.clone()
    }

    /// Where time comes from.
    #[must_use]
    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// Sends a request and reads the whole answer, whatever its status.
    ///
    /// # Errors
    /// The node did not answer, or its answer was cut short.
    pub async fn send(&self, request: &Request) -> Result<NodeAnswer> {
        self.send_within(request, TIMEOUT).await
    }

    /// Like [`Self::send`], with the caller's timeout.
    ///
    /// # Errors
    /// The node did not answer completely in time, or went away meanwhile.
    pub async fn send_within(&self, request: &Request, timeout: Duration) -> Result<NodeAnswer> {
        let method = Method::from_bytes(request.method.as_bytes())
            .map_err(|error| Error::Other(format!("`{}`: {error}", request.method)))?;
        let call = Call {
            method,
            url: self.url_of(&request.path)?,
            authorization: match &request.authority {
                Authority::Master => Some(format!("Bearer {}", self.master_key)),
                Authority::Header(authorization) => Some(authorization.clone()),
                Authority::Nobody => None,
            },
            content_type: request.content_type.clone(),
            content_encoding: request.content_encoding.clone(),
            body: request.body.clone(),
            timeout,
        };
        let mut departures = self.departures.subscribe();
        let answered = match select(self.transport.send(call), pin!(departures.changed())).await {
            Either::Left((answered, _)) => answered,
            Either::Right(_) => Err(NoAnswer { is_unsent: false, source: "the node has gone away".into() }),
        };
        answered.map_err(|NoAnswer { is_unsent, source }| Error::Unreachable {
            node: self.name.clone(),
            is_unsent,
            source,
        })
    }

    /// The URL of a path on this node.
    ///
    /// # Errors
    /// The HTTP client would request another path, because URL parsing resolves segments such as `..`.
    fn url_of(&self, path: &ApiPath) -> Result<url::Url> {
        let text = format!("{}{path}", self.url.as_str().trim_end_matches('/'));
        match url::Url::parse(&text) {
            Ok(url) if url.as_str() == text => Ok(url),
            _ => Err(Error::Other(format!("`{path}` cannot be requested from a node"))),
        }
    }

    /// Sends a request with the master key and returns the answer's JSON; any status but 2xx is an error.
    ///
    /// # Errors
    /// No answer, another status than 2xx, or something that is no JSON.
    pub async fn ask(&self, method: &str, path: impl Into<ApiPath>, body: Option<&Value>) -> Result<Value> {
        self.ask_within(method, path, body, TIMEOUT).await
    }

    /// Like [`Self::ask`], with the caller's timeout.
    ///
    /// # Errors
    /// As [`Self::ask`]; or the node did not answer in time.
    pub async fn ask_within(
        &self,
        method: &str,
        path: impl Into<ApiPath>,
        body: Option<&Value>,
        timeout: Duration,
    ) -> Result<Value> {
        let request = Request::own(method, path, body);
        let answer = self.send_within(&request, timeout).await?;
        if answer.is_success() {
            return self.read(&request, &answer);
        }
        Err(self.unexpected(&request, &answer))
    }

    /// The error for an answer whose status is not 2xx.
    #[must_use]
    pub fn unexpected(&self, request: &Request, answer: &NodeAnswer) -> Error {
        Error::Unexpected {
            node: self.name.clone(),
            status: answer.status,
            request: format!("{} {}", request.method, request.path),
            body: String::from_utf8_lossy(&answer.body).chars().take(500).collect(),
        }
    }

    /// The result of the last health check.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether it answers, as far as health checks say.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).up
    }

    /// Whether it is up, and has not missed its last check.
    #[must_use]
    pub fn answers(&self) -> bool {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        health.up && health.error.is_none()
    }

    /// How long it has been unreachable; `None` if it is up.
    #[must_use]
    pub fn away(&self) -> Option<Duration> {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        (!health.up).then(|| self.clock.since(health.since))
    }

    /// Checks the node's health. Returns `true` if it was away before, or was never checked, and is up now.
    pub async fn check(&self) -> bool {
        let probed = self.probe().await;
        self.learn(probed)
    }

    /// Asks the node for its health, and changes nothing: [`Self::learn`] takes the result.
    pub async fn probe(&self) -> Probed {
        let begun = self.clock.monotonic();
        let request = Request { authority: Authority::Nobody, ..Request::own("GET", "/health", None) };
        let mut check = match self.send_within(&request, CHECK).await {
            Ok(answer) if answer.status == 200 => Check::Answered,
            Ok(answer) => Check::Missed(format!("/health answered {}", answer.status)),
            Err(error) if health::is_refused(&error) => Check::Refused(error.chain().to_string()),
            Err(error) => Check::Missed(error.chain().to_string()),
        };
        let before = self.health();
        let is_new = matches!(check, Check::Answered) && !before.is_verified();
        let mut is_foreign = None;
        if is_new {
            is_foreign = self.belongs_to_another().await.map(Some).unwrap_or_else(|error| {
                tracing::debug!(node = self.name.as_str(), error = %error.chain(), "a node does not tell whose it is");
                None
            });
            if is_foreign == Some(true) {
                check = Check::Foreign;
            }
        }
        let known = before.version.is_some() && before.up;
        let version = if matches!(check, Check::Answered) && !known {
            // Without it the next check asks again.
            self.version().await.map(Some).unwrap_or_else(|error| {
                tracing::debug!(node = self.name.as_str(), error = %error.chain(), "a node does not tell its version");
                None
            })
        } else {
            None
        };
        Probed { check, begun, version, is_foreign }
    }

    /// Learns the result of [`Self::probe`]. Returns `true` if the node was away before, or was never checked, and is up now.
    pub fn learn(&self, probed: Probed) -> bool {
        let Probed { check, begun, version, is_foreign } = probed;
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        if version.is_some() {
            health.version = version;
        }
        let was_up = health.up;
        let came = health.learn(check, begun, self.clock.monotonic());
        if was_up && !health.up {
            self.departures.send_modify(|count| *count += 1);
        }
        if is_foreign == Some(false) {
            health.verified();
        }
        came
    }
}
