//! A client's documents: parsed as they stream in, kept byte for byte, each assigned to its shard.

mod body;
mod csv;
mod fields;
mod json;
mod preflight;
mod primary_key;
mod reader;
mod shape;

pub use body::Body;
pub use fields::{FieldNames, MAX_FIELDS};
pub use preflight::Preflight;
pub use primary_key::{PrimaryKey, infer_primary_key};
pub use reader::DocumentReader;
pub use reader::payload_too_large;

use crate::{
    content_type::ContentType,
    error::{ApiError, Code, ErrorBody},
    json::RawObject,
    sequence::{DocumentTag, Sequence},
    shard::{Shard, TAG_FIELD},
};
use preflight::PreflightDocuments;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::Write,
};

/// The format of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// An array of objects, or one object.
    Json,
    /// One object after another.
    Ndjson,
    /// A table with a header.
    Csv {
        /// The byte that separates fields.
        delimiter: u8,
    },
}

impl Format {
    /// The name in Meilisearch's messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Ndjson => "ndjson",
            Self::Csv { .. } => "csv",
        }
    }

    /// The format given by a document route's `Content-Type` and `csvDelimiter`.
    ///
    /// # Errors
    /// Meilisearch's `missing_content_type` and `invalid_content_type`.
    pub fn from_content_type(content_type: Option<&str>, delimiter: Option<u8>) -> Result<Self, ApiError> {
        const ACCEPTED: &str = "`application/json`, `application/x-ndjson`, `text/csv`";
        let invalid = |name: &str| {
            let message = format!(
                "The Content-Type `{name}` is invalid. Accepted values for the Content-Type header are: {ACCEPTED}"
            );
            ApiError::new(Code::INVALID_CONTENT_TYPE, message)
        };
        let mime = match ContentType::of(content_type) {
            ContentType::Mime(mime) => mime,
            ContentType::Invalid => return Err(invalid(content_type.unwrap_or_default())),
            ContentType::Missing => {
                let message = format!(
                    "A Content-Type header is missing. Accepted values for the Content-Type header are: {ACCEPTED}"
                );
                return Err(ApiError::new(Code::MISSING_CONTENT_TYPE, message));
            }
        };
        // A suffix, as in `application/json+zip`, is ignored.
        match (mime.type_().as_str(), mime.subtype().as_str(), delimiter) {
            ("application", "json", None) => Ok(Self::Json),
            ("application", "x-ndjson", None) => Ok(Self::Ndjson),
            ("text", "csv", delimiter) => Ok(Self::Csv { delimiter: delimiter.unwrap_or(b',') }),
            ("application", name @ ("json" | "x-ndjson"), Some(_)) => Err(ApiError::new(
                Code::INVALID_CONTENT_TYPE,
                format!(
                    "The Content-Type `application/{name}` does not support the use of a csv delimiter. The csv delimiter can only be used with the Content-Type `text/csv`."
                ),
            )),
            (kind, name, _) => Err(invalid(&format!("{kind}/{name}"))),
        }
    }
}

/// A document's position in its [`Body`], and the hash of its id once it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    segment: u32,
    start: u32,
    end: u32,
    id: Option<u64>,
}

/// The documents of one payload, in the client's order.
#[derive(Debug, Default)]
pub struct Documents {
    body: Body,
    entries: Vec<Entry>,
    /// The primary key by which the ids of the entries were hashed.
    key: Option<PrimaryKey>,
    /// The cluster's number of shards; 0 before [`Self::assign`].
    shards: u16,
    doubtful: PreflightDocuments,
    names: FieldNames,
    /// For each id that occurs more than once, its first position, by the id's hash.
    first_positions: HashMap<u64, u32>,
    /// The sequences of documents that the index already has, by the id's hash.
    sequences: HashMap<u64, Sequence>,
}

impl Documents {
    /// Number of documents.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The first document's bytes.
    #[must_use]
    pub fn first(&self) -> Option<&[u8]> {
        self.entries.first().map(|entry| self.body.slice(*entry))
    }

    /// Assigns every document to its shard, unless the reader already hashed its id.
    ///
    /// # Errors
    /// The error with which the whole payload's task would fail on a node: an id that is missing or invalid, or too many
    /// fields.
    pub fn assign(&mut self, primary_key: &PrimaryKey, shards: u16) -> Result<(), ErrorBody> {
        if self.key.as_ref() != Some(primary_key) {
            self.key = Some(primary_key.clone());
            self.entries.iter_mut().for_each(|entry| entry.id = None);
        }
        self.shards = shards;
        if self.names.are_too_many() {
            let message = if self.names.list().len() > MAX_FIELDS {
                "A document cannot contain more than 65,535 fields."
            } else {
                "The field names in these documents have more than 4 MiB in total: send the documents in parts."
            };
            return Err(ApiError::new(Code::MAX_FIELDS_LIMIT_EXCEEDED, message).body);
        }
        for entry in &mut self.entries {
            if entry.id.is_none() {
                let document = self.body.slice(*entry);
                let id = primary_key.document_id(document).map_err(|error| error.body)?;
                entry.id = Some(Shard::hash(&id));
            }
        }
        self.sequences = HashMap::new();
        self.first_positions = self.repeated().into_iter().collect();
        Ok(())
    }

    /// The hashes of the ids that occur more than once, each with its first position.
    fn repeated(&self) -> Vec<(u64, u32)> {
        let positions = (0..).zip(&self.entries).filter_map(|(position, entry)| Some((entry.id?, position)));
        let mut positions: Vec<(u64, u32)> = positions.collect();
        positions.sort_unstable();
        let groups = positions.chunk_by(|(one, _), (other, _)| one == other);
        groups.filter(|group| group.len() > 1).filter_map(|group| group.first().copied()).collect()
    }

