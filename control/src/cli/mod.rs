//! The command line.

mod client;
mod compare;
mod operate;
mod shards;
mod status;
#[cfg(test)]
mod tests;

use crate::base::output::say;
use crate::{
    base::{error::Result, log::LogFormat},
    playground::{self, PlaygroundArgs},
    publish::bootstrap::{self, BootstrapArgs},
    recover,
    serve::{self, ServeArgs},
};
use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// Miroir turns ordinary Meilisearch nodes into one larger, redundant Meilisearch.
#[derive(Debug, Parser)]
#[command(name = "miroir", version, about)]
pub struct Cli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the control plane
    Serve(ServeArgs),
    /// Rebuild a lost ledger from the nodes' data; run `miroir serve` afterwards
    Recover(ServeArgs),
    /// Print the bootstrap configuration of a gateway's Envoy
    Bootstrap(BootstrapArgs),
    /// Run a whole cluster on this machine: nodes, control plane and Envoy
    Playground(PlaygroundArgs),
    /// Run a program that dies with its parent; for the playground only
    #[command(hide = true)]
    Child(playground::child::ChildArgs),
    /// Show the cluster's nodes and state
    Status(QueryArgs),
    /// Show where each shard's replicas are
    Shards(QueryArgs),
    /// Add, drain, remove or replace nodes, or declare them lost
    #[command(subcommand)]
    Node(operate::NodeCommand),
    /// Move replicas so that the placement follows weights and bounds
    Rebalance(operate::OperateArgs),
    /// Change the limits of running copies; without flags, use those of the cluster's description
    Throttle(operate::ThrottleArgs),
    /// Set how many replicas each shard has
    #[command(subcommand)]
    Replication(operate::ReplicationCommand),
    /// Show the cluster's nodes and replication, or change them to those of a file
    #[command(subcommand)]
    Topology(operate::TopologyCommand),
    /// Compare all copies of all shards by content; fails if any differ
    Verify(QueryArgs),
    /// Compare all copies, rebuild those that are wrong, and delete misplaced documents
    Repair(compare::RepairArgs),
}

impl Cli {
    /// The form of the log: that of the control plane is the operator's to choose.
    #[must_use]
    pub fn log_format(&self) -> LogFormat {
        match &self.command {
            Command::Serve(args) | Command::Recover(args) => args.log_format,
            _ => LogFormat::Text,
        }
    }
}

/// How a command reaches the control plane.
#[derive(Clone, Debug, clap::Args)]
pub struct QueryArgs {
    /// The control plane's URL; the admin token comes from MIROIR_TOKEN or --data
    #[arg(long, env = "MIROIR_CONTROL")]
    pub control: Option<String>,
    /// Trusted authorities (PEM) for a control plane with an https URL [default: publicly trusted authorities]
    #[arg(long, env = "MIROIR_CONTROL_CA")]
    pub control_ca: Option<PathBuf>,
    /// Client certificate for the control plane (mTLS), with its key in the same file (PEM)
    #[arg(long, env = "MIROIR_CONTROL_IDENTITY")]
    pub control_identity: Option<PathBuf>,
    /// The data folder of a playground, or of a control plane on this machine
    #[arg(long, env = "MIROIR_DATA")]
    pub data: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Runs a command.
///
/// # Errors
/// The command failed.
pub async fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Serve(args) => serve::serve(args).await,
        Command::Recover(args) => {
            let recovered = recover::recover(&args).await?;
            say!(
                "recovered {} indexes with {} documents; start the control plane with `miroir serve`",
                recovered.indexes,
                recovered.documents
            );
            for (shard, node) in recovered.disputed {
                say!("shard {}: copies differ; the cluster uses the copy of {node}", shard.0);
            }
            say!("Past tasks are lost; new tasks get uids after the last one that nodes know.");
            for (index, embedder) in recovered.keyless {
                say!(
                    "Set the key of the embedder `{embedder}` of index `{index}` again: nodes do not reveal it. The embedder still works, but no \
                     node can be added until the key is set."
                );
            }
            Ok(())
        }
        Command::Bootstrap(args) => {
            crate::base::output::print(format_args!("{}", bootstrap::of(&args)?));
            Ok(())
        }
        Command::Playground(args) => playground::run(args).await,
        Command::Child(args) => Err(playground::child::exec(&args)),
        Command::Status(args) => status::run(&args).await,
        Command::Shards(args) => shards::run(&args).await,
        Command::Node(command) => operate::node(command).await,
        Command::Rebalance(args) => operate::rebalance(&args).await,
        Command::Throttle(args) => operate::throttle(&args).await,
        Command::Replication(command) => operate::replication(command).await,
        Command::Topology(command) => operate::topology(command).await,
        Command::Verify(args) => compare::verify(&args).await,
        Command::Repair(args) => compare::repair(&args).await,
    }
}
