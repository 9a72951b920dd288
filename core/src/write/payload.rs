//! The contents of a write, and each node's part of them.

use super::Edit;
use crate::{
    documents::{Documents, Preflight, PrimaryKey, infer_primary_key},
    error::{ApiError, Code, ErrorBody},
    json::{RawObject, to_bytes},
    path::ApiPath,
    protocol::WriteOperation,
    scrub,
    shard::Shard,
    topology::Topology,
};
use serde_json::{Value, value::RawValue};
use std::collections::{BTreeMap, BTreeSet};

/// A mutation with the data for its callouts.
#[derive(Debug)]
pub enum Payload {
    /// Add or update documents.
    Documents(Box<DocumentsPayload>),
    /// Delete documents by id.
    Ids {
        /// The ids as the client wrote them, each with its shard.
        ids: Vec<(Box<RawValue>, Shard)>,
    },
    /// Delete the documents that match a filter.
    Filter {
        /// The whole body, as nodes get it.
        body: Vec<u8>,
        /// The client's `filter`.
        filter: Value,
    },
    /// Edit the documents that match a filter with a function. The control plane sends the edit, after a trial.
    Edit(Edit),
    /// Delete all documents.
    All,
}

/// Documents to add, split by a primary key.
#[derive(Debug)]
pub struct DocumentsPayload {
    documents: Documents,
    update: bool,
    requested: Option<String>,
    key: Option<PrimaryKey>,
    /// Whether the key comes from the topology.
    assumed: bool,
    failure: Option<ErrorBody>,
    /// The client's `skipCreation`, as it was written.
    skip_creation: Option<String>,
}

impl DocumentsPayload {
    /// Splits documents by `known`, which is the index's primary key, or else by the requested one, or else by the one that
    /// Meilisearch would infer.
    #[must_use]
    pub fn split(
        documents: Documents,
        update: bool,
        known: Option<&str>,
        requested: Option<String>,
        skip_creation: Option<String>,
        shards: u16,
    ) -> Self {
        let mut payload =
            Self { documents, update, requested, key: None, assumed: false, failure: None, skip_creation };
        payload.choose(known, shards);
        payload
    }

    fn choose(&mut self, known: Option<&str>, shards: u16) {
        self.key = None;
        self.failure = None;
        self.assumed = known.is_some();
        if self.documents.is_empty() {
            return;
        }
        let key = match known.or(self.requested.as_deref()) {
            Some(name) => Ok(PrimaryKey::new(name)),
            None => infer_primary_key(self.documents.first()),
        };
        match key {
            Ok(key) => self.split_by(key, shards),
            Err(failure) => self.failure = Some(failure),
        }
    }

    fn split_by(&mut self, key: PrimaryKey, shards: u16) {
        self.failure = self.documents.assign(&key, shards).err();
        self.key = Some(key);
    }
}

impl Payload {
    /// Parses the body of a batch deletion: an array of ids, for which Meilisearch accepts any JSON and uses its text. `None`
    /// if a node would refuse it.
    #[must_use]
    pub fn ids(body: &[u8], shards: u16) -> Option<Self> {
        let values: Vec<Box<RawValue>> = serde_json::from_slice(body).ok()?;
        let ids = values
            .into_iter()
            .map(|value| {
                let shard = Shard::of_document(&id_text(&value)?, shards);
                Some((value, shard))
            })
            .collect::<Option<_>>()?;
        Some(Self::Ids { ids })
    }

    /// Parses the body of an edit by function. `None` if a node would refuse it.
    #[must_use]
    pub fn edit(body: &[u8]) -> Option<Self> {
        let edit = serde_json::from_slice(body).ok()?;
        Some(Self::Edit(edit))
    }

