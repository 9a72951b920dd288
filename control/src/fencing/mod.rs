//! Keys that nodes take writes under, and what makes sure that nothing comes late under one that was given up.

pub mod fenced;
pub mod write_keys;
