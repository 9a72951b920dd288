//! Sorts on attributes that are not displayed: nodes do not tell by what they sort then.
//!
//! The hits' documents are read again, from the nodes that found them and under the gateway's own key, for the values of
//! these attributes. The client sees none of it.

use super::{
    answer::DocumentId,
    query::IndexQuery,
    rank::HIDDEN,
    values::{FacetValue, values_at},
};
use crate::{
    json::RawObject,
    query::encode,
    read::{Gathered, Key, NodeRequest, Part, Portion, Question},
    topology::Topology,
};
use memchr::memmem;
use serde_json::{
    json,
    value::{RawValue, to_raw_value},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Debug,
    sync::Arc,
};

/// A document's values, by attribute.
type Values = HashMap<String, Vec<FacetValue>>;

/// Ids of documents, as they are written, by index.
type Ids = BTreeMap<String, Vec<Box<RawValue>>>;

/// What hits are sorted by: the values of each document, by index.
#[derive(Clone, Debug, Default)]
pub struct Revealed(HashMap<String, HashMap<DocumentId, Values>>);

impl Revealed {
    /// A document's values, where it has been read.
    #[must_use]
    pub fn values(&self, index: &str, id: &DocumentId) -> Option<&Values> {
        self.0.get(index)?.get(id)
    }
}

/// A search whose answers may hide what they are sorted by.
pub(super) trait Sorting: Question + Clone + 'static {
    /// Its queries.
    fn queries(&self) -> Vec<&IndexQuery>;

    /// The same search with what has been read.
    fn with(&self, revealed: &Arc<Revealed>) -> Self;

    /// What is to be read first, where these answers hide what they are sorted by.
    fn hidden(&self, parts: &[Part<'_>]) -> Option<Box<dyn Question>> {
        Reveal::of(self, parts).map(|reveal| Box::new(reveal) as Box<dyn Question>)
    }
}

/// A search that has its answers, but for what they are sorted by.
#[derive(Clone, Debug)]
struct Reveal<S> {
    search: S,
    /// The indexes to read from, the next one last, each with its primary key and the attributes.
    indexes: Vec<(String, String, BTreeSet<String>)>,
    /// The answers, with the hits to read.
    answers: Vec<(Vec<Portion>, Vec<u8>, Ids)>,
    revealed: Revealed,
}

impl<S: Sorting> Reveal<S> {
    fn of(search: &S, parts: &[Part<'_>]) -> Option<Self> {
        let queries = search.queries();
        let sorts = |query: &&IndexQuery| !query.is_revealed() && !query.sorts().is_empty();
        let mut indexes: BTreeMap<&str, (&str, BTreeSet<String>)> = BTreeMap::new();
        for query in queries.iter().copied().filter(sorts) {
            let Some(key) = query.config.primary_key.as_deref() else { continue };
            let (_, attributes) = indexes.entry(&query.index).or_insert((key, BTreeSet::new()));
            attributes.extend(query.sorts().iter().map(|(attribute, _)| attribute.clone()));
        }
        let hides = |part: &Part<'_>| memmem::find(part.body, HIDDEN.as_bytes()).is_some();
        if indexes.is_empty() || !parts.iter().any(hides) {
            return None;
        }
        let only = queries.first().map(|query| query.index.as_str()).unwrap_or_default();
        let answers: Vec<_> = parts
            .iter()
            .map(|part| {
                let ids = if hides(part) { hidden_ids(part.body, only, &indexes) } else { Ids::new() };
                (part.portions.to_vec(), part.body.to_vec(), ids)
            })
            .collect();
        let mut indexes: Vec<_> = indexes
            .into_iter()
            .map(|(index, (key, attributes))| (index.to_owned(), key.to_owned(), attributes))
            .collect();
        indexes.retain(|(index, ..)| answers.iter().any(|(_, _, ids)| ids.contains_key(index)));
        (!indexes.is_empty()).then(|| Self {
            search: search.clone(),
            indexes,
            answers,
            revealed: Revealed::default(),
        })
    }

    /// The hits of a node to be read, of the next index.
    fn ids(&self, portions: &[Portion]) -> Option<&[Box<RawValue>]> {
        let (index, ..) = self.indexes.last()?;
        let (_, _, ids) = self.answers.iter().find(|(asked, ..)| asked == portions)?;
        ids.get(index).map(Vec::as_slice)
    }
}

/// The ids of the hits that hide what they are sorted by. `only` is the index of an answer that does not name it.
fn hidden_ids(body: &[u8], only: &str, indexes: &BTreeMap<&str, (&str, BTreeSet<String>)>) -> Ids {
    let mut found: BTreeMap<String, BTreeMap<&str, &RawValue>> = BTreeMap::new();
    let Ok(answer) = serde_json::from_slice::<RawObject<'_>>(body) else { return Ids::new() };
    let results = answer.read::<Vec<RawObject<'_>>>("results").unwrap_or_else(|| vec![answer]);
    for result in &results {
        let index: Option<String> = result.read("indexUid");
        for hit in result.read::<Vec<RawObject<'_>>>("hits").unwrap_or_default() {
            let details = hit.get("_rankingScoreDetails");
            if !details.is_some_and(|details| details.get().contains(HIDDEN)) {
                continue;
            }
            let place: Option<RawObject<'_>> = hit.read("_federation");
            let index = place.and_then(|place| place.read("indexUid")).or_else(|| index.clone());
            let index = index.unwrap_or_else(|| only.to_owned());
            let id = indexes.get(index.as_str()).and_then(|(key, _)| hit.get(key));
            if let Some(id) = id {
                found.entry(index).or_default().insert(id.get(), id);
            }
        }
    }
    let owned = |ids: BTreeMap<&str, &RawValue>| ids.into_values().map(ToOwned::to_owned).collect();
    found.into_iter().map(|(index, ids)| (index, owned(ids))).collect()
}

