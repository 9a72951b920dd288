//! Kinds and statuses of tasks, named as Meilisearch names them, on the wire and in the ledger.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// An enum whose variants have names, with `ALL`, `name`, and the way back.
macro_rules! named {
    ($(#[$meta:meta])* $kind:ident, $what:literal, { $($(#[$doc:meta])* $variant:ident = $name:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $kind {
            $($(#[$doc])* #[serde(rename = $name)] $variant,)*
        }

        impl $kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Its name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }

        impl fmt::Display for $kind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl FromStr for $kind {
            type Err = &'static str;

            fn from_str(name: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|it| it.name() == name).ok_or($what)
            }
        }
    };
}

named!(
    /// What a task does. Source: Meilisearch 1.50, `Kind`.
    TaskKind, "no kind of a task", {
        /// Documents are added, or changed.
        #[default]
        DocumentAdditionOrUpdate = "documentAdditionOrUpdate",
        /// Documents are edited by a function.
        DocumentEdition = "documentEdition",
        /// Documents are deleted.
        DocumentDeletion = "documentDeletion",
        /// Settings are changed or reset.
        SettingsUpdate = "settingsUpdate",
        /// An index is created.
        IndexCreation = "indexCreation",
        /// An index is deleted.
        IndexDeletion = "indexDeletion",
        /// An index gets a primary key, or another name.
        IndexUpdate = "indexUpdate",
        /// Indexes are swapped or renamed.
        IndexSwap = "indexSwap",
        /// Tasks are cancelled.
        TaskCancelation = "taskCancelation",
        /// Tasks are deleted.
        TaskDeletion = "taskDeletion",
        /// A dump is made.
        DumpCreation = "dumpCreation",
        /// A snapshot is made.
        SnapshotCreation = "snapshotCreation",
        /// Documents are sent to another Meilisearch.
        Export = "export",
        /// A node's database is upgraded; the control plane has no such tasks.
        UpgradeDatabase = "upgradeDatabase",
        /// An index's database is compacted.
        IndexCompaction = "indexCompaction",
        /// A node's network changes; the control plane has no such tasks.
        NetworkTopologyChange = "networkTopologyChange",
        /// A search rule is made, changed or deleted.
        DsrUpdate = "dsrUpdate",
        /// All search rules are deleted.
        DsrClear = "dsrClear",
    }
);

impl TaskKind {
    /// Whether it writes documents of an index.
    #[must_use]
    pub fn is_about_documents(self) -> bool {
        matches!(self, Self::DocumentAdditionOrUpdate | Self::DocumentEdition | Self::DocumentDeletion)
    }

    /// Whether it makes, deletes, renames or swaps whole indexes.
    #[must_use]
    pub fn is_about_whole_indexes(self) -> bool {
        matches!(self, Self::IndexCreation | Self::IndexDeletion | Self::IndexUpdate | Self::IndexSwap)
    }

    /// Whether it matters that a node may have done it twice, since it was killed meanwhile: what is written twice is the same.
    #[must_use]
    pub fn differs_if_repeated(self) -> bool {
        self.is_about_whole_indexes() || self == Self::DocumentEdition
    }

    /// Whether it changes search rules.
    #[must_use]
    pub fn is_about_rules(self) -> bool {
        matches!(self, Self::DsrUpdate | Self::DsrClear)
    }
}

named!(
    /// How far a task is.
    TaskStatus, "no status of a task", {
        /// It has not begun.
        #[default]
        Enqueued = "enqueued",
        /// It has begun.
        Processing = "processing",
        /// It has ended well.
        Succeeded = "succeeded",
        /// It has ended badly.
        Failed = "failed",
        /// It was cancelled.
        Canceled = "canceled",
    }
);

impl TaskStatus {
    /// Whether the task has ended.
    #[must_use]
    pub fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }

    /// The status of a task as a node tells it; `None` where that is none that is known.
    #[must_use]
    pub fn of_node(task: &serde_json::Value) -> Option<Self> {
        task.get("status")?.as_str()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_json() {
        for kind in TaskKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
            assert_eq!(kind.name().parse(), Ok(*kind));
        }
        for status in TaskStatus::ALL {
            assert_eq!(serde_json::to_value(status).unwrap(), status.to_string());
            assert_eq!(status.name().parse(), Ok(*status));
        }
        assert!("Succeeded".parse::<TaskStatus>().is_err() && "".parse::<TaskKind>().is_err());
    }
}
