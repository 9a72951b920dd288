//! What a state machine returns after each step.

use crate::http::{Callout, Reply};

/// The result of a step of a state machine.
#[derive(Debug)]
pub enum Progress<M> {
    /// Not done: send these callouts, and pass the result of each to the machine. `calls` may be empty while earlier callouts
    /// are pending.
    Pending {
        /// Takes the results of the callouts.
        machine: M,
        /// The callouts to send now.
        calls: Vec<Callout>,
    },
    /// Done. The results of callouts that are still pending can be ignored.
    Done(Reply),
}

impl<M> Progress<M> {
    /// Wraps the machine into an outer one.
    pub fn map<N>(self, wrap: impl FnOnce(M) -> N) -> Progress<N> {
        match self {
            Self::Pending { machine, calls } => Progress::Pending { machine: wrap(machine), calls },
            Self::Done(reply) => Progress::Done(reply),
        }
    }
}
