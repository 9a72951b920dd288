//! Tasks: their content, how they are stored, and how clients see them.

pub mod query;
pub mod queue;
pub mod view;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::ApiError;

/// The status of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub enum Status {
    Enqueued,
    Processing,
    Succeeded,
    Failed,
    Canceled,
}

impl Status {
    /// Whether the task has ended.
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Enqueued | Self::Processing)
    }
}

/// The type of a task, as clients see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub enum Kind {
    DocumentAdditionOrUpdate,
    DocumentEdition,
    DocumentDeletion,
    SettingsUpdate,
    IndexCreation,
    IndexDeletion,
    IndexUpdate,
    IndexSwap,
    TaskCancelation,
    TaskDeletion,
    DumpCreation,
    SnapshotCreation,
}

/// Two indexes that swap their names, or one that gets a new name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    /// The two names.
    pub indexes: (String, String),
    /// Whether the second name is new: the first index is renamed to it.
    #[serde(default)]
    pub rename: bool,
}

/// The work of a task.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Work {
    AddDocuments(Addition),
    DeleteIds { index: String, ids: Vec<String> },
    DeleteByFilter { index: String, filter: Value },
    Clear { index: String },
    Edit { index: String, filter: Option<Value>, context: Option<Map<String, Value>>, function: String },
    Settings { index: String, settings: Value, is_deletion: bool, may_create: bool },
    CreateIndex { index: String, primary_key: Option<String> },
    UpdateIndex { index: String, primary_key: Option<String>, new_uid: Option<String> },
    DeleteIndex { index: String },
    SwapIndexes { swaps: Vec<Swap> },
    CancelTasks { query: String, uids: Vec<u32> },
    DeleteTasks { query: String, uids: Vec<u32> },
    Dump,
    Snapshot,
}

/// Documents to add to an index, or to merge into it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Addition {
    /// The index.
    pub index: String,
    /// Whether the documents replace stored ones completely; otherwise their fields are merged.
    pub replace: bool,
    /// The file of the documents, one JSON object after the other.
    pub file: Uuid,
    /// The primary key that the client requested.
    pub primary_key: Option<String>,
    /// Whether the index may be created.
    pub may_create: bool,
    /// Whether documents that the index does not hold are dropped.
    pub skip_new: bool,
}

impl Work {
    /// The index of the task, if it concerns exactly one.
    pub fn index(&self) -> Option<&str> {
        match self {
            Self::AddDocuments(Addition { index, .. })
            | Self::DeleteIds { index, .. }
            | Self::DeleteByFilter { index, .. }
            | Self::Clear { index }
            | Self::Edit { index, .. }
            | Self::Settings { index, .. }
            | Self::CreateIndex { index, .. }
            | Self::UpdateIndex { index, .. }
            | Self::DeleteIndex { index } => Some(index),
            Self::SwapIndexes { .. }
            | Self::CancelTasks { .. }
            | Self::DeleteTasks { .. }
            | Self::Dump
            | Self::Snapshot => None,
        }
    }

    /// All indexes that the task concerns.
    pub fn indexes(&self) -> Vec<&str> {
        match self {
            Self::SwapIndexes { swaps } => {
                let mut names: Vec<_> = swaps
                    .iter()
                    .flat_map(|swap| [swap.indexes.0.as_str(), swap.indexes.1.as_str()])
                    .collect();
                names.sort_unstable();
                names.dedup();
                names
            }
            other => other.index().into_iter().collect(),
        }
    }

    /// The task's type.
    pub fn kind(&self) -> Kind {
        match self {
            Self::AddDocuments(_) => Kind::DocumentAdditionOrUpdate,
            Self::DeleteIds { .. } | Self::DeleteByFilter { .. } | Self::Clear { .. } => {
                Kind::DocumentDeletion
            }
            Self::Edit { .. } => Kind::DocumentEdition,
            Self::Settings { .. } => Kind::SettingsUpdate,
            Self::CreateIndex { .. } => Kind::IndexCreation,
            Self::UpdateIndex { .. } => Kind::IndexUpdate,
            Self::DeleteIndex { .. } => Kind::IndexDeletion,
            Self::SwapIndexes { .. } => Kind::IndexSwap,
            Self::CancelTasks { .. } => Kind::TaskCancelation,
            Self::DeleteTasks { .. } => Kind::TaskDeletion,
            Self::Dump => Kind::DumpCreation,
            Self::Snapshot => Kind::SnapshotCreation,
        }
    }
}

/// A task as it is stored. It is never stored as processing, so that after a kill it is enqueued again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {
    /// The task's uid.
    pub uid: u32,
    /// The uid of the batch in which it was processed.
    pub batch_uid: Option<u32>,
    /// The status of the task.
    pub status: Status,
    /// The task that canceled it.
    pub canceled_by: Option<u32>,
    /// The `details` for clients.
    pub details: Option<Map<String, Value>>,
    /// The error, if it failed.
    pub error: Option<ApiError>,
    /// When it was registered.
    #[serde(with = "time::serde::rfc3339")]
    pub enqueued_at: OffsetDateTime,
    /// When its processing began.
    #[serde(with = "time::serde::rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    /// When its processing ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
    /// The client's `customMetadata`.
    pub custom_metadata: Option<String>,
    /// The work of the task.
    pub work: Work,
}

impl Task {
    /// Lets the task fail, although its other changes are kept.
    pub fn fail(&mut self, error: ApiError) {
        self.status = Status::Failed;
        self.error = Some(error);
    }

    /// Sets a detail that the task has already; does not add new details.
    pub fn set_detail(&mut self, name: &str, value: impl Into<Value>) {
        if let Some(slot) = self.details.as_mut().and_then(|details| details.get_mut(name)) {
            *slot = value.into();
        }
    }

    /// Sets counts that are still unknown to 0, because nothing was done. Like Meilisearch, leaves the number of deleted
    /// documents of an edit open.
    pub fn zero_counts(&mut self) {
        let is_edit = self.details.as_ref().is_some_and(|details| details.get("editedDocuments").is_some());
        for name in
            ["indexedDocuments", "editedDocuments", "deletedDocuments", "canceledTasks", "deletedTasks"]
        {
            if is_edit && name == "deletedDocuments" {
                continue;
            }
            let details = self.details.as_mut();
            if let Some(slot) =
                details.and_then(|details| details.get_mut(name)).filter(|value| value.is_null())
            {
                *slot = 0.into();
            }
        }
    }
}
