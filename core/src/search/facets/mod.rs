//! Facet distributions of several nodes, as one.

mod numbers;
mod stats;
#[cfg(test)]
mod tests;

pub use stats::{merge_stats, repeated_values};

use super::values::{FacetValue, normalized};
use crate::{
    json::{RawObject, write_string},
    shard::TAG_FIELD,
};
use numbers::{Range, ReportedValue, numbers};
use serde_json::{Map, Value, value::RawValue};
use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

/// Up to this many candidates, Meilisearch counts document by document and orders numbers as text; above, it orders them by
/// value.
///
/// Source: Meilisearch 1.50, `milli/src/search/facet/facet_distribution.rs`.
const COUNTED_BY_DOCUMENT: u64 = 3_000;

/// One facet over all nodes.
#[derive(Default)]
struct Facet<'a> {
    /// By name.
    numbers: BTreeMap<Cow<'a, str>, (f64, u64)>,
    /// By normalised name.
    texts: BTreeMap<String, Spellings<'a>>,
    /// Whether a node has counted the numbers by value.
    by_value: bool,
}

/// How nodes spell a string value, with the number of documents on the nodes that report each spelling. A node reports the
/// spelling of its first document, and one node with all documents would report that of the first document of all. That
/// document is most likely on a node that has many documents with this value.
#[derive(Debug, Default)]
pub(in crate::search) struct Spellings<'a>(BTreeMap<Cow<'a, str>, u64>);

impl<'a> Spellings<'a> {
    /// Adds a node's.
    pub(in crate::search) fn add(&mut self, name: Cow<'a, str>, count: u64) {
        *self.0.entry(name).or_default() += count;
    }

    /// Number of documents with this value on all nodes.
    pub(in crate::search) fn count(&self) -> u64 {
        self.0.values().copied().fold(0, u64::saturating_add)
    }

    /// The spelling with the most documents, and the total count.
    pub(in crate::search) fn shown(self) -> (Cow<'a, str>, u64) {
        let count = self.count();
        // Of spellings with equal counts, the alphabetically first one wins, whichever node was asked first.
        let most = self.0.into_iter().rev().max_by_key(|(_, count)| *count);
        (most.map(|(name, _)| name).unwrap_or_default(), count)
    }
}

/// How the values of one facet are ordered and cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FacetOrder {
    /// By descending count; otherwise by name.
    pub by_count: bool,
    /// Whether numbers and strings are ordered together, as in a merge of several indexes. An order by name then compares
    /// bytes.
    pub together: bool,
    /// The most values to show.
    pub limit: usize,
}

/// A node's counts, and its statistics if it sent any; these tell which facets have numbers.
#[derive(Clone, Copy, Debug)]
pub struct FacetPart<'a> {
    /// `facetDistribution`.
    pub distribution: &'a RawValue,
    /// `facetStats`.
    pub stats: Option<&'a RawValue>,
}

/// Adds up the counts of each value and writes them in the requested order, without the facet `hidden`. `candidates` is the
/// number of counted documents; 0 if it is not known.
pub fn merge_distributions(
    parts: &[FacetPart<'_>],
    candidates: u64,
    hidden: Option<&str>,
    order: impl Fn(&str) -> FacetOrder,
    out: &mut Vec<u8>,
) {
    let mut facets: BTreeMap<Cow<'_, str>, Facet<'_>> = BTreeMap::new();
    for part in parts {
        let Ok(RawObject(members)) = serde_json::from_str(part.distribution.get()) else { continue };
        let stats = part.stats.and_then(|stats| serde_json::from_str::<Map<String, Value>>(stats.get()).ok());
        for (facet, values) in members {
            if facet == TAG_FIELD || Some(&*facet) == hidden {
                continue;
            }
            let Ok(RawObject(values)) = serde_json::from_str(values.get()) else { continue };
            let range = stats.as_ref().and_then(|stats| Range::of(stats.get(&*facet)?));
            let order = order(&facet);
            facets.entry(facet).or_default().add(values, range, order);
        }
    }
    out.push(b'{');
    for (position, (name, facet)) in facets.into_iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        write_string(&name, out);
        out.push(b':');
        facet.write(order(&name), candidates, out);
    }
    out.push(b'}');
}

