//! How a change of settings goes into those that are there, as Meilisearch merges them.

use serde_json::{Map, Value, json};

/// Settings that are changed member by member, and to what depth; all others are replaced.
const DEPTHS: [(&str, u8); 5] =
    [("pagination", 1), ("faceting", 1), ("typoTolerance", 2), ("chat", 1), ("embedders", 2)];

/// To what depth a setting is changed member by member.
#[must_use]
pub fn depth(setting: &str) -> u8 {
    DEPTHS.iter().find(|(group, _)| *group == setting).map_or(0, |(_, depth)| *depth)
}

/// Changes members, those of objects among them one by one to this depth; `null` takes one away.
pub fn merge_members(members: &mut Map<String, Value>, change: &Value, depth: u8) {
    for (name, value) in change.as_object().into_iter().flatten() {
        merge(members, name, value, depth.saturating_sub(1));
    }
}

fn merge(settings: &mut Map<String, Value>, name: &str, value: &Value, depth: u8) {
    if value.is_null() {
        settings.remove(name);
    } else if let (1.., Some(members)) = (depth, value.as_object()) {
        let entry = settings.entry(name).or_insert_with(|| json!({}));
        if let Some(entry) = entry.as_object_mut() {
            for (name, value) in members {
                merge(entry, name, value, depth - 1);
            }
        }
    } else {
        settings.insert(name.to_owned(), value.clone());
    }
}

/// Merges a change into what a client had set: `null` resets one setting, `None` all of them.
pub fn merge_change(settings: &mut Map<String, Value>, change: Option<&Value>) {
    let Some(change) = change.and_then(|change| change.as_object()) else {
        settings.clear();
        return;
    };
    for (name, value) in change {
        merge(settings, name, value, depth(name));
    }
}
