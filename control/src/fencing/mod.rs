//! Write keys, and fencing: a request under a key that was given up must not arrive late, and one control plane serves a cluster.

pub mod in_flight;
pub mod instance;
pub mod late_tasks;
pub mod lost_disk;
pub mod write_keys;
