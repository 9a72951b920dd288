//! Edits by function: the client's function never sees the tag, and cannot drop it.
//!
//! Source: Meilisearch 1.50, `milli/src/update/new/indexer/update_by_function.rs`: the script runs with the document as
//! the variable `doc`, and what is in `doc` at its end is the new document; `()` deletes it.

use crate::shard::TAG_FIELD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The body of `POST /indexes/{uid}/documents/edit`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// Which documents; all where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filter: Option<Value>,
    /// What the function may read as `context`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<Value>,
    /// A Rhai script.
    pub function: String,
}

/// Lines before the client's in a wrapped function; positions in a node's errors count them.
pub const LINES_BEFORE: u32 = 1;

impl Edit {
    /// The body for a node.
    #[must_use]
    pub fn for_node(&self) -> Vec<u8> {
        let edit = Self { function: wrapped(&self.function), ..self.clone() };
        serde_json::to_vec(&edit).unwrap_or_default()
    }
}

/// The function with the tag taken away before and given back after it.
fn wrapped(function: &str) -> String {
    // A `return` would leave before the tag is given back, but not out of an `eval`.
    let inner =
        if function.contains("return") { format!("eval({})", literal(function)) } else { function.into() };
    format!(
        "let {TAG_FIELD} = doc.remove(\"{TAG_FIELD}\");\n{inner}\n;if type_of(doc) == \"map\" {{ doc.{TAG_FIELD} = {TAG_FIELD}; }}"
    )
}

/// A Rhai string.
fn literal(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for letter in text.chars() {
        match letter {
            '\\' => quoted.push_str("\\\\"),
            '"' => quoted.push_str("\\\""),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            letter => quoted.push(letter),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_tag_is_taken_away_and_given_back() {
        assert_eq!(
            wrapped("doc.n += 1"),
            "let _miroir_shard = doc.remove(\"_miroir_shard\");\ndoc.n += 1\n;if type_of(doc) == \"map\" { doc._miroir_shard = _miroir_shard; }"
        );
        assert!(
            wrapped("if doc.a == \"x\\\\\" {\n return; }")
                .contains(r#"eval("if doc.a == \"x\\\\\" {\n return; }")"#)
        );
    }
}
