//! The keys that writes reach nodes under.

use crate::domain::key_holder::WriteKeyHolder;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tokio::sync::Mutex;
use uuid::Uuid;

/// The keys that are in use, and those that are to be gone.
#[derive(Debug, Default)]
pub struct Epochs {
    /// By holder.
    pub(crate) live: Mutex<HashMap<WriteKeyHolder, Uuid>>,
    pub(crate) owed: std::sync::Mutex<Owed>,
}

/// What nodes have to do yet before they can be trusted to take nothing late.
#[derive(Debug, Default)]
pub(crate) struct Owed {
    /// Fenced keys, with the nodes that have not confirmed to have deleted them.
    pub(crate) fenced: BTreeMap<Uuid, BTreeSet<String>>,
    /// By node: the keys of callouts that had no answer, and may still be on their way.
    pub(crate) late: BTreeMap<String, BTreeSet<Uuid>>,
}
