//! Deserializes bodies and query strings with Meilisearch's error messages, by Meilisearch's library `deserr`.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::ops::{ControlFlow, Deref};
use std::str::FromStr;

use deserr::errors::{JsonError, QueryParamError};
use deserr::take_cf_content;
use deserr::{
    DeserializeError, Deserr, ErrorKind, IntoValue, MergeWithError, Value, ValueKind, ValuePointerRef,
};

use crate::error::marker::BadRequest;
use crate::error::{ApiError, Code, MarkerCode};

/// Marks errors found in a JSON body.
#[derive(Debug)]
pub struct InJson;
/// Marks errors found in a query string.
#[derive(Debug)]
pub struct InQuery;

/// A deserialization error: its message, its code, and its default code as a type.
#[derive(Debug)]
pub struct Invalid<Place, C> {
    message: String,
    code: Code,
    marker: PhantomData<(Place, C)>,
}

/// An error in a JSON body.
pub type InvalidJson<C = BadRequest> = Invalid<InJson, C>;
/// An error in a query string.
pub type InvalidQuery<C = BadRequest> = Invalid<InQuery, C>;

impl<P, C> Invalid<P, C> {
    /// An error with exactly this message and code.
    pub fn new(message: String, code: Code) -> Self {
        Self { message, code, marker: PhantomData }
    }
}

impl<P, C> From<Invalid<P, C>> for ApiError {
    fn from(error: Invalid<P, C>) -> Self {
        Self::new(error.code, error.message)
    }
}

impl<C: MarkerCode> InvalidJson<C> {
    /// The error for `missing_field_error`, with the code of this type.
    pub fn missing(field: &str, location: ValuePointerRef<'_>) -> Self {
        take_cf_content(Self::error::<Infallible>(None, ErrorKind::MissingField { field }, location))
    }
}

impl<P, C1, C2> MergeWithError<Invalid<P, C2>> for Invalid<P, C1> {
    fn merge(_: Option<Self>, other: Invalid<P, C2>, _: ValuePointerRef<'_>) -> ControlFlow<Self, Self> {
        // Only the first error is reported.
        ControlFlow::Break(Self::new(other.message, other.code))
    }
}

impl<P, C> MergeWithError<Infallible> for Invalid<P, C> {
    fn merge(_: Option<Self>, other: Infallible, _: ValuePointerRef<'_>) -> ControlFlow<Self, Self> {
        match other {}
    }
}

impl<C: MarkerCode> DeserializeError for InvalidJson<C> {
    fn error<V: IntoValue>(
        _: Option<Self>,
        error: ErrorKind<'_, V>,
        at: ValuePointerRef<'_>,
    ) -> ControlFlow<Self, Self> {
        let message = take_cf_content(JsonError::error(None, error, at)).to_string();
        ControlFlow::Break(Self::new(message, C::CODE))
    }
}

impl<C: MarkerCode> DeserializeError for InvalidQuery<C> {
    fn error<V: IntoValue>(
        _: Option<Self>,
        error: ErrorKind<'_, V>,
        at: ValuePointerRef<'_>,
    ) -> ControlFlow<Self, Self> {
        let message = take_cf_content(QueryParamError::error(None, error, at)).to_string();
        ControlFlow::Break(Self::new(message, C::CODE))
    }
}

/// Reports a value's own error at the path of the value, with the code of the field.
#[macro_export]
macro_rules! told_in_place {
    ($($error:ty),* $(,)?) => { $(
        impl<P, C: $crate::error::MarkerCode> deserr::MergeWithError<$error> for $crate::validate::Invalid<P, C>
        where
            $crate::validate::Invalid<P, C>: deserr::DeserializeError,
        {
            fn merge(
                _: Option<Self>,
                other: $error,
                at: deserr::ValuePointerRef<'_>,
            ) -> std::ops::ControlFlow<Self, Self> {
                <Self as deserr::DeserializeError>::error::<std::convert::Infallible>(
                    None,
                    deserr::ErrorKind::Unexpected { msg: other.to_string() },
                    at,
                )
            }
        }
    )* };
}

told_in_place!(
    Unparsable,
    uuid::Error,
    crate::uid::BadIndexUid,
    crate::uid::BadIndexPattern,
    milli_core::CriterionError,
);

/// The message about a value that could not be parsed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Unparsable(pub String);

/// A value given as text in a query string.
#[derive(Debug, Clone, Copy, Default)]
pub struct Param<T>(pub T);

impl<T> Deref for Param<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

/// A type that can be parsed from a query string.
pub trait FromParam: Sized {
    /// Parses the text.
    fn from_param(text: &str) -> Result<Self, Unparsable>;
}

macro_rules! integer_params {
    ($($t:ty),*) => { $(
        impl FromParam for $t {
            fn from_param(text: &str) -> Result<Self, Unparsable> {
                text.parse().map_err(|_| Unparsable(format!("could not parse `{text}` as a positive integer")))
            }
        }
    )* };
}
integer_params!(usize, u32);

impl FromParam for bool {
    fn from_param(text: &str) -> Result<Self, Unparsable> {
        text.parse().map_err(|_| {
            Unparsable(format!("could not parse `{text}` as a boolean, expected either `true` or `false`"))
        })
    }
}

impl FromParam for String {
    fn from_param(text: &str) -> Result<Self, Unparsable> {
        Ok(text.to_string())
    }
}

impl FromParam for f32 {
    fn from_param(text: &str) -> Result<Self, Unparsable> {
        text.parse().map_err(|error: std::num::ParseFloatError| Unparsable(error.to_string()))
    }
}

