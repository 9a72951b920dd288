//! The order of documents that nothing else tells apart: the order in which they arrived.

use crate::{json::RawObject, search::values::document_id::DocumentId, sequence::Sequence};

/// When a document arrived. Documents without a sequence count as older than those with one, and are ordered by their ids,
/// which is the same order if ids were assigned in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Insertion {
    sequence: Option<Sequence>,
    /// Set if there is no sequence and the document shows its id.
    id: Option<DocumentId>,
}

impl Insertion {
    /// Reads it from a document as a node returns it, in an index with this primary key.
    #[must_use]
    pub fn of(document: &RawObject<'_>, primary_key: Option<&str>) -> Self {
        let sequence = Sequence::of(document);
        let id = || DocumentId::of(document, primary_key?);
        Self { sequence, id: if sequence.is_none() { id() } else { None } }
    }

    /// Whether the document shows neither, so that its place is unknown.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn sequences_go_before_ids() {
        let of = |document: &str| Insertion::of(&serde_json::from_str(document).unwrap(), Some("id"));
        let sequenced = |id: u32, write, position| {
            of(&format!(r#"{{"id":{id},"_miroir_shard":[",,,","{}"]}}"#, Sequence { write, position }))
        };
        let ascending = [
            of("{}"),
            of(r#"{"id":7,"_miroir_shard":",,,"}"#),
            of(r#"{"id":"70"}"#),
            of(r#"{"id":"a"}"#),
            sequenced(9, 1, 0),
            sequenced(3, 1, 1),
            sequenced(1, 2, 0),
        ];
        assert!(ascending.is_sorted(), "{ascending:?}");
        assert!(ascending.iter().skip(1).all(|it| !it.is_unknown()) && ascending[0].is_unknown());
    }
}
