//! The shard tag in an index's settings: it is always filterable, its rule comes first, and clients never see it.

use miroir_core::{
    scrub,
    shard::{Shard, TAG_FIELD},
    topology::Filterable,
};
use serde_json::{Map, Value, json};

/// The setting that holds the tag's rule.
pub const FILTERABLE: &str = "filterableAttributes";

/// The setting that lists the attributes that hits show.
pub const DISPLAYED: &str = "displayedAttributes";

/// The rule that makes the tag filterable by equality only.
#[must_use]
pub fn tag_rule() -> Value {
    json!({
        "attributePatterns": [TAG_FIELD],
        "features": {"facetSearch": false, "filter": {"equality": true, "comparison": false}}
    })
}

/// Filterable attributes as nodes get them: the tag's rule, then the client's rules, with the tag removed from them.
///
/// `None` if the client's value is invalid: it goes to a node unchanged, which refuses it with Meilisearch's message.
#[must_use]
pub fn with_tag(client: &Value) -> Option<Value> {
    let mut rules = vec![tag_rule()];
    match client {
        Value::Null => {}
        Value::Array(client) => rules.extend(client.iter().filter_map(without_tag)),
        _ => return None,
    }
    Some(Value::Array(rules))
}

/// Adds the tag to the displayed attributes of a change, because gateways order hits by it and then remove it. An empty list
/// stays empty: hits that show nothing have no visible order.
pub fn display_tag(settings: &mut Map<String, Value>) {
    if let Some(Value::Array(displayed)) = settings.get_mut(DISPLAYED)
        && !displayed.is_empty()
        && !displayed.iter().any(|name| name == "*" || name == TAG_FIELD)
    {
        displayed.push(TAG_FIELD.into());
    }
}

/// Removes the tag from filterable attributes that a node returned.
pub fn scrub_rules(rules: &mut Value) {
    if let Value::Array(rules) = rules {
        *rules = rules.iter().filter_map(without_tag).collect();
    }
}

/// The rule without the tag; `None` if nothing is left.
#[must_use]
pub fn without_tag(rule: &Value) -> Option<Value> {
    if rule.as_str() == Some(TAG_FIELD) {
        return None;
    }
    let Some(patterns) = rule.get("attributePatterns").and_then(Value::as_array) else {
        return Some(rule.clone());
    };
    if !patterns.iter().any(|pattern| pattern == TAG_FIELD) {
        return Some(rule.clone());
    }
    let left: Vec<Value> = patterns.iter().filter(|pattern| *pattern != TAG_FIELD).cloned().collect();
    if left.is_empty() {
        return None;
    }
    let mut rule = rule.clone();
    rule["attributePatterns"] = Value::Array(left);
    Some(rule)
}

/// The client's filterable attributes that enable filters.
#[must_use]
pub fn filters(client: Option<&Value>) -> Vec<Filterable> {
    let enables = |rule: &Value| {
        let filter = rule.get("features").and_then(|features| features.get("filter"));
        let is =
            |name: &str, default| filter.and_then(|filter| filter.get(name)?.as_bool()).unwrap_or(default);
        is("equality", true) || is("comparison", false)
    };
    let rules = client.and_then(Value::as_array).into_iter().flatten().filter_map(without_tag);
    let enabling = rules.filter(enables).flat_map(|rule| match rule.get("attributePatterns") {
        Some(patterns) => {
            let patterns = patterns.as_array().into_iter().flatten().filter_map(Value::as_str);
            patterns.map(|pattern| Filterable::Pattern { pattern: pattern.to_owned() }).collect::<Vec<_>>()
        }
        None => rule.as_str().map(|name| Filterable::Name(name.to_owned())).into_iter().collect(),
    });
    enabling.collect()
}

/// A client's change of settings as nodes get it: the tag's name is replaced by a name that no document has. [`with_tag`]
/// handles filterable attributes.
#[must_use]
pub fn disguised(change: &Value) -> Value {
    let mut change = change.clone();
    for (name, value) in change.as_object_mut().into_iter().flatten() {
        if name != FILTERABLE
            && let Some(disguised) = scrub::disguise_value(value)
        {
            *value = disguised;
        }
    }
    change
}

