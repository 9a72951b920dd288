//! Writes of documents: *begin*, *commit*, and the recovery of writes that get no commit.

mod accepted;
pub mod begin;
pub mod commit;
pub mod diagnosis;
mod document_ids;
pub mod edit;
mod node_task;
pub mod preflight;
pub mod recovery;
mod writers;
