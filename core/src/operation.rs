//! Operations: state machines that know no host. `start` and `digest` consume the machine and return either the callouts that
//! it wants or the reply.

use crate::{
    document_read::DocumentRead,
    http::{CallId, Outcome},
    progress::Progress,
    read::begin::ReadOperation,
    shard::Shard,
    write::{Refusal, Write},
};

/// Any operation of the data plane.
#[derive(Debug)]
pub enum Operation {
    /// A read of many shards.
    Read(ReadOperation),
    /// A read of one document by its id.
    DocumentRead(DocumentRead),
    /// A mutation of documents.
    Write(Box<Write>),
    /// A mutation that the cluster refuses.
    Refusal(Refusal),
}

impl Operation {
    /// Handles the result of one callout.
    #[must_use]
    pub fn digest(self, id: CallId, outcome: Outcome) -> Progress<Self> {
        match self {
            Self::Read(machine) => machine.digest(id, outcome).map(Self::Read),
            Self::DocumentRead(machine) => machine.digest(id, outcome).map(Self::DocumentRead),
            Self::Write(machine) => machine.digest(id, outcome).map(|machine| Self::Write(Box::new(machine))),
            Self::Refusal(machine) => machine.digest(outcome).map(Self::Refusal),
        }
    }

    /// The body of a wanted callout that is only built when the host sends it. Callers ask for it once.
    #[must_use]
    pub fn late_body(&mut self, id: CallId) -> Option<Vec<u8>> {
        match self {
            Self::Write(machine) => machine.late_body(id),
            Self::Read(_) | Self::DocumentRead(_) | Self::Refusal(_) => None,
        }
    }

    /// How long the operation may take in total from its start, in milliseconds: no callout may end later, and none may be sent
    /// after that. `None` if only the timeouts of its callouts apply: a write must never be left half done, and a read that is
    /// still being checked has not begun.
    #[must_use]
    pub fn deadline_ms(&self) -> Option<u64> {
        match self {
            Self::Read(machine) => machine.deadline_ms(),
            Self::DocumentRead(machine) => Some(machine.deadline_ms()),
            Self::Write(_) | Self::Refusal(_) => None,
        }
    }

    /// The shards that a pending callout is about, for its traces.
    #[must_use]
    pub fn shards(&self, id: CallId) -> Vec<Shard> {
        match self {
            Self::Read(machine) => machine.shards(id),
            Self::DocumentRead(machine) => vec![machine.shard()],
            Self::Write(machine) => machine.sent_to(id),
            Self::Refusal(_) => Vec::new(),
        }
    }

    /// The indexes whose settings affect the answer.
    #[must_use]
    pub fn indexes(&self) -> &[String] {
        match self {
            Self::Read(machine) => machine.indexes(),
            Self::DocumentRead(_) | Self::Write(_) | Self::Refusal(_) => &[],
        }
    }

    /// The name of a callout's step, if it differs from the name of the operation.
    #[must_use]
    pub fn step(&self, id: CallId) -> Option<&'static str> {
        match self {
            Self::Write(machine) => machine.is_looking_up(id).then_some("look_up"),
            Self::Read(_) | Self::DocumentRead(_) | Self::Refusal(_) => None,
        }
    }

    /// The operation's name in metrics and logs.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Read(machine) => machine.name(),
            Self::DocumentRead(_) => "document_read",
            Self::Write(_) => "write",
            Self::Refusal(_) => "refusal",
        }
    }
}
