//! Checks tenant tokens for what concerns the cluster. Nodes verify the tokens and apply their filters.

use crate::{
    error::{ApiError, Code},
    scrub,
    shard::TAG_FIELD,
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

/// Rejects a tenant token whose rules name the shard tag, because nodes would filter by it. Any other header passes.
///
/// # Errors
/// The rules name the tag.
pub fn check(authorization: Option<&str>) -> Result<(), ApiError> {
    let claims = authorization.and_then(|header| header.strip_prefix("Bearer ")?.split('.').nth(1));
    // Nodes refuse what is not a token.
    let claims = claims.and_then(|claims| BASE64_URL_SAFE_NO_PAD.decode(claims).ok());
    match claims.and_then(|claims| scrub::disguise(&claims)) {
        Some(_) => {
            let message =
                format!("The filters of this tenant token name `{TAG_FIELD}`, which no document has.");
            Err(ApiError::new(Code::INVALID_SEARCH_FILTER, message))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn rules_may_not_name_the_tag() {
        let header = |claims: &str| format!("Bearer e30.{}.x", BASE64_URL_SAFE_NO_PAD.encode(claims));
        for claims in [
            r#"{"searchRules":{"a":{"filter":"_miroir_shard = 1"}}}"#,
            r#"{"searchRules":{"a":{"filter":"\u005fmiroir_sh\u0061rd = 1"}}}"#,
        ] {
            assert!(check(Some(&header(claims))).is_err(), "{claims}");
        }
        let harmless = header(r#"{"searchRules":{"a":{"filter":"n = 1"}}}"#);
        for harmless in
            [None, Some("Bearer key"), Some("Bearer a.!.c"), Some("Basic a.b.c"), Some(&*harmless)]
        {
            assert!(check(harmless).is_ok(), "{harmless:?}");
        }
    }
}
