//! The body of the settings routes.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::str::FromStr;

use deserr::{DeserializeError, Deserr, ErrorKind, ValuePointerRef, take_cf_content};
use milli_core::index::PrefixSearch;
use milli_core::proximity::ProximityPrecision;
use milli_core::update::Setting;
use milli_core::vector::settings::EmbeddingSettings;
use milli_core::{
    AttributePatterns, Criterion, CriterionError, FilterableAttributesRule, LocalizedAttributesRule, OrderBy,
};
use serde_json::Value;

use crate::error::marker as code;
use crate::locale::Locale;
use crate::validate::InvalidJson;

/// A change of settings. Settings that are not set stay as they are.
#[derive(Debug, Default, Deserr)]
#[deserr(error = InvalidJson, rename_all = camelCase, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Settings {
    #[deserr(default, error = InvalidJson<code::InvalidSettingsDisplayedAttributes>)]
    pub displayed_attributes: Setting<Vec<String>>,
    #[deserr(default, error = InvalidJson<code::InvalidSettingsSearchableAttributes>)]
    pub searchable_attributes: Setting<Vec<String>>,
    #[deserr(default, error = InvalidJson<code::InvalidSettingsFilterableAttributes>)]
    pub filterable_attributes: Setting<Vec<FilterableAttributesRule>>,
    #[deserr(default, error = InvalidJson<code::InvalidSettingsSortableAttributes>)]
    pub sortable_attributes: Setting<BTreeSet<String>>,
    // Only stored, as the client sent it.
    #[deserr(default)]
    #[allow(dead_code)]
    foreign_keys: Setting<Value>,
    #[deserr(default, error = InvalidJson<code::InvalidSettingsRankingRules>)]
    pub ranking_rules: Setting<Vec<RankingRule>>,
    #[deserr(default, error = InvalidJson<code::InvalidSettingsStopWords>)]
    pub stop_words: Setting<BTreeSet<String>>,
    #[deserr(default, error = InvalidJson<code::InvalidSettingsNonSeparatorTokens>)]
    pub non_separator_tokens: Setting<BTreeSet<String>>,
    #[deserr(default, error = InvalidJson<code::InvalidSettingsSeparatorTokens>)]
    pub separator_tokens: Setting<BTreeSet<String>>,
    #[deserr(default, error = InvalidJson<code::InvalidSettingsDictionary>)]
    pub dictionary: Setting<BTreeSet<String>>,
    #[deserr(default, error = InvalidJson<code::InvalidSettingsSynonyms>)]
    pub synonyms: Setting<BTreeMap<String, Vec<String>>>,
    #[deserr(default, error = InvalidJson<code::InvalidSettingsDistinctAttribute>)]
    pub distinct_attribute: Setting<String>,
    #[deserr(default, error = InvalidJson<code::InvalidSettingsProximityPrecision>)]
    pub proximity_precision: Setting<Proximity>,
    #[deserr(default, error = InvalidJson<code::InvalidSettingsTypoTolerance>)]
    pub typo_tolerance: Setting<TypoTolerance>,
    #[deserr(default, error = InvalidJson<code::InvalidSettingsFaceting>)]
    pub faceting: Setting<Faceting>,
    #[deserr(default, error = InvalidJson<code::InvalidSettingsPagination>)]
    pub pagination: Setting<Pagination>,
    #[deserr(default, error = InvalidJson<code::InvalidSettingsEmbedders>)]
    pub embedders: Setting<BTreeMap<String, Setting<EmbeddingSettings>>>,
    #[deserr(default, error = InvalidJson<code::InvalidSettingsSearchCutoffMs>)]
    pub search_cutoff_ms: Setting<u64>,
    #[deserr(default, error = InvalidJson<code::InvalidSettingsLocalizedAttributes>)]
    pub localized_attributes: Setting<Vec<Localized>>,
    #[deserr(default, error = InvalidJson<code::InvalidSettingsFacetSearch>)]
    pub facet_search: Setting<bool>,
    #[deserr(default, error = InvalidJson<code::InvalidSettingsPrefixSearch>)]
    pub prefix_search: Setting<Prefixes>,
    #[deserr(default, error = InvalidJson<code::InvalidSettingsIndexChat>)]
    #[allow(dead_code)]
    chat: Setting<Value>,
}

/// The precision with which distances between words are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserr)]
#[deserr(error = InvalidJson<code::InvalidSettingsProximityPrecision>, rename_all = camelCase)]
#[allow(missing_docs)]
pub enum Proximity {
    ByWord,
    ByAttribute,
}

impl From<Proximity> for ProximityPrecision {
    fn from(precision: Proximity) -> Self {
        match precision {
            Proximity::ByWord => Self::ByWord,
            Proximity::ByAttribute => Self::ByAttribute,
        }
    }
}

