//! `miroir node`, `rebalance`, `replication` and `topology`: says what is wanted, and watches it come true.

use super::{QueryArgs, client};
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

/// How often it is asked how far an operation is.
const PAUSE: Duration = Duration::from_millis(200);

/// How an operation is run.
#[derive(Clone, Debug, clap::Args)]
pub struct OperateArgs {
    /// Only say what would be moved
    #[arg(long)]
    pub dry_run: bool,
    /// Do not wait until it is done
    #[arg(long)]
    pub no_wait: bool,
    /// How fast.
    #[command(flatten)]
    pub pace: Pace,
    /// Which control plane
    #[command(flatten)]
    pub query: QueryArgs,
}

/// Flags of `miroir throttle`.
#[derive(Clone, Debug, clap::Args)]
pub struct ThrottleArgs {
    /// How fast.
    #[command(flatten)]
    pub pace: Pace,
    /// Which control plane
    #[command(flatten)]
    pub query: QueryArgs,
}

/// A node that is new.
#[derive(Clone, Debug, clap::Args)]
pub struct NewNode {
    /// Its name and where it listens, NAME=URL
    pub node: String,
    /// The Envoy cluster that reaches it [default: its name]
    #[arg(long)]
    pub cluster: Option<String>,
    /// Its share of the replicas, relative to other nodes', 1 to 1000 [default: 1, or that of the node it replaces]
    #[arg(long)]
    pub weight: Option<u32>,
    /// Its zone: replicas of a shard go to different ones
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
    /// Take a new, empty node in: it gets its share of the replicas
    Add {
        /// The node.
        #[command(flatten)]
        node: NewNode,
        /// How.
        #[command(flatten)]
        how: OperateArgs,
    },
    /// Let a node give its replicas to others
    Drain {
        /// Its name
        name: String,
        /// How.
        #[command(flatten)]
        how: OperateArgs,
    },
    /// Let a node leave that is drained, or is being drained
    Remove {
        /// Its name
        name: String,
        /// How.
        #[command(flatten)]
        how: OperateArgs,
    },
    /// Let a new, empty node take the place of another, which leaves
    Replace {
        /// The name of the node that leaves
        name: String,
        /// The new one.
        #[command(flatten)]
        node: NewNode,
        /// How.
        #[command(flatten)]
        how: OperateArgs,
    },
    /// Give up a node whose copies are gone: they are made again from others
    Lost {
        /// Its name
        name: String,
        /// Although it answers, or holds documents that nobody else has
        #[arg(long)]
        force: bool,
        /// How.
        #[command(flatten)]
        how: OperateArgs,
    },
}

/// `miroir replication`.
#[derive(Clone, Debug, Subcommand)]
pub enum ReplicationCommand {
    /// Set how many replicas each shard has
    Set {
        /// How many
        replicas: usize,
        /// How.
        #[command(flatten)]
        how: OperateArgs,
    },
}

/// `miroir topology`.
#[derive(Clone, Debug, Subcommand)]
pub enum TopologyCommand {
    /// Print what the cluster is, as YAML that can be applied
    Show(QueryArgs),
    /// Make the cluster what a file says
    Apply {
        /// YAML or JSON, as `miroir topology show` prints it
        file: PathBuf,
        /// How.
        #[command(flatten)]
        how: OperateArgs,
    },
}

/// Runs `miroir node`.
///
/// # Errors
/// It is refused, or the control plane cannot be asked.
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
/// It is refused, or the control plane cannot be asked.
pub async fn rebalance(how: &OperateArgs) -> Result<()> {
    run(Operation::Rebalance, how).await
}

/// Runs `miroir throttle`.
///
/// # Errors
/// It is refused, or the control plane cannot be asked.
pub async fn throttle(args: &ThrottleArgs) -> Result<()> {
    let wanted = Wanted { wanted: Operation::Throttle, dry_run: false, pace: args.pace };
    let plan: Plan = client::post(&args.query, "/_miroir/operations", &wanted).await?;
    if args.query.json {
        println!("{}", serde_json::to_string_pretty(&plan)?);
    } else {
        println!("what moves, and is moved from now on, goes at this pace until another operation starts");
    }
    Ok(())
}

/// Runs `miroir replication`.
///
/// # Errors
/// It is refused, or the control plane cannot be asked.
pub async fn replication(command: ReplicationCommand) -> Result<()> {
    let ReplicationCommand::Set { replicas, how } = command;
    run(Operation::SetReplication { replicas }, &how).await
}

/// Runs `miroir topology`.
///
/// # Errors
/// It is refused, or the control plane cannot be asked.
pub async fn topology(command: TopologyCommand) -> Result<()> {
    match command {
        TopologyCommand::Show(args) => {
            let file: TopologyFile = client::get(&args, "/_miroir/topology").await?;
            if args.json {
                println!("{}", serde_json::to_string_pretty(&file)?);
            } else {
                let text =
                    serde_yaml_ng::to_string(&file).map_err(|error| Error::Other(error.to_string()))?;
                print!("{text}");
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
        println!("{}", serde_json::to_string_pretty(&plan)?);
    }
    Ok(())
}

fn show(plan: &Plan, dry_run: bool) {
    let mut rows = table(&["from", "to", "shards", "documents", "bytes"]);
    for transfer in &plan.transfers {
        rows.add_row([
            transfer.source.clone().unwrap_or_else(|| "nobody who answers".to_owned()),
            transfer.target.clone(),
            transfer.shards.len().to_string(),
            transfer.documents.to_string(),
            HumanBytes(transfer.bytes).to_string(),
        ]);
    }
    if !plan.transfers.is_empty() {
        println!("{rows}");
    }
    println!(
        "{} {} replicas, {} documents, about {}; {} old copies deleted afterwards",
        if dry_run { "would copy" } else { "copying" },
        plan.replicas,
        plan.documents,
        HumanBytes(plan.bytes),
        plan.deleted
    );
}

/// For so long the control plane may be away while an operation is waited for: it goes on where it was.
const AWAY: Duration = Duration::from_secs(120);

/// Waits until replicas are where they are to be, and shows how far they are.
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
                return Err(Error::Other(format!("{error}; what has started goes on once it is back")));
            }
            Err(_) => {
                bar.set_message("the control plane does not answer: waiting for it");
                // It counts anew.
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
        let waits =
            if status.replicas_missing == 0 && left > 0 { "; old copies go when gateways agree" } else { "" };
        bar.set_message(format!("{documents} documents, {bytes}{waits}"));
        for (node, error) in status.moved.errors {
            if told.get(&node) != Some(&error) {
                bar.suspend(|| eprintln!("{node}: {error}"));
                told.insert(node, error);
            }
        }
        let is_left =
            |node: &NodeStatus| node.leaving || (node.up && node.stale > 0) || (node.up && node.behind);
        if status.ready && !status.moving && !status.nodes.iter().any(is_left) {
            bar.finish_and_clear();
            if !query.json {
                println!("done in {}: {documents} documents, {bytes}", HumanDuration(begun.elapsed()));
            }
            for node in status.nodes.iter().filter(|node| node.stale > 0) {
                let (name, stale) = (&node.name, node.stale);
                eprintln!("node `{name}` is away: {stale} replicas on it are made whole once it is back");
            }
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// A bar on a terminal; nothing where there is none.
pub(super) fn progress_bar(of: &str, length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length);
    if let Ok(style) =
        ProgressStyle::with_template(&format!("{{bar:30}} {{pos}}/{{len}} {of}, {{elapsed}}, {{msg}}"))
    {
        bar.set_style(style);
    }
    bar
}
