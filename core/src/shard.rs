//! Maps a document's id to its shard, and a shard to its tag.

use xxhash_rust::xxh3::xxh3_64;

/// The most shards a cluster can have: the number of distinct tags.
pub const MAX_SHARDS: u16 = 512;

/// The field that every stored document carries. Reserved, and invisible to clients.
pub const TAG_FIELD: &str = "_miroir_shard";

/// Characters that Meilisearch's tokenizer takes as separators only, so a tag is never searchable text.
const TAG_ALPHABET: &[u8; 8] = b",;()[]{}";

/// A slot of the hash of document ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
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

    /// The value of [`TAG_FIELD`] for this shard: three characters out of `,;()[]{}`.
    #[must_use]
    pub fn tag(self) -> String {
        [self.0 >> 6, self.0 >> 3, self.0]
            .iter()
            .filter_map(|octal| TAG_ALPHABET.get(usize::from(octal & 7)).copied().map(char::from))
            .collect()
    }

    /// Parses a tag; `None` if the text is not one.
    #[must_use]
    pub fn from_tag(tag: &str) -> Option<Self> {
        if tag.len() != 3 {
            return None;
        }
        tag.bytes()
            .try_fold(0u16, |slot, byte| {
                let digit = TAG_ALPHABET.iter().position(|&letter| letter == byte)?;
                Some(slot << 3 | u16::try_from(digit).ok()?)
            })
            .map(Self)
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
        filter.push_str(&shard.tag());
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
        for slot in 0..MAX_SHARDS {
            assert_eq!(Shard::from_tag(&Shard(slot).tag()), Some(Shard(slot)));
        }
        assert_eq!(Shard(0).tag(), ",,,");
        assert_eq!(Shard(511).tag(), "}}}");
        assert_eq!(Shard::from_tag("abc"), None);
        assert_eq!(Shard::from_tag(",,"), None);
    }

    #[test]
    fn filter_names_every_tag() {
        assert_eq!(tag_filter(&[Shard(0), Shard(9)]), r#"_miroir_shard IN [",,,",",;;"]"#);
    }
}
