//! What the ledger, published files, and the bodies of begin, commit and report look like: as in the files of this folder.
//! `MIROIR_GOLDEN=write` writes these files anew.
#![allow(missing_docs, reason = "tests")]

mod protocol;
mod published;
mod rows;
mod samples;
mod scenario;
#[allow(dead_code, reason = "not every test needs all of it")]
#[path = "../support/mod.rs"]
mod support;
