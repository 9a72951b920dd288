//! Write keys, and fencing: a request under a key that was given up must not arrive late.

pub mod fenced;
pub mod write_keys;
