//! What a node tells of its tasks that says whose they are: the mark that a request carried, and how far a node's list of tasks
//! has been examined.

use miroir_core::{
    protocol::{metadata, uid_of_metadata},
    shard::Shard,
};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// How the mark of a copy begins.
const COPY: &str = "miroir:copy:";

/// The mark that a change of documents carries to a node as `customMetadata`. The node's task keeps it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskMark {
    /// A part of a client's write, by the write's task uid in the ledger.
    Write(u32),
    /// A page that the control plane copies or deletes.
    Copy {
        /// The request's random identifier.
        request: Uuid,
        /// The shards whose documents it changes, ascending.
        shards: Vec<Shard>,
    },
}

impl fmt::Display for TaskMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(uid) => f.write_str(&metadata(*uid)),
            Self::Copy { request, shards } => {
                write!(f, "{COPY}{}:", request.simple())?;
                let runs = shards.chunk_by(|one, next| u32::from(one.0) + 1 == u32::from(next.0));
                for (position, run) in runs.enumerate() {
                    let dot = if position == 0 { "" } else { "." };
                    match run {
                        [first, .., last] => write!(f, "{dot}{}-{}", first.0, last.0)?,
                        [one] => write!(f, "{dot}{}", one.0)?,
                        [] => {}
                    }
                }
                Ok(())
            }
        }
    }
}

impl FromStr for TaskMark {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const OTHER: &str = "no mark of the cluster's";
        if let Some(uid) = uid_of_metadata(text) {
            return Ok(Self::Write(uid));
        }
        let (request, list) = text.strip_prefix(COPY).and_then(|rest| rest.split_once(':')).ok_or(OTHER)?;
        let mut shards = Vec::new();
        for run in list.split('.').filter(|run| !run.is_empty()) {
            let (first, last) = run.split_once('-').unwrap_or((run, run));
            let number = |text: &str| text.parse::<u16>().map_err(|_| OTHER);
            shards.extend((number(first)?..=number(last)?).map(Shard));
        }
        Ok(Self::Copy { request: Uuid::parse_str(request).map_err(|_| OTHER)?, shards })
    }
}

/// How far a node's list of tasks has been examined.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TaskPosition {
    /// Every task with a lower uid has been examined.
    pub next: u32,
    /// The newest task that was seen; absent where the node had none. Another task under this uid, or none, shows that the list
    /// is not the one that was examined: the node has lost its disk, or got another one.
    pub anchor: Option<TaskAnchor>,
}

/// What tells one task of a node from another one that has its uid on another disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskAnchor {
    /// The node's uid of it.
    pub uid: u32,
    /// When the node enqueued it, as the node tells it: a name, which is compared and never read as a time.
    pub enqueued_at: String,
}

/// What the ledger knows of a node's task that carries the mark of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WriteFate {
    /// The write is not decided: the task may become a part of it.
    Open,
    /// The decision counted this task.
    Counted,
    /// The write was decided without this task, which writes to these shards.
    Late(Vec<Shard>),
    /// The ledger has nothing of the write any more: its task was deleted.
    Unknown,
    /// The ledger has not given this uid yet: another ledger has.
    NotGiven,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written() {
        let copy = |shards: &[u16]| TaskMark::Copy {
            request: Uuid::from_u128(7),
            shards: shards.iter().copied().map(Shard).collect(),
        };
        for mark in [TaskMark::Write(12), copy(&[]), copy(&[3]), copy(&[0, 1, 2, 7, 9, 10, u16::MAX])] {
            assert_eq!(mark.to_string().parse(), Ok(mark.clone()), "{mark}");
        }
        assert!(copy(&[0, 1, 2, 7, 9, 10]).to_string().ends_with(":0-2.7.9-10"));
        for other in ["", "miroir:", "miroir:copy:", "miroir:copy:x:1", "a client's own", "miroir:07"] {
            assert!(other.parse::<TaskMark>().is_err(), "{other}");
        }
    }
}
