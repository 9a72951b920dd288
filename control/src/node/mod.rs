//! A Meilisearch node: the one HTTP client, and what is known of the node's health.

pub mod answers;

use crate::base::error::{Error, Result};
use axum::body::Bytes;
use miroir_core::{error::ErrorBody, path::ApiPath};
use serde_json::Value;
use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long a node may take for a request of the control plane's own.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// One Meilisearch node.
#[derive(Debug)]
pub struct Node {
    /// Its name in the cluster.
    pub name: String,
    /// Where it listens.
    pub url: url::Url,
    /// The Envoy cluster that reaches it.
    pub cluster: String,
    config: crate::base::config::NodeConfig,
    http: reqwest::Client,
    master_key: String,
    health: Mutex<Health>,
}

/// What the health loop saw last.
#[derive(Clone, Debug)]
pub struct Health {
    /// It answers `/health` with 200.
    pub up: bool,
    /// Since when it does, or does not.
    pub since: Instant,
    /// Its version, once it told.
    pub version: Option<String>,
    /// What went wrong last.
    pub error: Option<String>,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct NodeAnswer {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Allow`: methods of a route that does not have the one asked for.
    pub allow: Option<String>,
    /// The body.
    pub body: Bytes,
}

impl NodeAnswer {
    /// The body as JSON; null where it is none.
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

/// In whose name a node is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Authority {
    /// The master key: for requests that no client has chosen the route of.
    #[default]
    Master,
    /// An `Authorization` header, as a client has sent it or of a key of the control plane's own.
    Header(String),
    /// Without any.
    Nobody,
}

/// A request, with everything that a client may have sent.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// Upper case.
    pub method: String,
    /// Path and query.
    pub path: ApiPath,
    /// Who asks.
    pub authority: Authority,
    /// `Content-Type`.
    pub content_type: Option<String>,
    /// `Content-Encoding`.
    pub content_encoding: Option<String>,
    /// The body.
    pub body: Bytes,
}

impl Request {
    /// A request of the control plane's own, under the master key.
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
    /// A node that has not been heard of yet.
    #[must_use]
    pub fn new(config: crate::base::config::NodeConfig, http: reqwest::Client, master_key: String) -> Self {
        let health = Health { up: false, since: Instant::now(), version: None, error: None };
        Self {
            name: config.name.clone(),
            url: config.url.clone(),
            cluster: config.cluster.clone(),
            config,
            http,
            master_key,
            health: Mutex::new(health),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn config(&self) -> crate::base::config::NodeConfig {
        self.config.clone()
    }

    /// Sends a request and reads the whole answer, whatever its status.
    ///
    /// # Errors
    /// No whole answer came.
    pub async fn send(&self, request: &Request) -> Result<NodeAnswer> {
        self.send_within(request, TIMEOUT).await
    }

    /// The same, with a bound of the caller's.
    ///
    /// # Errors
    /// No whole answer came in time.
    pub async fn send_within(&self, request: &Request, timeout: Duration) -> Result<NodeAnswer> {
        let unreachable = |source| Error::Unreachable { node: self.name.clone(), source };
        let method = reqwest::Method::from_bytes(request.method.as_bytes())
            .map_err(|error| Error::Other(format!("`{}`: {error}", request.method)))?;
        let url = self.url_of(&request.path)?;
        let mut builder = self.http.request(method, url).timeout(timeout).body(request.body.clone());
        match &request.authority {
            Authority::Master => builder = builder.bearer_auth(&self.master_key),
            Authority::Header(authorization) => builder = builder.header("authorization", authorization),
            Authority::Nobody => {}
        }
        if let Some(content_type) = &request.content_type {
            builder = builder.header("content-type", content_type);
        }
        if let Some(encoding) = &request.content_encoding {
            builder = builder.header("content-encoding", encoding);
        }
        let answer = builder.send().await.map_err(unreachable)?;
        let status = answer.status().as_u16();
        let header = |name: &str| {
            answer.headers().get(name).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned)
        };
        let (content_type, allow) = (header("content-type"), header("allow"));
        let body = answer.bytes().await.map_err(unreachable)?;
        Ok(NodeAnswer { status, content_type, allow, body })
    }

    /// The node's URL of a path.
    ///
    /// # Errors
    /// The HTTP client would ask for another path: its URLs have no segments such as `..`.
    fn url_of(&self, path: &ApiPath) -> Result<url::Url> {
        let text = format!("{}{path}", self.url.as_str().trim_end_matches('/'));
        match url::Url::parse(&text) {
            Ok(url) if url.as_str() == text => Ok(url),
            _ => Err(Error::Other(format!("`{path}` is no path that a node can be asked for"))),
        }
    }

    /// Asks under the master key for JSON, and takes nothing but success.
    ///
    /// # Errors
    /// No answer, another status than 2xx, or something that is no JSON.
    pub async fn ask(&self, method: &str, path: impl Into<ApiPath>, body: Option<&Value>) -> Result<Value> {
        let request = Request::own(method, path, body);
        let answer = self.send(&request).await?;
        if answer.is_success() {
            return self.read(&request, &answer);
        }
        Err(self.unexpected(&request, &answer))
    }

    /// The error that an answer is to whoever takes nothing but success.
    #[must_use]
    pub fn unexpected(&self, request: &Request, answer: &NodeAnswer) -> Error {
        Error::Unexpected {
            node: self.name.clone(),
            status: answer.status,
            request: format!("{} {}", request.method, request.path),
            body: String::from_utf8_lossy(&answer.body).chars().take(500).collect(),
        }
    }

    /// Waits until it has ended all tasks that it has now, whoever sent them.
    ///
    /// # Errors
    /// It did not answer.
    pub async fn has_ended_what_it_took(&self) -> Result<()> {
        let first = async |path: &'static str| -> Result<Option<u64>> {
            let tasks = self.ask("GET", path, None).await?;
            Ok(tasks.pointer("/results/0/uid").and_then(Value::as_u64))
        };
        let Some(last) = first("/tasks?limit=1").await? else { return Ok(()) };
        let mut pause = Duration::from_millis(20);
        let unfinished = "/tasks?statuses=enqueued,processing&reverse=true&limit=1";
        while first(unfinished).await?.is_some_and(|oldest| oldest <= last) {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(500));
        }
        Ok(())
    }

    /// What the health loop saw last.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It answered its last health check.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.health.lock().unwrap_or_else(PoisonError::into_inner).up
    }

    /// How long it has been away.
    #[must_use]
    pub fn away(&self) -> Option<Duration> {
        let health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        (!health.up).then(|| health.since.elapsed())
    }

    /// Asks for its health; `true` if it has come back, or come for the first time.
    pub async fn check(&self) -> bool {
        let request = Request { authority: Authority::Nobody, ..Request::own("GET", "/health", None) };
        let result = match self.send_within(&request, Duration::from_secs(2)).await {
            Ok(answer) if answer.status == 200 => Ok(()),
            Ok(answer) => Err(format!("/health answered {}", answer.status)),
            Err(error) => Err(error.to_string()),
        };
        let known = self.health().version.is_some() && self.is_up();
        let version = if result.is_ok() && !known {
            let version = self.ask("GET", "/version", None).await.ok();
            version.and_then(|version| version.get("pkgVersion")?.as_str().map(ToOwned::to_owned))
        } else {
            None
        };
        let mut health = self.health.lock().unwrap_or_else(PoisonError::into_inner);
        let came = result.is_ok() && !health.up;
        if health.up != result.is_ok() {
            health.up = result.is_ok();
            health.since = Instant::now();
        }
        if version.is_some() {
            health.version = version;
        }
        health.error = result.err();
        came
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::config::NodeConfig;

    #[test]
    fn a_node_is_asked_for_what_was_meant_or_for_nothing() {
        let node = |url: &str| {
            let config = NodeConfig {
                name: "a".into(),
                url: url.parse().unwrap(),
                cluster: "a".into(),
                weight: 1,
                zone: None,
            };
            Node::new(config, reqwest::Client::new(), String::new())
        };
        for base in ["http://h:7700", "http://h:7700/", "https://h/below/"] {
            let node = node(base);
            let url = |segments: &[&str]| {
                node.url_of(&ApiPath::new(segments.iter().copied()).with("q", "a/../b#?"))
            };
            let base = base.trim_end_matches('/');
            let evil = [r"..\..\beta", "a/b", "beta/stats#", "?x", "%2e%2e", "a b", "é", ";"];
            for text in evil {
                let url = url(&["indexes", text, "documents"]).unwrap();
                let path = url.as_str().strip_prefix(base).unwrap();
                assert_eq!(ApiPath::parse(path).unwrap().segments(), ["indexes", text, "documents"]);
            }
            for text in [".", ".."] {
                assert!(url(&["indexes", text, "documents"]).is_err(), "{base} {text}");
            }
        }
    }
}
