//! Filters: parses them, and creates the errors for clients.

use milli_core::{Error, Filter, UserError};
use serde_json::Value;

use crate::error::{ApiError, Code, Result};
use crate::node::Features;

/// Parses a filter: a string, or arrays of strings. Returns `None` for an empty filter.
pub fn parse(filter: &Value, code: Code, features: Features) -> Result<Option<Filter<'_>>> {
    let parsed = match filter {
        Value::String(_) | Value::Array(_) => Filter::from_json(filter).map_err(|error| match error {
            Error::UserError(UserError::InvalidFilterExpression(expected, found)) => {
                bad_syntax(expected, &found, code)
            }
            error => ApiError::from(error).recoded(code),
        })?,
        other => return Err(bad_syntax(&["String", "Array"], other, code)),
    };
    if let Some(token) = parsed.as_ref().and_then(Filter::use_contains_operator) {
        let operator = token.value();
        Features::require(
            features.contains_filter,
            &format!("Using `{operator}` in a filter"),
            "contains filter",
            "https://github.com/orgs/meilisearch/discussions/763",
        )?;
    }
    Ok(parsed)
}

fn bad_syntax(expected: &[&str], found: &Value, code: Code) -> ApiError {
    let message = format!(
        "Invalid syntax for the filter parameter: `expected {}, found: {found}`.",
        expected.join(", ")
    );
    ApiError::new(code, message)
}

/// The error of a filter that could not be evaluated in an index, for writes.
pub fn error(error: Error, uid: &str) -> ApiError {
    let code = match &error {
        Error::UserError(UserError::InvalidFilter(_)) => Code::InvalidDocumentFilter,
        other => crate::error::engine_code(other),
    };
    ApiError::from(error).recoded(code).in_index(uid)
}
