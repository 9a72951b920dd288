//! What a client wants to be exported.

use byte_unit::Byte;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Export {
    /// Where the other Meilisearch is.
    #[serde(default)]
    pub url: String,
    /// Its key.
    #[serde(default)]
    pub api_key: Option<String>,
    /// Bytes of a request with documents: a number, or text with a unit.
    #[serde(default)]
    pub payload_size: Option<Value>,
    /// Which indexes, by patterns; all of them where it is absent.
    #[serde(default)]
    pub indexes: Option<BTreeMap<String, Wanted>>,
}

/// What is wanted of the indexes of a pattern.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Wanted {
    /// Documents that it finds.
    #[serde(default)]
    pub filter: Option<Value>,
    /// Settings are sent to an index that is there already, too.
    #[serde(default)]
    pub override_settings: bool,
}

impl Export {
    /// Bytes of a request with documents, where the client says it.
    #[must_use]
    pub fn payload_size(&self) -> Option<Byte> {
        match self.payload_size.as_ref()? {
            Value::String(text) => text.parse().ok(),
            number => number.as_u64().map(Byte::from_u64),
        }
    }

    /// What is wanted, by patterns.
    #[must_use]
    pub fn wanted(&self) -> BTreeMap<String, Wanted> {
        let everything = || BTreeMap::from([("*".to_owned(), Wanted::default())]);
        self.indexes.clone().unwrap_or_else(everything)
    }

    /// What is wanted of an index: the first pattern that is its name, or starts it, says it.
    #[must_use]
    pub fn of(&self, index: &str) -> Option<Wanted> {
        let fits = |pattern: &str| match pattern.strip_suffix('*') {
            Some(start) => index.starts_with(start),
            None => index == pattern,
        };
        self.wanted().into_iter().find(|(pattern, _)| fits(pattern)).map(|(_, wanted)| wanted)
    }
}
