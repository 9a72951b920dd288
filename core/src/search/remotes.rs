//! Searches that ask for other servers' documents too: Meilisearch's experimental feature `network`.

use crate::http::RequestHead;
use serde_json::Value;

/// Whether a request asks for that: a node would answer it with its own documents and those of the servers. `own` is the name
/// of the cluster among them.
#[must_use]
pub fn are_asked(head: &RequestHead, body: &[u8], own: Option<&str>) -> bool {
    if head.query().split('&').any(|parameter| parameter == "useNetwork=true") {
        return true;
    }
    // Bodies are large, and hardly ever ask for it.
    let mentions = |name: &[u8]| body.windows(name.len()).any(|window| window == name);
    if !mentions(b"useNetwork") && !mentions(b"remote") {
        return false;
    }
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let asks = |query: &Value| {
        query.get("useNetwork").is_some_and(|it| *it == true)
            || query
                .pointer("/federationOptions/remote")
                .is_some_and(|remote| !remote.is_null() && remote.as_str() != own)
    };
    asks(&body) || body.get("queries").and_then(Value::as_array).is_some_and(|all| all.iter().any(asks))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::ApiPath;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn a_query_asks_for_other_servers() {
        let asked = |path: &str, body: &str| {
            let head = RequestHead {
                method: "POST".into(),
                path: ApiPath::parse(path).unwrap(),
                headers: Vec::new(),
            };
            are_asked(&head, body.as_bytes(), Some("self"))
        };
        assert!(asked("/indexes/a/search", r#"{"useNetwork":true}"#));
        assert!(asked("/indexes/a/search?q=a&useNetwork=true", ""));
        assert!(asked("/multi-search", r#"{"queries":[{},{"useNetwork":true}]}"#));
        assert!(asked("/multi-search", r#"{"queries":[{"federationOptions":{"remote":"b"}}]}"#));
        assert!(!asked("/multi-search", r#"{"queries":[{"federationOptions":{"remote":null}}]}"#));
        assert!(!asked("/multi-search", r#"{"queries":[{"federationOptions":{"remote":"self"}}]}"#));
        assert!(!asked("/indexes/a/search", r#"{"useNetwork":false,"q":"useNetwork"}"#));
        assert!(!asked("/indexes/a/search", r#"{"q":"remote"}"#));
    }
}
