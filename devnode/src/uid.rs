//! Names of indexes, and the patterns of such names in API keys.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{ApiError, Code};

/// The prefix of names that are reserved for Meilisearch itself.
pub const RESERVED_PREFIX: &str = ".meili";

/// A valid index name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, deserr::Deserr)]
#[deserr(try_from(String) = TryFrom::try_from -> BadIndexUid)]
pub struct IndexUid(String);

/// The error for an invalid index name.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "`{0}` is not a valid index uid. Index uid can be an integer or a string containing only alphanumeric characters, \
     hyphens (-) and underscores (_), and can not be more than 512 bytes."
)]
pub struct BadIndexUid(pub String);

impl IndexUid {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IndexUid {
    type Err = BadIndexUid;

    fn from_str(uid: &str) -> Result<Self, BadIndexUid> {
        let valid = uid.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !valid || uid.is_empty() || uid.len() > 512 {
            Err(BadIndexUid(uid.into()))
        } else {
            Ok(Self(uid.into()))
        }
    }
}

impl TryFrom<String> for IndexUid {
    type Error = BadIndexUid;

    fn try_from(uid: String) -> Result<Self, BadIndexUid> {
        uid.parse()
    }
}

impl fmt::Display for IndexUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<BadIndexUid> for ApiError {
    fn from(error: BadIndexUid) -> Self {
        Self::new(Code::InvalidIndexUid, error.to_string())
    }
}

/// An index name, or a prefix of one followed by `*`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, deserr::Deserr)]
#[serde(transparent)]
#[deserr(try_from(String) = TryFrom::try_from -> BadIndexPattern)]
pub struct IndexPattern(String);

/// The error for an invalid pattern of index names.
#[derive(Debug, Clone, thiserror::Error)]
#[error(
    "`{0}` is not a valid index uid pattern. Index uid patterns can be an integer or a string containing only \
     alphanumeric characters, hyphens (-), underscores (_), and optionally end with a star (*)."
)]
pub struct BadIndexPattern(pub String);

impl IndexPattern {
    /// The pattern that every name matches.
    pub fn all() -> Self {
        Self("*".into())
    }

    /// Whether every name matches.
    pub fn is_all(&self) -> bool {
        self.0 == "*"
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this name matches.
    pub fn matches(&self, uid: &str) -> bool {
        match self.0.strip_suffix('*') {
            Some(prefix) => uid.starts_with(prefix),
            None => self.0 == uid,
        }
    }
}

impl TryFrom<String> for IndexPattern {
    type Error = BadIndexPattern;

    fn try_from(pattern: String) -> Result<Self, BadIndexPattern> {
        let name = pattern.strip_suffix('*').unwrap_or(&pattern);
        if pattern == "*" || name.parse::<IndexUid>().is_ok() {
            Ok(Self(pattern))
        } else {
            Err(BadIndexPattern(name.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_by_prefix_only_with_a_star() {
        let pattern = IndexPattern::try_from("pro_*".to_string()).unwrap();
        assert!(pattern.matches("pro_a") && !pattern.matches("pr"));
        assert!(IndexPattern::try_from("a b*".to_string()).is_err());
        assert!(!IndexPattern::try_from("pro".to_string()).unwrap().matches("pro_a"));
    }
}
