//! The ids of documents, as they are compared.

use crate::json::RawObject;
use serde_json::Value;

/// A document's id. Numbers go before texts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DocumentId {
    /// A number, or a string with exactly the text of one.
    Number(i64),
    /// Any other string.
    Text(String),
}

impl DocumentId {
    /// The id of a document with this primary key.
    #[must_use]
    pub fn of(document: &RawObject<'_>, primary_key: &str) -> Option<Self> {
        Self::of_value(&serde_json::from_str(document.at(primary_key)?.get()).ok()?)
    }

    /// Converts an id from its JSON value.
    #[must_use]
    pub fn of_value(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => number.as_i64().map(Self::Number),
            Value::String(text) => {
                let number = text.parse().ok().filter(|number: &i64| number.to_string() == *text);
                Some(number.map_or_else(|| Self::Text(text.clone()), Self::Number))
            }
            _ => None,
        }
    }
}
