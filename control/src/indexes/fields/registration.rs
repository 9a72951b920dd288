//! The request that registers fields on a node without writing anything: it sends a new document that has the fields, with
//! `skipCreation`, so that the node skips it. A node learns the fields of a document that it skips, and never forgets them.
//!
//! Source: Meilisearch 1.50, `milli/src/update/new/indexer/document_operation.rs` and `guess_primary_key.rs`.

use crate::{base::random::Random, domain::intent::NodeRequest};
use miroir_core::path::ApiPath;
use serde_json::{Map, Value, json};

/// How a node gets the primary key of an index when fields are registered on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key<'a> {
    /// The key is known, or the client names it: nodes learn it before all other fields.
    Explicit(&'a str),
    /// The node must infer it, as it would from the client's first document.
    Inferred(&'a str),
}

impl<'a> Key<'a> {
    /// The name of the primary key.
    #[must_use]
    pub fn name(self) -> &'a str {
        match self {
            Self::Explicit(name) | Self::Inferred(name) => name,
        }
    }

    /// The fields in the order in which a node learns them when all of them are registered in one request.
    #[must_use]
    pub fn order(self, names: Vec<String>) -> Vec<String> {
        match self {
            // A key that points into an object is not a field itself.
            Self::Explicit(key) if !key.contains('.') => {
                let rest = names.into_iter().filter(|name| name != key);
                std::iter::once(key.to_owned()).chain(rest).collect()
            }
            _ => names,
        }
    }

    /// The kind of key that makes a node without any of these fields learn them in this order.
    #[must_use]
    pub fn of_list(key: &'a str, names: &[String]) -> Self {
        let before = names.iter().take_while(|name| *name != key);
        let is_only = before.clone().all(|name| !may_be_key(name)) && may_be_key(key);
        if is_only && before.count() > 0 && !key.contains('.') {
            Self::Inferred(key)
        } else {
            Self::Explicit(key)
        }
    }
}

/// Whether a node may infer that this field is the primary key.
fn may_be_key(name: &str) -> bool {
    name.to_lowercase().ends_with("id")
}

/// The request that registers these fields and the primary key on a node.
#[must_use]
pub fn registration(index: &str, key: Key<'_>, names: &[String], random: &dyn Random) -> NodeRequest {
    let mut path = ApiPath::of_index(index, &["documents"]).with("skipCreation", "true");
    let mut rest = names;
    let mut documents = Vec::new();
    match key {
        Key::Explicit(name) => path = path.with("primaryKey", name),
        Key::Inferred(name) => {
            // The first document must contain no other field that a node could infer as the primary key.
            let is_other = |field: &String| field != name && may_be_key(field);
            let (first, others) = names.split_at(names.iter().position(is_other).unwrap_or(names.len()));
            documents.push(document(key, first, random));
            rest = others;
        }
    }
    if !rest.is_empty() || documents.is_empty() {
        documents.push(document(key, rest, random));
    }
    NodeRequest { method: "PUT".into(), path, body: Some(Value::Array(documents)), main: false }
}

/// The field of a document that holds its id. A node reads a primary key `a.b` as the field `a.b`, or as `b` in the object `a`,
/// and refuses a document that has both.
///
/// Source: `milli/src/documents/primary_key.rs`, `possible_level_names`.
enum Holder<'a> {
    /// The field itself is the id.
    Field(&'a str),
    /// The id is at a path in this field.
    Object { field: &'a str, path: &'a str },
}

impl<'a> Holder<'a> {
    fn of(key: Key<'a>, names: &'a [String]) -> Self {
        let name = key.name();
        let above = names.iter().find_map(|field| Some((field.as_str(), below(field, name)?)));
        match (key, above) {
            // Nodes infer only top-level fields.
            (Key::Inferred(_), _) | (_, None) => Self::Field(name),
            _ if names.iter().any(|field| field == name)
                && !names.iter().any(|field| below(field, name).is_some()) =>
            {
                Self::Field(name)
            }
            (_, Some((field, ""))) => Self::Field(field),
            (_, Some((field, path))) => Self::Object { field, path },
        }
    }
}

/// The rest of a path that leads into this field; `None` if it does not.
fn below<'a>(field: &str, path: &'a str) -> Option<&'a str> {
    path.strip_prefix(field)?.strip_prefix('.').filter(|_| !field.is_empty())
}

/// Whether a field is part of a primary key that may point into an object: a document can have one such field only.
#[must_use]
pub fn is_of_key(field: &str, key: &str) -> bool {
    key.contains('.') && (field == key || below(field, key).is_some())
}

