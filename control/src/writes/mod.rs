//! Writes of documents: *begin*, *commit*, and the recovery of writes that get no commit.

pub mod begin;
pub mod commit;
pub mod doubts;
pub mod edit;
mod ids;
mod node_task;
pub mod recovery;
pub mod refusal;
mod taken;
