//! Settings as clients see them.

use std::collections::BTreeMap;

use milli_core::vector::settings::EmbeddingSettings;
use milli_core::{DEFAULT_VALUES_PER_FACET, FilterableAttributesRule, Index, OrderBy, heed};
use serde_json::{Map, Value, json};

use super::{NAMES, extras};
use crate::error::{ApiError, Result};
use crate::node::Node;

/// The default of `maxTotalHits`: hits after this one cannot be reached.
const DEFAULT_MAX_TOTAL_HITS: usize = 1000;

/// All settings of an index.
pub fn view(node: &Node, uid: &str) -> Result<Map<String, Value>> {
    let folder = node.indexes.folder_of(uid).ok_or_else(|| ApiError::index_not_found(uid))?;
    let index = node.indexes.open(folder)?;
    let rtxn = index.read_txn()?;
    let extras = extras(node, folder)?;
    let mut settings = of_engine(&index, &rtxn)?;
    if let Some(rules) = extras.get("rankingRules") {
        settings.insert("rankingRules".into(), rules.clone());
    }
    let features = node.features();
    if features.foreign_keys {
        settings
            .insert("foreignKeys".into(), extras.get("foreignKeys").cloned().unwrap_or_else(|| json!([])));
    }
    if features.chat_completions {
        settings.insert("chat".into(), extras.get("chat").cloned().unwrap_or_else(|| json!({})));
    }
    Ok(NAMES.iter().filter_map(|name| settings.shift_remove_entry(*name)).collect())
}

fn of_engine(index: &Index, rtxn: &heed::RoTxn<'_>) -> Result<Map<String, Value>> {
    let stop_words = match index.stop_words(rtxn)? {
        Some(set) => set.stream().into_strs().map_err(ApiError::internal)?,
        None => Vec::new(),
    };
    let exact_words = match index.exact_words(rtxn)? {
        Some(set) => set.stream().into_strs().map_err(ApiError::internal)?,
        None => Vec::new(),
    };
    let mut sortable: Vec<_> = index.sortable_fields(rtxn)?.into_iter().collect();
    sortable.sort_unstable();
    let mut exact_attributes: Vec<_> = index.exact_attributes(rtxn)?;
    exact_attributes.sort_unstable();
    let orders: BTreeMap<_, _> = index
        .sort_facet_values_by(rtxn)?
        .into_iter()
        .map(|(name, order)| (name, if matches!(order, OrderBy::Count) { "count" } else { "alpha" }))
        .collect();
    let mut embedders = BTreeMap::new();
    for config in index.embedding_configs(rtxn)? {
        embedders.insert(config.name, serde_json::to_value(EmbeddingSettings::from(config.config))?);
    }
    let localized = index.localized_attributes_rules(rtxn)?.map(|rules| {
        rules
            .into_iter()
            .map(|rule| {
                let locales: Vec<_> = rule.locales.iter().map(|language| language.code()).collect();
                json!({ "attributePatterns": rule.attribute_patterns.patterns, "locales": locales })
            })
            .collect::<Vec<_>>()
    });
    let rules: Vec<_> = index.criteria(rtxn)?.iter().map(ToString::to_string).collect();
    let value = json!({
        "displayedAttributes": index.displayed_fields(rtxn)?.unwrap_or_else(|| vec!["*"]),
        "searchableAttributes": index.user_defined_searchable_fields(rtxn)?.unwrap_or_else(|| vec!["*"]),
        "filterableAttributes": index.filterable_attributes_rules(rtxn)?,
        "sortableAttributes": sortable,
        "rankingRules": rules,
        "stopWords": stop_words,
        "nonSeparatorTokens": index.non_separator_tokens(rtxn)?.unwrap_or_default(),
        "separatorTokens": index.separator_tokens(rtxn)?.unwrap_or_default(),
        "dictionary": index.dictionary(rtxn)?.unwrap_or_default(),
        "synonyms": index.user_defined_synonyms(rtxn)?,
        "distinctAttribute": index.distinct_field(rtxn)?,
        "proximityPrecision": index.proximity_precision(rtxn)?.unwrap_or_default(),
        "typoTolerance": {
            "enabled": index.authorize_typos(rtxn)?,
            "minWordSizeForTypos": {
                "oneTypo": index.min_word_len_one_typo(rtxn)?,
                "twoTypos": index.min_word_len_two_typos(rtxn)?,
            },
            "disableOnWords": exact_words,
            "disableOnAttributes": exact_attributes,
            "disableOnNumbers": index.disabled_typos_terms(rtxn)?.disable_on_numbers,
        },
        "faceting": {
            "maxValuesPerFacet": index.max_values_per_facet(rtxn)?.map_or(DEFAULT_VALUES_PER_FACET, |max| max as usize),
            "sortFacetValuesBy": orders,
        },
        "pagination": {
            "maxTotalHits": index.pagination_max_total_hits(rtxn)?.map_or(DEFAULT_MAX_TOTAL_HITS, |max| max as usize),
        },
        "embedders": hide_secrets(json!(embedders)),
        "searchCutoffMs": index.search_cutoff(rtxn)?,
        "localizedAttributes": localized,
        "facetSearch": index.facet_search(rtxn)?,
        "prefixSearch": index.prefix_search(rtxn)?.unwrap_or_default(),
    });
    match value {
        Value::Object(settings) => Ok(settings),
        _ => Ok(Map::new()),
    }
}