    /// Number of distinct ids; 0 before [`Self::assign`].
    #[must_use]
    pub fn distinct(&self) -> usize {
        let mut ids: Vec<u64> = self.entries.iter().filter_map(|entry| entry.id).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.len()
    }

    /// Takes the sequences from stored documents, so that the new versions keep them. `stored` are objects with ids and tags.
    pub fn keep_sequences(&mut self, stored: &[RawObject<'_>]) {
        let Some(key) = &self.key else { return };
        for document in stored {
            let id = document.at(key.name()).and_then(|id| primary_key::id_text(id).ok());
            if let (Some(id), Some(sequence)) = (id, Sequence::of(document)) {
                self.sequences.insert(Shard::hash(&id), sequence);
            }
        }
    }

    /// The names of the documents' fields.
    #[must_use]
    pub fn names(&self) -> &FieldNames {
        &self.names
    }

    /// What nodes may refuse about the documents, depending on the index's settings.
    #[must_use]
    pub fn doubts(&self) -> Preflight {
        self.doubtful.summary()
    }

    /// The documents that represent all preflight findings, as a JSON array. It includes all other documents with the same ids,
    /// because a later one may replace an earlier one. It has about `limit` bytes at most.
    #[must_use]
    pub fn doubtful(&self, limit: usize) -> String {
        let positions = self.doubtful.positions();
        let ids: BTreeSet<u64> =
            positions.iter().filter_map(|position| self.entries.get(*position)?.id).collect();
        let mut array = Vec::new();
        let chosen = self.entries.iter().filter(|entry| entry.id.is_some_and(|id| ids.contains(&id)));
        for entry in chosen {
            let document = self.body.slice(*entry);
            if !array.is_empty() && array.len() + document.len() > limit {
                break;
            }
            array.push(if array.is_empty() { b'[' } else { b',' });
            array.extend_from_slice(document);
        }
        if array.is_empty() {
            array.push(b'[');
        }
        array.push(b']');
        // Documents have been read as JSON, which is UTF-8.
        String::from_utf8(array).unwrap_or_default()
    }

    /// A document's sequence: the stored one, or else its first position in this write.
    fn sequence(&self, write: u32, position: u32, entry: &Entry) -> Sequence {
        let kept = entry.id.and_then(|id| self.sequences.get(&id)).copied();
        let first = || entry.id.and_then(|id| self.first_positions.get(&id)).copied().unwrap_or(position);
        kept.unwrap_or_else(|| Sequence { write, position: first() })
    }

    fn shard(&self, entry: &Entry) -> Option<Shard> {
        entry.id.filter(|_| self.shards > 0).map(|id| Shard::of_hash(id, self.shards))
    }

    /// The shards of all documents in ascending order, each once. Empty before [`Self::assign`].
    #[must_use]
    pub fn shards(&self) -> Vec<Shard> {
        let shards: BTreeSet<Shard> = self.entries.iter().filter_map(|entry| self.shard(entry)).collect();
        shards.into_iter().collect()
    }

    /// The ids of the documents in some shards, by shard. Empty before [`Self::assign`].
    #[must_use]
    pub fn ids(&self, wanted: &BTreeSet<Shard>) -> BTreeMap<Shard, BTreeSet<String>> {
        let mut ids: BTreeMap<Shard, BTreeSet<String>> = BTreeMap::new();
        let Some(key) = &self.key else { return ids };
        for entry in &self.entries {
            if let Some(shard) = self.shard(entry).filter(|shard| wanted.contains(shard))
                && let Ok(id) = key.document_id(self.body.slice(*entry))
            {
                ids.entry(shard).or_default().insert(id);
            }
        }
        ids
    }

    /// The documents of some shards as a JSON array in the client's order, each with its tag and its sequence. `write` is the
    /// uid of this write.
    #[must_use]
    pub fn tagged(&self, write: u32, wanted: impl Fn(Shard) -> bool) -> Vec<u8> {
        let last = Sequence { write, position: u32::try_from(self.entries.len()).unwrap_or(u32::MAX) };
        let overhead = r#","_miroir_shard":[",,,",""]},"#.len() + last.to_string().len();
        let chosen =
            || (0..).zip(&self.entries).filter_map(|(at, entry)| Some((at, entry, self.shard(entry)?)));
        let chosen = || chosen().filter(|(.., shard)| wanted(*shard));
        let size: usize = chosen().map(|(_, entry, _)| (entry.end - entry.start) as usize + overhead).sum();
        let mut array = Vec::with_capacity(size + 2);
        for (position, entry, shard) in chosen() {
            array.push(if array.is_empty() { b'[' } else { b',' });
            let document = self.body.slice(*entry);
            // A document here is an object that has at least its primary key, so it ends in `}` and is not empty.
            array.extend_from_slice(document.strip_suffix(b"}").unwrap_or(document));
            array.extend_from_slice(b",\"");
            array.extend_from_slice(TAG_FIELD.as_bytes());
            let tag = DocumentTag { shard, sequence: Some(self.sequence(write, position, entry)) };
            // Writing to memory does not fail.
            let _ = write!(array, "\":{tag}}}");
        }
        if array.is_empty() {
            array.push(b'[');
        }
        array.push(b']');
        array
    }
}

#[cfg(test)]
mod tests;