    /// Parses the body of a deletion by filter. `None` if a node would refuse it.
    #[must_use]
    pub fn filter(body: Vec<u8>) -> Option<Self> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Body {
            filter: Value,
        }
        let Body { filter } = serde_json::from_slice(&body).ok()?;
        let body = scrub::disguise(&body).unwrap_or(body);
        Some(Self::Filter { body, filter })
    }

    /// The description for the control plane.
    #[must_use]
    pub fn operation(&self, topology: &Topology, index: &str) -> WriteOperation {
        match self {
            Self::Documents(payload) => WriteOperation::AddDocuments {
                update: payload.update,
                documents: payload.documents.len() as u64,
                distinct: payload.documents.distinct() as u64,
                requested_primary_key: payload.requested.clone(),
                primary_key: payload.key.as_ref().map(|key| key.name().to_owned()),
                assumed: payload.assumed,
                failure: payload.failure.clone(),
            },
            Self::Ids { ids } => WriteOperation::DeleteDocuments {
                ids: ids.len() as u64,
                primary_key: topology.primary_key(index).map(str::to_owned),
                odd: ids.iter().filter_map(|(id, _)| id_text(id)).find(|id| is_odd(id)),
            },
            Self::Filter { filter, .. } => WriteOperation::DeleteByFilter { filter: filter.clone() },
            Self::Edit(edit) => WriteOperation::Edit {
                filter: edit.filter.clone(),
                context: edit.context.clone(),
                function: edit.function.clone(),
            },
            Self::All => WriteOperation::DeleteAll,
        }
    }

    /// The top-level fields of the documents. All nodes must know them before one of them gets the documents.
    #[must_use]
    pub fn fields(&self) -> Vec<String> {
        match self {
            Self::Documents(payload) if payload.failure.is_none() => payload.documents.names().list(),
            _ => Vec::new(),
        }
    }

    /// The same for nested fields, as `object.field`.
    #[must_use]
    pub fn nested_fields(&self) -> Vec<String> {
        match self {
            Self::Documents(payload) if payload.failure.is_none() => payload.documents.names().nested(),
            _ => Vec::new(),
        }
    }

    /// What nodes may refuse about the documents, depending on the index's settings.
    #[must_use]
    pub fn doubts(&self) -> Preflight {
        match self {
            // With `skipCreation`, a node may skip the suspicious documents and never check them.
            Self::Documents(payload) if payload.skip_creation.as_deref() != Some("true") => {
                payload.documents.doubts()
            }
            _ => Preflight::default(),
        }
    }

    /// The documents that nodes may refuse, as a JSON array of about `limit` bytes at most.
    #[must_use]
    pub fn doubtful(&self, limit: usize) -> Option<String> {
        match self {
            Self::Documents(payload) => Some(payload.documents.doubtful(limit)),
            _ => None,
        }
    }

    /// The shards that the write touches, in ascending order.
    #[must_use]
    pub fn shards(&self, topology: &Topology) -> Vec<Shard> {
        match self {
            Self::Documents(payload) if payload.failure.is_some() => Vec::new(),
            Self::Documents(payload) => payload.documents.shards(),
            Self::Ids { ids } => {
                let mut shards: Vec<Shard> = ids.iter().map(|(_, shard)| *shard).collect();
                shards.sort_unstable();
                shards.dedup();
                shards
            }
            Self::Filter { .. } | Self::Edit(_) | Self::All => topology.shards().collect(),
        }
    }

    /// Splits the payload again, because the index has another primary key.
    ///
    /// # Errors
    /// The payload does not depend on primary keys, or was already split by this key.
    pub fn split_again(&mut self, primary_key: &str, shards: u16) -> Result<(), ApiError> {
        match self {
            Self::Documents(payload) if payload.key.as_ref().is_none_or(|key| key.name() != primary_key) => {
                payload.assumed = false;
                payload.split_by(PrimaryKey::new(primary_key), shards);
                Ok(())
            }
            _ => Err(ApiError::new(Code::INTERNAL, "the control plane asks to split again by the same key")),
        }
    }

    /// Splits the payload again, because the index has no primary key, whatever the topology says.
    ///
    /// # Errors
    /// The payload was not split by the topology's key.
    pub fn infer_again(&mut self, shards: u16) -> Result<(), ApiError> {
        match self {
            Self::Documents(payload) if payload.assumed => {
                payload.choose(None, shards);
                Ok(())
            }
            _ => Err(ApiError::new(
                Code::INTERNAL,
                "the control plane asks to infer a primary key that was already inferred",
            )),
        }
    }

    /// The method and path of the request to nodes. `mark` is sent as `customMetadata`.
    #[must_use]
    pub fn request(&self, index: &str, primary_key: Option<&str>, mark: &str) -> (&'static str, ApiPath) {
        let below = |rest: &[&str]| ApiPath::of_index(index, rest).with("customMetadata", mark);
        match self {
            Self::Documents(payload) => {
                let mut path = below(&["documents"]);
                for (name, value) in
                    [("primaryKey", primary_key), ("skipCreation", payload.skip_creation.as_deref())]
                {
                    if let Some(value) = value {
                        path = path.with(name, value);
                    }
                }
                (if payload.update { "PUT" } else { "POST" }, path)
            }
            Self::Ids { .. } => ("POST", below(&["documents", "delete-batch"])),
            Self::Filter { .. } => ("POST", below(&["documents", "delete"])),
            Self::Edit(_) => ("POST", below(&["documents", "edit"])),
            Self::All => ("DELETE", below(&["documents"])),
        }
    }

    /// The ids that are written to these shards, by shard. A write that may touch any document lists none.
    #[must_use]
    pub fn written(&self, shards: &BTreeSet<Shard>) -> BTreeMap<Shard, BTreeSet<String>> {
        match self {
            Self::Documents(payload) => payload.documents.ids(shards),
            Self::Ids { ids } => {
                let mut written: BTreeMap<Shard, BTreeSet<String>> = BTreeMap::new();
                for (id, shard) in ids.iter().filter(|(_, shard)| shards.contains(shard)) {
                    written.entry(*shard).or_default().extend(id_text(id));
                }
                written
            }
            Self::Filter { .. } | Self::Edit(_) | Self::All => BTreeMap::new(),
        }
    }

    /// The ids of documents that may already be stored, for the look-up; empty if there are more than `most`.
    #[must_use]
    pub fn looked_up(&self, most: usize) -> BTreeMap<Shard, BTreeSet<String>> {
        match self {
            Self::Documents(payload) if payload.documents.len() <= most => {
                payload.documents.ids(&payload.documents.shards().into_iter().collect())
            }
            _ => BTreeMap::new(),
        }
    }

    /// Takes a node's list of stored documents, whose sequences are kept. An answer that is not such a list is ignored.
    pub fn keep_sequences(&mut self, answer: &[u8]) {
        let stored = serde_json::from_slice::<RawObject<'_>>(answer).ok();
        let stored: Option<Vec<RawObject<'_>>> = stored.and_then(|answer| answer.read("results"));
        if let (Self::Documents(payload), Some(stored)) = (self, stored) {
            payload.documents.keep_sequences(&stored);
        }
    }

    /// One node's part, as JSON; empty if the request has no body. `write` is the write's uid, and `mine` tells which shards
    /// the node writes.
    #[must_use]
    pub fn body(&self, write: u32, mine: impl Fn(Shard) -> bool) -> Vec<u8> {
        match self {
            Self::Documents(payload) => payload.documents.tagged(write, mine),
            Self::Ids { ids } => {
                let mine: Vec<&RawValue> =
                    ids.iter().filter(|(_, shard)| mine(*shard)).map(|(id, _)| id.as_ref()).collect();
                to_bytes(&mine)
            }
            Self::Filter { body, .. } => body.clone(),
            Self::Edit(_) | Self::All => Vec::new(),
        }
    }
}

/// Whether nodes' storage cannot look up this id.
///
/// Source: LMDB, whose keys have at least one byte.
fn is_odd(id: &str) -> bool {
    id.is_empty()
}

/// The text of an id in a batch deletion: Meilisearch accepts any JSON.
fn id_text(id: &RawValue) -> Option<String> {
    Some(match serde_json::from_str(id.get()).ok()? {
        Value::String(text) => text,
        other => other.to_string(),
    })
}
