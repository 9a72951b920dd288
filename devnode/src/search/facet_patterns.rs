//! Finds the facets that match the patterns of a search, and refuses invalid patterns.
//!
//! Source: Meilisearch 1.50, `compute_facet_distribution_stats` in `meilisearch/src/search/mod.rs`. Its engine accepts only
//! names, like this one.

use std::collections::{BTreeSet, HashMap};

use milli_core::{
    AttributePatterns, FilterableAttributesRule, Index, PatternMatch, UserError, heed, is_faceted_by,
};

use crate::error::{ApiError, Result};

/// The names of the fields that match these patterns.
///
/// # Errors
/// A pattern matches no filterable field.
pub fn chosen(index: &Index, rtxn: &heed::RoTxn<'_>, patterns: &[String]) -> Result<Vec<String>> {
    let rules = index.filterable_attributes_rules(rtxn)?;
    for pattern in patterns {
        check(&rules, pattern)?;
    }
    let fields = index.fields_ids_map(rtxn)?;
    let wanted = AttributePatterns { patterns: patterns.to_vec() };
    let is_filterable = |name: &str| {
        let rule = rules.iter().find(|rule| rule.match_str(name) == PatternMatch::Match);
        rule.is_some_and(|rule| rule.features().is_filterable())
    };
    let chosen =
        fields.names().filter(|name| wanted.match_str(name) == PatternMatch::Match && is_filterable(name));
    Ok(chosen.map(ToOwned::to_owned).collect())
}

fn check(rules: &[FilterableAttributesRule], pattern: &str) -> Result<()> {
    let mut refusing = None;
    for (number, rule) in rules.iter().enumerate() {
        if rule.features().is_filterable() {
            if intersect(rule, pattern) {
                return Ok(());
            }
        } else if rule.match_str(pattern) == PatternMatch::Match {
            refusing = Some(number);
            break;
        }
    }
    let valid: BTreeSet<String> =
        rules.iter().filter(|rule| rule.features().is_filterable()).flat_map(names).collect();
    let error: ApiError = UserError::InvalidFacetsDistribution {
        invalid_facets_name: [pattern.to_owned()].into(),
        valid_patterns: valid,
        matching_rule_indices: refusing
            .map(|rule| (pattern.to_owned(), rule))
            .into_iter()
            .collect::<HashMap<_, _>>(),
    }
    .into();
    let message = match refusing {
        Some(_) => error.message,
        None => error.message.replacen(": Attribute `", ": Pattern `", 1),
    };
    Err(ApiError { message, ..error })
}

fn names(rule: &FilterableAttributesRule) -> Vec<String> {
    match rule {
        FilterableAttributesRule::Field(name) => vec![name.clone()],
        FilterableAttributesRule::Pattern(rule) => rule.attribute_patterns.patterns.clone(),
    }
}

fn intersect(rule: &FilterableAttributesRule, facet: &str) -> bool {
    match rule {
        FilterableAttributesRule::Field(name) => {
            fits(facet, name) || is_faceted_by(name, facet) || is_faceted_by(facet, name)
        }
        FilterableAttributesRule::Pattern(rule) => rule
            .attribute_patterns
            .patterns
            .iter()
            .any(|pattern| fits(facet, pattern) || fits(pattern, facet)),
    }
}

fn fits(pattern: &str, name: &str) -> bool {
    AttributePatterns { patterns: vec![pattern.to_owned()] }.match_str(name) != PatternMatch::NoMatch
}
