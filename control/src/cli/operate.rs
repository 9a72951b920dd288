//! `miroir node`, `rebalance`, `throttle`, `replication` and `topology`: start an operation and show its progress.

use super::{QueryArgs, client};
use crate::base::output::{self, say, warn_user};
use crate::{
    api::admin::{NodeStatus, Status},
    base::{
        config::{NodeFile, Pace},
        error::{Error, Result},
        table::table,
    },
    cluster::moves::progress::Moved,
    membership::{Operation, Wanted, change::TopologyFile, plan::Plan},
};
use clap::Subcommand;
use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

/// How often the progress of an operation is fetched.
const PAUSE: Duration = Duration::from_millis(200);

/// Flags of all operations.
#[derive(Clone, Debug, clap::Args)]
pub struct OperateArgs {
    /// Only print what would be moved
    #[arg(long)]
    pub dry_run: bool,
    /// Do not wait until the operation is done
    #[arg(long)]
    pub no_wait: bool,
    /// The limits on copying.
    #[command(flatten)]
    pub pace: Pace,
    /// The control plane to use
    #[command(flatten)]
    pub query: QueryArgs,
}

/// Flags of `miroir throttle`.
#[derive(Clone, Debug, clap::Args)]
pub struct ThrottleArgs {
    /// The limits on copying.
    #[command(flatten)]
    pub pace: Pace,
    /// The control plane to use
    #[command(flatten)]
    pub query: QueryArgs,
}

/// A new node.
#[derive(Clone, Debug, clap::Args)]
pub struct NewNode {
    /// The new node's name and URL, NAME=URL
    pub node: String,
    /// The Envoy cluster that reaches the node [default: its name]
    #[arg(long)]
    pub cluster: Option<String>,
    /// The node's share of the replicas, relative to the other nodes, 1 to 1000 [default: 1, or that of the node it replaces]
    #[arg(long)]
    pub weight: Option<u32>,
    /// The node's zone: replicas of a shard are placed in different zones
    #[arg(long)]
    pub zone: Option<String>,
}

impl NewNode {
    fn read(&self) -> Result<NodeFile> {
        let node = NodeFile::from_flag(&self.node).map_err(|error| Error::Config(vec![error]))?;
        Ok(NodeFile { cluster: self.cluster.clone(), weight: self.weight, zone: self.zone.clone(), ..node })
    }
}

/// `miroir node`.
#[derive(Clone, Debug, Subcommand)]
pub enum NodeCommand {
    /// Add a new, empty node: it gets its share of the replicas
    Add {
        /// The node.
        #[command(flatten)]
        node: NewNode,
        /// How to run the operation.
        #[command(flatten)]
        how: OperateArgs,
    },
    /// Move all replicas of a node to other nodes
    Drain {
        /// Name of the node
        name: String,
        /// How to run the operation.
        #[command(flatten)]
        how: OperateArgs,
    },
    /// Remove a node that is drained or being drained
    Remove {
        /// Name of the node
        name: String,
        /// How to run the operation.
        #[command(flatten)]
        how: OperateArgs,
    },
    /// Replace a node with a new, empty one; the old node leaves
    Replace {
        /// Name of the node to replace
        name: String,
        /// The new node.
        #[command(flatten)]
        node: NewNode,
        /// How to run the operation.
        #[command(flatten)]
        how: OperateArgs,
    },
    /// Declare a node lost and rebuild its replicas from other nodes
    Lost {
        /// Name of the node
        name: String,
        /// Do it although the node answers, or has the only copy of some documents
        #[arg(long)]
        force: bool,
        /// How to run the operation.
        #[command(flatten)]
        how: OperateArgs,
    },
}

/// `miroir replication`.
#[derive(Clone, Debug, Subcommand)]
pub enum ReplicationCommand {
    /// Set how many replicas each shard has
    Set {
        /// Number of replicas
        replicas: usize,
        /// How to run the operation.
        #[command(flatten)]
        how: OperateArgs,
    },
}

