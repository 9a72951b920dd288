//! Facet distributions and statistics of several nodes, as one.

use super::values::{FacetValue, normalized};
use crate::{
    json::{RawObject, write_string},
    shard::TAG_FIELD,
};
use serde_json::{Map, Value, value::RawValue};
use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
};

/// Up to so many candidates Meilisearch counts document by document, and orders numbers as text; above, by value.
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
    /// A node has counted numbers by value.
    by_value: bool,
}

/// How nodes spell a text, and how many documents each has that tells of this spelling. A node spells it as the first of its documents
/// does, and one node as the first of all: it is among those of a node with so many of them most likely.
#[derive(Debug, Default)]
pub(super) struct Spellings<'a>(BTreeMap<Cow<'a, str>, u64>);

impl<'a> Spellings<'a> {
    /// Adds a node's.
    pub(super) fn add(&mut self, name: Cow<'a, str>, count: u64) {
        *self.0.entry(name).or_default() += count;
    }

    /// All documents that have the text.
    pub(super) fn count(&self) -> u64 {
        self.0.values().copied().fold(0, u64::saturating_add)
    }

    /// The spelling of most, and how many documents there are in all.
    pub(super) fn shown(self) -> (Cow<'a, str>, u64) {
        let count = self.count();
        // Of as many the first in the order of letters, whichever node was asked first.
        let most = self.0.into_iter().rev().max_by_key(|(_, count)| *count);
        (most.map(|(name, _)| name).unwrap_or_default(), count)
    }
}

/// How the values of one facet are ordered and cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FacetOrder {
    /// By count, most first; else by name.
    pub by_count: bool,
    /// Numbers and strings together, by the bytes of the name where it is by name: as values of several indexes are merged.
    pub together: bool,
    /// The most values to show.
    pub limit: usize,
}

/// A node's counts, and the statistics that tell which facets have numbers, where it gives any.
#[derive(Clone, Copy, Debug)]
pub struct FacetPart<'a> {
    /// `facetDistribution`.
    pub distribution: &'a RawValue,
    /// `facetStats`.
    pub stats: Option<&'a RawValue>,
}

/// Adds up the counts of each value, and writes them in the order asked for, without the facet `hidden`. `candidates` is how many
/// documents are counted; 0 where that is not known.
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

/// The smallest and the largest number of a facet on one node; both are among its values.
#[derive(Clone, Copy, Debug)]
struct Range {
    min: f64,
    max: f64,
}

impl Range {
    fn of(stats: &Value) -> Option<Self> {
        Some(Self { min: stats.get("min")?.as_f64()?, max: stats.get("max")?.as_f64()? })
    }

    /// The number that a name may stand for: written as nodes write numbers, and in this range.
    fn number(self, name: &str) -> Option<f64> {
        let number: f64 = name.parse().ok()?;
        let within = self.min <= number && number <= self.max;
        (within && number.to_string() == name).then_some(number)
    }
}

/// A value as a node tells it.
struct Told<'a> {
    name: Cow<'a, str>,
    number: Option<f64>,
    count: u64,
}

impl Told<'_> {
    /// Whether a number can follow another one: by name or by value, or by count.
    fn follows(&self, before: &Self, by_count: bool, by_value: bool) -> bool {
        match (by_count, by_value) {
            // Values of one count come in any order.
            (true, _) => self.count <= before.count,
            (false, true) => self.number > before.number,
            (false, false) => self.name > before.name,
        }
    }
}

