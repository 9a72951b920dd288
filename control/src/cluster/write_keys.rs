//! The write keys: the API keys with which writes reach nodes.

use crate::domain::key_holder::WriteKeyHolder;
use miroir_core::node_name::NodeName;
use std::collections::{BTreeMap, BTreeSet};
use tokio::sync::Mutex;
use uuid::Uuid;

/// The write keys in use, and those that nodes must delete.
#[derive(Debug, Default)]
pub struct WriteKeys {
    /// By holder.
    pub(crate) live: Mutex<BTreeMap<WriteKeyHolder, Uuid>>,
    pub(crate) unfenced: std::sync::Mutex<UnfencedKeys>,
    /// The nodes that may lack a key in use: it could not be made there, or the node has refused it.
    pub(crate) lacking: std::sync::Mutex<BTreeSet<(NodeName, Uuid)>>,
}

/// Keys that must be deleted on nodes before the nodes can no longer accept late requests.
#[derive(Debug, Default)]
pub(crate) struct UnfencedKeys {
    /// Fenced keys, with the nodes that have not confirmed their deletion.
    pub(crate) fenced: BTreeMap<Uuid, BTreeSet<NodeName>>,
    /// By node: the keys of requests that had no answer and may still arrive.
    pub(crate) late: BTreeMap<NodeName, BTreeMap<Uuid, Late>>,
}

/// Requests that had no answer. The order is that of how long one must wait for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Late {
    /// Documents from a gateway: they carry a mark, by which their task is found, whenever it comes.
    Documents,
    /// What the control plane sends: it may carry no mark.
    AnyRequest,
}
