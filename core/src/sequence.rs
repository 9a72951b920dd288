//! The order in which documents first arrived: one node orders hits by it if no ranking rule tells them apart.
//!
//! A node orders such hits by an internal number that it assigns to each new document and never reveals. In a cluster, each
//! document carries its own number behind its shard's tag: the write that first brought the document, and its position in that
//! write.

use crate::{
    json::RawObject,
    shard::{Shard, ShardTag, TAG_FIELD},
};
use std::fmt;

/// Spaces of different widths. Meilisearch's tokenizer takes them as separators, so a sequence is never searchable text.
/// Meilisearch also trims spaces from facet values, so all sequences count as one facet value.
const DIGITS: [char; 8] =
    ['\u{2002}', '\u{2003}', '\u{2004}', '\u{2005}', '\u{2006}', '\u{2007}', '\u{2008}', '\u{2009}'];
/// Separates the two numbers.
const BETWEEN: char = ' ';

/// A document's place in the order in which documents first arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence {
    /// The uid of the write that first brought the document.
    pub write: u32,
    /// The position of the document in that write's payload.
    pub position: u32,
}

impl Sequence {
    /// Parses the text that a document carries; `None` if it is not a sequence.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let (write, position) = text.split_once(BETWEEN)?;
        Some(Self { write: number(write)?, position: number(position)? })
    }

    /// The sequence of a document, if the document is shown with its tag and has one: documents written before sequences
    /// existed have none.
    #[must_use]
    pub fn of(document: &RawObject<'_>) -> Option<Self> {
        DocumentTag::from_json(document.get(TAG_FIELD)?.get())?.sequence
    }
}

/// The content of [`TAG_FIELD`] in a stored document: an array of two strings. Documents written before sequences existed have
/// the first string alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DocumentTag {
    /// The shard under which the document is stored.
    pub shard: Shard,
    /// The document's place in the order of documents.
    pub sequence: Option<Sequence>,
}

impl DocumentTag {
    /// Parses the field's value from JSON; `None` if it is something else.
    #[must_use]
    pub fn from_json(json: &str) -> Option<Self> {
        let Some(texts) = json.strip_prefix('[') else {
            let tag: ShardTag = json.strip_prefix('"')?.strip_suffix('"')?.parse().ok()?;
            return Some(Self { shard: tag.shard(), sequence: None });
        };
        let (tag, sequence) = texts.strip_prefix('"')?.strip_suffix("\"]")?.split_once("\",\"")?;
        let tag: ShardTag = tag.parse().ok()?;
        Some(Self { shard: tag.shard(), sequence: Some(Sequence::from_text(sequence)?) })
    }
}

impl fmt::Display for DocumentTag {
    /// Writes the form that [`DocumentTag::from_json`] parses.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tag = self.shard.tag();
        match self.sequence {
            Some(sequence) => write!(formatter, "[\"{tag}\",\"{sequence}\"]"),
            None => write!(formatter, "\"{tag}\""),
        }
    }
}

impl fmt::Display for Sequence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_number(self.write, formatter)?;
        write!(formatter, "{BETWEEN}")?;
        write_number(self.position, formatter)
    }
}

fn write_number(number: u32, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    let places = (32 - number.leading_zeros()).div_ceil(3).max(1);
    (0..places).rev().try_for_each(|place| {
        let digit = DIGITS.get((number >> (3 * place)) as usize & 7);
        digit.map_or(Ok(()), |digit| write!(formatter, "{digit}"))
    })
}

fn number(text: &str) -> Option<u32> {
    if text.is_empty() {
        return None;
    }
    text.chars().try_fold(0_u32, |number, letter| {
        let digit = DIGITS.iter().position(|digit| *digit == letter)?;
        number.checked_mul(8)?.checked_add(u32::try_from(digit).ok()?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn sequences_come_back_and_are_ordered() {
        let ascending =
            [(0, 0), (0, 7), (0, 8), (1, 0), (9, 3), (4711, 511), (u32::MAX, 0), (u32::MAX, u32::MAX)];
        let sequences = ascending.map(|(write, position)| Sequence { write, position });
        assert!(sequences.is_sorted());
        for sequence in sequences {
            let text = sequence.to_string();
            assert_eq!(Sequence::from_text(&text), Some(sequence));
            assert_eq!(text.trim(), "", "nothing is left of it as a facet's value");
        }
        // This is part of the on-disk format.
        assert_eq!(Sequence { write: 8, position: 1 }.to_string(), "\u{2003}\u{2002} \u{2003}");
    }

    #[test]
    fn what_is_no_sequence_is_none() {
        for text in [
            "",
            " ",
            "1 2",
            "\u{2003}",
            "\u{2003} ",
            " \u{2003}",
            "\u{2009}\u{2009}\u{2009}\u{2009}\u{2009}\u{2009}\u{2009}\u{2009}\u{2009}\u{2009}\u{2009}\u{2009} \u{2002}",
        ] {
            assert_eq!(Sequence::from_text(text), None, "{text:?}");
        }
    }

    #[test]
    fn documents_tell_their_sequences() {
        let sequence = Sequence { write: 42, position: 3 };
        for tag in [Some(sequence), None].map(|sequence| DocumentTag { shard: Shard(500), sequence }) {
            assert_eq!(DocumentTag::from_json(&tag.to_string()), Some(tag));
        }
        let read = |document: &str| Sequence::of(&serde_json::from_str(document).unwrap());
        assert_eq!(read(&format!(r#"{{"id":1,"_miroir_shard":[",,,","{sequence}"]}}"#)), Some(sequence));
        for without in [
            r#"{"id":1}"#,
            r#"{"_miroir_shard":",,,"}"#,
            r#"{"_miroir_shard":[",,,"]}"#,
            r#"{"_miroir_shard":[]}"#,
        ] {
            assert_eq!(read(without), None, "{without}");
        }
    }
}
