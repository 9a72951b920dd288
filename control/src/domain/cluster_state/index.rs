//! What the catalogue knows of an index.

use crate::domain::task::TaskKind;

/// An index in the catalogue.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// Absent until the first documents determine it.
    pub primary_key: Option<String>,
    /// The settings that gateways need, as clients have set them. Only settings that nodes have applied are here.
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// When it was created.
    pub created_at: i64,
    /// When the last change of it ended.
    pub updated_at: i64,
}

/// Kinds of tasks on an index that do not change its update date on nodes.
const LEAVES_DATES: [TaskKind; 2] = [TaskKind::IndexCompaction, TaskKind::IndexSwap];

/// The settings that gateways need.
const PUBLISHED: [&str; 5] =
    ["distinctAttribute", "faceting", "filterableAttributes", "pagination", "rankingRules"];

impl Index {
    /// Selects the settings that gateways need from all settings of an index.
    #[must_use]
    pub fn published(
        all: serde_json::Map<String, serde_json::Value>,
    ) -> serde_json::Map<String, serde_json::Value> {
        all.into_iter().filter(|(name, _)| PUBLISHED.contains(&name.as_str())).collect()
    }
}

impl Index {
    /// Updates the dates after a task on the index has succeeded. Nodes create an index first and set its primary key after; an
    /// index without a primary key gets its last update as its creation date.
    pub fn date(&mut self, kind: TaskKind, started_at: i64, finished_at: i64) {
        if LEAVES_DATES.contains(&kind) {
            return;
        }
        self.updated_at = finished_at;
        if kind == TaskKind::IndexCreation {
            self.created_at = if self.primary_key.is_some() { started_at } else { finished_at };
        }
    }
}
