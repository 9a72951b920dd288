//! Which fields in objects nodes take up: those that the settings of the index let them look at. Objects may have any number of others
//! (an object by customer, say), and an index can have 65,535 fields only.
//!
//! Source: Meilisearch 1.50, `milli/src/update/new/extract/searchable/tokenize_document.rs` and `faceted/facet_document.rs`.

use serde_json::{Map, Value};

/// Fields that settings name, with `*` at their ends.
#[derive(Debug, PartialEq, Eq)]
pub enum Reach {
    /// All of them.
    All,
    /// What matches one of these, lies below it, or leads to it.
    Named(Vec<String>),
}

impl Reach {
    /// That of an index with these settings, as clients have set them.
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
        // A place is looked at whatever is set.
        named.push("_geo".to_owned());
        Self::Named(named)
    }

    /// Whether a node takes up a field in an object, as far as can be told: rather one too many.
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
