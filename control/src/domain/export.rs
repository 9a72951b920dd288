//! A client's request to export indexes to another Meilisearch.

use byte_unit::Byte;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The body of an export request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Export {
    /// The other Meilisearch's URL.
    #[serde(default)]
    pub url: String,
    /// The API key for it.
    #[serde(default)]
    pub api_key: Option<String>,
    /// Maximum size of a request with documents: a number of bytes, or a text with a unit.
    #[serde(default)]
    pub payload_size: Option<Value>,
    /// What to export, by index pattern; if absent, all indexes.
    #[serde(default)]
    pub indexes: Option<BTreeMap<String, Wanted>>,
}

/// What to export of the indexes that match a pattern.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wanted {
    /// A filter: only matching documents are exported.
    #[serde(default)]
    pub filter: Option<Value>,
    /// Send settings also to an index that already exists.
    #[serde(default)]
    pub override_settings: bool,
}

impl Export {
    /// Maximum size of a request with documents, if the client sets it.
    #[must_use]
    pub fn payload_size(&self) -> Option<Byte> {
        match self.payload_size.as_ref()? {
            Value::String(text) => text.parse().ok(),
            number => number.as_u64().map(Byte::from_u64),
        }
    }

    /// What to export, by index pattern.
    #[must_use]
    pub fn wanted(&self) -> BTreeMap<String, Wanted> {
        let everything = || BTreeMap::from([("*".to_owned(), Wanted::default())]);
        self.indexes.clone().unwrap_or_else(everything)
    }

    /// What to export of an index: the entry of the first pattern that equals its name or is a prefix of it.
    #[must_use]
    pub fn of(&self, index: &str) -> Option<Wanted> {
        let fits = |pattern: &str| match pattern.strip_suffix('*') {
            Some(start) => index.starts_with(start),
            None => index == pattern,
        };
        self.wanted().into_iter().find(|(pattern, _)| fits(pattern)).map(|(_, wanted)| wanted)
    }
}
