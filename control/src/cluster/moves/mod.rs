//! The state of the mover: what is written to shards while they are copied, limits, progress.

pub mod changes;
pub mod progress;
pub mod recording;
pub mod throttle;

use crate::base::{config::Moves, time::SharedClock};
use changes::ReplicaChanges;
use progress::Progress;
use recording::Recorder;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use throttle::{Slots, Throttle};

/// The mover's state.
#[derive(Debug)]
pub struct Mover {
    /// What is written to shards while they are copied.
    pub recorder: Recorder,
    /// The limit on documents copied per second.
    pub throttle: Throttle,
    /// What the mover does and has done.
    pub progress: Progress,
    /// How often replicas have changed.
    pub changes: ReplicaChanges,
    pub(crate) slots: Slots,
    busy: Busy,
}

/// The names of the work that is running.
type Busy = Arc<Mutex<BTreeSet<String>>>;

/// A claim on some work of the mover: while it exists, nobody else gets it. Dropping it, also by a panic, makes the work free again.
#[derive(Debug)]
pub(crate) struct Claim {
    busy: Busy,
    name: String,
}

fn names(busy: &Busy) -> MutexGuard<'_, BTreeSet<String>> {
    busy.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Claim {
    fn drop(&mut self) {
        names(&self.busy).remove(&self.name);
    }
}

impl Mover {
    /// A mover with these limits.
    #[must_use]
    pub fn new(moves: Moves, clock: SharedClock) -> Self {
        Self {
            recorder: Recorder::default(),
            throttle: Throttle::new(moves.documents_per_second, clock),
            progress: Progress::default(),
            changes: ReplicaChanges::default(),
            slots: Slots::new(moves.shards_at_once),
            busy: Busy::default(),
        }
    }

    /// Claims some work, unless it is claimed already.
    pub(crate) fn claim(&self, name: String) -> Option<Claim> {
        let is_new = names(&self.busy).insert(name.clone());
        is_new.then(|| Claim { busy: self.busy.clone(), name })
    }

    /// Changes the limits, also for running copies.
    pub fn pace(&self, moves: Moves) {
        self.throttle.set(moves.documents_per_second);
        self.slots.set(moves.shards_at_once);
    }
}
