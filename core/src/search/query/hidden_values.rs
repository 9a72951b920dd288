//! Hidden values: nodes do not show the values of attributes that are not displayed, even if hits are sorted or deduplicated
//! (`distinct`) by them.
//!
//! The documents of the hits are read again for these values, from the nodes that found them and with the gateway's own key.
//! The client does not see these values.

use super::IndexQuery;
use crate::{
    json::{RawObject, to_bytes},
    path::ApiPath,
    scatter_query::{Gathered, Key, NodeRequest, Part, QuerySlice, ScatterQuery, owner},
    search::{
        hit_order::rank::HIDDEN,
        hits::fields::DETAILS,
        values::{document_id::DocumentId, document_values::DocumentValues, values_at},
    },
    topology::Topology,
};
use memchr::memmem;
use serde::Serialize;
use serde_json::value::RawValue;
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    sync::Arc,
};

/// Ids of documents in their JSON form, by index.
type Ids = BTreeMap<String, Vec<Box<RawValue>>>;

/// A search whose answers may hide the values that its hits are sorted or deduplicated by.
pub(in crate::search) trait Sorting: ScatterQuery + Sized + 'static {
    /// The queries of the search.
    fn queries(&self) -> Vec<&IndexQuery>;

    /// The same search with the values that have been read.
    fn with(self, revealed: &Arc<DocumentValues>) -> Self;

    /// The position of a part that cannot be read.
    fn unreadable(&self, parts: &[Part]) -> Option<usize>;

    /// Whether these are the first answers of two steps.
    fn is_in_steps(&self) -> bool {
        false
    }

    /// The same search with all its hits asked for at once.
    fn at_once(self) -> Self {
        self
    }

    /// The search and its answers, where these hide nothing.
    ///
    /// # Errors
    /// What comes first: to read what is hidden, or to do without a node whose answer cannot be read.
    fn revealed(self: Box<Self>, parts: Vec<Part>) -> Result<(Box<Self>, Vec<Part>), Gathered> {
        let Some(hidden) = Hidden::of(&*self, &parts) else { return Ok((self, parts)) };
        // Only nodes with hits to read are asked again, so an answer that cannot be parsed must be detected now.
        if let Some(position) = self.unreadable(&parts) {
            return Err(Gathered::broken(self, parts, position));
        }
        // The first hits of a deep page do not tell which documents need to be read.
        if self.is_in_steps() {
            return Err(Gathered::Next(Box::new(self.at_once()), owner(&parts)));
        }
        let Hidden { indexes, ids } = hidden;
        let answers = parts.into_iter().zip(ids).collect();
        let reveal = Reveal { search: *self, indexes, answers, revealed: DocumentValues::default() };
        Err(Gathered::Again(Box::new(reveal)))
    }
}

/// What answers hide.
struct Hidden {
    /// The indexes to read from, each with its primary key and the attributes.
    indexes: Vec<(String, String, BTreeSet<String>)>,
    /// Of each answer, the hits to read.
    ids: Vec<Ids>,
}

/// A search that has its answers, except for the values that they hide.
#[derive(Debug)]
struct Reveal<S> {
    search: S,
    /// The indexes to read from, the next one last, each with its primary key and attributes.
    indexes: Vec<(String, String, BTreeSet<String>)>,
    /// The answers, with the ids of the hits to read.
    answers: Vec<(Part, Ids)>,
    revealed: DocumentValues,
}

impl Hidden {
    fn of(search: &impl Sorting, parts: &[Part]) -> Option<Self> {
        let queries = search.queries();
        let mut indexes: BTreeMap<&str, Wanted<'_>> = BTreeMap::new();
        for query in queries.iter().copied().filter(|query| !query.is_revealed()) {
            let Some(key) = query.config.primary_key.as_deref() else { continue };
            if query.sorts().is_empty() && query.distinct.is_none() {
                continue;
            }
            let wanted =
                indexes.entry(&query.index).or_insert(Wanted { key, distinct: None, all: BTreeSet::new() });
            wanted.distinct = wanted.distinct.or(query.distinct.as_deref());
            wanted.all.extend(query.sorts().iter().map(|(attribute, _)| attribute.clone()));
            wanted.all.extend(query.distinct.clone());
        }
        let distinct = indexes.values().any(|wanted| wanted.distinct.is_some());
        let hides = |part: &Part| distinct || memmem::find(&part.body, HIDDEN.as_bytes()).is_some();
        if indexes.is_empty() || !parts.iter().any(hides) {
            return None;
        }
        let only = queries.first()?.index.as_str();
        let ids = parts.iter().map(|part| match hides(part) {
            true => hidden_ids(&part.body, only, &indexes),
            false => Ids::new(),
        });
        let ids: Vec<Ids> = ids.collect();
        let mut indexes: Vec<_> = indexes
            .into_iter()
            .map(|(index, wanted)| (index.to_owned(), wanted.key.to_owned(), wanted.all))
            .collect();
        indexes.retain(|(index, ..)| ids.iter().any(|ids| ids.contains_key(index)));
        (!indexes.is_empty()).then_some(Self { indexes, ids })
    }
}

