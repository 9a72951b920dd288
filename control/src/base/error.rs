//! The crate's error, and how clients see it.

use axum::{
    Json,
    http::{HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use miroir_core::error::{ApiError, Code, ErrorBody};

/// Whatever can go wrong in the control plane.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// To be answered as it is.
    #[error("{0}")]
    Api(#[from] ApiError),
    /// The ledger's database failed.
    #[error("the ledger failed: {0}")]
    Ledger(#[from] rusqlite::Error),
    /// The ledger's file is there, and this build cannot use it. Nothing in it has changed.
    #[error("{path}: {problem}")]
    UnusableLedger {
        /// The file.
        path: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A value in the ledger is not what this build writes there.
    #[error("the ledger cannot be read: `{column}` of row `{row}` in table `{table}`: {problem}")]
    UnreadableRow {
        /// The table.
        table: &'static str,
        /// The row's key.
        row: String,
        /// The column.
        column: &'static str,
        /// Why it cannot be read.
        problem: String,
    },
    /// The ledger's thread is gone: the process is going down.
    #[error("the ledger is closed")]
    LedgerClosed,
    /// A node gave no whole answer.
    #[error("node `{node}` did not answer")]
    Unreachable {
        /// The node's name.
        node: String,
        /// What the HTTP client says.
        source: reqwest::Error,
    },
    /// A node answered what it should not.
    #[error("node `{node}` answered {status} to {request}: {body}")]
    Unexpected {
        /// The node's name.
        node: String,
        /// HTTP status.
        status: u16,
        /// Method and path.
        request: String,
        /// The start of the body.
        body: String,
    },
    /// A node's answer cannot be read.
    #[error("node `{node}` answered {request} with something else than Meilisearch: {body}")]
    UnreadableAnswer {
        /// The node's name.
        node: String,
        /// Method and path.
        request: String,
        /// The start of the body.
        body: String,
    },
    /// No node can be asked now.
    #[error("no node of the cluster can answer now")]
    NoNode,
    /// All that is wrong with the configuration.
    #[error("invalid configuration:\n  {}", .0.join("\n  "))]
    Config(Vec<String>),
    /// An operator's wish that cannot be met: all that is wrong, and what to do.
    #[error("refused, and nothing has changed:\n  {}", .0.join("\n  "))]
    Refused(Vec<String>),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// JSON that should have been ours.
    #[error("unreadable JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Anything that a person must read.
    #[error("{0}")]
    Other(String),
}

/// A result with the crate's error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Turns an I/O error into one that names its file.
    pub fn file(path: impl AsRef<std::path::Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().display().to_string();
        move |source| Self::File { path, source }
    }

    /// What a client is told.
    #[must_use]
    pub fn to_api(&self) -> ApiError {
        match self {
            Self::Api(error) => error.clone(),
            Self::NoNode | Self::Unreachable { .. } => ApiError::new(Code::UNAVAILABLE, self.to_string()),
            Self::Refused(_) => api_error(409, "invalid_request", "refused", self.to_string()),
            _ => ApiError::new(Code::INTERNAL, format!("An internal error has occurred. `{self}`.")),
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        if !matches!(self, Self::Api(_) | Self::Refused(_)) {
            tracing::warn!(error = %self, "a request failed");
        }
        let error = self.to_api();
        let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(error.body)).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert("retry-after", HeaderValue::from_static("10"));
        }
        response
    }
}

/// A Meilisearch error that core has no code for.
#[must_use]
pub fn api_error(status: u16, kind: &str, code: &str, message: impl Into<String>) -> ApiError {
    ApiError {
        status,
        body: ErrorBody {
            message: message.into(),
            code: code.to_owned(),
            kind: kind.to_owned(),
            link: format!("https://docs.meilisearch.com/errors#{code}"),
        },
    }
}

/// `index_not_found`, as Meilisearch words it.
#[must_use]
pub fn index_not_found(index: &str) -> ApiError {
    ApiError::new(Code::INDEX_NOT_FOUND, format!("Index `{index}` not found."))
}