/// A document that has these fields and a new random id.
fn document(key: Key<'_>, names: &[String], random: &dyn Random) -> Value {
    let id = json!(random.name());
    let (holder, held) = match Holder::of(key, names) {
        Holder::Field(field) => (field, id),
        Holder::Object { field, path } => (field, json!({path: id})),
    };
    let mut document = Map::new();
    for name in names.iter().filter(|name| name.as_str() == holder || !is_of_key(name, key.name())) {
        document.insert(name.clone(), Value::Null);
    }
    document.insert(holder.to_owned(), held);
    Value::Object(document)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::random::SystemRandom;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn registered(key: Key<'_>, fields: &[&str]) -> (String, Vec<Vec<String>>) {
        let request = registration("i", key, &names(fields), &SystemRandom);
        let documents = request.body.unwrap();
        let members = |document: &Value| document.as_object().unwrap().keys().cloned().collect();
        (request.path.to_string(), documents.as_array().unwrap().iter().map(members).collect())
    }

    #[test]
    fn a_registration_names_every_field_in_its_order() {
        let (path, documents) = registered(Key::Explicit("id"), &["id", "b", "a", "a.x"]);
        assert_eq!(path, "/indexes/i/documents?skipCreation=true&primaryKey=id");
        assert_eq!(documents, [names(&["id", "b", "a", "a.x"])]);
        // The key itself was registered before.
        assert_eq!(registered(Key::Explicit("id"), &["c"]).1, [names(&["c", "id"])]);
        // A node infers the key only if no other field of the document could be the key.
        let (path, documents) = registered(Key::Inferred("bookId"), &["title", "bookId", "otherId", "a"]);
        assert_eq!(path, "/indexes/i/documents?skipCreation=true");
        assert_eq!(documents, [names(&["title", "bookId"]), names(&["otherId", "a", "bookId"])]);
    }

    #[test]
    fn a_key_in_an_object_is_there_once() {
        let document = |fields: &[&str]| {
            let fields = names(fields);
            let mut document = document(Key::Explicit("a.b.c"), &fields, &SystemRandom);
            for pointer in ["/a/b.c", "/a.b/c", "/a.b.c"] {
                if let Some(id) = document.pointer_mut(pointer) {
                    *id = json!(1);
                }
            }
            document
        };
        assert_eq!(
            document(&["t", "a", "u", "a.b", "a.b.c"]),
            json!({"t": null, "a": {"b.c": 1}, "u": null})
        );
        assert_eq!(document(&["a.b", "a.b.c", "t"]), json!({"a.b": {"c": 1}, "t": null}));
        assert_eq!(document(&["a.b.c", "a.b.cd"]), json!({"a.b.c": 1, "a.b.cd": null}));
        assert_eq!(document(&["t"]), json!({"t": null, "a.b.c": 1}));
    }

    #[test]
    fn a_key_with_a_dot_that_is_inferred_is_a_field_of_its_own() {
        let fields = names(&["a", "a.id", "t"]);
        let inferred = document(Key::Inferred("a.id"), &fields, &SystemRandom);
        assert_eq!(inferred.as_object().unwrap().keys().collect::<Vec<_>>(), ["a.id", "t"]);
        assert!(inferred["a.id"].is_string());
        // Nodes read a key that ends with a dot as the field before the dot.
        let fields = names(&["t", "a"]);
        assert!(document(Key::Explicit("a."), &fields, &SystemRandom)["a"].is_string());
    }

    #[test]
    fn a_node_without_fields_takes_them_up_as_the_others_have() {
        let of_list = |key, fields: &[&str]| match Key::of_list(key, &names(fields)) {
            Key::Explicit(_) => "said",
            Key::Inferred(_) => "inferred",
        };
        assert_eq!(of_list("id", &["title", "id", "otherId"]), "inferred");
        assert_eq!(of_list("id", &["id", "title"]), "said");
        // As in a recovered ledger, where the fields have another order.
        assert_eq!(of_list("id", &["aid", "id"]), "said");
        assert_eq!(of_list("a.id", &["t", "a", "a.id"]), "said");
        assert_eq!(of_list("isbn", &["t", "isbn"]), "said");
        let ordered = Key::Explicit("id").order(names(&["title", "id"]));
        assert_eq!(
            (ordered, Key::Inferred("id").order(names(&["t", "id"]))),
            (names(&["id", "title"]), names(&["t", "id"]))
        );
    }
}