impl<S> Reveal<S> {
    /// The ids of a node's hits to read from the next index.
    fn ids(&self, slices: &[QuerySlice]) -> Option<&[Box<RawValue>]> {
        let (index, ..) = self.indexes.last()?;
        let (_, ids) = self.answers.iter().find(|(part, _)| *part.slices == *slices)?;
        ids.get(index).map(Vec::as_slice)
    }
}

/// The attributes to read from an index if its hits hide them.
struct Wanted<'q> {
    /// The primary key.
    key: &'q str,
    /// The distinct attribute, which no two hits may share a value of.
    distinct: Option<&'q str>,
    /// The distinct attribute and the sort attributes.
    all: BTreeSet<String>,
}

/// The ids of the hits that hide values. `only` is the index of an answer that does not name its index.
fn hidden_ids(body: &[u8], only: &str, indexes: &BTreeMap<&str, Wanted<'_>>) -> Ids {
    let Ok(answer) = serde_json::from_slice::<RawObject<'_>>(body) else { return Ids::new() };
    let results = answer.read::<Vec<RawObject<'_>>>("results").unwrap_or_else(|| vec![answer]);
    let mut found: BTreeMap<String, BTreeMap<&str, &RawValue>> = BTreeMap::new();
    for result in &results {
        let of_result: Option<String> = result.read("indexUid");
        let mut by_index: BTreeMap<String, Vec<RawObject<'_>>> = BTreeMap::new();
        // That there are none is told when answers are merged.
        let Some(hits) = result.read::<Vec<RawObject<'_>>>("hits") else { continue };
        for hit in hits {
            let place: Option<RawObject<'_>> = hit.read("_federation");
            let index = place.and_then(|place| place.read("indexUid")).or_else(|| of_result.clone());
            by_index.entry(index.unwrap_or_else(|| only.to_owned())).or_default().push(hit);
        }
        for (index, hits) in by_index {
            let Some(wanted) = indexes.get(index.as_str()) else { continue };
            let shows = |attribute| hits.iter().any(|hit| !values_at(hit, attribute).is_empty());
            let hides_distinct = wanted.distinct.is_some_and(|attribute| !shows(attribute));
            let hides_sort =
                |hit: &RawObject<'_>| hit.last(DETAILS).is_some_and(|details| details.get().contains(HIDDEN));
            let hidden = hits.iter().filter(|hit| hides_distinct || hides_sort(hit));
            let ids: Vec<&RawValue> = hidden.filter_map(|hit| hit.at(wanted.key)).collect();
            if !ids.is_empty() {
                found.entry(index).or_default().extend(ids.into_iter().map(|id| (id.get(), id)));
            }
        }
    }
    let owned = |ids: BTreeMap<&str, &RawValue>| ids.into_values().map(ToOwned::to_owned).collect();
    found.into_iter().map(|(index, ids)| (index, owned(ids))).collect()
}

impl<S: Sorting> ScatterQuery for Reveal<S> {
    fn seeds(&self) -> Vec<u64> {
        self.search.seeds()
    }

    fn indexes(&self, unit: usize) -> Vec<&str> {
        self.search.indexes(unit)
    }

    fn concerns(&self, slices: &[QuerySlice]) -> bool {
        self.ids(slices).is_some()
    }

    fn ask(&self, slices: &[QuerySlice]) -> NodeRequest {
        #[derive(Serialize)]
        struct Fetch<'a> {
            fields: Vec<&'a String>,
            ids: &'a [Box<RawValue>],
            limit: usize,
        }
        let (Some((index, key, attributes)), Some(ids)) = (self.indexes.last(), self.ids(slices)) else {
            return NodeRequest::new("", Vec::new());
        };
        let fields = std::iter::once(key).chain(attributes).collect();
        let body = to_bytes(&Fetch { fields, ids, limit: ids.len() });
        let path = ApiPath::of_index(index, &["documents", "fetch"]);
        NodeRequest { key: Key::Internal, ..NodeRequest::new(path, body) }
    }

    fn restart(self: Box<Self>) -> Option<Box<dyn ScatterQuery>> {
        Some(Box::new(self.search))
    }

    fn gather(mut self: Box<Self>, topology: &Topology, parts: Vec<Part>) -> Gathered {
        if let Some((index, key, attributes)) = self.indexes.last() {
            let known = self.revealed.0.entry(index.clone()).or_default();
            for (position, part) in parts.iter().enumerate() {
                let answer = serde_json::from_slice::<RawObject<'_>>(&part.body).ok();
                let documents = answer.and_then(|answer| answer.read::<Vec<RawObject<'_>>>("results"));
                let Some(documents) = documents else { return Gathered::broken(self, parts, position) };
                for document in &documents {
                    let Some(id) = DocumentId::of(document, key) else { continue };
                    let values = |attribute: &String| (attribute.clone(), values_at(document, attribute));
                    known.insert(id, attributes.iter().map(values).collect());
                }
            }
        }
        self.indexes.pop();
        if !self.indexes.is_empty() {
            return Gathered::Again(self);
        }
        let Self { search, answers, revealed, .. } = *self;
        let answers = answers.into_iter().map(|(part, _)| part).collect();
        Box::new(search.with(&Arc::new(revealed))).gather(topology, answers)
    }
}
