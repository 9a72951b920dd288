//! What is being done under a uid.

use crate::domain::{export::Export, search_rules::Change};
use miroir_core::{path::ApiPath, protocol::WriteOperation, shard::Shard};
use serde::{Deserialize, Serialize};

/// What is being done under a uid: enough to finish it after a crash.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Intent {
    /// A gateway sends documents.
    Write {
        /// Whose epoch key it goes under.
        gateway: String,
        /// Index uid.
        index: String,
        /// What is done.
        operation: WriteOperation,
        /// The writers that the gateway was told, by shard.
        writers: Vec<(Shard, Vec<String>)>,
        /// The name of its begin.
        #[serde(default)]
        begun: String,
    },
    /// The control plane itself asks all nodes.
    Broadcast {
        /// In order, for each node.
        requests: Vec<NodeRequest>,
        /// What the catalogue learns when it has succeeded.
        effect: Effect,
    },
    /// The control plane sends documents to another Meilisearch.
    Export {
        /// Which, and where to.
        export: Export,
    },
}

/// A request to a node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeRequest {
    /// Upper case.
    pub method: String,
    /// Path and query.
    pub path: ApiPath,
    /// JSON, or nothing.
    pub body: Option<serde_json::Value>,
    /// Whether the client's task is this one; else a step that only has to be over.
    pub main: bool,
}

/// What a mutation does to the catalogue, once it has succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Effect {
    /// Nothing.
    #[default]
    None,
    /// Another primary key, another name.
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
        /// It makes the index.
        #[serde(default)]
        creates: bool,
    },
    /// Indexes change places.
    Swap {
        /// Left, right, and whether it is a renaming.
        pairs: Vec<(String, String, bool)>,
    },
    /// Dynamic search rules.
    Rules {
        /// What becomes of them.
        change: Change,
    },
}

impl Effect {
    /// Whether locks are held until it is known how it has ended.
    #[must_use]
    pub fn holds_locks(&self) -> bool {
        matches!(self, Self::UpdateIndex { .. } | Self::Swap { .. })
    }

    /// The indexes that it names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let names: Vec<&str> = match self {
            Self::None | Self::Rules { .. } => Vec::new(),
            Self::Settings { index, .. } => vec![index],
            Self::UpdateIndex { index, rename, .. } => {
                std::iter::once(index.as_str()).chain(rename.as_deref()).collect()
            }
            Self::Swap { pairs } => {
                pairs.iter().flat_map(|(left, right, _)| [left.as_str(), right.as_str()]).collect()
            }
        };
        names.into_iter()
    }

    /// Which indexes' settings go where: from, to, and whether `to` comes back.
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

/// A node's task behind a client's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeTask {
    /// The node's name.
    pub node: String,
    /// Its own uid.
    pub node_task: u32,
    /// Whether its end decides the client's task.
    pub main: bool,
    /// The shards it writes; empty for all.
    pub shards: Vec<Shard>,
}
