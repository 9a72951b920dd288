//! Facet distributions and statistics of several nodes, as one.

use super::values::normalized;
use crate::{
    json::{RawObject, write_string},
    shard::TAG_FIELD,
};
use serde_json::{Map, Value, value::RawValue};
use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
};

/// By normalised name: one spelling, and the count.
type Counts<'a> = BTreeMap<String, (Cow<'a, str>, u64)>;

/// How the values of one facet are ordered and cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FacetOrder {
    /// By count, most first, then by name; else by name.
    pub by_count: bool,
    /// By the bytes of the name, where it is by name.
    pub by_bytes: bool,
    /// The most values to show.
    pub limit: usize,
}

/// Adds up the counts of each value, and writes them in the order asked for, without the facet `hidden`.
pub fn merge_distributions(
    parts: &[&RawValue],
    hidden: Option<&str>,
    order: impl Fn(&str) -> FacetOrder,
    out: &mut Vec<u8>,
) {
    let mut facets: BTreeMap<Cow<'_, str>, Counts<'_>> = BTreeMap::new();
    for part in parts {
        let Ok(RawObject(members)) = serde_json::from_str(part.get()) else { continue };
        for (facet, values) in members {
            if facet == TAG_FIELD || Some(&*facet) == hidden {
                continue;
            }
            let counts = facets.entry(facet).or_default();
            let Ok(RawObject(values)) = serde_json::from_str(values.get()) else { continue };
            for (value, count) in values {
                let count = serde_json::from_str::<u64>(count.get()).unwrap_or(0);
                counts.entry(normalized(&value)).or_insert((value, 0)).1 += count;
            }
        }
    }
    out.push(b'{');
    for (position, (facet, counts)) in facets.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        write_string(facet, out);
        out.push(b':');
        write_counts(counts, order(facet), out);
    }
    out.push(b'}');
}

fn write_counts(counts: &Counts<'_>, order: FacetOrder, out: &mut Vec<u8>) {
    let mut values: Vec<&(Cow<'_, str>, u64)> = counts.values().collect();
    if order.by_count {
        // A stable sort: values of one count stay in the order of their names.
        values.sort_by(|(_, one), (_, other)| other.cmp(one));
    } else if order.by_bytes {
        values.sort_by(|(one, _), (other, _)| one.cmp(other));
    }
    out.push(b'{');
    for (position, (value, count)) in values.into_iter().take(order.limit).enumerate() {
        if position > 0 {
            out.push(b',');
        }
        write_string(value, out);
        out.extend_from_slice(format!(":{count}").as_bytes());
    }
    out.push(b'}');
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
    let mut seen: HashSet<Cow<'_, str>> = HashSet::new();
    let mut repeated = 0;
    for part in parts {
        let Ok(facets) = serde_json::from_str::<RawObject<'_>>(part.get()) else { continue };
        let Some(RawObject(values)) = facets.read(facet) else { continue };
        repeated += values.into_iter().map(|(value, _)| u64::from(!seen.insert(value))).sum::<u64>();
    }
    repeated
}

#[cfg(test)]
mod tests {
    use super::*;
    #[cfg(all(target_arch = "wasm32", target_os = "unknown"))]
    use wasm_bindgen_test::wasm_bindgen_test as test;

    fn merged(parts: &[&str], by_count: bool, limit: usize) -> String {
        let parts: Vec<&RawValue> = parts.iter().map(|part| serde_json::from_str(part).unwrap()).collect();
        let mut out = Vec::new();
        merge_distributions(&parts, None, |_| FacetOrder { by_count, by_bytes: false, limit }, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn counts_are_added_up() {
        let parts = [r#"{"genre":{"a":1,"b":5},"empty":{}}"#, r#"{"genre":{"b":1,"c":9},"empty":{}}"#];
        assert_eq!(merged(&parts, false, 100), r#"{"empty":{},"genre":{"a":1,"b":6,"c":9}}"#);
        assert_eq!(merged(&parts, true, 2), r#"{"empty":{},"genre":{"c":9,"b":6}}"#);
    }

    #[test]
    fn the_tag_is_no_facet() {
        let parts = [r#"{"_miroir_shard":{",,,":3},"genre":{"a":1}}"#];
        assert_eq!(merged(&parts, false, 100), r#"{"genre":{"a":1}}"#);
    }

    #[test]
    fn statistics_span_all() {
        let parts =
            [r#"{"p":{"min":1.5,"max":3.0}}"#, r#"{"p":{"min":2.0,"max":7.0},"q":{"min":0.0,"max":0.0}}"#];
        let parts: Vec<&RawValue> = parts.iter().map(|part| serde_json::from_str(part).unwrap()).collect();
        assert_eq!(
            Value::Object(merge_stats(&parts, None)),
            serde_json::json!({"p":{"min":1.5,"max":7.0},"q":{"min":0.0,"max":0.0}})
        );
    }
}