/// How many of a node's values are numbers, which come first, and whether they are in the order of their values. Texts may look
/// like numbers: what follows the smallest and the largest number is one only where it goes on in their order.
fn numbers(values: &[Told<'_>], range: Range, by_count: bool) -> (usize, bool) {
    let like_numbers = values.iter().take_while(|value| value.number.is_some()).count();
    let values = values.get(..like_numbers).unwrap_or_default();
    let is_end = |value: &Told<'_>| value.number == Some(range.min) || value.number == Some(range.max);
    let least = values.iter().rposition(is_end).map_or(0, |last| last + 1);
    let pairs = || values.iter().zip(values.iter().skip(1));
    let by_value = !by_count && pairs().take(least.saturating_sub(1)).any(|(one, two)| two.name < one.name);
    let more =
        pairs().skip(least.saturating_sub(1)).take_while(|(one, two)| two.follows(one, by_count, by_value));
    (if least == 0 { 0 } else { least + more.count() }, by_value)
}

impl<'a> Facet<'a> {
    /// Adds a node's counts.
    fn add(&mut self, values: Vec<(Cow<'a, str>, &'a RawValue)>, range: Option<Range>, order: FacetOrder) {
        let told = values.into_iter().map(|(name, count)| Told {
            number: range.and_then(|range| range.number(&name)),
            count: serde_json::from_str::<u64>(count.get()).unwrap_or(0),
            name,
        });
        let told: Vec<Told<'_>> = told.collect();
        let (count, by_value) = range.map_or((0, false), |range| numbers(&told, range, order.by_count));
        self.by_value |= by_value;
        for (position, Told { name, number, count: documents }) in told.into_iter().enumerate() {
            match number.filter(|_| position < count) {
                Some(number) => self.numbers.entry(name).or_insert((number, 0)).1 += documents,
                None => {
                    // Of several indexes values are one where they are spelt alike.
                    let key = if order.together { name.to_string() } else { normalized(&name) };
                    self.texts.entry(key).or_default().add(name, documents);
                }
            }
        }
    }

    fn write(self, order: FacetOrder, candidates: u64, out: &mut Vec<u8>) {
        let Self { numbers, texts, by_value } = self;
        // Most documents have no more than one value: the sum says how many are counted.
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
            // Of values with one count Meilisearch's heap gives the last first, as far as its tree of values shows them.
            for values in [&mut numbers, &mut texts] {
                values.reverse();
                values.sort_by_key(|(_, count)| Reverse(*count));
            }
        }
        let mut shown = Written::default();
        if by_tree && !order.together {
            // Each goes on until there are as many as the limit: where the numbers fill it, the texts miss it.
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

/// The values that are shown. A text that is spelt as a number stands in its place.
#[derive(Default)]
struct Written<'a> {
    values: Vec<(Cow<'a, str>, u64)>,
    positions: HashMap<Cow<'a, str>, usize>,
}

impl<'a> Written<'a> {
    /// Adds a value, and says how many there are.
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

/// How many documents have each value of a facet, by [`FacetValue::key`].
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

/// The smallest `min` and the largest `max` of each facet, as they were written.
pub fn merge_stats(parts: &[&RawValue], hidden: Option<&str>) -> Map<String, Value> {
    let mut merged: BTreeMap<String, (Value, Value)> = BTreeMap::new();
    for part in parts {
        let Ok(stats) = serde_json::from_str::<Map<String, Value>>(part.get()) else { continue };
        for (facet, stat) in stats {
            if facet == TAG_FIELD || Some(&*facet) == hidden {
                continue;
            }
            let (Some(min), Some(max)) = (stat.get("min"), stat.get("max")) else { continue };
            let entry = merged.entry(facet).or_insert_with(|| (min.clone(), max.clone()));
            if min.as_f64() < entry.0.as_f64() {
                entry.0 = min.clone();
            }
            if max.as_f64() > entry.1.as_f64() {
                entry.1 = max.clone();
            }
        }
    }
    merged
        .into_iter()
        .map(|(facet, (min, max))| (facet, serde_json::json!({ "min": min, "max": max })))
        .collect()
}

/// How often a value of this facet is told by a part that is not the first to tell it.
pub fn repeated_values(parts: &[&RawValue], facet: &str) -> u64 {
    let mut seen: HashSet<String> = HashSet::new();
    let mut repeated = 0;
    for part in parts {
        let Ok(facets) = serde_json::from_str::<RawObject<'_>>(part.get()) else { continue };
        let Some(RawObject(values)) = facets.read(facet) else { continue };
        repeated +=
            values.into_iter().map(|(value, _)| u64::from(!seen.insert(normalized(&value)))).sum::<u64>();
    }
    repeated
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    /// The parts' values, each with the smallest and the largest number.
    fn merged(parts: &[(&str, [f64; 2])], by_count: bool, limit: usize) -> String {
        let raw = |text: &str| serde_json::from_str::<Box<RawValue>>(text).unwrap();
        let parts: Vec<_> = parts
            .iter()
            .map(|(part, [min, max])| (raw(part), raw(&json!({"n": {"min": min, "max": max}}).to_string())))
            .collect();
        let parts: Vec<FacetPart<'_>> = parts
            .iter()
            .map(|(distribution, stats)| FacetPart { distribution, stats: Some(stats) })
            .collect();
        let mut out = Vec::new();
        let order = |_: &str| FacetOrder { by_count, together: false, limit };
        merge_distributions(&parts, 0, None, order, &mut out);
        String::from_utf8(out).unwrap()
    }

    const NONE: [f64; 2] = [0.0, -1.0];

    #[test]
    fn numbers_come_first_as_text_or_by_value() {
        let by_text = [
            (r#"{"n":{"-2":1,"10":1,"9":1,"-x":1,"5 x":1}}"#, [-2.0, 10.0]),
            (r#"{"n":{"10":1,"2":1,"a":1}}"#, [2.0, 10.0]),
        ];
        assert_eq!(merged(&by_text, false, 5), r#"{"n":{"-2":1,"10":2,"2":1,"9":1,"-x":1}}"#);
        // One node has counted so many documents that it has counted by value.
        let by_value = [
            (r#"{"n":{"-2":1,"9":1,"10":1,"-x":1,"5 x":1}}"#, [-2.0, 10.0]),
            (r#"{"n":{"10":1,"2":1,"a":1}}"#, [2.0, 10.0]),
        ];
        assert_eq!(merged(&by_value, false, 6), r#"{"n":{"-2":1,"2":1,"9":1,"10":2,"-x":1,"5 x":1}}"#);
        assert_eq!(merged(&by_value, false, 2), r#"{"n":{"-2":1,"2":1,"-x":1,"5 x":1,"a":1}}"#);
        let many = [(r#"{"n":{"10":2000,"9":1}}"#, [9.0, 10.0]), (r#"{"n":{"10":2000}}"#, [10.0, 10.0])];
        assert_eq!(merged(&many, false, 5), r#"{"n":{"9":1,"10":4000}}"#);
    }

    #[test]
    fn texts_that_look_like_numbers_are_texts() {
        // 3 and 7 are numbers here, "4" and "5" are texts; on the other node all are.
        let parts = [
            (r#"{"n":{"3":1,"7":1,"4":1,"5":1,"x":1}}"#, [3.0, 7.0]),
            (r#"{"n":{"1":1,"5":1,"9":1}}"#, NONE),
        ];
        assert_eq!(merged(&parts, false, 9), r#"{"n":{"3":1,"7":1,"1":1,"4":1,"5":2,"9":1,"x":1}}"#);
        assert_eq!(merged(&parts, false, 4), r#"{"n":{"3":1,"7":1,"1":1,"4":1}}"#);
        // By count the limit holds for texts too, as long as the numbers do not fill it.
        let parts = [
            (r#"{"n":{"7":2,"3":1,"4":3,"5":1}}"#, [3.0, 7.0]),
            (r#"{"n":{"9":4,"8":4,"2":2,"1":1}}"#, NONE),
        ];
        assert_eq!(merged(&parts, true, 4), r#"{"n":{"7":2,"3":1,"9":4,"8":4}}"#);
        assert_eq!(merged(&parts, true, 2), r#"{"n":{"7":2,"3":1,"9":4,"8":4,"4":3,"2":2,"5":1,"1":1}}"#);
        // A number and a text of the same letters are shown once: where the number is, as often as the text.
        let parts = [(r#"{"n":{"3":1,"7":1}}"#, [3.0, 7.0]), (r#"{"n":{"7":5,"a":1}}"#, NONE)];
        assert_eq!(merged(&parts, false, 9), r#"{"n":{"3":1,"7":5,"a":1}}"#);
    }

    #[test]
    fn long_values_are_one_where_nodes_cut_them() {
        let (one, other) = ("a".repeat(468) + "b", "A".repeat(468) + "c");
        let parts =
            [(format!(r#"{{"g":{{"{one}":1}}}}"#), NONE), (format!(r#"{{"g":{{"{other}":1}}}}"#), NONE)];
        let parts: Vec<_> = parts.iter().map(|(part, range)| (part.as_str(), *range)).collect();
        assert_eq!(merged(&parts, false, 9), format!(r#"{{"g":{{"{other}":2}}}}"#));
    }

    #[test]
    fn a_value_is_spelt_as_most_documents_of_a_node_that_spells_it_so() {
        let parts =
            [(r#"{"g":{"ABC":2}}"#, NONE), (r#"{"g":{"Abc":3}}"#, NONE), (r#"{"g":{"abc":1}}"#, NONE)];
        let turned: Vec<_> = parts.iter().rev().copied().collect();
        assert_eq!(merged(&parts, false, 9), r#"{"g":{"Abc":6}}"#);
        assert_eq!(merged(&turned, false, 9), r#"{"g":{"Abc":6}}"#);
        let even = [(r#"{"g":{"b":1}}"#, NONE), (r#"{"g":{"B":1}}"#, NONE)];
        assert_eq!(merged(&even, true, 9), r#"{"g":{"B":2}}"#);
    }

    #[test]
    fn of_one_count_the_last_comes_first() {
        let parts = [(r#"{"g":{"a":1,"c":1,"b":2}}"#, NONE), (r#"{"g":{"d":1,"b":1}}"#, NONE)];
        assert_eq!(merged(&parts, true, 3), r#"{"g":{"b":3,"d":1,"c":1}}"#);
    }

    #[test]
    fn counts_are_added_up() {
        let parts = [
            (r#"{"genre":{"a":1,"b":5},"empty":{}}"#, NONE),
            (r#"{"genre":{"b":1,"c":9},"empty":{}}"#, NONE),
        ];
        assert_eq!(merged(&parts, false, 100), r#"{"empty":{},"genre":{"a":1,"b":6,"c":9}}"#);
        assert_eq!(merged(&parts, true, 2), r#"{"empty":{},"genre":{"c":9,"b":6}}"#);
    }

    #[test]
    fn the_tag_is_no_facet() {
        let parts = [(r#"{"_miroir_shard":{",,,":3},"genre":{"a":1}}"#, NONE)];
        assert_eq!(merged(&parts, false, 100), r#"{"genre":{"a":1}}"#);
    }

    #[test]
    fn statistics_span_all() {
        let parts =
            [r#"{"p":{"min":1.5,"max":3.0}}"#, r#"{"p":{"min":2.0,"max":7.0},"q":{"min":0.0,"max":0.0}}"#];
        let parts: Vec<&RawValue> = parts.iter().map(|part| serde_json::from_str(part).unwrap()).collect();
        assert_eq!(
            Value::Object(merge_stats(&parts, None)),
            json!({"p":{"min":1.5,"max":7.0},"q":{"min":0.0,"max":0.0}})
        );
    }
}
