//! The crate's error, and how clients see it.

use axum::{
    Json,
    http::{HeaderValue, StatusCode},
    response::{IntoResponse, Response},
};
use miroir_core::{
    error::{ApiError, Code, ErrorBody},
    node_name::NodeName,
};
use rusqlite::ErrorCode;
use std::{error::Error as StdError, fmt};

/// An error of the control plane.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An API error that is sent to the client unchanged.
    #[error("{0}")]
    Api(#[from] ApiError),
    /// The ledger's database failed.
    ///
    /// What the database says may show SQL and values of rows, so only [`Self::chain`] shows it, which is for logs and operators.
    #[error("the ledger failed")]
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
    /// The ledger could not commit: nothing of the call was written.
    #[error("the ledger could not commit")]
    Uncommitted,
    /// The ledger could not commit, because its disk is full. The message is Meilisearch's.
    #[error("There is no more space left on the device. Consider increasing the size of the disk/partition.")]
    LedgerFull,
    /// The ledger's thread has ended: the process is shutting down.
    #[error("the ledger is closed")]
    LedgerClosed,
    /// A node did not answer, or its answer was cut short.
    #[error("node `{node}` did not answer")]
    Unreachable {
        /// The node's name.
        node: NodeName,
        /// There was no connection, so that the node has nothing of the request.
        is_unsent: bool,
        /// What its transport says.
        source: Cause,
    },
    /// A node gave an unexpected answer.
    #[error("node `{node}` answered {status} to {request}: {body}")]
    Unexpected {
        /// The node's name.
        node: NodeName,
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
        node: NodeName,
        /// Method and path.
        request: String,
        /// The start of the body.
        body: String,
    },
    /// No node of the cluster is reachable.
    #[error("no node of the cluster can answer now")]
    NoNode,
    /// An operation on the documents of whole indexes would not reach all of them.
    #[error(
        "{shards} shards have replicas only on nodes that are away or must catch up: their documents would miss this"
    )]
    OutOfReach {
        /// How many shards.
        shards: usize,
    },
    /// All errors of the configuration.
    #[error("invalid configuration:\n  {}", .0.join("\n  "))]
    Config(Vec<String>),
    /// An operator's request that is refused: every reason, and what to do.
    #[error("refused, and nothing has changed:\n  {}", .0.join("\n  "))]
    Refused(Vec<String>),
    /// Another control plane serves the cluster, or there is a newer ledger.
    #[error("this control plane must not serve the cluster: {0}")]
    Superseded(String),
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Its path.
        path: String,
        /// The I/O error.
        source: std::io::Error,
    },
    /// Work that others wait for has panicked.
    #[error("the work of `{name}` has panicked")]
    Panicked {
        /// What it is called in logs and metrics.
        name: &'static str,
    },
    /// JSON that the control plane wrote, or expects from a peer, cannot be read.
    #[error("unreadable JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// Any other error; the message is for an operator.
    #[error("{0}")]
    Other(String),
}

/// The cause of an error: that of a library, or of a transport that a test has put in place of one.
pub type Cause = Box<dyn StdError + Send + Sync>;

/// A result whose error is the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// Wraps an I/O error with the path of its file.
    pub fn file(path: impl AsRef<std::path::Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().display().to_string();
        move |source| Self::File { path, source }
    }

    /// The error with its causes, for logs and for operators. Clients are told [`Self::to_api`].
    #[must_use]
    pub fn chain(&self) -> Chain<'_> {
        chain(self)
    }

    /// Whether a node is its cause: the node did not answer, or not as expected. All others say nothing about the node.
    #[must_use]
    pub const fn is_of_node(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Unexpected { .. } | Self::UnreadableAnswer { .. })
    }

    /// The error as a client gets it.
    #[must_use]
    pub fn to_api(&self) -> ApiError {
        match self {
            Self::Api(error) => error.clone(),
            Self::NoNode | Self::OutOfReach { .. } | Self::Unreachable { .. } | Self::Superseded(_) => {
                ApiError::new(Code::UNAVAILABLE, self.to_string())
            }
            Self::Refused(_) => api_error(409, "invalid_request", "refused", self.to_string()),
            Self::LedgerFull => api_error(422, "system", "no_space_left_on_device", self.to_string()),
            Self::Ledger(error) if error.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                Self::LedgerFull.to_api()
            }
            // Their texts name rows, files and code: they are for the log.
            Self::Ledger(_)
            | Self::LedgerClosed
            | Self::Uncommitted
            | Self::UnusableLedger { .. }
            | Self::UnreadableRow { .. }
            | Self::File { .. }
            | Self::Json(_)
            | Self::Panicked { .. } => ApiError::new(Code::INTERNAL, "An internal error has occurred."),
            Self::Unexpected { .. } | Self::UnreadableAnswer { .. } | Self::Config(_) | Self::Other(_) => {
                ApiError::new(Code::INTERNAL, format!("An internal error has occurred. `{self}`."))
            }
        }
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        if !matches!(self, Self::Api(_) | Self::Refused(_)) {
            tracing::warn!(error = %self.chain(), "a request failed");
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

/// An error with its causes, each after a colon. A cause whose text is in an error before it already is not repeated.
#[derive(Clone, Copy, Debug)]
pub struct Chain<'a>(&'a (dyn StdError + 'static));

/// Shows an error of any library with its causes. `reqwest`, for one, says "connection refused" only in a cause.
#[must_use]
pub fn chain<'a>(error: &'a (dyn StdError + 'static)) -> Chain<'a> {
    Chain(error)
}

impl fmt::Display for Chain<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.0.to_string();
        let mut source = self.0.source();
        while let Some(error) = source {
            let cause = error.to_string();
            if !text.contains(&cause) {
                text = format!("{text}: {cause}");
            }
            source = error.source();
        }
        formatter.write_str(&text)
    }
}

/// An error in Meilisearch's format, with a code that `core` does not define.
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever the ledger or a file says, clients get Meilisearch's sentence and none of it.
    #[test]
    fn clients_hear_nothing_of_the_ledger() {
        let broken =
            || rusqlite::Connection::open_in_memory().unwrap().execute_batch("SELECT secret FROM rows");
        let json = || serde_json::from_str::<u8>("secret").unwrap_err();
        let secret = || "secret".to_owned();
        for error in [
            Error::Ledger(broken().unwrap_err()),
            Error::LedgerClosed,
            Error::Uncommitted,
            Error::UnusableLedger { path: secret(), problem: secret() },
            Error::UnreadableRow { table: "rows", row: secret(), column: "secret", problem: secret() },
            Error::File { path: secret(), source: std::io::Error::other("secret") },
            Error::Json(json()),
            Error::Panicked { name: "secret" },
        ] {
            let told = error.to_api();
            let code = told.body.code.as_str();
            assert_eq!(
                (told.status, code, told.body.message.as_str()),
                (500, "internal", "An internal error has occurred.")
            );
        }
        let other = Error::Other(format!("{}", Error::Ledger(broken().unwrap_err())));
        assert_eq!(other.to_api().body.message, "An internal error has occurred. `the ledger failed`.");
    }

    #[test]
    fn a_chain_names_each_cause_once() {
        let refused = || std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        let unreachable = Error::Unreachable { node: "a".into(), is_unsent: true, source: refused().into() };
        assert_eq!(unreachable.chain().to_string(), "node `a` did not answer: connection refused");
        assert_eq!(
            unreachable.to_api().body.message,
            "node `a` did not answer",
            "clients hear of no address"
        );
        let file = Error::File { path: "cds.json".to_owned(), source: refused() };
        assert_eq!(file.chain().to_string(), "cds.json: connection refused");
    }
}
