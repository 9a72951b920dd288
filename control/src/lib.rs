//! Miroir's control plane: the ledger of writes and tasks, the index catalogue, the topology's publisher, the command
//! line on top of its API, and a playground that runs a whole cluster on one machine.

pub mod api;
pub mod auth;
pub mod bootstrap;
pub mod catalogue;
pub mod catch_up;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod embedders;
pub mod epochs;
pub mod error;
pub mod facet_values;
pub mod files;
pub mod gateways;
pub mod health;
pub mod ledger;
pub mod locks;
pub mod mover;
pub mod node;
pub mod operations;
pub mod ops;
pub mod playground;
pub mod publish;
pub mod recover;
pub mod scrub;
pub mod secrets;
pub mod serve;
pub mod settings_tag;
pub mod settle;
pub mod time;
pub mod tls;
pub mod verify;
pub mod view;
pub mod webhooks;
pub mod writes;