/// Those of a client's `nonSeparatorTokens` or `dictionary` words that consist only of the tag's characters: they would make
/// tags searchable.
#[must_use]
pub fn forbidden_tokens(tokens: &Value) -> Vec<String> {
    // The last characters of the first eight tags are the tags' whole alphabet.
    let alphabet: String = (0..8).filter_map(|slot| Shard(slot).tag().as_str().chars().next_back()).collect();
    tokens
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .filter(|token| !token.is_empty() && token.chars().all(|letter| alphabet.contains(letter)))
        .map(ToOwned::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_show_the_tag_where_not_everything_is_displayed() {
        for (client, node) in [
            (json!(null), json!(null)),
            (json!(["*"]), json!(["*"])),
            (json!([]), json!([])),
            (json!(["title"]), json!(["title", "_miroir_shard"])),
            (json!("x"), json!("x")),
        ] {
            let mut settings = Map::from_iter([(DISPLAYED.to_owned(), client.clone())]);
            display_tag(&mut settings);
            assert_eq!(settings[DISPLAYED], node, "{client}");
        }
    }

    #[test]
    fn the_rule_comes_first_whatever_the_client_sets() {
        for (client, rest) in [
            (json!(null), json!([])),
            (json!([]), json!([])),
            (json!(["genre", "year"]), json!(["genre", "year"])),
            (json!(["*"]), json!(["*"])),
            (json!(["_miroir_shard", "genre"]), json!(["genre"])),
            (
                json!([{"attributePatterns": ["*"], "features": {}}]),
                json!([{"attributePatterns": ["*"], "features": {}}]),
            ),
            (json!([{"attributePatterns": ["_miroir_shard"]}]), json!([])),
            (json!([{"attributePatterns": ["a*", "_miroir_shard"]}]), json!([{"attributePatterns": ["a*"]}])),
            (json!([7]), json!([7])),
        ] {
            let set = with_tag(&client).unwrap();
            assert_eq!(set[0], tag_rule());
            assert_eq!(set.as_array().unwrap()[1..], *rest.as_array().unwrap(), "{client}");
            let mut shown = set;
            scrub_rules(&mut shown);
            assert_eq!(shown, rest);
        }
        assert_eq!(with_tag(&json!("genre")), None, "a node is to refuse it");
    }

    #[test]
    fn patterns_that_enable_filters_are_told() {
        let rule = |patterns: Value, filter: Value| json!({"attributePatterns": patterns, "features": {"filter": filter}});
        let rules = json!(["genre", rule(json!(["a*", "_miroir_shard"]), json!({})), rule(json!(["b"]), json!({"equality": false})),
            rule(json!(["c", "d"]), json!({"equality": false, "comparison": true})), {"attributePatterns": ["e"]}]);
        let filters_of = filters(Some(&rules));
        assert_eq!(
            filters_of.iter().map(Filterable::text).collect::<Vec<_>>(),
            ["genre", "a*", "c", "d", "e"]
        );
        assert_eq!(filters_of[0], Filterable::Name("genre".to_owned()));
        assert!(filters(None).is_empty() && filters(Some(&Value::Null)).is_empty());
    }

    #[test]
    fn settings_do_not_name_the_tag() {
        let change = json!({"distinctAttribute": "_miroir_shard", "rankingRules": ["_miroir_shard:asc", "words"],
            "filterableAttributes": ["_miroir_shard"], "stopWords": ["a"]});
        let sent = json!({"distinctAttribute": "_miroir_5hard", "rankingRules": ["_miroir_5hard:asc", "words"],
            "filterableAttributes": ["_miroir_shard"], "stopWords": ["a"]});
        assert_eq!(disguised(&change), sent);
    }

    #[test]
    fn tokens_that_would_show_the_tag_are_found() {
        assert_eq!(forbidden_tokens(&json!([",", "@", "(", ";;", "}{"])), [",", "(", ";;", "}{"]);
        for token in [",", ";", "(", ")", "[", "]", "{", "}"] {
            assert_eq!(forbidden_tokens(&json!([token])).len(), 1, "{token}");
        }
        assert!(forbidden_tokens(&json!(null)).is_empty());
    }
}
