//! Statistics of several nodes, as one.

use crate::{json::RawObject, search::values::normalized, shard::TAG_FIELD};
use serde_json::{Map, Value, value::RawValue};
use std::collections::{BTreeMap, HashSet};

/// The smallest `min` and the largest `max` of each facet, with their original text.
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

/// The number of times that a part reports a value of this facet which an earlier part has already reported.
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
