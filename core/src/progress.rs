//! What machines of operations say after each step.

use crate::http::{Callout, Reply};

/// What a machine says after each step.
#[derive(Debug)]
pub enum Progress<M> {
    /// Not done: send these, and digest what becomes of each. `calls` may be empty while earlier ones are under way.
    Pending {
        /// Goes on with the answers.
        machine: M,
        /// To be sent now.
        calls: Vec<Callout>,
    },
    /// Done; answers to calls that are still under way are of no interest.
    Done(Reply),
}

impl<M> Progress<M> {
    /// The same progress of an outer machine.
    pub fn map<N>(self, wrap: impl FnOnce(M) -> N) -> Progress<N> {
        match self {
            Self::Pending { machine, calls } => Progress::Pending { machine: wrap(machine), calls },
            Self::Done(reply) => Progress::Done(reply),
        }
    }
}
