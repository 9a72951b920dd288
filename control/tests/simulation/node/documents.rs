//! Documents of a node: filters and pages.

use super::{Document, Node, NodeIndex, NodeReply, error};
use miroir_core::shard::TAG_FIELD;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// A value as text, as Meilisearch takes it for an id.
pub fn id_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// One condition of a filter.
#[derive(Debug)]
enum Condition {
    /// The field is one of these texts.
    In(String, BTreeSet<String>),
    /// The field is missing.
    Missing(String),
    /// Nothing matches: the field has another name than any.
    Never,
}

impl Condition {
    /// Reads one condition; `None` where this model does not know it.
    fn read(text: &str) -> Option<Self> {
        if let Some((field, list)) = text.split_once(" IN [") {
            let values =
                list.strip_suffix(']')?.split("\",\"").map(|value| value.trim_matches('"').to_owned());
            return Some(Self::In(field.to_owned(), values.collect()));
        }
        if let Some(field) = text.strip_suffix(" NOT EXISTS") {
            return Some(Self::Missing(field.to_owned()));
        }
        let (field, value) = text.split_once(" = ")?;
        Some(match field {
            "_miroir_5hard" => Self::Never,
            field => Self::In(field.to_owned(), BTreeSet::from([value.trim_matches('"').to_owned()])),
        })
    }

    fn field(&self) -> &str {
        match self {
            Self::In(field, _) | Self::Missing(field) => field,
            Self::Never => TAG_FIELD,
        }
    }

    fn finds(&self, document: &Document) -> bool {
        match self {
            Self::In(field, values) => document.get(field).is_some_and(|value| match value {
                Value::Array(all) => all.iter().any(|value| values.contains(&id_text(value))),
                value => values.contains(&id_text(value)),
            }),
            Self::Missing(field) => !document.contains_key(field),
            Self::Never => false,
        }
    }
}

/// A filter: all of its members have to match, and of a member that is a list one.
#[derive(Debug, Default)]
pub struct Filter(Vec<Vec<Condition>>);

impl Filter {
    /// Reads a filter; the text that this model does not know is the error.
    pub fn read(filter: &Value) -> Result<Self, String> {
        let one = |value: &Value| {
            let text = value.as_str().unwrap_or_default();
            Condition::read(text).ok_or_else(|| value.to_string())
        };
        let all: Vec<Vec<Condition>> = match filter {
            Value::Null => Vec::new(),
            Value::Array(all) => all
                .iter()
                .map(|member| match member {
                    Value::Array(any) => any.iter().map(one).collect(),
                    member => one(member).map(|condition| vec![condition]),
                })
                .collect::<Result<_, _>>()?,
            member => vec![vec![one(member)?]],
        };
        Ok(Self(all))
    }

    /// Whether it finds a document.
    pub fn finds(&self, document: &Document) -> bool {
        self.0.iter().all(|any| any.iter().any(|condition| condition.finds(document)))
    }

    /// A field of it that cannot be filtered by.
    pub fn unfilterable(&self, index: &NodeIndex) -> Option<String> {
        let rules = index.settings.get("filterableAttributes").and_then(Value::as_array);
        let names: Vec<&str> = rules
            .into_iter()
            .flatten()
            .flat_map(|rule| match rule {
                Value::String(name) => vec![name.as_str()],
                rule => rule["attributePatterns"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_str)
                    .collect(),
            })
            .collect();
        let fields = self.0.iter().flatten().map(Condition::field);
        fields.filter(|field| !names.contains(field)).map(ToOwned::to_owned).next()
    }
}

impl Node {
    pub(super) fn fetch(&mut self, uid: &str, body: &Value) -> NodeReply {
        let filter = match Filter::read(body.get("filter").unwrap_or(&Value::Null)) {
            Ok(filter) => filter,
            Err(text) => return self.not_known("POST", &format!("a filter: {text}")),
        };
        let index = &self.indexes[uid];
        if let Some(field) = filter.unfilterable(index) {
            let message = format!("Attribute `{field}` is not filterable.");
            return error(400, "invalid_request", "invalid_document_filter", &message);
        }
        let ids: Option<BTreeSet<String>> =
            body.get("ids").and_then(Value::as_array).map(|ids| ids.iter().map(id_text).collect());
        let is_wanted = |id: &String| ids.as_ref().is_none_or(|ids| ids.contains(id));
        let found: Vec<&Document> = index
            .documents
            .iter()
            .filter(|(id, document)| is_wanted(id) && filter.finds(document))
            .map(|(_, document)| document)
            .collect();
        let number = |name: &str, default: u64| {
            usize::try_from(body.get(name).and_then(Value::as_u64).unwrap_or(default)).unwrap_or(usize::MAX)
        };
        let (offset, limit) = (number("offset", 0), number("limit", 20));
        let fields: Option<BTreeSet<String>> =
            body.get("fields").and_then(Value::as_array).map(|fields| fields.iter().map(id_text).collect());
        let shown = |document: &&Document| -> Value {
            let is_shown = |name: &String| fields.as_ref().is_none_or(|fields| fields.contains(name));
            let shown = document.iter().filter(|(name, _)| is_shown(name));
            Value::Object(shown.map(|(name, value)| (name.clone(), value.clone())).collect::<Map<_, _>>())
        };
        let results: Vec<Value> = found.iter().skip(offset).take(limit).map(shown).collect();
        (200, json!({"results": results, "offset": offset, "limit": limit, "total": found.len()}))
    }

    /// All settings of an index, with the defaults.
    pub(super) fn settings_of(&self, uid: &str) -> Value {
        let mut all = defaults();
        for (name, value) in &self.indexes[uid].settings {
            match (all.get_mut(name), value) {
                (Some(Value::Object(all)), Value::Object(set)) => {
                    all.extend(set.iter().map(|(name, value)| (name.clone(), value.clone())));
                }
                (_, value) => {
                    all.insert(name.clone(), value.clone());
                }
            }
        }
        Value::Object(all)
    }
}

/// The defaults of those settings that a history changes, or that the control plane names.
fn defaults() -> Map<String, Value> {
    let defaults = json!({
        "displayedAttributes": ["*"], "searchableAttributes": ["*"], "filterableAttributes": [], "sortableAttributes": [],
        "stopWords": [], "synonyms": {}, "distinctAttribute": null,
        "faceting": {"maxValuesPerFacet": 100, "sortFacetValuesBy": {"*": "alpha"}}, "embedders": {},
    });
    defaults.as_object().cloned().unwrap_or_default()
}
