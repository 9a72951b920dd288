//! Embedders with Meilisearch's default document template. That template embeds every field, the shard tag too. Nodes therefore
//! get the same template without the tag, and clients see the default.

use crate::disguise::messages;
use miroir_core::shard::TAG_FIELD;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The name of the setting.
pub const EMBEDDERS: &str = "embedders";
/// The embedder's member that holds a secret.
pub const KEY: &str = "apiKey";

/// Meilisearch 1.50's default template (`default_template_text` in `milli/src/prompt`).
pub const DEFAULT: &str = "{% for field in fields %}{% if field.is_searchable and field.value != nil %}\
                       {{ field.name }}: {{ field.value }}\n{% endif %}{% endfor %}";

/// Sources that embed text rendered from a document template.
const TEXT_SOURCES: [&str; 4] = ["openAi", "huggingFace", "ollama", "rest"];

/// The default template without the tag.
#[must_use]
pub fn template() -> String {
    DEFAULT.replace(
        "field.value != nil %}",
        &format!("field.value != nil and field.name != \"{TAG_FIELD}\" %}}"),
    )
}

/// Sets the template without the tag on each embedder that would have the default template after `change`. `now` are the
/// index's embedders before the change. Values of an unexpected shape stay as they are: nodes refuse them.
pub fn with_template(change: &mut Value, now: Option<&Value>) {
    for (name, change) in change.as_object_mut().into_iter().flatten() {
        let now = now.and_then(|now| now.get(name));
        // A composite embedder has two; only its `indexingEmbedder` embeds documents.
        let nested = change.get_mut("indexingEmbedder").filter(|part| part.is_object());
        if let Some(part) = nested {
            give_template(part, now.and_then(|now| now.get("indexingEmbedder")));
        }
        give_template(change, now);
    }
}

fn give_template(change: &mut Value, now: Option<&Value>) {
    let Some(change) = change.as_object_mut() else { return };
    // `null` resets the source to its default, openAi.
    let after =
        |member: &str| change.get(member).or_else(|| now?.get(member)).filter(|value| !value.is_null());
    let embeds_text = |source: Option<&Value>| {
        source.is_none_or(|source| source.as_str().is_some_and(|source| TEXT_SOURCES.contains(&source)))
    };
    let is_fragmented = ["indexingFragments", "searchFragments"].iter().any(|kind| {
        let fragments = [now.and_then(|now| now.get(kind)), change.get(*kind)];
        let are_reset = fragments[1].is_some_and(Value::is_null);
        let mut names: BTreeMap<&str, bool> = BTreeMap::new();
        for (name, fragment) in fragments.into_iter().flatten().filter_map(Value::as_object).flatten() {
            names.insert(name, !fragment.is_null());
        }
        !are_reset && names.into_values().any(|is_there| is_there)
    });
    let takes_default = match change.get("documentTemplate") {
        Some(template) => template.is_null(),
        None => !now.is_some_and(|now| now.get("documentTemplate").is_some_and(Value::is_string)),
    };
    if takes_default && !is_fragmented && embeds_text(after("source")) {
        change.insert("documentTemplate".to_owned(), json!(template()));
    }
}

/// The embedders to set on a node: those that clients have set. If the ledger does not have them (after `miroir recover`), they
/// are what another node shows, without keys, because nodes mask keys. Also returns the names of embedders whose key is
/// unknown.
#[must_use]
pub fn known(shown: &Value, set: Option<&Value>) -> (Value, Vec<String>) {
    let mut all = set.and_then(Value::as_object).cloned().unwrap_or_default();
    let mut unknown = Vec::new();
    for (name, shown) in shown.as_object().into_iter().flatten() {
        let set = all.get(name).and_then(Value::as_object);
        let says = |field: &str| set.is_some_and(|set| set.contains_key(field));
        if shown.get(KEY).is_some_and(Value::is_string) && !says(KEY) {
            unknown.push(name.clone());
        }
        if says("source") {
            continue;
        }
        let mut embedder = shown.as_object().cloned().unwrap_or_default();
        embedder.remove(KEY);
        embedder.extend(set.cloned().unwrap_or_default());
        all.insert(name.clone(), Value::Object(embedder));
    }
    (Value::Object(all), unknown)
}

/// Masks embedders' keys in a task's details, as Meilisearch does.
pub fn hide_secrets(value: &mut Value) {
    for (name, member) in value.as_object_mut().into_iter().flatten() {
        match member {
            Value::String(secret) if name == KEY => *secret = messages::secret(secret),
            member => hide_secrets(member),
        }
    }
}

