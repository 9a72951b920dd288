//! How a change of settings goes into those that are there, as Meilisearch merges them.

use serde_json::{Map, Value, json};

/// Settings that a change merges member by member, and the depth to which it does. A change replaces all other settings.
const DEPTHS: [(&str, u8); 5] =
    [("pagination", 1), ("faceting", 1), ("typoTolerance", 2), ("chat", 1), ("embedders", 2)];

/// The depth to which a change of a setting is merged member by member.
#[must_use]
pub fn depth(setting: &str) -> u8 {
    DEPTHS.iter().find(|(group, _)| *group == setting).map_or(0, |(_, depth)| *depth)
}

/// Merges a change into members, and into nested objects down to this depth. `null` removes a member.
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

/// Merges a change into the client's settings: `null` resets one setting, `None` all of them.
pub fn merge_change(settings: &mut Map<String, Value>, change: Option<&Value>) {
    let Some(change) = change.and_then(|change| change.as_object()) else {
        settings.clear();
        return;
    };
    for (name, value) in change {
        merge(settings, name, value, depth(name));
    }
}
