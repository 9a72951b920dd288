//! What an API key permits, by Meilisearch's rules.

use crate::base::{
    error::api_error,
    time::{self, Nanos},
};
use miroir_core::error::ApiError;
use serde_json::Value;

/// Actions on the whole instance: only a key for all indexes permits them.
///
/// Source: Meilisearch 1.50, `index_scope` in `meilisearch-types/src/keys.rs`.
const GLOBAL: [&str; 13] = [
    "dumps.",
    "snapshots.",
    "version",
    "keys.",
    "experimental.",
    "webhooks.",
    "export",
    "network.",
    "metrics.",
    "tasks.compact",
    "chats.",
    "chatsSettings.",
    "dynamicSearchRules.",
];

/// An API key's permissions and expiry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub(crate) actions: Vec<String>,
    pub(crate) indexes: Vec<String>,
    pub(crate) expires_at: Option<Nanos>,
}

impl Key {
    /// Reads Meilisearch's key object; `None` where it is none. An end that cannot be read would be no end.
    #[must_use]
    pub fn read(object: &Value) -> Option<Self> {
        let texts = |name: &str| -> Option<Vec<String>> {
            let list = object.get(name)?.as_array()?.iter();
            list.map(|text| Some(text.as_str()?.to_owned())).collect()
        };
        let expires_at = match object.get("expiresAt")? {
            Value::Null => None,
            end => Some(time::parse(end.as_str()?)?),
        };
        Some(Self { actions: texts("actions")?, indexes: texts("indexes")?, expires_at })
    }

    pub(crate) fn allows_index(&self, index: &str) -> bool {
        self.indexes.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => index.starts_with(prefix),
            None => pattern == index,
        })
    }

    pub(crate) fn allows_action(&self, action: &str) -> bool {
        self.actions.iter().any(|pattern| match pattern.as_str() {
            "*" => true,
            "*.get" => {
                (action.ends_with(".get") && action != "keys.get")
                    || ["export", "search", "version", "fields.post"].contains(&action)
            }
            pattern => match pattern.strip_suffix(".*") {
                Some(group) => action.strip_prefix(group).is_some_and(|rest| rest.starts_with('.')),
                None => pattern == action,
            },
        })
    }

    /// Checks whether the key permits an action now, on an index if the route names one.
    ///
    /// # Errors
    /// 403 in Meilisearch's words.
    pub fn check(&self, action: &str, index: Option<&str>, now: Nanos) -> Result<(), ApiError> {
        if let Some(index) = index.filter(|index| !self.allows_index(index)) {
            let mut allowed = self.indexes.clone();
            allowed.sort_unstable();
            return Err(invalid(format!(
                "The API key cannot acces the index `{index}`, authorized indexes are {allowed:?}."
            )));
        }
        // Actions on the whole instance need a key for all indexes.
        let is_wide = index.is_some()
            || !GLOBAL.iter().any(|group| action.starts_with(group))
            || self.indexes.iter().any(|pattern| pattern == "*");
        if is_wide && self.allows_action(action) && self.expires_at.is_none_or(|end| now < end) {
            return Ok(());
        }
        Err(invalid("The provided API key is invalid."))
    }
}

/// 403 in Meilisearch's words.
pub(crate) fn invalid(message: impl Into<String>) -> ApiError {
    api_error(403, "auth", "invalid_api_key", message)
}
