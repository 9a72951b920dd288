//! Maps a document's id to its shard, and a shard to its tag.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::{fmt, str::FromStr};
use xxhash_rust::xxh3::xxh3_64;

/// The most shards a cluster can have: the number of distinct tags.
pub const MAX_SHARDS: u16 = 512;

/// The field that every stored document carries. Reserved, and invisible to clients.
pub const TAG_FIELD: &str = "_miroir_shard";

/// Characters that Meilisearch's tokenizer takes as separators only, so a tag is never searchable text.
const TAG_ALPHABET: &[u8; 8] = b",;()[]{}";

/// A slot of the hash of document ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Shard(pub u16);

impl Shard {
    /// The shard of a document: `xxh3_64(id as text, seed 0) mod shards`.
    ///
    /// `id` is the primary key's value as Meilisearch writes it in a URL: `42` for the number 42 and the string `"42"`
    /// alike. `shards` is the cluster's number of shards; zero is taken as one.
    #[must_use]
    pub fn of_document(id: &str, shards: u16) -> Self {
        Self::of_hash(Self::hash(id), shards)
    }

    /// The hash that decides a document's shard: `xxh3_64` of its id.
    #[must_use]
    pub fn hash(id: &str) -> u64 {
        xxh3_64(id.as_bytes())
    }

    /// The shard for a [`Self::hash`] of an id.
    #[must_use]
    pub fn of_hash(hash: u64, shards: u16) -> Self {
        Self(u16::try_from(hash % u64::from(shards.max(1))).unwrap_or(0))
    }

    /// The tag of this shard.
    #[must_use]
    pub fn tag(self) -> ShardTag {
        let letter = |octal: u16| TAG_ALPHABET.get(usize::from(octal & 7)).copied().unwrap_or(b',');
        ShardTag([self.0 >> 6, self.0 >> 3, self.0].map(letter))
    }
}

/// The value of [`TAG_FIELD`] for a shard: three characters out of `,;()[]{}`, the digits of its number in base 8.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardTag([u8; 3]);

/// A text that is not the tag of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the tag of a shard must be three characters out of `,;()[]{{}}`")]
pub struct NotAShardTag;

impl ShardTag {
    /// The tag as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The shard that has this tag.
    #[must_use]
    pub fn shard(self) -> Shard {
        let digit = |letter| TAG_ALPHABET.iter().zip(0..).find(|(other, _)| **other == letter);
        Shard(self.0.into_iter().filter_map(digit).fold(0, |slot, (_, digit)| slot << 3 | digit))
    }
}

impl FromStr for ShardTag {
    type Err = NotAShardTag;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let letters: [u8; 3] = text.as_bytes().try_into().map_err(|_| NotAShardTag)?;
        if letters.iter().all(|letter| TAG_ALPHABET.contains(letter)) {
            Ok(Self(letters))
        } else {
            Err(NotAShardTag)
        }
    }
}

impl fmt::Display for ShardTag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl fmt::Debug for ShardTag {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), formatter)
    }
}

impl Serialize for ShardTag {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for ShardTag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A filter expression in Meilisearch's syntax that matches only the documents of these shards.
#[must_use]
pub fn tag_filter(shards: &[Shard]) -> String {
    let mut filter = String::with_capacity(24 + 7 * shards.len());
    filter.push_str(TAG_FIELD);
    filter.push_str(" IN [");
    for (position, shard) in shards.iter().enumerate() {
        if position > 0 {
            filter.push(',');
        }
        filter.push('"');
        filter.push_str(shard.tag().as_str());
        filter.push('"');
    }
    filter.push(']');
    filter
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn golden_shards() {
        // Changing any of these moves every stored document: they are part of the on-disk format.
        for (id, shards, shard) in
            [("", 64, 2), ("1", 64, 24), ("42", 64, 17), ("abc-DEF_9", 512, 503), ("42", 1, 0)]
        {
            assert_eq!(Shard::of_document(id, shards), Shard(shard), "{id} of {shards}");
        }
    }

    #[test]
    fn tags_are_distinct_and_come_back() {
        for shard in (0..MAX_SHARDS).map(Shard) {
            let tag = shard.tag();
            assert_eq!((tag.shard(), tag.to_string().parse()), (shard, Ok(tag)));
        }
        assert_eq!(Shard(0).tag().as_str(), ",,,");
        assert_eq!(Shard(511).tag().as_str(), "}}}");
        for text in ["abc", ",,", ",,,,", ""] {
            assert_eq!(text.parse::<ShardTag>(), Err(NotAShardTag), "{text}");
        }
    }

    #[test]
    fn json_shows_a_tag_as_text() {
        let tag = Shard(9).tag();
        assert_eq!(serde_json::to_string(&tag).unwrap(), r#"",;;""#);
        assert_eq!(serde_json::from_str::<ShardTag>(r#"",;;""#).unwrap(), tag);
        assert!(serde_json::from_str::<ShardTag>(r#""a;;""#).is_err());
    }

    #[test]
    fn filter_names_every_tag() {
        assert_eq!(tag_filter(&[Shard(0), Shard(9)]), r#"_miroir_shard IN [",,,",",;;"]"#);
    }
}