/// The default template, if `text` is the template without the tag: clients see the default instead.
#[must_use]
pub fn shown(text: &str) -> Option<&'static str> {
    (text == template()).then_some(DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_hidden() {
        let mut details =
            json!({"embedders": {"a": {"apiKey": "short"}, "b": {"apiKey": "0123456789abcdef"}}});
        hide_secrets(&mut details);
        assert_eq!(details, json!({"embedders": {"a": {"apiKey": "XXX..."}, "b": {"apiKey": "01XXXX..."}}}));
    }

    #[test]
    fn masked_keys_are_never_told_to_a_node() {
        let shown =
            json!({"a": {"source": "openAi", "model": "m", "apiKey": "sXXX..."}, "b": {"source": "ollama"}});
        let without = json!({"a": {"source": "openAi", "model": "m"}, "b": {"source": "ollama"}});
        assert_eq!(known(&shown, None), (without, vec!["a".to_owned()]));
        // The client has set the key again, and nothing else.
        let (all, unknown) = known(&shown, Some(&json!({"a": {"apiKey": "secret"}})));
        assert_eq!(all["a"], json!({"source": "openAi", "model": "m", "apiKey": "secret"}));
        assert!(unknown.is_empty());
        // An embedder that a client has set with its source is complete: either it has a key there, or it has none.
        let set =
            json!({"a": {"source": "openAi", "apiKey": "secret"}, "b": {"source": "ollama", "url": "u"}});
        assert_eq!(known(&shown, Some(&set)), (set, vec![]));
    }

    #[test]
    fn only_default_templates_change() {
        let ours = json!(template());
        assert!(template().contains("nil and field.name != \"_miroir_shard\" %}{{"));
        assert_eq!(shown(&template()), Some(DEFAULT));
        let fragments = json!({"a": {"value": "{{doc.a}}"}});
        let text = json!({"source": "rest", "documentTemplate": "{{doc.title}}"});
        let default = json!({"source": "rest", "documentTemplate": ours});
        let own = json!({"source": "userProvided", "dimensions": 3});
        // The embedder before, the change, and whether the change gets the template without the tag.
        for (now, change, gets) in [
            (json!(null), json!({"source": "openAi"}), true),
            (json!(null), json!({"apiKey": "x"}), true),
            (json!(null), json!({"documentTemplate": null}), true),
            (json!(null), own.clone(), false),
            (json!(null), text.clone(), false),
            (json!(null), json!(null), false),
            (json!(null), json!({"source": "rest", "indexingFragments": fragments}), false),
            (
                json!(null),
                json!({"source": "rest", "searchFragments": fragments, "documentTemplate": null}),
                false,
            ),
            (text.clone(), json!({"source": "rest"}), false),
            (text.clone(), json!({"source": "openAi"}), false),
            (text.clone(), json!({"documentTemplate": null}), true),
            (default.clone(), json!({"apiKey": "x"}), false),
            (default.clone(), json!({"source": "ollama"}), false),
            (own.clone(), json!({"dimensions": 4}), false),
            (own, json!({"source": "rest"}), true),
            (json!({"source": "rest", "indexingFragments": fragments}), json!({"url": "u"}), false),
            (
                json!({"source": "rest", "indexingFragments": fragments}),
                json!({"indexingFragments": null}),
                true,
            ),
            (
                json!({"source": "rest", "indexingFragments": fragments}),
                json!({"indexingFragments": {"a": null}}),
                true,
            ),
        ] {
            let mut changes = json!({ "e": change });
            with_template(&mut changes, Some(&json!({ "e": now })));
            let mut expected = change.clone();
            if gets {
                expected["documentTemplate"] = ours.clone();
            }
            assert_eq!(changes["e"], expected, "{now} {change}");
        }
        let mut composite = json!({"c": {"source": "composite", "indexingEmbedder": {"source": "ollama"}, "searchEmbedder": {"source": "rest"}}});
        with_template(&mut composite, None);
        assert_eq!(composite["c"]["indexingEmbedder"]["documentTemplate"], ours);
        assert_eq!(
            composite["c"]["searchEmbedder"],
            json!({"source": "rest"}),
            "documents are not embedded by it"
        );
        assert_eq!(composite["c"].get("documentTemplate"), None);
    }
}
