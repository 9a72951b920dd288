//! Details of tasks, in Meilisearch's format.

use serde_json::{Value, json};

/// The details of a task that changed nothing: counts that are `null` become 0.
#[must_use]
pub fn nothing_done(details: Option<&Value>) -> Option<Value> {
    let mut details = details?.clone();
    // Meilisearch leaves `deletedDocuments` at `null` for an edit that failed.
    let is_edit = details.get("editedDocuments").is_some();
    for name in ["indexedDocuments", "deletedDocuments", "editedDocuments"] {
        if is_edit && name == "deletedDocuments" {
            continue;
        }
        if let Some(count) = details.get_mut(name).filter(|count| count.is_null()) {
            *count = json!(0);
        }
    }
    Some(details)
}
