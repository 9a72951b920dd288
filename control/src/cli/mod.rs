//! The command line.

mod client;
mod compare;
mod operate;
mod shards;
mod status;
#[cfg(test)]
mod tests;

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
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the control plane
    Serve(ServeArgs),
    /// Make a new ledger out of what nodes have, where the old one is lost; then run the control plane
    Recover(ServeArgs),
    /// Print the bootstrap of an Envoy that is a gateway
    Bootstrap(BootstrapArgs),
    /// Run a whole cluster on this machine: nodes, control plane and Envoy
    Playground(PlaygroundArgs),
    /// Run a program that dies with its parent; the playground's own
    #[command(hide = true)]
    Child(playground::child::ChildArgs),
    /// Show the cluster's nodes and state
    Status(QueryArgs),
    /// Show where each shard's replicas are
    Shards(QueryArgs),
    /// Nodes come, give their replicas away, and go
    #[command(subcommand)]
    Node(operate::NodeCommand),
    /// Move replicas to where weights and bounds want them
    Rebalance(operate::OperateArgs),
    /// Let what is being moved go faster or slower; without a limit, as the cluster's description has it
    Throttle(operate::ThrottleArgs),
    /// Set how many replicas each shard has
    #[command(subcommand)]
    Replication(operate::ReplicationCommand),
    /// Show what the cluster is, or say what it is to be
    #[command(subcommand)]
    Topology(operate::TopologyCommand),
    /// Compare all copies of all shards by content; fails where any differ
    Verify(QueryArgs),
    /// Compare all copies, and make those again that differ from the others
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

/// How a command finds its control plane.
#[derive(Clone, Debug, clap::Args)]
pub struct QueryArgs {
    /// The control plane's URL; its token is in MIROIR_TOKEN, or in --data
    #[arg(long, env = "MIROIR_CONTROL")]
    pub control: Option<String>,
    /// Who vouches for the control plane, where its URL is https: certificates, PEM [default: who is known anyway]
    #[arg(long, env = "MIROIR_CONTROL_CA")]
    pub control_ca: Option<PathBuf>,
    /// Who to be to it (mTLS): a certificate and its key in one file, PEM
    #[arg(long, env = "MIROIR_CONTROL_IDENTITY")]
    pub control_identity: Option<PathBuf>,
    /// The data folder of a playground, or of a control plane on this machine
    #[arg(long, env = "MIROIR_DATA")]
    pub data: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Does what the command line says.
///
/// # Errors
/// Whatever goes wrong.
pub async fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Serve(args) => serve::serve(args).await,
        Command::Recover(args) => {
            let recovered = recover::recover(&args).await?;
            println!(
                "recovered {} indexes with {} documents; `miroir serve` goes on from here",
                recovered.indexes, recovered.documents
            );
            for (shard, node) in recovered.disputed {
                println!("shard {}: copies differ, that of {node} is taken", shard.0);
            }
            println!(
                "What tasks there were is forgotten; the uids of new ones go on from the last that nodes know."
            );
            for (index, embedder) in recovered.keyless {
                println!(
                    "Set the key of the embedder `{embedder}` of index `{index}` again, which nodes do not tell: it works on, but no \
                     node can be added without it."
                );
            }
            Ok(())
        }
        Command::Bootstrap(args) => {
            print!("{}", bootstrap::of(&args)?);
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
