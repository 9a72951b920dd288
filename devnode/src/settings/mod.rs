//! Settings of an index: reads clients' bodies, passes them to the engine, and shows the engine's settings.

mod types;
mod view;

use milli_core::update::{Setting, Settings as Builder, validate_embedding_settings};
use milli_core::vector::settings::EmbeddingSettings;
use milli_core::{Criterion, FilterableAttributesRule, LocalizedAttributesRule, OrderBy};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

pub use self::types::Settings;
use self::types::{
    FacetValuesSort, Faceting, Localized, Pagination, Prefixes, Proximity, RankingRule, TypoTolerance,
};
pub use self::view::{canonical, view};
use crate::error::marker as code;
use crate::error::{MarkerCode, Result};
use crate::node::{Features, Node};
use crate::store::Changes;
use crate::validate::InvalidJson;

/// The store's section for settings that the engine cannot store, by the index's folder.
pub const EXTRAS: &str = "settings";

/// The names of all settings, in the order in which they are shown.
pub const NAMES: [&str; 23] = [
    "displayedAttributes",
    "searchableAttributes",
    "filterableAttributes",
    "sortableAttributes",
    "foreignKeys",
    "rankingRules",
    "stopWords",
    "nonSeparatorTokens",
    "separatorTokens",
    "dictionary",
    "synonyms",
    "distinctAttribute",
    "proximityPrecision",
    "typoTolerance",
    "faceting",
    "pagination",
    "embedders",
    "searchCutoffMs",
    "localizedAttributes",
    "facetSearch",
    "prefixSearch",
    "chat",
    "vectorStore",
];

/// Reads a body of settings.
pub fn read(body: Value) -> Result<Settings> {
    let settings: Settings = deserr::deserialize::<_, _, InvalidJson>(body)?;
    if let Setting::Set(embedders) = &settings.embedders {
        for (name, embedder) in embedders {
            validate_embedding_settings(embedder.clone(), name)?;
        }
    }
    Ok(settings)
}

/// Checks the body of the route of one setting. Paths in error messages start at the setting.
pub fn check_one(name: &str, body: Value) -> Result<()> {
    fn check<T: deserr::Deserr<InvalidJson<C>>, C: MarkerCode>(body: Value) -> Result<()> {
        deserr::deserialize::<Option<T>, _, InvalidJson<C>>(body)?;
        Ok(())
    }
    type Words = BTreeSet<String>;
    match name {
        "displayedAttributes" => check::<Vec<String>, code::InvalidSettingsDisplayedAttributes>(body),
        "searchableAttributes" => check::<Vec<String>, code::InvalidSettingsSearchableAttributes>(body),
        "filterableAttributes" => {
            check::<Vec<FilterableAttributesRule>, code::InvalidSettingsFilterableAttributes>(body)
        }
        "sortableAttributes" => check::<Words, code::InvalidSettingsSortableAttributes>(body),
        "rankingRules" => check::<Vec<RankingRule>, code::InvalidSettingsRankingRules>(body),
        "stopWords" => check::<Words, code::InvalidSettingsStopWords>(body),
        "nonSeparatorTokens" => check::<Words, code::InvalidSettingsNonSeparatorTokens>(body),
        "separatorTokens" => check::<Words, code::InvalidSettingsSeparatorTokens>(body),
        "dictionary" => check::<Words, code::InvalidSettingsDictionary>(body),
        "synonyms" => check::<BTreeMap<String, Vec<String>>, code::InvalidSettingsSynonyms>(body),
        "distinctAttribute" => check::<String, code::InvalidSettingsDistinctAttribute>(body),
        "proximityPrecision" => check::<Proximity, code::InvalidSettingsProximityPrecision>(body),
        "typoTolerance" => check::<TypoTolerance, code::InvalidSettingsTypoTolerance>(body),
        "faceting" => check::<Faceting, code::InvalidSettingsFaceting>(body),
        "pagination" => check::<Pagination, code::InvalidSettingsPagination>(body),
        "embedders" => {
            check::<BTreeMap<String, Setting<EmbeddingSettings>>, code::InvalidSettingsEmbedders>(body)
        }
        "searchCutoffMs" => check::<u64, code::InvalidSettingsSearchCutoffMs>(body),
        "localizedAttributes" => check::<Vec<Localized>, code::InvalidSettingsLocalizedAttributes>(body),
        "facetSearch" => check::<bool, code::InvalidSettingsFacetSearch>(body),
        "prefixSearch" => check::<Prefixes, code::InvalidSettingsPrefixSearch>(body),
        _ => Ok(()),
    }
}

/// Refuses settings whose experimental feature is disabled.
pub fn check_features(body: &Value, features: Features) -> Result<()> {
    let set = |name: &str| body.get(name).is_some_and(|value| !value.is_null());
    if set("chat") {
        let issue = "https://github.com/orgs/meilisearch/discussions/835";
        Features::require(
            features.chat_completions,
            "setting `chat` in the index settings",
            "chat completions",
            issue,
        )?;
    }
    if set("foreignKeys") {
        let issue = "https://github.com/orgs/meilisearch/discussions/873";
        let action = "setting `foreignKeys` in the index settings";
        Features::require(features.foreign_keys, action, "foreign_keys", issue)?;
    }
    Ok(())
}

/// Stores what the engine cannot store: newer settings, and names of ranking rules that it does not know.
pub fn record_extras(node: &Node, changes: &mut Changes, folder: Uuid, body: &Value) -> Result<()> {
    let mut extras = extras(node, folder)?;
    for name in ["rankingRules", "chat", "foreignKeys", "vectorStore"] {
        match body.get(name) {
            Some(Value::Null) => drop(extras.shift_remove(name)),
            Some(value) => drop(extras.insert(name.into(), value.clone())),
            None => {}
        }
    }
    changes.put(EXTRAS, &folder.to_string(), &extras)
}

