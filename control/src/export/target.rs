//! The Meilisearch that an export goes to.

use crate::base::{
    error::chain,
    outbound::{self, Outbound},
    time::SharedClock,
};
use axum::body::Bytes;
use miroir_core::{
    error::{ApiError, Code, ErrorBody},
    path::ApiPath,
};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;

/// How long one request is retried; nodes do the same.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The most bytes that are read of an error response.
const MAX_REFUSAL_BYTES: usize = 1 << 20;

/// The Meilisearch instance that an export sends to.
#[derive(Debug)]
pub(super) struct Target {
    outbound: Outbound,
    clock: SharedClock,
    url: String,
    key: Option<String>,
    size: u64,
}

type Result<T> = std::result::Result<T, ErrorBody>;

impl Target {
    /// A target that gets documents in requests of at most `size` bytes.
    pub(super) fn new(
        outbound: Outbound,
        clock: SharedClock,
        url: &str,
        key: Option<&str>,
        size: u64,
    ) -> Self {
        Self { outbound, clock, url: url.trim_end_matches('/').to_owned(), key: key.map(str::to_owned), size }
    }

    /// Whether it has an index of this name.
    pub(super) async fn has(&self, index: &str) -> Result<bool> {
        match self.ask("GET", &ApiPath::of_index(index, &[]), None, Vec::new()).await? {
            Ok(_) => Ok(true),
            Err(refusal) if refusal.code == "index_not_found" => Ok(false),
            Err(refusal) => Err(failed(&refusal)),
        }
    }

    /// Creates the index; or sets the primary key of the existing index if its settings are to be overridden.
    pub(super) async fn prepare(
        &self,
        index: &str,
        key: Option<&str>,
        is_there: bool,
        is_overridden: bool,
    ) -> Result<()> {
        if !is_there {
            self.send("POST", &"/indexes".into(), Some(&json!({"uid": index, "primaryKey": key}))).await?;
        } else if is_overridden {
            self.send("PATCH", &ApiPath::of_index(index, &[]), Some(&json!({"primaryKey": key}))).await?;
        }
        Ok(())
    }

    /// Sends documents, in as many requests as they need.
    pub(super) async fn documents(
        &self,
        index: &str,
        documents: impl Iterator<Item = Vec<u8>>,
    ) -> Result<()> {
        let path = ApiPath::of_index(index, &["documents"]);
        let mut lines = Vec::new();
        for document in documents {
            let is_full = (lines.len() + document.len() + 1) as u64 > self.size;
            if is_full && !lines.is_empty() {
                self.lines(&path, std::mem::take(&mut lines)).await?;
            }
            lines.extend_from_slice(&document);
            lines.push(b'\n');
        }
        if lines.is_empty() { Ok(()) } else { self.lines(&path, lines).await }
    }

    async fn lines(&self, path: &ApiPath, lines: Vec<u8>) -> Result<()> {
        let answer = self.ask("POST", path, Some("application/x-ndjson"), lines).await?;
        answer.map(drop).map_err(|refusal| failed(&refusal))
    }

    /// Sends a request with a JSON body, or without a body.
    pub(super) async fn send(
        &self,
        method: &'static str,
        path: &ApiPath,
        body: Option<&Value>,
    ) -> Result<()> {
        let kind = body.map(|_| "application/json");
        let body = body.map(Value::to_string).unwrap_or_default().into_bytes();
        let answer = self.ask(method, path, kind, body).await?;
        answer.map(drop).map_err(|refusal| failed(&refusal))
    }

    /// Sends a request, and retries it while the failure is transient. Returns the response, or the target's error.
    async fn ask(
        &self,
        method: &'static str,
        path: &ApiPath,
        kind: Option<&str>,
        body: Vec<u8>,
    ) -> Result<std::result::Result<Response, ErrorBody>> {
        let (begun, mut pause) = (self.clock.monotonic(), Duration::from_millis(500));
        let body = Bytes::from(body);
        loop {
            let method = Method::from_bytes(method.as_bytes()).unwrap_or_default();
            let mut request = self.outbound.request(method, format!("{}{path}", self.url)).body(body.clone());
            if let Some(kind) = kind {
                request = request.header("content-type", kind);
            }
            if let Some(key) = &self.key {
                request = request.bearer_auth(key);
            }
            let answer = self.outbound.send(request).await;
            let is_final = match &answer {
                Ok(answer) => !is_transient(answer.status()),
                Err(error) => error.is_rejected(),
            };
            if is_final || self.clock.since(begun) + pause > PATIENCE {
                let answer = answer.map_err(unreachable)?;
                if answer.status().is_success() {
                    return Ok(Ok(answer));
                }
                return Ok(Err(refusal(answer).await?));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }
}

fn is_transient(status: StatusCode) -> bool {
    [408, 429, 500, 502, 503, 504].contains(&status.as_u16())
}

/// The error for a target that cannot be reached. If the outbound policy rejects the address, the text is the one that
/// Meilisearch gives for a rejected URL.
fn unreachable(error: outbound::Error) -> ErrorBody {
    tracing::warn!(error = %chain(&error), "the target of an export cannot be asked");
    if error.is_rejected() { super::internal("bad uri: Rejected URI") } else { super::internal(error) }
}

/// Reads the target's error, up to a limit: whoever gave the URL may control the target, and could send a body without end.
async fn refusal(mut answer: Response) -> Result<ErrorBody> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(super::internal)? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_REFUSAL_BYTES {
            return Err(super::internal(
                "the target's error response is longer than an error of Meilisearch",
            ));
        }
    }
    serde_json::from_slice(&body).map_err(super::internal)
}

/// The target's error, as Meilisearch words it.
fn failed(refusal: &ErrorBody) -> ErrorBody {
    let ErrorBody { message, code, kind, link } = refusal;
    let message = format!("Failed to export documents to remote server {code} ({kind}): {message} <{link}>");
    ApiError::new(Code::INTERNAL, message).body
}