impl<'a> Facet<'a> {
    /// Adds a node's counts.
    fn add(&mut self, values: Vec<(Cow<'a, str>, &'a RawValue)>, range: Option<Range>, order: FacetOrder) {
        let told = values.into_iter().map(|(name, count)| ReportedValue {
            number: range.and_then(|range| range.number(&name)),
            count: serde_json::from_str::<u64>(count.get()).unwrap_or(0),
            name,
        });
        let told: Vec<ReportedValue<'_>> = told.collect();
        let (count, by_value) = range.map_or((0, false), |range| numbers(&told, range, order.by_count));
        self.by_value |= by_value;
        for (position, ReportedValue { name, number, count: documents }) in told.into_iter().enumerate() {
            match number.filter(|_| position < count) {
                Some(number) => self.numbers.entry(name).or_insert((number, 0)).1 += documents,
                None => {
                    // Values from several indexes are merged only if their spelling is equal.
                    let key = if order.together { name.to_string() } else { normalized(&name) };
                    self.texts.entry(key).or_default().add(name, documents);
                }
            }
        }
    }

    fn write(self, order: FacetOrder, candidates: u64, out: &mut Vec<u8>) {
        let Self { numbers, texts, by_value } = self;
        // Most documents have at most one value, so the sum approximates the number of counted documents.
        let counts = numbers.values().map(|(_, count)| *count).chain(texts.values().map(Spellings::count));
        let documents = if candidates == 0 { counts.fold(0, u64::saturating_add) } else { candidates };
        let by_tree = order.by_count || by_value || documents > COUNTED_BY_DOCUMENT;
        let mut numbers: Vec<(Cow<'_, str>, f64, u64)> =
            numbers.into_iter().map(|(name, (number, count))| (name, number, count)).collect();
        let mut texts: Vec<(Cow<'_, str>, u64)> = texts.into_values().map(Spellings::shown).collect();
        if order.together {
            texts.extend(numbers.drain(..).map(|(name, _, count)| (name, count)));
            texts.sort_by(|(one, _), (other, _)| one.cmp(other));
        } else if by_tree {
            numbers.sort_by(|(_, one, _), (_, other, _)| one.total_cmp(other));
        }
        let mut numbers: Vec<(Cow<'_, str>, u64)> =
            numbers.into_iter().map(|(name, _, count)| (name, count)).collect();
        if order.by_count {
            // For values with equal counts, Meilisearch's heap returns the last one first, in the order of its tree of values.
            for values in [&mut numbers, &mut texts] {
                values.reverse();
                values.sort_by_key(|(_, count)| Reverse(*count));
            }
        }
        let mut shown = Written::default();
        if by_tree && !order.together {
            // Each list is written until the number of values equals the limit. If the numbers alone fill it, the strings no
            // longer meet that condition and are not cut.
            for values in [numbers, texts] {
                for (name, count) in values {
                    if shown.insert(name, count) == order.limit {
                        break;
                    }
                }
            }
        } else {
            for values in [numbers, texts] {
                let left = order.limit.saturating_sub(shown.values.len());
                for (name, count) in values.into_iter().take(left) {
                    shown.insert(name, count);
                }
            }
        }
        shown.write(out);
    }
}

/// The values to show. A string that is spelled like a number replaces it at its position.
#[derive(Default)]
struct Written<'a> {
    values: Vec<(Cow<'a, str>, u64)>,
    positions: HashMap<Cow<'a, str>, usize>,
}

impl<'a> Written<'a> {
    /// Adds a value, and returns the number of values.
    fn insert(&mut self, name: Cow<'a, str>, count: u64) -> usize {
        let position = *self.positions.entry(name.clone()).or_insert(self.values.len());
        match self.values.get_mut(position) {
            Some(value) => value.1 = count,
            None => self.values.push((name, count)),
        }
        self.values.len()
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.push(b'{');
        for (position, (name, count)) in self.values.iter().enumerate() {
            if position > 0 {
                out.push(b',');
            }
            write_string(name, out);
            out.extend_from_slice(format!(":{count}").as_bytes());
        }
        out.push(b'}');
    }
}

/// The number of documents with each value of a facet, by [`FacetValue::key`].
pub fn counts_of(parts: &[FacetPart<'_>], facet: &str) -> HashMap<String, u64> {
    let mut all = Facet::default();
    for part in parts {
        let stats = part.stats.and_then(|stats| serde_json::from_str::<Map<String, Value>>(stats.get()).ok());
        let range = stats.as_ref().and_then(|stats| Range::of(stats.get(facet)?));
        let facets = serde_json::from_str::<RawObject<'_>>(part.distribution.get()).ok();
        if let Some(RawObject(values)) = facets.and_then(|facets| facets.read(facet)) {
            all.add(values, range, FacetOrder { by_count: false, together: false, limit: usize::MAX });
        }
    }
    let numbers = all.numbers.into_values().map(|(number, count)| (FacetValue::Number(number).key(), count));
    let texts = all.texts.into_iter().map(|(text, told)| (FacetValue::Text(text).key(), told.count()));
    numbers.chain(texts).collect()
}
