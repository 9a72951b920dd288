//! HTTP compatibility: cross-origin requests, methods and slashes as in Meilisearch's server.

use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, ALLOW, ORIGIN,
    VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode};

const METHODS: &str = "DELETE, CONNECT, GET, PATCH, OPTIONS, PUT, HEAD, POST, TRACE";
const DEPENDS_ON: HeaderValue =
    HeaderValue::from_static("Origin, Access-Control-Request-Method, Access-Control-Request-Headers");

/// A middleware that runs before a route is chosen.
pub async fn manners(mut request: Request, next: Next) -> Response {
    if *request.method() == Method::OPTIONS
        && let Some(method) = request.headers().get(ACCESS_CONTROL_REQUEST_METHOD)
    {
        return preflight(method, request.headers());
    }
    if let Some(uri) = normalized(request.uri()) {
        *request.uri_mut() = uri;
    }
    let has_origin = request.headers().contains_key(ORIGIN);
    // Routes for `GET` must not match `HEAD`.
    if *request.method() == Method::HEAD {
        *request.method_mut() = Method::TRACE;
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    if let Some(allowed) = headers.get(ALLOW).and_then(|allowed| allowed.to_str().ok()) {
        let methods: Vec<&str> =
            allowed.split(',').map(str::trim).filter(|method| *method != "HEAD").collect();
        if let Ok(methods) = methods.join(", ").parse() {
            headers.insert(ALLOW, methods);
        }
    }
    headers.insert(VARY, DEPENDS_ON);
    if has_origin {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    }
    response
}

/// Answers a CORS preflight: pages of any origin may send requests.
fn preflight(method: &HeaderValue, asked: &HeaderMap) -> Response {
    let method = method.to_str().unwrap_or_default();
    if !METHODS.split(", ").any(|known| known == method) {
        return (StatusCode::BAD_REQUEST, "Requested method is not allowed").into_response();
    }
    let mut response = StatusCode::OK.into_response();
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(METHODS));
    if let Some(names) = asked.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, names.clone());
    }
    headers.insert(VARY, DEPENDS_ON);
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    response
}

/// Normalizes a path: merges repeated slashes, removes slashes at the end, and decodes unnecessary escapes. Returns `None` if
/// the path is normalized already.
///
/// Source: `NormalizePath` of `actix-web` 4, and the `Quoter` of `actix-router` 0.5.
fn normalized(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    if !path.contains("//") && !path.contains('%') && (path == "/" || !path.ends_with('/')) {
        return None;
    }
    let mut text: String = path
        .split('/')
        .filter(|part| !part.is_empty())
        .flat_map(|part| ["/".to_string(), unescaped(part)])
        .collect();
    if text.is_empty() {
        text.push('/');
    }
    if let Some(query) = uri.query() {
        text.push('?');
        text.push_str(query);
    }
    text.parse().ok()
}

/// A segment of a path with as few escapes as possible.
fn unescaped(segment: &str) -> String {
    let text = percent_decode_str(segment).decode_utf8_lossy();
    percent_encode(text.as_bytes(), ESCAPED).to_string()
}

/// The characters that stay escaped in a segment: all except letters, digits and these.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slashes_too_many_are_taken_away() {
        let normal = |text: &str| normalized(&text.parse().unwrap()).map(|uri| uri.to_string());
        assert_eq!(normal("//indexes///a/?q=//").as_deref(), Some("/indexes/a?q=//"));
        assert_eq!(normal("//").as_deref(), Some("/"));
        assert_eq!(normal("/indexes/a"), None);
        assert_eq!(normal("/%69ndexes/a%2fb/%2569").as_deref(), Some("/indexes/a%2Fb/%2569"));
        assert_eq!(normal("/"), None);
    }
}