/// A body of settings as tasks show it: in the order of [`NAMES`], with sorted sets, explicit wildcards and hidden secrets.
pub fn canonical(body: &Value) -> Map<String, Value> {
    let mut shown = Map::new();
    for name in NAMES {
        let Some(value) = body.get(name) else {
            continue;
        };
        let value = match (name, value) {
            ("displayedAttributes" | "searchableAttributes", Value::Null) => json!(["*"]),
            (
                "sortableAttributes" | "stopWords" | "nonSeparatorTokens" | "separatorTokens" | "dictionary",
                list,
            ) => sorted(list),
            ("embedders", embedders) => hide_secrets(embedders.clone()),
            ("filterableAttributes", rules) => with_features(rules),
            (_, other) => other.clone(),
        };
        shown.insert(name.into(), value);
    }
    shown
}

/// Completes filterable rules with the features that the client left out.
fn with_features(rules: &Value) -> Value {
    let parsed: Option<Vec<FilterableAttributesRule>> = serde_json::from_value(rules.clone()).ok();
    parsed.and_then(|rules| serde_json::to_value(rules).ok()).unwrap_or_else(|| rules.clone())
}

fn sorted(list: &Value) -> Value {
    let Value::Array(items) = list else {
        return list.clone();
    };
    let mut items: Vec<_> = items.iter().filter_map(Value::as_str).collect();
    items.sort_unstable();
    items.dedup();
    json!(items)
}

/// Shortens API keys of embedders to a few letters.
fn hide_secrets(mut embedders: Value) -> Value {
    for embedder in embedders.as_object_mut().into_iter().flat_map(|map| map.values_mut()) {
        if let Some(Value::String(key)) = embedder.get_mut("apiKey") {
            let (kept, mask) = match key.len() {
                0..10 => (0, "XXX..."),
                10..20 => (2, "XXXX..."),
                20..30 => (3, "XXXXX..."),
                _ => (5, "XXXXXX..."),
            };
            *key = key.chars().take(kept).collect::<String>() + mask;
        }
    }
    embedders
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_show_settings_in_canonical_form() {
        let body = json!({ "stopWords": ["b", "a", "b"], "displayedAttributes": null, "embedders": { "e": { "apiKey": "0123456789abc" } } });
        let shown = serde_json::to_string(&canonical(&body)).unwrap();
        assert_eq!(
            shown,
            r#"{"displayedAttributes":["*"],"stopWords":["a","b"],"embedders":{"e":{"apiKey":"01XXXX..."}}}"#
        );
    }
}
