//! Tenant tokens: JWTs that a client's backend signs with the text of an API key.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use serde::Deserialize;
use serde_json::Value;
use sha2::{Sha256, Sha384, Sha512};
use time::OffsetDateTime;
use uuid::Uuid;

use super::Action;
use crate::uid::IndexPattern;

/// Which indexes a token covers, and the filter that it adds on each.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum SearchRules {
    /// Indexes without filters.
    Set(Vec<IndexPattern>),
    /// Indexes, each with an optional rule.
    Map(BTreeMap<IndexPattern, Option<Rule>>),
}

/// What a token adds to searches in an index.
#[derive(Debug, Clone, Deserialize)]
pub struct Rule {
    filter: Option<Value>,
}

impl SearchRules {
    fn patterns(&self) -> Vec<&IndexPattern> {
        match self {
            Self::Set(patterns) => patterns.iter().collect(),
            Self::Map(rules) => rules.keys().collect(),
        }
    }

    /// Whether the token covers the index.
    pub fn covers(&self, index: &str) -> bool {
        self.patterns().iter().any(|pattern| pattern.matches(index))
    }

    /// Whether the token covers every index.
    pub fn covers_all(&self) -> bool {
        self.patterns().iter().any(|pattern| pattern.is_all())
    }

    /// The covered indexes, sorted, for messages.
    pub fn indexes(&self) -> Vec<String> {
        let mut names: Vec<_> = self.patterns().iter().map(|pattern| pattern.as_str().to_string()).collect();
        names.sort_unstable();
        names
    }

    /// The filter for the index: that of the longest pattern that matches.
    pub fn filter(&self, index: &str) -> Option<Value> {
        let Self::Map(rules) = self else { return None };
        let matching = rules.iter().filter(|(pattern, _)| pattern.matches(index));
        let (_, rule) = matching.max_by_key(|(pattern, _)| (!pattern.is_all(), pattern.as_str().len()))?;
        rule.as_ref().and_then(|rule| rule.filter.clone())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Claims {
    search_rules: SearchRules,
    exp: Option<i64>,
    api_key_uid: Uuid,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

/// The result of reading a bearer's text.
pub enum Outcome {
    /// Not a tenant token; it may be an API key.
    NotAToken,
    /// A valid token, signed by the key with this uid.
    Valid(Uuid, SearchRules),
    /// A token that must be refused, with this message.
    Refused(String),
}

/// Reads and checks a token. A tenant token allows only searches.
pub fn read(token: &str, action: Action, key_text: impl Fn(Uuid) -> String) -> Outcome {
    let parts: Vec<&str> = token.split('.').collect();
    let (Action::Search | Action::ChatCompletions, &[header, claims, signature]) = (action, parts.as_slice())
    else {
        return Outcome::NotAToken;
    };
    let undecodable = |what: String| Outcome::Refused(format!("Could not decode tenant token, {what}."));
    let (Ok(header_json), Ok(claims_json), Ok(signature)) =
        (URL_SAFE_NO_PAD.decode(header), URL_SAFE_NO_PAD.decode(claims), URL_SAFE_NO_PAD.decode(signature))
    else {
        return undecodable("Base64 error: Invalid padding".into());
    };
    let header: Header = match serde_json::from_slice(&header_json) {
        Ok(header) => header,
        Err(error) => return undecodable(format!("JSON error: {error}")),
    };
    let claims: Claims = match serde_json::from_slice(&claims_json) {
        Ok(claims) => claims,
        Err(error) => return undecodable(format!("JSON error: {error}")),
    };
    let secret = key_text(claims.api_key_uid);
    let signed = token.rsplit_once('.').map_or("", |(signed, _)| signed).as_bytes();
    let genuine = match header.alg.as_str() {
        "HS256" => verify::<Hmac<Sha256>>(&secret, signed, &signature),
        "HS384" => verify::<Hmac<Sha384>>(&secret, signed, &signature),
        "HS512" => verify::<Hmac<Sha512>>(&secret, signed, &signature),
        _ => return undecodable("InvalidAlgorithm".into()),
    };
    if !genuine {
        return undecodable("InvalidSignature".into());
    }
    let now = OffsetDateTime::now_utc().unix_timestamp();
    match claims.exp {
        Some(exp) if now > exp => {
            Outcome::Refused(format!("Tenant token expired. Was valid up to `{exp}` and we're now `{now}`."))
        }
        _ => Outcome::Valid(claims.api_key_uid, claims.search_rules),
    }
}

fn verify<M: Mac + hmac::digest::KeyInit>(secret: &str, signed: &[u8], signature: &[u8]) -> bool {
    let Ok(mut mac) = <M as Mac>::new_from_slice(secret.as_bytes()) else {
        return false;
    };
    mac.update(signed);
    mac.verify_slice(signature).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sign(claims: &str, secret: &str) -> String {
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#),
            URL_SAFE_NO_PAD.encode(claims)
        );
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }

    #[test]
    fn tokens_are_checked_and_their_rules_read() {
        let uid = Uuid::new_v4();
        let claims = format!(
            r#"{{"searchRules":{{"*":null,"a*":{{"filter":"x = 1"}}}},"apiKeyUid":"{uid}","exp":null}}"#
        );
        let token = sign(&claims, "secret");
        match read(&token, Action::Search, |_| "secret".into()) {
            Outcome::Valid(found, rules) => {
                assert_eq!(found, uid);
                assert_eq!(rules.filter("ab"), Some(Value::from("x = 1")));
                assert_eq!(rules.filter("b"), None);
            }
            _ => panic!("the token is good"),
        }
        assert!(matches!(read(&token, Action::Search, |_| "other".into()), Outcome::Refused(_)));
        assert!(matches!(read(&token, Action::DocumentsGet, |_| "secret".into()), Outcome::NotAToken));
        let expired = sign(&claims.replace("null}", "1}"), "secret");
        assert!(
            matches!(read(&expired, Action::Search, |_| "secret".into()), Outcome::Refused(m) if m.contains("expired"))
        );
    }
}