/// The settings of an index that are stored outside the engine.
pub fn extras(node: &Node, folder: Uuid) -> Result<Map<String, Value>> {
    let rows = node.store.section::<Map<String, Value>>(EXTRAS)?;
    let folder = folder.to_string();
    Ok(rows.into_iter().find(|(key, _)| *key == folder).map(|(_, extras)| extras).unwrap_or_default())
}

/// Passes settings to the engine.
pub fn apply(settings: Settings, builder: &mut Builder<'_, '_, '_>) {
    macro_rules! give {
        ($setting:expr, $set:ident, $reset:ident) => {
            give!($setting, $set, $reset, std::convert::identity)
        };
        ($setting:expr, $set:ident, $reset:ident, $convert:expr) => {
            match $setting {
                Setting::Set(value) => builder.$set(($convert)(value)),
                Setting::Reset => builder.$reset(),
                Setting::NotSet => {}
            }
        };
    }
    let without_wildcard = |names: Setting<Vec<String>>| match names {
        Setting::Set(names) if names.iter().any(|name| name == "*") => Setting::Reset,
        other => other,
    };
    give!(without_wildcard(settings.displayed_attributes), set_displayed_fields, reset_displayed_fields);
    give!(without_wildcard(settings.searchable_attributes), set_searchable_fields, reset_searchable_fields);
    give!(settings.filterable_attributes, set_filterable_fields, reset_filterable_fields);
    give!(settings.sortable_attributes, set_sortable_fields, reset_sortable_fields, |names: BTreeSet<_>| {
        names.into_iter().collect()
    });
    give!(settings.ranking_rules, set_criteria, reset_criteria, criteria);
    give!(settings.stop_words, set_stop_words, reset_stop_words);
    give!(settings.non_separator_tokens, set_non_separator_tokens, reset_non_separator_tokens);
    give!(settings.separator_tokens, set_separator_tokens, reset_separator_tokens);
    give!(settings.dictionary, set_dictionary, reset_dictionary);
    give!(settings.synonyms, set_synonyms, reset_synonyms);
    give!(settings.distinct_attribute, set_distinct_field, reset_distinct_field);
    give!(settings.proximity_precision, set_proximity_precision, reset_proximity_precision, Proximity::into);
    give!(settings.search_cutoff_ms, set_search_cutoff, reset_search_cutoff);
    give!(settings.facet_search, set_facet_search, reset_facet_search);
    give!(settings.prefix_search, set_prefix_search, reset_prefix_search, Prefixes::into);
    give!(settings.embedders, set_embedder_settings, reset_embedder_settings);
    give!(
        settings.localized_attributes,
        set_localized_attributes_rules,
        reset_localized_attributes_rules,
        |rules: Vec<Localized>| rules.into_iter().map(LocalizedAttributesRule::from).collect()
    );
    match settings.typo_tolerance {
        Setting::Set(typos) => {
            give!(typos.enabled, set_autorize_typos, reset_authorize_typos);
            match typos.min_word_size_for_typos {
                Setting::Set(sizes) => {
                    give!(sizes.one_typo, set_min_word_len_one_typo, reset_min_word_len_one_typo);
                    give!(sizes.two_typos, set_min_word_len_two_typos, reset_min_word_len_two_typos);
                }
                Setting::Reset => {
                    builder.reset_min_word_len_one_typo();
                    builder.reset_min_word_len_two_typos();
                }
                Setting::NotSet => {}
            }
            give!(typos.disable_on_words, set_exact_words, reset_exact_words);
            give!(
                typos.disable_on_attributes,
                set_exact_attributes,
                reset_exact_attributes,
                |names: BTreeSet<_>| { names.into_iter().collect() }
            );
            give!(typos.disable_on_numbers, set_disable_on_numbers, reset_disable_on_numbers);
        }
        Setting::Reset => {
            builder.reset_authorize_typos();
            builder.reset_min_word_len_one_typo();
            builder.reset_min_word_len_two_typos();
            builder.reset_exact_words();
            builder.reset_exact_attributes();
            builder.reset_disable_on_numbers();
        }
        Setting::NotSet => {}
    }
    match settings.faceting {
        Setting::Set(faceting) => {
            give!(faceting.max_values_per_facet, set_max_values_per_facet, reset_max_values_per_facet);
            give!(
                faceting.sort_facet_values_by,
                set_sort_facet_values_by,
                reset_sort_facet_values_by,
                |orders: BTreeMap<String, FacetValuesSort>| {
                    orders.into_iter().map(|(name, order)| (name, OrderBy::from(order))).collect()
                }
            );
        }
        Setting::Reset => {
            builder.reset_max_values_per_facet();
            builder.reset_sort_facet_values_by();
        }
        Setting::NotSet => {}
    }
    match settings.pagination {
        Setting::Set(pagination) => {
            give!(
                pagination.max_total_hits,
                set_pagination_max_total_hits,
                reset_pagination_max_total_hits,
                std::num::NonZeroUsize::get
            );
        }
        Setting::Reset => builder.reset_pagination_max_total_hits(),
        Setting::NotSet => {}
    }
}

/// Converts the client's ranking rules to those of the engine, which has one rule where newer versions have two.
fn criteria(rules: Vec<RankingRule>) -> Vec<Criterion> {
    let mut criteria: Vec<Criterion> = Vec::new();
    for RankingRule(criterion) in rules {
        if !criteria.contains(&criterion) {
            criteria.push(criterion);
        }
    }
    criteria
}
