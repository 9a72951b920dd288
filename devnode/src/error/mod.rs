//! The error type of this crate, which is also the body of every error response.
//!
//! Codes, HTTP statuses, types and links are those of Meilisearch, because clients depend on them.

mod code;

pub use code::{Code, MarkerCode, marker};

use std::fmt;

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use milli_core::{Error as MilliError, InternalError, UserError};
use serde::{Deserialize, Serialize};

/// An error as a client sees it, alone or inside a failed task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// The HTTP status of the answer; not part of the body.
    #[serde(skip, default = "internal_status")]
    pub status: u16,
    /// The sentence for humans.
    pub message: String,
    /// The code for programs.
    pub code: String,
    /// `invalid_request`, `auth`, `internal` or `system`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where the code is documented.
    pub link: String,
}

fn internal_status() -> u16 {
    500
}

impl ApiError {
    /// An error with this code and message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let (_, status, kind) = code.parts();
        let name = code.name();
        Self {
            status,
            message: message.into(),
            link: format!("https://docs.meilisearch.com/errors#{name}"),
            code: name,
            kind: kind.to_string(),
        }
    }

    /// An internal error of this node.
    pub fn internal(error: impl fmt::Display) -> Self {
        Self::new(Code::Internal, error.to_string())
    }

    /// `Index x not found.`
    pub fn index_not_found(uid: &str) -> Self {
        Self::new(Code::IndexNotFound, format!("Index `{uid}` not found."))
    }

    /// The same error with `Index x: ` before its message, as failed tasks and searches have it.
    pub fn in_index(mut self, uid: &str) -> Self {
        self.message = format!("Index `{uid}`: {}", self.message);
        self
    }

    /// The same message under another code.
    pub fn recoded(self, code: Code) -> Self {
        Self::new(code, self.message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        (status, Json(self)).into_response()
    }
}

/// The code for an error of the engine.
pub fn engine_code(error: &MilliError) -> Code {
    use UserError as U;
    match error {
        MilliError::InternalError(InternalError::Store(_)) => Code::DatabaseSizeLimitReached,
        MilliError::InternalError(_) | MilliError::IoError(_) => Code::Internal,
        MilliError::UserError(user) => match user {
            U::InvalidStoreFile => Code::InvalidStoreFile,
            U::NoSpaceLeftOnDevice => Code::NoSpaceLeftOnDevice,
            U::MaxDatabaseSizeReached => Code::DatabaseSizeLimitReached,
            U::AttributeLimitReached => Code::MaxFieldsLimitExceeded,
            U::InvalidFilter(_) | U::InvalidFilterExpression(..) | U::FilterOperatorNotAllowed { .. } => {
                Code::InvalidSearchFilter
            }
            U::MissingDocumentId { .. } => Code::MissingDocumentId,
            U::InvalidDocumentId { .. } | U::TooManyDocumentIds { .. } => Code::InvalidDocumentId,
            U::MissingDocumentField(_) => Code::InvalidDocumentFields,
            U::NoPrimaryKeyCandidateFound => Code::IndexPrimaryKeyNoCandidateFound,
            U::MultiplePrimaryKeyCandidatesFound { .. } => Code::IndexPrimaryKeyMultipleCandidatesFound,
            U::PrimaryKeyCannotBeChanged(_) => Code::IndexPrimaryKeyAlreadyExists,
            U::InvalidDistinctAttribute { .. } => Code::InvalidSearchDistinct,
            U::SortRankingRuleMissing | U::InvalidSortableAttribute { .. } | U::SortError(_) => {
                Code::InvalidSearchSort
            }
            U::InvalidFacetsDistribution { .. } => Code::InvalidSearchFacets,
            U::InvalidSearchableAttribute { .. } => Code::InvalidSearchAttributesToSearchOn,
            U::InvalidFacetSearchFacetName { .. } => Code::InvalidFacetSearchFacetName,
            U::CriterionError(_) => Code::InvalidSettingsRankingRules,
            U::InvalidGeoField(_) => Code::InvalidDocumentGeoField,
            U::InvalidVectorDimensions { .. } | U::InvalidIndexingVectorDimensions { .. } => {
                Code::InvalidVectorDimensions
            }
            U::InvalidVectorsMapType { .. } | U::InvalidVectorsEmbedderConf { .. } => {
                Code::InvalidVectorsType
            }
            U::TooManyVectors(..) => Code::TooManyVectors,
            U::InvalidMinTypoWordLenSetting(..) => Code::InvalidSettingsTypoTolerance,
            U::InvalidSearchEmbedder(_) => Code::InvalidSearchEmbedder,
            U::InvalidSimilarEmbedder(_) => Code::InvalidSimilarEmbedder,
            U::VectorEmbeddingError(_) | U::DocumentEmbeddingError(_) => Code::VectorEmbeddingError,
            U::DocumentEditionCannotModifyPrimaryKey
            | U::DocumentEditionDocumentMustBeObject
            | U::DocumentEditionRuntimeError(_)
            | U::DocumentEditionCompilationError(_) => Code::EditDocumentsByFunctionError,
            U::SerdeJson(_)
            | U::EnvAlreadyOpened
            | U::DocumentLimitReached
            | U::UnknownInternalDocumentId { .. } => Code::Internal,
            // All remaining errors concern the configuration of embedders.
            _ => Code::InvalidSettingsEmbedders,
        },
    }
}

impl From<MilliError> for ApiError {
    fn from(error: MilliError) -> Self {
        Self::new(engine_code(&error), error.to_string())
    }
}

impl From<UserError> for ApiError {
    fn from(error: UserError) -> Self {
        MilliError::from(error).into()
    }
}

macro_rules! internal_from {
    ($($error:ty),* $(,)?) => { $(
        impl From<$error> for ApiError {
            fn from(error: $error) -> Self { Self::internal(error) }
        }
    )* };
}
internal_from!(
    milli_core::heed::Error,
    std::io::Error,
    serde_json::Error,
    redb::DatabaseError,
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    tokio::task::JoinError,
);

/// The result type of this crate.
pub type Result<T, E = ApiError> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_names_are_snake_case_and_linked() {
        let error = ApiError::new(Code::InvalidSearchQ, "no");
        assert_eq!(error.code, "invalid_search_q");
        assert_eq!(error.link, "https://docs.meilisearch.com/errors#invalid_search_q");
        assert_eq!((error.status, error.kind.as_str()), (400, "invalid_request"));
    }
}
