//! Documents as nodes return them: what is copied, and what is compared.

use crate::base::json;
use miroir_core::documents::PrimaryKey;
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use std::{borrow::Cow, collections::BTreeMap};

/// What a node appends to a document without vectors when it is asked for vectors.
const NO_VECTORS: &str = r#","_vectors":{}}"#;
const VECTORS: &str = "_vectors";

/// A page of documents, as unparsed JSON.
#[derive(Debug, Deserialize)]
pub struct Page {
    /// The documents.
    pub results: Vec<Box<RawValue>>,
    /// The number of all matching documents.
    pub total: u64,
}

/// The bytes of a document as they are written to another node.
#[must_use]
pub fn copied(document: &RawValue) -> Cow<'_, str> {
    match document.get().strip_suffix(NO_VECTORS) {
        Some(rest) => Cow::Owned(format!("{rest}}}")),
        None => Cow::Borrowed(document.get()),
    }
}

/// Documents by id. Documents without an id are left out; nodes do not store such documents.
#[must_use]
pub fn by_id<'a>(documents: &'a [Box<RawValue>], key: &PrimaryKey) -> BTreeMap<String, &'a RawValue> {
    let id = |document: &'a RawValue| Some((key.document_id(document.get().as_bytes()).ok()?, document));
    documents.iter().filter_map(|document| id(document)).collect()
}

/// The content that must be equal in all copies of a document: the bytes of its fields, whatever their order (each node has its
/// own order), and the vectors that the client gave. Vectors that nodes generate may differ between nodes.
///
/// # Errors
/// The document is no object.
pub fn content(document: &RawValue) -> serde_json::Result<BTreeMap<String, String>> {
    let fields: BTreeMap<Cow<'_, str>, &RawValue> = serde_json::from_str(document.get())?;
    let of_field = |(name, value): (Cow<'_, str>, &RawValue)| {
        let value = if name == VECTORS { vectors(value)? } else { value.get().to_owned() };
        Some((name.into_owned(), value))
    };
    Ok(fields.into_iter().filter_map(of_field).collect())
}

/// Vectors without those that nodes make; `None` where there are none. What is no object has none that nodes make.
fn vectors(value: &RawValue) -> Option<String> {
    let Ok(mut vectors) = serde_json::from_str::<BTreeMap<String, Value>>(value.get()) else {
        return Some(value.get().to_owned());
    };
    for vector in vectors.values_mut() {
        if vector.get("regenerate") == Some(&Value::Bool(true))
            && let Some(vector) = vector.as_object_mut()
        {
            vector.remove("embeddings");
        }
    }
    (!vectors.is_empty()).then(|| json::text(&vectors))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> Box<RawValue> {
        RawValue::from_string(text.to_owned()).unwrap()
    }

    #[test]
    fn copies_are_equal_whatever_the_order_and_what_nodes_generate() {
        let a = raw(r#"{"id":1,"price":1.50,"_vectors":{"m":{"embeddings":[[0.5]],"regenerate":true}}}"#);
        let content = |document: &RawValue| content(document).unwrap();
        let b = raw(r#"{"price":1.50,"id":1,"_vectors":{"m":{"embeddings":[[0.6]],"regenerate":true}}}"#);
        assert_eq!(content(&a), content(&b));
        let c = raw(r#"{"price":1.50,"id":1,"_vectors":{"m":{"embeddings":[[0.6]],"regenerate":false}}}"#);
        assert_ne!(content(&b), content(&c));
        assert_ne!(content(&raw(r#"{"id":1,"price":1.5}"#)), content(&raw(r#"{"id":1,"price":1.50}"#)));
        assert_eq!(content(&raw(r#"{"id":1,"_vectors":{}}"#)), content(&raw(r#"{"id":1}"#)));
    }

    #[test]
    fn what_nodes_add_is_not_copied() {
        assert_eq!(copied(&raw(r#"{"id":1,"a":1.50,"_vectors":{}}"#)), r#"{"id":1,"a":1.50}"#);
        assert_eq!(copied(&raw(r#"{"id":1,"_vectors":{"m":null}}"#)), r#"{"id":1,"_vectors":{"m":null}}"#);
    }

    #[test]
    fn ids_are_text() {
        let documents = [raw(r#"{"id":1}"#), raw(r#"{"id":"b"}"#), raw(r#"{"x":1}"#)];
        assert_eq!(by_id(&documents, &PrimaryKey::new("id")).keys().collect::<Vec<_>>(), ["1", "b"]);
    }
}
