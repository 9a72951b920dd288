//! Takes the tag out of what a client sees.

use crate::{json::RawObject, shard::TAG_FIELD};
use memchr::memmem;

/// A document or hit without the tag, in `_formatted` and `_matchesPosition` too. Everything else stays byte for byte.
#[must_use]
pub fn document(json: &[u8]) -> Vec<u8> {
    match serde_json::from_slice::<RawObject<'_>>(json) {
        Ok(object) if mentions_tag(json) => {
            let mut out = Vec::with_capacity(json.len());
            write_hit(&object, true, &mut out);
            out
        }
        _ => json.to_vec(),
    }
}

/// Writes a hit without the tag, and without `_rankingScoreDetails` unless the client wants them.
pub(crate) fn write_hit(hit: &RawObject<'_>, show_details: bool, out: &mut Vec<u8>) {
    hit.write_filtered(out, |name, value, out| match name {
        TAG_FIELD => false,
        "_rankingScoreDetails" if !show_details => false,
        "_formatted" | "_matchesPosition" if mentions_tag(value.get().as_bytes()) => {
            match serde_json::from_str::<RawObject<'_>>(value.get()) {
                Ok(inner) => inner.write_filtered(out, |name, value, out| {
                    if name == TAG_FIELD {
                        return false;
                    }
                    out.extend_from_slice(value.get().as_bytes());
                    true
                }),
                Err(_) => out.extend_from_slice(value.get().as_bytes()),
            }
            true
        }
        _ => {
            out.extend_from_slice(value.get().as_bytes());
            true
        }
    });
}

/// A message without the tag: in lists of attribute names, and alone.
#[must_use]
pub fn text(text: &str) -> String {
    if !mentions_tag(text.as_bytes()) {
        return text.to_owned();
    }
    let quoted = format!("`{TAG_FIELD}`");
    let mut text = text.to_owned();
    for name in [quoted.as_str(), TAG_FIELD] {
        for (from, to) in [(format!("{name}, "), ""), (format!(", {name}"), ""), (name.to_owned(), "")] {
            text = text.replace(&from, to);
        }
    }
    text
}

/// An error body without the tag.
#[must_use]
pub fn error(body: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(body) {
        Ok(utf8) if mentions_tag(body) => text(utf8).into_bytes(),
        _ => body.to_vec(),
    }
}

/// Whether the tag's name stands anywhere in it.
#[must_use]
pub fn mentions_tag(bytes: &[u8]) -> bool {
    memmem::find(bytes, TAG_FIELD.as_bytes()).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn the_tag_is_taken_out_and_nothing_else_changes() {
        let hit = br#"{"id":1.0,"_miroir_shard":",,,","t":"_miroir_shard","_formatted":{"_miroir_shard":",,,","id":"1"},"_matchesPosition":{"_miroir_shard":[]}}"#;
        assert_eq!(
            String::from_utf8(document(hit)).unwrap(),
            r#"{"id":1.0,"t":"_miroir_shard","_formatted":{"id":"1"},"_matchesPosition":{}}"#
        );
        assert_eq!(document(br#"{ "id" : 1 }"#), br#"{ "id" : 1 }"#);
        assert_eq!(document(br#"{"_miroir_shard":",,,"}"#), b"{}");
    }

    #[test]
    fn lists_of_names_are_mended() {
        assert_eq!(text("Available: `_miroir_shard, genres`."), "Available: `genres`.");
        assert_eq!(text("Available: `_miroir_shard`, `genres`."), "Available: `genres`.");
        assert_eq!(text("Available: `genres`, `_miroir_shard`."), "Available: `genres`.");
        assert_eq!(text("nothing here"), "nothing here");
    }
}
