//! Detects searches that also ask other servers: Meilisearch's experimental feature `network`.

use crate::{
    http::RequestHead,
    json::{RawObject, Text},
};
use memchr::memmem;
use serde_json::value::RawValue;

/// Whether a request asks other servers: a node would answer it with its own documents and theirs. `own` is the cluster's name
/// among the servers.
#[must_use]
pub fn are_asked(head: &RequestHead, body: &[u8], own: Option<&str>) -> bool {
    if head.query().split('&').any(|parameter| parameter == "useNetwork=true") {
        return true;
    }
    // Bodies are large and rarely use the feature, so a text search comes first.
    let mentions = |name: &[u8]| memmem::find(body, name).is_some();
    if !mentions(b"useNetwork") && !mentions(b"remote") {
        return false;
    }
    // Values stay unparsed: a body with many values would take many times its size in memory.
    let Ok(body) = serde_json::from_slice::<RawObject<'_>>(body) else { return false };
    let asks = |query: &RawObject<'_>| {
        let options = last(query, "federationOptions").and_then(|it| serde_json::from_str(it.get()).ok());
        let remote: Option<Option<Text<'_>>> = options
            .and_then(|options: RawObject<'_>| serde_json::from_str(last(&options, "remote")?.get()).ok());
        last(query, "useNetwork").is_some_and(|it| it.get() == "true")
            || matches!(remote, Some(Some(Text(name))) if Some(&*name) != own)
    };
    let queries: Vec<&RawValue> = match last(&body, "queries").map(|it| serde_json::from_str(it.get())) {
        Some(Ok(queries)) => queries,
        // A node refuses what is no list, and asks nobody.
        Some(Err(_)) | None => Vec::new(),
    };
    asks(&body)
        || queries.into_iter().filter_map(|query| serde_json::from_str(query.get()).ok()).any(|it| asks(&it))
}

/// The value of a member; the last one if there are several with the same name, as on nodes.
fn last<'a>(object: &RawObject<'a>, name: &str) -> Option<&'a RawValue> {
    object.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| *value)
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