impl FromParam for crate::uid::IndexUid {
    fn from_param(text: &str) -> Result<Self, Unparsable> {
        Self::from_str(text).map_err(|error| Unparsable(error.to_string()))
    }
}

fn text_of<V: IntoValue, E: DeserializeError>(value: Value<V>, at: ValuePointerRef<'_>) -> Result<String, E> {
    match value {
        Value::String(text) => Ok(text),
        actual => {
            let kind = ErrorKind::IncorrectValueKind { actual, accepted: &[ValueKind::String] };
            Err(take_cf_content(E::error(None, kind, at)))
        }
    }
}

impl<T: FromParam, E: DeserializeError + MergeWithError<Unparsable>> Deserr<E> for Param<T> {
    fn deserialize_from_value<V: IntoValue>(value: Value<V>, at: ValuePointerRef<'_>) -> Result<Self, E> {
        let text = text_of::<V, E>(value, at)?;
        T::from_param(&text).map(Param).map_err(|error| take_cf_content(E::merge(None, error, at)))
    }
}

/// A comma-separated list.
#[derive(Debug, Clone)]
pub struct List<T>(pub Vec<T>);

impl<T: FromParam, E: DeserializeError + MergeWithError<Unparsable>> Deserr<E> for List<T> {
    fn deserialize_from_value<V: IntoValue>(value: Value<V>, at: ValuePointerRef<'_>) -> Result<Self, E> {
        let text = text_of::<V, E>(value, at)?;
        if text.is_empty() {
            return Ok(List(Vec::new()));
        }
        let items: Result<Vec<T>, _> = text.split(',').map(T::from_param).collect();
        items.map(List).map_err(|error| take_cf_content(E::merge(None, error, at)))
    }
}

/// A comma-separated list, in which `*` means no restriction.
#[derive(Debug, Clone)]
pub struct StarList<T>(pub Option<Vec<T>>);

impl<T> Default for StarList<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: FromParam, E: DeserializeError + MergeWithError<Unparsable>> Deserr<E> for StarList<T> {
    fn deserialize_from_value<V: IntoValue>(value: Value<V>, at: ValuePointerRef<'_>) -> Result<Self, E> {
        let text = text_of::<V, E>(value, at)?;
        let mut items = Vec::new();
        let parts: Vec<&str> = text.split(',').filter(|part| !part.is_empty()).collect();
        for (position, part) in parts.iter().enumerate() {
            if *part == "*" {
                return Ok(Self(None));
            }
            let at = if parts.len() > 1 { at.push_index(position) } else { at };
            items.push(T::from_param(part).map_err(|error| take_cf_content(E::merge(None, error, at)))?);
        }
        Ok(Self(Some(items)))
    }
}

/// The error for an unknown field.
pub fn unknown_field(field: &str, accepted: &[&str], at: ValuePointerRef<'_>) -> InvalidJson {
    take_cf_content(InvalidJson::error::<Infallible>(
        None,
        ErrorKind::UnknownKey { key: field, accepted },
        at,
    ))
}

/// The message about a field that cannot be changed.
pub fn immutable_field(field: &str, accepted: &[&str]) -> String {
    let accepted: Vec<_> = accepted.iter().map(|name| format!("`{name}`")).collect();
    format!("Immutable field `{field}`: expected one of {}", accepted.join(", "))
}

/// Reads a JSON body.
pub fn json<T: Deserr<InvalidJson>>(body: &[u8]) -> Result<T, ApiError> {
    let value: serde_json::Value = serde_json::from_slice(body).map_err(|error| malformed(&error))?;
    deserr::deserialize::<T, _, InvalidJson>(value).map_err(ApiError::from)
}

/// The error for a body that is not valid JSON.
pub fn malformed(error: &serde_json::Error) -> ApiError {
    if error.is_eof() && error.line() == 1 && error.column() == 0 {
        return ApiError::new(Code::MissingPayload, "A json payload is missing.");
    }
    ApiError::new(Code::MalformedPayload, format!("The json payload provided is malformed. `{error}`."))
}

/// Reads a query string.
pub fn query<T: Deserr<InvalidQuery>>(query: &str) -> Result<T, ApiError> {
    let pairs: serde_json::Map<_, _> = form_urlencoded::parse(query.as_bytes())
        .map(|(key, value)| (key.into_owned(), serde_json::Value::String(value.into_owned())))
        .collect();
    deserr::deserialize::<T, _, InvalidQuery>(serde_json::Value::Object(pairs)).map_err(ApiError::from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::marker::InvalidSearchLimit;

    #[derive(Debug, Deserr)]
    #[deserr(error = InvalidJson, rename_all = camelCase, deny_unknown_fields)]
    struct Body {
        #[deserr(default, error = InvalidJson<InvalidSearchLimit>)]
        limit: usize,
    }

    #[test]
    fn errors_are_told_as_meilisearch_tells_them() {
        let error = json::<Body>(br#"{"limit":"x"}"#).unwrap_err();
        assert_eq!(
            error.message,
            "Invalid value type at `.limit`: expected a positive integer, but found a string: `\"x\"`"
        );
        assert_eq!(error.code, "invalid_search_limit");
        let error = json::<Body>(br#"{"limits":1}"#).unwrap_err();
        assert_eq!(error.message, "Unknown field `limits`: did you mean `limit`? expected one of `limit`");
        assert_eq!(error.code, "bad_request");
        assert_eq!(json::<Body>(b"").unwrap_err().code, "missing_payload");
        assert_eq!(json::<Body>(b"{").unwrap_err().code, "malformed_payload");
        assert_eq!(json::<Body>(br#"{"limit":3}"#).unwrap().limit, 3);
    }
}