/// Whether words are found by their prefixes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserr)]
#[deserr(error = InvalidJson<code::InvalidSettingsPrefixSearch>, rename_all = camelCase)]
#[allow(missing_docs)]
pub enum Prefixes {
    IndexingTime,
    Disabled,
}

impl From<Prefixes> for PrefixSearch {
    fn from(prefixes: Prefixes) -> Self {
        match prefixes {
            Prefixes::IndexingTime => Self::IndexingTime,
            Prefixes::Disabled => Self::Disabled,
        }
    }
}

/// The settings of typo tolerance.
#[derive(Debug, Default, Deserr)]
#[deserr(error = InvalidJson<code::InvalidSettingsTypoTolerance>, rename_all = camelCase, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct TypoTolerance {
    #[deserr(default)]
    pub enabled: Setting<bool>,
    #[deserr(default)]
    pub min_word_size_for_typos: Setting<MinWordSizes>,
    #[deserr(default)]
    pub disable_on_words: Setting<BTreeSet<String>>,
    #[deserr(default)]
    pub disable_on_attributes: Setting<BTreeSet<String>>,
    #[deserr(default)]
    pub disable_on_numbers: Setting<bool>,
}

/// The least lengths of words that may have typos.
#[derive(Debug, Default, Clone, Copy, Deserr)]
#[deserr(error = InvalidJson<code::InvalidSettingsTypoTolerance>, rename_all = camelCase, deny_unknown_fields, validate = check_sizes -> InvalidJson<code::InvalidSettingsTypoTolerance>)]
#[allow(missing_docs)]
pub struct MinWordSizes {
    #[deserr(default)]
    pub one_typo: Setting<u8>,
    #[deserr(default)]
    pub two_typos: Setting<u8>,
}

fn check_sizes<E: DeserializeError>(sizes: MinWordSizes, at: ValuePointerRef<'_>) -> Result<MinWordSizes, E> {
    if let (Setting::Set(one), Setting::Set(two)) = (sizes.one_typo, sizes.two_typos)
        && one > two
    {
        let msg = format!(
            "`minWordSizeForTypos` setting is invalid. `oneTypo` and `twoTypos` fields should be between `0` and \
             `255`, and `twoTypos` should be greater or equals to `oneTypo` but found `oneTypo: {one}` and twoTypos: \
             {two}`."
        );
        return Err(take_cf_content(E::error::<Infallible>(None, ErrorKind::Unexpected { msg }, at)));
    }
    Ok(sizes)
}

/// The settings of facets.
#[derive(Debug, Default, Deserr)]
#[deserr(error = InvalidJson<code::InvalidSettingsFaceting>, rename_all = camelCase, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Faceting {
    #[deserr(default)]
    pub max_values_per_facet: Setting<usize>,
    #[deserr(default)]
    pub sort_facet_values_by: Setting<BTreeMap<String, FacetValuesSort>>,
}

/// The order of a facet's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserr)]
#[deserr(error = InvalidJson<code::InvalidSettingsFaceting>, rename_all = camelCase)]
#[allow(missing_docs)]
pub enum FacetValuesSort {
    Alpha,
    Count,
}

impl From<FacetValuesSort> for OrderBy {
    fn from(sort: FacetValuesSort) -> Self {
        match sort {
            FacetValuesSort::Alpha => Self::Lexicographic,
            FacetValuesSort::Count => Self::Count,
        }
    }
}

/// The settings of pagination.
#[derive(Debug, Default, Deserr)]
#[deserr(error = InvalidJson<code::InvalidSettingsPagination>, rename_all = camelCase, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Pagination {
    #[deserr(default)]
    pub max_total_hits: Setting<NonZeroUsize>,
}

/// The languages of some attributes.
#[derive(Debug, Deserr)]
#[deserr(error = InvalidJson<code::InvalidSettingsLocalizedAttributes>, rename_all = camelCase, deny_unknown_fields)]
pub struct Localized {
    attribute_patterns: AttributePatterns,
    locales: Vec<Locale>,
}

impl From<Localized> for LocalizedAttributesRule {
    fn from(rule: Localized) -> Self {
        Self {
            attribute_patterns: rule.attribute_patterns,
            locales: rule.locales.into_iter().map(|locale| locale.0).collect(),
        }
    }
}

/// The engine's ranking rule for a client's rule.
#[derive(Debug, Clone, Deserr)]
#[deserr(try_from(&String) = FromStr::from_str -> CriterionError)]
pub struct RankingRule(pub Criterion);

impl FromStr for RankingRule {
    type Err = CriterionError;

    fn from_str(name: &str) -> Result<Self, CriterionError> {
        let criterion = match name {
            // Newer versions split `attribute` into these two.
            "attributeRank" | "wordPosition" => Criterion::Attribute,
            name => name.parse()?,
        };
        Ok(Self(criterion))
    }
}
