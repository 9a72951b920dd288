//! The `Content-Type` of requests, parsed as nodes parse it.
//!
//! Source: `actix-http` 3.12 (`HttpMessage::mime_type`) and `actix-web` 4.13 (`JsonBody::new`), with the crate `mime`.

use mime::Mime;

/// What a request's `Content-Type` says about its body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContentType {
    /// There is no `Content-Type`.
    Missing,
    /// The header is not a media type.
    Invalid,
    /// A media type.
    Mime(Mime),
}

impl ContentType {
    /// Parses the header.
    #[must_use]
    pub fn of(header: Option<&str>) -> Self {
        match header.map(str::parse) {
            None => Self::Missing,
            Some(Ok(mime)) => Self::Mime(mime),
            Some(Err(_)) => Self::Invalid,
        }
    }

    /// Whether nodes read the body as JSON on a route that takes nothing else: `application/json`, `text/json` and
    /// `application/vnd.api+json` all count, whatever their parameters.
    #[must_use]
    pub fn is_json(&self) -> bool {
        match self {
            Self::Mime(mime) => mime.subtype() == mime::JSON || mime.suffix() == Some(mime::JSON),
            Self::Missing | Self::Invalid => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn json_is_what_nodes_read_as_such() {
        for json in [
            "application/json",
            "Application/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=latin1",
            "application/json;",
            "text/json",
            "application/vnd.api+json",
            "application/json+zip",
            "x/y+json; a=b",
        ] {
            assert!(ContentType::of(Some(json)).is_json(), "{json}");
        }
        for other in [
            "text/plain",
            "json",
            "",
            "application/",
            "application/ json",
            "application/json ; charset=utf-8",
            "application/json, text/plain",
            "application/x-json",
            "*/*",
        ] {
            assert!(!ContentType::of(Some(other)).is_json(), "{other}");
        }
        assert_eq!(ContentType::of(None), ContentType::Missing);
    }
}
