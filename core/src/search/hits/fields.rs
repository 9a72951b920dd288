//! The members that a search adds to a document to make a hit, and which of them the client sees.
//!
//! A document may have fields with the same names. Nodes write the document's fields first and then the added members, so of
//! several members with one name, the last one is the added one, if it was requested.
//!
//! Source: Meilisearch 1.50, `SearchHit` in `meilisearch/src/search/mod.rs`.

use super::selection::Selection;
use crate::{json::RawObject, scrub, shard::TAG_FIELD};
use serde_json::value::RawValue;

/// The hit's scores by the ranking rules. Nodes are always asked for them.
pub(in crate::search) const DETAILS: &str = "_rankingScoreDetails";
/// The hit's total score.
pub(in crate::search) const SCORE: &str = "_rankingScore";
const FORMATTED: &str = "_formatted";
const POSITIONS: &str = "_matchesPosition";

/// Whether nodes are asked for the total score.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::search) enum Score {
    /// They are not asked for it.
    #[default]
    NotAsked,
    /// They are asked for it, for the client.
    Shown,
    /// They are asked for it, but only for the merge.
    Hidden,
}

/// The members that nodes add to documents, and which of them the client sees.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::search) struct Shown {
    /// Whether `_formatted` was requested.
    pub formatted: bool,
    /// Whether `_matchesPosition` was requested.
    pub positions: bool,
    /// `_rankingScore`.
    pub score: Score,
    /// Whether the client wants `_rankingScoreDetails`.
    pub details: bool,
}

impl Shown {
    /// Writes a hit as the client sees it: without the tag, and with only the fields that `selection` shows.
    pub(in crate::search) fn write(self, hit: &RawObject<'_>, selection: &Selection, out: &mut Vec<u8>) {
        let last = |name: &str| hit.last(name).map(std::ptr::from_ref);
        let added = [FORMATTED, POSITIONS, SCORE, DETAILS].map(|name| (name, last(name)));
        let is_added = |name: &str, value: &RawValue| {
            added.iter().any(|(of, at)| *of == name && *at == Some(std::ptr::from_ref(value)))
        };
        hit.write_filtered(out, |name, value, out| match name {
            TAG_FIELD => false,
            FORMATTED if self.formatted && is_added(name, value) => {
                write_inner(value, out, |name, value, out| selection.write_formatted(name, value, out))
            }
            POSITIONS if self.positions && is_added(name, value) => write_inner(value, out, scrub::as_is),
            SCORE if self.score == Score::Hidden && is_added(name, value) => false,
            DETAILS if is_added(name, value) => self.details && scrub::as_is(name, value, out),
            SCORE if self.score == Score::Shown && is_added(name, value) => scrub::as_is(name, value, out),
            _ => selection.write(name, value, out),
        });
    }
}

/// Writes an object whose members are fields, without the tag.
fn write_inner(
    value: &RawValue,
    out: &mut Vec<u8>,
    mut write: impl FnMut(&str, &RawValue, &mut Vec<u8>) -> bool,
) -> bool {
    let Ok(inner) = serde_json::from_str::<RawObject<'_>>(value.get()) else { return false };
    inner.write_filtered(out, |name, value, out| name != TAG_FIELD && write(name, value, out));
    true
}

/// The position, counted from 0, that a rule gives to a hit with these details.
#[must_use]
pub fn pinned_position(details: &RawValue) -> Option<u64> {
    // Most hits are not pinned, so a text search avoids parsing their details.
    details.get().contains("\"pin\"").then_some(())?;
    let details: RawObject<'_> = serde_json::from_str(details.get()).ok()?;
    details.read::<RawObject<'_>>("pin")?.read("position")
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn written(shown: Shown, hit: &str) -> String {
        let mut out = Vec::new();
        shown.write(&serde_json::from_str(hit).unwrap(), &Selection::default(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_nodes_add_is_told_from_fields_of_the_same_names() {
        let own = r#""_formatted":{"_miroir_shard":1},"_rankingScore":"a","_rankingScoreDetails":[],"_matchesPosition":7"#;
        let hit = format!(
            r#"{{{own},"_miroir_shard":",,,","_formatted":{{"_miroir_shard":",,,","id":"1"}},"_matchesPosition":{{"_miroir_shard":[]}},"_rankingScore":0.5,"_rankingScoreDetails":{{}}}}"#
        );
        let all = Shown { formatted: true, positions: true, score: Score::Shown, details: true };
        assert_eq!(
            written(all, &hit),
            format!(
                r#"{{{own},"_formatted":{{"id":"1"}},"_matchesPosition":{{}},"_rankingScore":0.5,"_rankingScoreDetails":{{}}}}"#
            )
        );
        let merged = Shown { score: Score::Hidden, ..Shown::default() };
        let bare = format!(r#"{{{own},"_rankingScore":0.5,"_rankingScoreDetails":{{}}}}"#);
        assert_eq!(written(merged, &bare), format!("{{{own}}}"));
        assert_eq!(
            written(Shown::default(), &format!(r#"{{{own},"_rankingScoreDetails":{{}}}}"#)),
            format!("{{{own}}}")
        );
    }
}
