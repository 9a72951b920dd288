//! Details of tasks.

use serde_json::{Value, json};

/// Details of a task that did nothing: counts that were open are 0.
#[must_use]
pub fn nothing_done(details: Option<&Value>) -> Option<Value> {
    let mut details = details?.clone();
    // Of an edit that failed, Meilisearch leaves open how many documents it deleted.
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
