//! What does not depend on a running cluster: errors, time, randomness, files, TLS, secrets, listeners, the cluster's description.

pub mod config;
pub mod error;
pub mod files;
pub mod json;
pub mod listener;
pub mod log;
pub mod outbound;
pub mod output;
pub mod random;
pub mod secrets;
pub mod supervisor;
pub mod table;
pub mod time;
pub mod tls;
