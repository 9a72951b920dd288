//! Which fields within objects nodes index: those that the settings of the index refer to. Objects may have any number of other
//! fields (one for each customer, say), but an index can have only 65,535 fields.
//!
//! Source: Meilisearch 1.50, `milli/src/update/new/extract/searchable/tokenize_document.rs` and `faceted/facet_document.rs`.

use serde_json::{Map, Value};

/// The fields that settings refer to, as names or as patterns that start or end with `*`.
#[derive(Debug, PartialEq, Eq)]
pub enum Reach {
    /// All of them.
    All,
    /// Fields that match one of these patterns, and the fields below and above them.
    Named(Vec<String>),
}

impl Reach {
    /// Derives it from an index's settings, as clients have set them.
    #[must_use]
    pub fn of(settings: &Map<String, Value>) -> Self {
        let mut named = Vec::new();
        let searchable = settings.get("searchableAttributes").unwrap_or(&Value::Null);
        let Some(searchable) = searchable.as_array() else { return Self::All };
        let list = |name: &str| settings.get(name).and_then(Value::as_array).into_iter().flatten();
        let rules = list("filterableAttributes").flat_map(|rule| match rule.get("attributePatterns") {
            Some(patterns) => patterns.as_array().into_iter().flatten().collect(),
            None => vec![rule],
        });
        let asc_desc =
            list("rankingRules").filter_map(Value::as_str).filter_map(|rule| rule.rsplit_once(':'));
        let asc_desc: Vec<Value> = asc_desc.map(|(name, _)| Value::from(name)).collect();
        let distinct = settings.get("distinctAttribute").into_iter();
        let all =
            searchable.iter().chain(rules).chain(list("sortableAttributes")).chain(&asc_desc).chain(distinct);
        for name in all.filter_map(Value::as_str) {
            if name == "*" {
                return Self::All;
            }
            named.push(name.to_owned());
        }
        // Nodes index `_geo` whatever the settings are.
        named.push("_geo".to_owned());
        Self::Named(named)
    }

    /// Whether a node indexes a field within an object. This is an estimate that errs on the side of `true`.
    #[must_use]
    pub fn has(&self, field: &str) -> bool {
        let Self::Named(patterns) = self else { return true };
        let within = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        patterns.iter().any(|pattern| match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
            (Some(end), _) => field.contains(end),
            (_, Some(start)) => field.starts_with(start) || within(start.trim_end_matches('.'), field),
            (None, None) => within(field, pattern) || within(pattern, field),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn has(settings: &Value, fields: [&str; 5]) -> Vec<bool> {
        let reach = Reach::of(settings.as_object().unwrap());
        fields.map(|field| reach.has(field)).to_vec()
    }

    #[test]
    fn only_what_settings_look_at_is_taken_up() {
        let fields = ["prices.c1", "prices.c1.net", "meta.title", "meta", "_geo.lat"];
        let all = [true; 5].to_vec();
        assert_eq!(has(&json!({}), fields), all);
        assert_eq!(has(&json!({"searchableAttributes": ["*"]}), fields), all);
        assert_eq!(
            has(&json!({"searchableAttributes": ["title"], "filterableAttributes": ["*"]}), fields),
            all
        );
        assert_eq!(
            has(&json!({"searchableAttributes": ["title"]}), fields),
            [false, false, false, false, true]
        );
        for settings in [
            json!({"searchableAttributes": ["meta.title"]}),
            json!({"searchableAttributes": [], "filterableAttributes": [{"attributePatterns": ["meta.*"]}]}),
            json!({"searchableAttributes": [], "sortableAttributes": ["meta"]}),
            json!({"searchableAttributes": [], "rankingRules": ["words", "meta.title:asc"]}),
            json!({"searchableAttributes": [], "distinctAttribute": "meta.title"}),
            json!({"searchableAttributes": [], "filterableAttributes": ["*.title"]}),
        ] {
            let reached = has(&settings, fields);
            assert!(!reached[0] && !reached[1] && reached[2], "{settings}: {reached:?}");
        }
    }
}
