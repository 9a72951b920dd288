//! Settings, each by itself and all at once.

use super::script::Script;
use meilisearch_sdk::{
    indexes::Index,
    settings::{
        FacetSortValue, FacetingSettings, FilterableAttribute, LocalizedAttributes, MinWordSizeForTypos,
        PaginationSetting, PrefixSearchSettings, Settings, TypoToleranceSettings,
    },
};
use std::collections::HashMap;

/// Sets, reads and resets a setting.
macro_rules! setting {
    ($script:ident, $index:ident, $set:ident($value:expr), $get:ident, $reset:ident) => {
        let result = $index.$set($value).await;
        $script.done(stringify!($set), result).await;
        $script.said(stringify!($get), $index.$get().await);
        let result = $index.$reset().await;
        $script.done(stringify!($reset), result).await;
        $script.said(concat!(stringify!($get), " after"), $index.$get().await);
    };
}

pub async fn settings(s: &mut Script, films: &Index) {
    setting!(
        s,
        films,
        set_ranking_rules(["words", "typo", "year:desc"]),
        get_ranking_rules,
        reset_ranking_rules
    );
    setting!(s, films, set_stop_words(["of", "the"]), get_stop_words, reset_stop_words);
    let synonyms = HashMap::from([("film".to_owned(), vec!["movie".to_owned()])]);
    setting!(s, films, set_synonyms(&synonyms), get_synonyms, reset_synonyms);
    setting!(
        s,
        films,
        set_searchable_attributes(["title"]),
        get_searchable_attributes,
        reset_searchable_attributes
    );
    setting!(
        s,
        films,
        set_displayed_attributes(["id", "title"]),
        get_displayed_attributes,
        reset_displayed_attributes
    );
    setting!(s, films, set_distinct_attribute("year"), get_distinct_attribute, reset_distinct_attribute);
    let pagination = PaginationSetting { max_total_hits: 50 };
    setting!(s, films, set_pagination(pagination), get_pagination, reset_pagination);
    let sorts = [("*".to_owned(), FacetSortValue::Count)].into();
    let faceting = FacetingSettings { max_values_per_facet: 5, sort_facet_values_by: Some(sorts) };
    setting!(s, films, set_faceting(&faceting), get_faceting, reset_faceting);
    let typos = TypoToleranceSettings {
        enabled: Some(true),
        disable_on_words: Some(vec!["pi".to_owned()]),
        min_word_size_for_typos: Some(MinWordSizeForTypos { one_typo: Some(3), two_typos: Some(8) }),
        ..TypoToleranceSettings::default()
    };
    setting!(s, films, set_typo_tolerance(&typos), get_typo_tolerance, reset_typo_tolerance);
    setting!(s, films, set_dictionary(["J. R. R."]), get_dictionary, reset_dictionary);
    let separators = ["|".to_owned()];
    setting!(
        s,
        films,
        set_separator_tokens(&separators.to_vec()),
        get_separator_tokens,
        reset_separator_tokens
    );
    let words = ["#".to_owned()];
    setting!(
        s,
        films,
        set_non_separator_tokens(&words.to_vec()),
        get_non_separator_tokens,
        reset_non_separator_tokens
    );
    let proximity = "byAttribute".to_owned();
    setting!(
        s,
        films,
        set_proximity_precision(proximity.clone()),
        get_proximity_precision,
        reset_proximity_precision
    );
    setting!(s, films, set_facet_search(false), get_facet_search, reset_facet_search);
    setting!(
        s,
        films,
        set_prefix_search(PrefixSearchSettings::Disabled),
        get_prefix_search,
        reset_prefix_search
    );
    setting!(s, films, set_search_cutoff_ms(Some(900)), get_search_cutoff_ms, reset_search_cutoff_ms);
    let locales =
        vec![LocalizedAttributes { locales: vec!["eng".into()], attribute_patterns: vec!["title".into()] }];
    setting!(
        s,
        films,
        set_localized_attributes(&locales),
        get_localized_attributes,
        reset_localized_attributes
    );
    s.said("get_filterable_attributes", films.get_filterable_attributes().await);
    s.said("get_sortable_attributes", films.get_sortable_attributes().await);
    let rules = [FilterableAttribute::Attribute("year".to_owned())];
    s.done("set_filterable_attributes_advanced", films.set_filterable_attributes_advanced(rules).await).await;
    s.said("get_filterable_attributes_advanced", films.get_filterable_attributes_advanced().await);
    s.done("wrong settings", films.set_settings(&Settings::new().with_ranking_rules(["nope"])).await).await;
    let all = Settings::new().with_stop_words(["a"]).with_filterable_attributes(["year", "genre"]);
    s.done("set_settings", films.set_settings(&all.with_max_values_per_facet(7)).await).await;
    s.said("get_settings", films.get_settings().await);
    s.done("reset_settings", films.reset_settings().await).await;
    s.said("get_settings after", films.get_settings().await);
}