/// `miroir topology`.
#[derive(Clone, Debug, Subcommand)]
pub enum TopologyCommand {
    /// Print the cluster's nodes and replication as YAML that can be applied
    Show(QueryArgs),
    /// Change the cluster's nodes and replication to those of a file
    Apply {
        /// YAML or JSON, as `miroir topology show` prints it
        file: PathBuf,
        /// How to run the operation.
        #[command(flatten)]
        how: OperateArgs,
    },
}

/// Runs `miroir node`.
///
/// # Errors
/// The operation is refused, or the control plane does not answer.
pub async fn node(command: NodeCommand) -> Result<()> {
    let (operation, how) = match command {
        NodeCommand::Add { node, how } => (Operation::AddNode { node: node.read()? }, how),
        NodeCommand::Drain { name, how } => (Operation::DrainNode { name }, how),
        NodeCommand::Remove { name, how } => (Operation::RemoveNode { name }, how),
        NodeCommand::Replace { name, node, how } => {
            (Operation::ReplaceNode { name, node: node.read()? }, how)
        }
        NodeCommand::Lost { name, force, how } => (Operation::LostNode { name, force }, how),
    };
    run(operation, &how).await
}

/// Runs `miroir rebalance`.
///
/// # Errors
/// The operation is refused, or the control plane does not answer.
pub async fn rebalance(how: &OperateArgs) -> Result<()> {
    run(Operation::Rebalance, how).await
}

/// Runs `miroir throttle`.
///
/// # Errors
/// The operation is refused, or the control plane does not answer.
pub async fn throttle(args: &ThrottleArgs) -> Result<()> {
    let wanted = Wanted { wanted: Operation::Throttle, dry_run: false, pace: args.pace };
    let plan: Plan = client::post(&args.query, "/_miroir/operations", &wanted).await?;
    if args.query.json {
        say!("{}", serde_json::to_string_pretty(&plan)?);
    } else {
        say!("running and new copies use these limits until another operation starts");
    }
    Ok(())
}

/// Runs `miroir replication`.
///
/// # Errors
/// The operation is refused, or the control plane does not answer.
pub async fn replication(command: ReplicationCommand) -> Result<()> {
    let ReplicationCommand::Set { replicas, how } = command;
    run(Operation::SetReplication { replicas }, &how).await
}

/// Runs `miroir topology`.
///
/// # Errors
/// The operation is refused, or the control plane does not answer.
pub async fn topology(command: TopologyCommand) -> Result<()> {
    match command {
        TopologyCommand::Show(args) => {
            let file: TopologyFile = client::get(&args, "/_miroir/topology").await?;
            if args.json {
                say!("{}", serde_json::to_string_pretty(&file)?);
            } else {
                let text =
                    serde_yaml_ng::to_string(&file).map_err(|error| Error::Other(error.to_string()))?;
                output::print(format_args!("{text}"));
            }
            Ok(())
        }
        TopologyCommand::Apply { file, how } => {
            let text = std::fs::read_to_string(&file).map_err(Error::file(&file))?;
            let topology = serde_yaml_ng::from_str(&text)
                .map_err(|error| Error::Config(vec![format!("{}: {error}", file.display())]))?;
            run(Operation::Apply { topology }, &how).await
        }
    }
}

async fn run(wanted: Operation, how: &OperateArgs) -> Result<()> {
    let wanted = Wanted { wanted, dry_run: how.dry_run, pace: how.pace };
    let plan: Plan = client::post(&how.query, "/_miroir/operations", &wanted).await?;
    if !how.query.json {
        show(&plan, how.dry_run);
    }
    if !how.dry_run && !how.no_wait {
        wait(&how.query, &plan).await?;
    }
    if how.query.json {
        say!("{}", serde_json::to_string_pretty(&plan)?);
    }
    Ok(())
}

