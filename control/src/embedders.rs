//! Embedders whose template is Meilisearch's default: it would embed every field, the shard tag too. They get the same
//! template without the tag, and clients are shown the default.

use crate::scrub;
use miroir_core::shard::TAG_FIELD;
use serde_json::{Value, json};

/// The setting.
pub const EMBEDDERS: &str = "embedders";
/// The secret in it.
pub const KEY: &str = "apiKey";

/// Meilisearch 1.50's default template (`default_template_text` in `milli/src/prompt`).
pub const DEFAULT: &str = "{% for field in fields %}{% if field.is_searchable and field.value != nil %}\
                       {{ field.name }}: {{ field.value }}\n{% endif %}{% endfor %}";

/// Sources that embed text by a template.
const TEXT_SOURCES: [&str; 4] = ["openAi", "huggingFace", "ollama", "rest"];

/// The default template, but for the tag.
#[must_use]
pub fn template() -> String {
    DEFAULT.replace(
        "field.value != nil %}",
        &format!("field.value != nil and field.name != \"{TAG_FIELD}\" %}}"),
    )
}

/// Gives embedders that would take the default template ours. Anything that is not as expected is left to nodes.
///
/// A change that names no source and no template touches neither: the embedder keeps what it has.
pub fn with_template(embedders: &mut Value) {
    for (_, embedder) in embedders.as_object_mut().into_iter().flatten() {
        // Composite embedders hold two of them.
        for part in ["indexingEmbedder", "searchEmbedder"] {
            if let Some(part) = embedder.get_mut(part).filter(|part| part.is_object()) {
                let mut alone = json!({ "part": part.take() });
                with_template(&mut alone);
                *part = alone["part"].take();
            }
        }
        let source = embedder.get("source").and_then(Value::as_str);
        let takes_template = match embedder.get("documentTemplate") {
            None => source.is_some_and(|source| TEXT_SOURCES.contains(&source)),
            // A source of null is reset to openAi.
            Some(Value::Null) => source.is_none_or(|source| TEXT_SOURCES.contains(&source)),
            Some(_) => false,
        };
        if takes_template && let Some(embedder) = embedder.as_object_mut() {
            embedder.insert("documentTemplate".to_owned(), json!(template()));
        }
    }
}

/// What a node is to be told of embedders: what clients have set, and where that is not known (after `miroir recover`), what
/// another node shows, but for keys: nodes show those masked. Gives the names of embedders whose key nobody knows, too.
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

/// Hides embedders' keys in a task's details, as Meilisearch does.
pub fn hide_secrets(value: &mut Value) {
    for (name, member) in value.as_object_mut().into_iter().flatten() {
        match member {
            Value::String(secret) if name == KEY => *secret = scrub::secret(secret),
            member => hide_secrets(member),
        }
    }
}

/// What a client is shown for a template: the default for ours.
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
        // It was set again, alone.
        let (all, unknown) = known(&shown, Some(&json!({"a": {"apiKey": "secret"}})));
        assert_eq!(all["a"], json!({"source": "openAi", "model": "m", "apiKey": "secret"}));
        assert!(unknown.is_empty());
        // What a client has said whole is taken as it is: there is no key, or it is there.
        let set =
            json!({"a": {"source": "openAi", "apiKey": "secret"}, "b": {"source": "ollama", "url": "u"}});
        assert_eq!(known(&shown, Some(&set)), (set, vec![]));
    }

    #[test]
    fn only_default_templates_change() {
        let mut embedders = json!({
            "a": {"source": "openAi"}, "b": {"source": "userProvided", "dimensions": 3},
            "c": {"source": "rest", "documentTemplate": "{{doc.title}}"}, "d": {"documentTemplate": null},
            "e": {"apiKey": "x"}, "f": null,
            "g": {"source": "composite", "indexingEmbedder": {"source": "ollama"}, "searchEmbedder": {"source": "rest"}},
        });
        with_template(&mut embedders);
        let ours = json!(template());
        assert!(template().contains("nil and field.name != \"_miroir_shard\" %}{{"));
        assert_eq!(embedders["a"]["documentTemplate"], ours);
        assert_eq!(embedders["b"], json!({"source": "userProvided", "dimensions": 3}));
        assert_eq!(embedders["c"]["documentTemplate"], "{{doc.title}}");
        assert_eq!(embedders["d"]["documentTemplate"], ours);
        assert_eq!(embedders["e"], json!({"apiKey": "x"}));
        assert_eq!(embedders["g"]["indexingEmbedder"]["documentTemplate"], ours);
        assert_eq!(embedders["g"]["searchEmbedder"]["documentTemplate"], ours);
        assert_eq!(embedders["g"].get("documentTemplate"), None);
        assert_eq!(shown(&template()), Some(DEFAULT));
    }
}
