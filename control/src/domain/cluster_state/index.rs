//! What the catalogue knows of an index.

use crate::domain::task::TaskKind;

/// What is known of an index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// Absent until the first document says it.
    pub primary_key: Option<String>,
    /// The settings that gateways need, as clients have set them: those that nodes have applied.
    pub settings: serde_json::Map<String, serde_json::Value>,
    /// When it was created.
    pub created_at: i64,
    /// When a mutation of it ended last.
    pub updated_at: i64,
}

/// Kinds of tasks with an index that nodes do not count as an update of it.
const LEAVES_DATES: [TaskKind; 2] = [TaskKind::IndexCompaction, TaskKind::IndexSwap];

/// The settings that gateways need.
const PUBLISHED: [&str; 5] =
    ["distinctAttribute", "faceting", "filterableAttributes", "pagination", "rankingRules"];

impl Index {
    /// Out of all that clients have set on an index, what gateways need.
    #[must_use]
    pub fn published(
        all: serde_json::Map<String, serde_json::Value>,
    ) -> serde_json::Map<String, serde_json::Value> {
        all.into_iter().filter(|(name, _)| PUBLISHED.contains(&name.as_str())).collect()
    }
}

impl Index {
    /// A task with it has succeeded. Nodes create an index, and then give it its primary key: one without is as old as its last
    /// update.
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
