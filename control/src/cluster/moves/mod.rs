//! The state of the mover: what is written to shards while they are copied, limits, progress.

pub mod progress;
pub mod recording;
pub mod throttle;

use crate::base::{config::Moves, time::SharedClock};
use progress::Progress;
use recording::Recorder;
use std::{collections::BTreeSet, sync::Mutex};
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
    pub(crate) slots: Slots,
    pub(crate) busy: Mutex<BTreeSet<String>>,
}

impl Mover {
    /// A mover with these limits.
    #[must_use]
    pub fn new(moves: Moves, clock: SharedClock) -> Self {
        Self {
            recorder: Recorder::default(),
            throttle: Throttle::new(moves.documents_per_second, clock),
            progress: Progress::default(),
            slots: Slots::new(moves.shards_at_once),
            busy: Mutex::default(),
        }
    }

    /// Changes the limits, also for running copies.
    pub fn pace(&self, moves: Moves) {
        self.throttle.set(moves.documents_per_second);
        self.slots.set(moves.shards_at_once);
    }
}
