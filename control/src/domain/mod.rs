//! What a cluster is, without I/O.

pub mod api_key;
pub mod cluster_state;
pub mod deleted_index;
pub mod export;
pub mod impossible_move;
pub mod index_uid;
pub mod intent;
pub mod key_holder;
pub mod search_rules;
pub mod serving;
pub mod settings_change;
pub mod task;
pub mod task_details;
pub mod task_mark;
pub mod verdict;
