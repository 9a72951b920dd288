//! The work that is under way for a task.

use crate::domain::{deleted_index::DeletedIndex, export::Export, search_rules::Change};
use miroir_core::{node_name::NodeName, path::ApiPath, protocol::WriteOperation, shard::Shard};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// By node and name: when the node created the index that had this name before an operation (`createdAt`). The date moves with an index that
/// is swapped or renamed, so that it tells where it is.
pub type CreationDates = BTreeMap<NodeName, BTreeMap<String, String>>;

/// The work that is under way for a task uid: enough to finish it after a crash.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Intent {
    /// A gateway sends a write to nodes.
    Write {
        /// The gateway whose write key the requests use.
        gateway: String,
        /// Index uid.
        index: String,
        /// What is done.
        operation: WriteOperation,
        /// The nodes that the gateway was told to write to, by shard.
        writers: Vec<(Shard, Vec<NodeName>)>,
        /// The random identifier of its begin, which the commit repeats.
        #[serde(default)]
        begun: String,
    },
    /// The control plane sends requests to all nodes.
    Broadcast {
        /// The requests that each node gets, in order.
        requests: Vec<NodeRequest>,
        /// What changes in the catalogue once it has succeeded.
        effect: Effect,
        /// What changes in the catalogue as soon as nodes have the requests.
        #[serde(default)]
        at_once: ImmediateEffect,
        /// The nodes that are sent the requests, each with the uid of its newest task before: what the operation makes on it is
        /// newer. `None` if the node had no task.
        #[serde(default)]
        newest: BTreeMap<NodeName, Option<u32>>,
        /// Where it moves indexes: when nodes had created these.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        created: CreationDates,
    },
    /// The control plane sends documents to another Meilisearch.
    Export {
        /// The export request.
        export: Export,
    },
}

impl Intent {
    /// An operation of the ledger alone, which sends nodes nothing that has to be sent again.
    #[must_use]
    pub fn without_requests() -> Self {
        Self::Broadcast {
            requests: Vec::new(),
            effect: Effect::None,
            at_once: ImmediateEffect::Nothing,
            newest: BTreeMap::new(),
            created: CreationDates::new(),
        }
    }
}

/// A request to a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeRequest {
    /// HTTP method, upper case.
    pub method: String,
    /// Path and query.
    pub path: ApiPath,
    /// JSON, or nothing.
    pub body: Option<serde_json::Value>,
    /// Whether its outcome decides the client's task; otherwise it is a step that only has to end.
    pub main: bool,
}

/// A change of the catalogue that is valid as soon as nodes have the request in their queues.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum ImmediateEffect {
    /// No change.
    #[default]
    Nothing,
    /// An index was created.
    Created {
        /// Index uid.
        index: String,
        /// Its primary key.
        primary_key: Option<String>,
    },
    /// An index was deleted.
    Deleted {
        /// Index uid.
        index: String,
    },
}

/// What a mutation changes in the catalogue once it has succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Effect {
    /// Nothing.
    #[default]
    None,
    /// An index gets another primary key or another name.
    UpdateIndex {
        /// Index uid.
        index: String,
        /// The new primary key, where it changes.
        primary_key: Option<String>,
        /// The new name, where it changes.
        rename: Option<String>,
    },
    /// Settings as the client has set them.
    Settings {
        /// Index uid.
        index: String,
        /// The change; `None` resets all.
        change: Option<serde_json::Value>,
        /// Whether it creates the index.
        #[serde(default)]
        creates: bool,
    },
    /// Indexes are swapped or renamed.
    Swap {
        /// Left, right, and whether it renames left to right instead of swapping them.
        pairs: Vec<(String, String, bool)>,
    },
    /// An index is deleted, which the catalogue says since a node has accepted it.
    Deletion {
        /// Index uid.
        index: String,
        /// The index; `None` if there was none.
        was: Option<DeletedIndex>,
        /// Whether nodes have not done it, so that the index is there again.
        is_undone: bool,
    },
    /// Dynamic search rules.
    Rules {
        /// The change.
        change: Change,
    },
}

impl Effect {
    /// Whether the indexes stay locked until the outcome is known.
    #[must_use]
    pub fn holds_locks(&self) -> bool {
        matches!(self, Self::UpdateIndex { .. } | Self::Swap { .. })
    }

    /// The indexes that the effect names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let names: Vec<&str> = match self {
            Self::None | Self::Rules { .. } => Vec::new(),
            Self::Settings { index, .. } | Self::Deletion { index, .. } => vec![index],
            Self::UpdateIndex { index, rename, .. } => {
                std::iter::once(index.as_str()).chain(rename.as_deref()).collect()
            }
            Self::Swap { pairs } => {
                pairs.iter().flat_map(|(left, right, _)| [left.as_str(), right.as_str()]).collect()
            }
        };
        names.into_iter()
    }

    /// Follows indexes that a later operation has renamed or swapped; `moves` as [`Self::moves`]. Returns whether it has changed.
    pub fn follow(&mut self, moves: &[(String, String, bool)]) -> bool {
        let Self::Settings { index, .. } = self else { return false };
        let before = index.clone();
        for (from, to, comes_back) in moves {
            if *index == *from {
                index.clone_from(to);
            } else if *index == *to && *comes_back {
                index.clone_from(from);
            }
        }
        *index != before
    }

    /// How indexes' settings move: from, to, and whether those of `to` move back to `from`.
    #[must_use]
    pub fn moves(&self) -> Vec<(String, String, bool)> {
        match self {
            Self::UpdateIndex { index, rename: Some(rename), .. } => {
                vec![(index.clone(), rename.clone(), false)]
            }
            Self::Swap { pairs } => {
                pairs.iter().map(|(left, right, rename)| (left.clone(), right.clone(), !rename)).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// A node's task that is a part of a client's task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTask {
    /// The node's name.
    pub node: NodeName,
    /// Its own uid.
    pub node_task: u32,
    /// Whether its outcome decides the client's task.
    pub main: bool,
    /// The shards it writes; empty for all.
    pub shards: Vec<Shard>,
}

/// A change of the whole instance that has no task, as clients see it. All nodes get it, or none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Step {
    /// A write creates its index, or gives it its primary key.
    Index {
        /// Index uid.
        index: String,
        /// The key that the write brings; absent if it brings none.
        primary_key: Option<String>,
    },
    /// A request that nodes carry out at once: API keys, experimental features, the network, workspaces of chats.
    Instance {
        /// HTTP method, upper case.
        method: String,
        /// Path and query.
        path: ApiPath,
        /// The body as it is sent to nodes; empty if there is none.
        body: String,
        /// What the ledger keeps of it.
        kept: KeptChange,
    },
}

/// What the ledger keeps of a change of the whole instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum KeptChange {
    /// Nothing: nodes are asked for it.
    Nothing,
    /// The network, as the first node answers.
    Network,
    /// Settings of a workspace, as the request has them; none resets them.
    Workspace(String),
    /// A workspace is gone.
    NoWorkspace(String),
}
