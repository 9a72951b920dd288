//! Write keys, and fencing: a request under a key that was given up must not arrive late.

pub mod in_flight;
pub mod late_tasks;
pub mod write_keys;