fn show(plan: &Plan, dry_run: bool) {
    let mut rows = table(&["from", "to", "shards", "documents", "bytes"]);
    for transfer in &plan.transfers {
        rows.add_row([
            transfer.source.as_deref().unwrap_or("no reachable node").to_owned(),
            transfer.target.to_string(),
            transfer.shards.len().to_string(),
            transfer.documents.to_string(),
            HumanBytes(transfer.bytes).to_string(),
        ]);
    }
    if !plan.transfers.is_empty() {
        say!("{rows}");
    }
    say!(
        "{} {} replicas, {} documents, about {}; {} old copies deleted afterwards",
        if dry_run { "would copy" } else { "copying" },
        plan.replicas,
        plan.documents,
        HumanBytes(plan.bytes),
        plan.deleted
    );
    if let Some((before, after)) = plan.nodes_asked.filter(|(before, after)| before != after) {
        say!("a search asks {after:.1} nodes then, {before:.1} now");
    }
}

/// How long the control plane may be unreachable while an operation is waited for. It continues the operation after a restart.
const AWAY: Duration = Duration::from_secs(120);

/// Waits until all replicas are in their places, and shows the progress.
pub(super) async fn wait(query: &QueryArgs, plan: &Plan) -> Result<()> {
    let bar = progress_bar("replicas", (plan.replicas + plan.deleted) as u64);
    let (begun, mut heard) = (Instant::now(), Instant::now());
    let mut before: Option<Moved> = None;
    let mut told = BTreeMap::new();
    loop {
        let status: Status = match client::get(query, "/_miroir/status").await {
            Ok(status) => status,
            Err(error) if heard.elapsed() > AWAY => {
                bar.finish_and_clear();
                return Err(Error::Other(format!(
                    "{error}; the operation continues once the control plane is back"
                )));
            }
            Err(_) => {
                bar.set_message("waiting for the control plane, which does not answer");
                // A control plane that restarts counts from zero.
                before = Some(Moved::default());
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        heard = Instant::now();
        let left = status.replicas_missing + status.replicas_surplus;
        let steps = (plan.replicas + plan.deleted).max(left);
        bar.set_length(steps as u64);
        bar.set_position((steps - left) as u64);
        let before = before.get_or_insert_with(|| {
            told.clone_from(&status.moved.errors);
            status.moved.clone()
        });
        let documents = status.moved.documents.saturating_sub(before.documents);
        let bytes = HumanBytes(status.moved.bytes.saturating_sub(before.bytes));
        let waits = if status.replicas_missing == 0 && left > 0 {
            "; old copies are deleted once no gateway reads them"
        } else {
            ""
        };
        bar.set_message(format!("{documents} documents, {bytes}{waits}"));
        for (node, error) in status.moved.errors {
            if told.get(&node) != Some(&error) {
                bar.suspend(|| warn_user!("{node}: {error}"));
                told.insert(node, error);
            }
        }
        let is_left =
            |node: &NodeStatus| node.leaving || (node.up && node.stale > 0) || (node.up && node.behind);
        if status.ready && !status.moving && !status.nodes.iter().any(is_left) {
            bar.finish_and_clear();
            if !query.json {
                say!("done in {}: {documents} documents, {bytes}", HumanDuration(begun.elapsed()));
            }
            for node in status.nodes.iter().filter(|node| node.stale > 0) {
                let (name, stale) = (&node.name, node.stale);
                warn_user!(
                    "node `{name}` is unreachable: its {stale} stale replicas are repaired once it is back"
                );
            }
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A progress bar; without a terminal, it shows nothing.
pub(super) fn progress_bar(of: &str, length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) =
        ProgressStyle::with_template(&format!("{{bar:30}} {{pos}}/{{len}} {of}, {{elapsed}}, {{msg}}"))
    {
        bar.set_style(style);
    }
    bar
}
