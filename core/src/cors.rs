//! Answers cross-origin requests as nodes answer them, so that browsers can use a cluster.
//!
//! Source: `meilisearch/src/lib.rs` of Meilisearch 1.50 and `actix-cors` 0.7.

use crate::http::{Reply, RequestHead};

const METHODS: [&str; 9] = ["DELETE", "CONNECT", "GET", "PATCH", "OPTIONS", "PUT", "HEAD", "POST", "TRACE"];

/// The request headers that every answer depends on.
const VARY: (&str, &str) = ("vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers");
const ANY_ORIGIN: (&str, &str) = ("access-control-allow-origin", "*");

/// The answer to a preflight: it lists what a page of any origin may send. It names the requested headers because a wildcard
/// would not cover `Authorization`.
#[must_use]
pub fn preflight(head: &RequestHead) -> Option<Reply> {
    let method = head.header("access-control-request-method").filter(|_| head.method == "OPTIONS")?;
    // A request whose requested method is not a valid method name is not a preflight.
    let is_token = |letter: u8| letter.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&letter);
    if method.is_empty() || !method.bytes().all(is_token) {
        return None;
    }
    let mut reply = Reply { status: 200, headers: Vec::new(), body: Vec::new() };
    if !METHODS.contains(&method) {
        reply.status = 400;
        reply.body = b"Requested method is not allowed".to_vec();
        return Some(reply);
    }
    let asked = head.header("access-control-request-headers").filter(|names| !names.is_empty());
    let mut reply = reply.with_header("access-control-allow-methods", METHODS.join(", "));
    if let Some(names) = asked {
        reply = reply.with_header("access-control-allow-headers", names);
    }
    let reply = reply.with_header(VARY.0, VARY.1).with_header(ANY_ORIGIN.0, ANY_ORIGIN.1);
    Some(reply.with_header("access-control-max-age", "86400"))
}

/// The headers that every answer gets, whether a node, the control plane or the filter gives it. The answer to a preflight
/// already has them.
#[must_use]
pub fn headers(head: &RequestHead) -> &'static [(&'static str, &'static str)] {
    if preflight(head).is_some() {
        return &[];
    }
    if head.header("origin").is_some() { &[VARY, ANY_ORIGIN] } else { &[VARY] }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn asked(method: &str, headers: &[(&str, &str)]) -> RequestHead {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        RequestHead { method: method.into(), path: "/indexes".into(), headers: headers.collect() }
    }

    #[test]
    fn preflights_name_the_headers_that_pages_ask_for() {
        let wanted = [
            ("origin", "http://example.org"),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,content-type"),
        ];
        let reply = preflight(&asked("OPTIONS", &wanted)).unwrap();
        assert_eq!(reply.status, 200);
        assert!(
            reply
                .headers
                .contains(&("access-control-allow-headers".into(), "authorization,content-type".into()))
        );
        let refused = preflight(&asked("OPTIONS", &[("access-control-request-method", "NOPE")])).unwrap();
        assert_eq!((refused.status, refused.body.as_slice()), (400, &b"Requested method is not allowed"[..]));
        assert_eq!(preflight(&asked("OPTIONS", &[])), None);
        for none in ["", "A B", "P\u{e4}"] {
            assert_eq!(preflight(&asked("OPTIONS", &[("access-control-request-method", none)])), None);
        }
        assert_eq!(preflight(&asked("POST", &wanted)), None);
    }

    #[test]
    fn only_answers_to_other_origins_name_one() {
        assert_eq!(headers(&asked("GET", &[])), [VARY]);
        assert_eq!(headers(&asked("GET", &[("origin", "http://example.org")])), [VARY, ANY_ORIGIN]);
    }
}
