//! Tasks: what they are, how they are stored, and how clients see them.

pub mod query;
pub mod queue;
pub mod view;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::ApiError;

/// Where a task is in its life.
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
    /// Whether nothing more will happen to the task.
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

/// Two indexes that change places, or one that takes the other's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swap {
    /// The two names.
    pub indexes: (String, String),
    /// Whether the second name is new.
    #[serde(default)]
    pub rename: bool,
}

/// What a task has to do.
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
    /// Whether the documents replace older ones whole; otherwise their fields are merged.
    pub replace: bool,
    /// The file of the documents, one JSON object after the other.
    pub file: Uuid,
    /// The client's primary key.
    pub primary_key: Option<String>,
    /// Whether the index may be created.
    pub may_create: bool,
    /// Whether documents that the index does not hold are dropped.
    pub skip_new: bool,
}

impl Work {
    /// The index that the task is about, if it is about one.
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

    /// Every index that the task touches.
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

/// A task as it is stored. It is never stored as processing: after a kill it is simply enqueued again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Task {
    /// Its number.
    pub uid: u32,
    /// The number of the batch in which it was processed.
    pub batch_uid: Option<u32>,
    /// Where it is in its life.
    pub status: Status,
    /// The task that canceled it.
    pub canceled_by: Option<u32>,
    /// What clients see in `details`.
    pub details: Option<Map<String, Value>>,
    /// Why it failed.
    pub error: Option<ApiError>,
    /// When it was taken.
    #[serde(with = "time::serde::rfc3339")]
    pub enqueued_at: OffsetDateTime,
    /// When its processing began.
    #[serde(with = "time::serde::rfc3339::option")]
    pub started_at: Option<OffsetDateTime>,
    /// When its processing ended.
    #[serde(with = "time::serde::rfc3339::option")]
    pub finished_at: Option<OffsetDateTime>,
    /// The client's own text.
    pub custom_metadata: Option<String>,
    /// What there is to do.
    pub work: Work,
}

impl Task {
    /// Ends it badly, though what else it has changed stays.
    pub fn fail(&mut self, error: ApiError) {
        self.status = Status::Failed;
        self.error = Some(error);
    }

    /// Writes a detail that the task already shows; others are not added.
    pub fn set_detail(&mut self, name: &str, value: impl Into<Value>) {
        if let Some(slot) = self.details.as_mut().and_then(|details| details.get_mut(name)) {
            *slot = value.into();
        }
    }

    /// Counts that are still unknown become 0: nothing was done. Of an edit, Meilisearch leaves open how many documents it
    /// deleted.
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
