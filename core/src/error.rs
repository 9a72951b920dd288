//! Errors in Meilisearch's format: `message`, `code`, `type` and `link`.
//!
//! The cluster makes only those errors that it cannot get from a node; all others are a node's own answer, passed on. Source of
//! codes and messages: Meilisearch 1.50, `meilisearch-types/src/error.rs` and `meilisearch/src/error.rs`.

use crate::{http::Reply, json::to_bytes, shard::TAG_FIELD};
use serde::{Deserialize, Serialize};

/// A Meilisearch error code, with its HTTP status and type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Code {
    name: &'static str,
    kind: &'static str,
    status: u16,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $constant:ident = $name:literal, $kind:literal, $status:literal;)*) => {
        impl Code {
            $($(#[$doc])* pub const $constant: Self = Self { name: $name, kind: $kind, status: $status };)*
        }
    };
}

codes! {
    /// The payload cannot be parsed.
    MALFORMED_PAYLOAD = "malformed_payload", "invalid_request", 400;
    /// There is no payload.
    MISSING_PAYLOAD = "missing_payload", "invalid_request", 400;
    /// The payload is over the limit.
    PAYLOAD_TOO_LARGE = "payload_too_large", "invalid_request", 413;
    /// No `Content-Type`.
    MISSING_CONTENT_TYPE = "missing_content_type", "invalid_request", 415;
    /// A `Content-Type` that Meilisearch does not accept.
    INVALID_CONTENT_TYPE = "invalid_content_type", "invalid_request", 415;
    /// An id that is neither an integer nor a string of `a-zA-Z0-9-_`, 511 bytes at most.
    INVALID_DOCUMENT_ID = "invalid_document_id", "invalid_request", 400;
    /// A document without its primary key.
    MISSING_DOCUMENT_ID = "missing_document_id", "invalid_request", 400;
    /// More fields than an index may have.
    MAX_FIELDS_LIMIT_EXCEEDED = "max_fields_limit_exceeded", "invalid_request", 400;
    /// No field of the first document looks like a primary key.
    INDEX_PRIMARY_KEY_NO_CANDIDATE_FOUND = "index_primary_key_no_candidate_found", "invalid_request", 400;
    /// Several fields of the first document look like a primary key.
    INDEX_PRIMARY_KEY_MULTIPLE_CANDIDATES_FOUND = "index_primary_key_multiple_candidates_found", "invalid_request", 400;
    /// The index already has another primary key.
    INDEX_PRIMARY_KEY_ALREADY_EXISTS = "index_primary_key_already_exists", "invalid_request", 400;
    /// A `csvDelimiter` that is not one ASCII character.
    INVALID_DOCUMENT_CSV_DELIMITER = "invalid_document_csv_delimiter", "invalid_request", 400;
    /// No such index.
    INDEX_NOT_FOUND = "index_not_found", "invalid_request", 404;
    /// No such document.
    DOCUMENT_NOT_FOUND = "document_not_found", "invalid_request", 404;
    /// No such route or resource.
    NOT_FOUND = "not_found", "invalid_request", 404;
    /// A search filter that cannot be parsed.
    INVALID_SEARCH_FILTER = "invalid_search_filter", "invalid_request", 400;
    /// A request that cannot be parsed.
    BAD_REQUEST = "bad_request", "invalid_request", 400;
    /// A node's search queue is full, or a client has too many requests in progress.
    TOO_MANY_SEARCH_REQUESTS = "too_many_search_requests", "system", 503;
    /// An error inside the cluster.
    INTERNAL = "internal", "internal", 500;
    /// No node and no control plane can answer now; the client may retry.
    UNAVAILABLE = "remote_could_not_send_request", "system", 503;
}

impl Code {
    /// The code's name, such as `index_not_found`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.name
    }

    /// The HTTP status of this code.
    #[must_use]
    pub fn status(self) -> u16 {
        self.status
    }
}

/// The body of a Meilisearch error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong, for humans.
    pub message: String,
    /// What went wrong, for programs.
    pub code: String,
    /// `invalid_request`, `internal`, `auth` or `system`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Link to the documentation of the code.
    pub link: String,
}

/// An error for the client: a body and its HTTP status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", body.message)]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// The body that the client reads.
    pub body: ErrorBody,
}

impl ApiError {
    /// An error with this code.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            status: code.status,
            body: ErrorBody {
                message: message.into(),
                code: code.name.to_owned(),
                kind: code.kind.to_owned(),
                link: format!("https://docs.meilisearch.com/errors#{}", code.name),
            },
        }
    }

    /// The error of a document that has the field of the tag. The tag is reserved for the cluster: a client's own value would be lost.
    #[must_use]
    pub fn reserved_field() -> Self {
        let message =
            format!("The field `{TAG_FIELD}` is reserved by the cluster: rename it in your documents.");
        Self::new(Code::BAD_REQUEST, message)
    }

    /// The error as an HTTP answer. A 429 and a 503 ask for a retry, as Meilisearch's do.
    #[must_use]
    pub fn reply(&self) -> Reply {
        let reply = Reply::json(self.status, to_bytes(&self.body));
        if [429, 503].contains(&self.status) { reply.with_header("retry-after", "10") } else { reply }
    }
}