impl<S: Sorting> Question for Reveal<S> {
    fn seeds(&self, topology: &Topology) -> Vec<u64> {
        self.search.seeds(topology)
    }

    fn concerns(&self, portions: &[Portion]) -> bool {
        self.ids(portions).is_some()
    }

    fn ask(&self, portions: &[Portion]) -> NodeRequest {
        let ids = self.ids(portions).unwrap_or_default();
        let Some((index, key, attributes)) = self.indexes.last() else {
            return NodeRequest::new("", Vec::new());
        };
        let fields: Vec<&String> = std::iter::once(key).chain(attributes).collect();
        let body = json!({"limit": ids.len(), "fields": fields});
        let mut body: BTreeMap<String, Box<RawValue>> = serde_json::from_value(body).unwrap_or_default();
        body.extend(to_raw_value(ids).ok().map(|ids| ("ids".to_owned(), ids)));
        let path = format!("/indexes/{}/documents/fetch", encode(index));
        let body = serde_json::to_vec(&body).unwrap_or_default();
        NodeRequest { key: Key::Internal, ..NodeRequest::new(path, body) }
    }

    fn restart(&self) -> Option<Box<dyn Question>> {
        Some(Box::new(self.search.clone()))
    }

    fn gather(&self, topology: &Topology, parts: &[Part<'_>]) -> Gathered {
        let mut next = self.clone();
        if let Some((index, key, attributes)) = next.indexes.pop() {
            let known = next.revealed.0.entry(index).or_default();
            for (position, part) in parts.iter().enumerate() {
                let answer = serde_json::from_slice::<RawObject<'_>>(part.body).ok();
                let documents = answer.and_then(|answer| answer.read::<Vec<RawObject<'_>>>("results"));
                let Some(documents) = documents else { return Gathered::Broken(position) };
                for document in &documents {
                    let Some(id) = DocumentId::of(document, &key) else { continue };
                    let values = |attribute: &String| (attribute.clone(), values_at(document, attribute));
                    known.insert(id, attributes.iter().map(values).collect());
                }
            }
        }
        if !next.indexes.is_empty() {
            return Gathered::Again(Box::new(next));
        }
        let Self { search, answers, revealed, .. } = next;
        let answers: Vec<Part<'_>> =
            answers.iter().map(|(portions, body, _)| Part { portions, body }).collect();
        search.with(&Arc::new(revealed)).gather(topology, &answers)
    }
}
