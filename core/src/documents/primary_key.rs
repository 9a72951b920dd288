//! Primary keys: which field holds a document's id, and whether the id is valid.
//!
//! Source: Meilisearch 1.50, `milli/src/documents/primary_key.rs` and `milli/src/update/new/indexer/guess_primary_key.rs`.

use crate::{
    error::{ApiError, Code, ErrorBody},
    json::Text,
};
use serde_json::{Map, Value, value::RawValue};
use std::{borrow::Cow, collections::BTreeMap};

/// The longest id, in bytes.
const MAX_ID_LENGTH: usize = 511;

/// The name of an index's primary key, which may point into nested objects: `user.id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrimaryKey(String);

type Fields<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

impl PrimaryKey {
    /// The key with this name.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The name, as in the index's settings.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0
    }

    /// Whether the key may point into an object.
    #[must_use]
    pub fn is_nested(&self) -> bool {
        self.0.contains('.')
    }

    /// The id of a document, as text.
    ///
    /// # Errors
    /// Meilisearch's `missing_document_id` and `invalid_document_id`, with which the payload's task would fail.
    pub fn document_id(&self, document: &[u8]) -> Result<String, ApiError> {
        let fields: Fields<'_> = serde_json::from_slice(document).map_err(|error| {
            ApiError::new(
                Code::INTERNAL,
                format!("a document that was parsed before cannot be parsed again: {error}"),
            )
        })?;
        let mut found: Option<Cow<'_, str>> = None;
        for (field, rest) in self.levels() {
            let Some(value) = fields.get(field) else { continue };
            let id = if rest.is_empty() {
                Some(id_text(value).map_err(|()| invalid_id(value))?)
            } else {
                nested_id(value, rest)?
            };
            if id.is_some() && found.is_some() {
                return Err(self.task_error(Code::INVALID_DOCUMENT_ID, document, |key, document| {
                    format!("Document have too many matching `{key}` attribute: `{document}`.")
                }));
            }
            found = found.or(id);
        }
        found.map(Cow::into_owned).ok_or_else(|| {
            self.task_error(Code::MISSING_DOCUMENT_ID, document, |key, document| {
                format!("Document doesn't have a `{key}` attribute: `{document}`.")
            })
        })
    }

    /// The possible readings of the name: `a.b.c` is the path `b.c` in the field `a`, the path `c` in the field `a.b`, or the
    /// field `a.b.c`.
    fn levels(&self) -> impl Iterator<Item = (&str, &str)> {
        let name = self.0.as_str();
        name.match_indices('.')
            .filter_map(move |(at, _)| Some((name.get(..at)?, name.get(at + 1..)?)))
            .filter(|(field, _)| !field.is_empty())
            .chain(std::iter::once((name, "")))
    }

    fn task_error(&self, code: Code, document: &[u8], message: impl Fn(&str, &str) -> String) -> ApiError {
        let document = serde_json::from_slice::<Map<String, Value>>(document)
            .and_then(|document| serde_json::to_string(&document))
            .unwrap_or_default();
        ApiError::new(code, message(&self.0, &document))
    }
}

fn nested_id<'a>(value: &'a RawValue, path: &str) -> Result<Option<Cow<'a, str>>, ApiError> {
    let Ok(fields) = serde_json::from_str::<Fields<'a>>(value.get()) else { return Ok(None) };
    for (field, value) in &fields {
        let id = if field == path {
            Some(id_text(value).map_err(|()| invalid_id(value))?)
        } else {
            match path.strip_prefix(field.as_ref()).and_then(|rest| rest.strip_prefix('.')) {
                Some(rest) => nested_id(value, rest)?,
                None => None,
            }
        };
        if id.is_some() {
            return Ok(id);
        }
    }
    Ok(None)
}

/// An id as text: an integer, or a string of `a-zA-Z0-9-_` of 1 to 511 bytes.
pub(super) fn id_text(value: &RawValue) -> Result<Cow<'_, str>, ()> {
    if let Ok(Text(text)) = serde_json::from_str::<Text<'_>>(value.get()) {
        let valid = !text.is_empty()
            && text.len() <= MAX_ID_LENGTH
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        return if valid { Ok(text) } else { Err(()) };
    }
    match serde_json::from_str::<serde_json::Number>(value.get()) {
        Ok(number) if !number.is_f64() => Ok(Cow::Owned(number.to_string())),
        _ => Err(()),
    }
}

fn invalid_id(value: &RawValue) -> ApiError {
    let shown = serde_json::from_str::<Value>(value.get()).unwrap_or_default();
    ApiError::new(
        Code::INVALID_DOCUMENT_ID,
        format!(
            "Document identifier `{shown}` is invalid. A document identifier can be of type integer or string, only composed of alphanumeric characters (a-z A-Z 0-9), hyphens (-) and underscores (_), and can not be more than 511 bytes."
        ),
    )
}

/// Infers the primary key of an index that has none, as Meilisearch does: it is the only field of the first document whose name
/// ends in `id`.
///
/// # Errors
/// Meilisearch's two errors for a failed inference, with which the task would fail.
pub fn infer_primary_key(first: Option<&[u8]>) -> Result<PrimaryKey, ErrorBody> {
    let fields: Map<String, Value> = match first.map(serde_json::from_slice) {
        Some(Ok(fields)) => fields,
        // There is none, or none that a node would infer a key from: the whole payload has been read before.
        Some(Err(_)) | None => Map::new(),
    };
    let mut candidates: Vec<&String> =
        fields.keys().filter(|name| name.to_lowercase().ends_with("id")).collect();
    candidates.sort_unstable();
    match candidates.as_slice() {
        [] => Err(ApiError::new(
            Code::INDEX_PRIMARY_KEY_NO_CANDIDATE_FOUND,
            "The primary key inference failed as the engine did not find any field ending with `id` in its name. Please specify the primary key manually using the `primaryKey` query parameter.",
        )
        .body),
        [name] => Ok(PrimaryKey::new(name.as_str())),
        [first, second, ..] => Err(ApiError::new(
            Code::INDEX_PRIMARY_KEY_MULTIPLE_CANDIDATES_FOUND,
            format!(
                "The primary key inference failed as the engine found {} fields ending with `id` in their names: '{first}' and '{second}'. Please specify the primary key manually using the `primaryKey` query parameter.",
                candidates.len()
            ),
        )
        .body),
    }
}
