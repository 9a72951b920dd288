//! What knows nothing of clusters: errors, time, files, TLS, secrets, listeners, the description of a cluster.

pub mod config;
pub mod error;
pub mod files;
pub mod json;
pub mod listener;
pub mod outbound;
pub mod secrets;
pub mod table;
pub mod time;
pub mod tls;
