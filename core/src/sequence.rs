//! The order in which documents came first: what one node orders hits by that no ranking rule tells apart.
//!
//! A node orders them by an internal number that it gives to each new document and never tells. Here each document carries
//! its own, behind its shard's tag: the write that brought it first, and its position in that write.

use crate::{
    json::RawObject,
    shard::{Shard, TAG_FIELD},
};
use std::fmt;

/// Spaces of different widths: separators to Meilisearch's tokenizer, so that a sequence is never searchable text; and nothing of
/// a facet's value, whose spaces at both ends Meilisearch takes away, so that all sequences are one value.
const DIGITS: [char; 8] =
    ['\u{2002}', '\u{2003}', '\u{2004}', '\u{2005}', '\u{2006}', '\u{2007}', '\u{2008}', '\u{2009}'];
/// Between the two numbers.
const BETWEEN: char = ' ';

/// A document's place in the order in which documents came first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence {
    /// The uid of the write that brought the document first.
    pub write: u32,
    /// The position of the document in that write's payload.
    pub position: u32,
}

impl Sequence {
    /// Reads the text that a document carries; `None` where it is not one.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        let (write, position) = text.split_once(BETWEEN)?;
        Some(Self { write: number(write)?, position: number(position)? })
    }

    /// The sequence of a document, where it is shown and has one: documents of before there were sequences have none.
    #[must_use]
    pub fn of(document: &RawObject<'_>) -> Option<Self> {
        DocumentTag::from_json(document.get(TAG_FIELD)?.get())?.sequence
    }
}

/// What a stored document carries in [`TAG_FIELD`]: an array of two texts; of before there were sequences, the first one alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DocumentTag {
    /// The shard that the document is stored under.
    pub shard: Shard,
    /// Its place in the order of documents.
    pub sequence: Option<Sequence>,
}

impl DocumentTag {
    /// Reads the field's value as JSON; `None` where it is something else.
    #[must_use]
    pub fn from_json(json: &str) -> Option<Self> {
        let Some(texts) = json.strip_prefix('[') else {
            let shard = Shard::from_tag(json.strip_prefix('"')?.strip_suffix('"')?)?;
            return Some(Self { shard, sequence: None });
        };
        let (tag, sequence) = texts.strip_prefix('"')?.strip_suffix("\"]")?.split_once("\",\"")?;
        Some(Self { shard: Shard::from_tag(tag)?, sequence: Some(Sequence::from_text(sequence)?) })
    }
}

impl fmt::Display for DocumentTag {
    /// As [`DocumentTag::from_json`] reads it.
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
        // Part of the format on disk.
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
