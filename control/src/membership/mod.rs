//! What operators do to the cluster: nodes come and go, replicas move. A change is checked, planned, and then only written into
//! the view; the mover goes there.

pub mod change;
mod check;
pub mod plan;

use crate::{
    base::{
        config::{NodeFile, Pace},
        error::{Error, Result},
        json,
    },
    cluster::Cluster,
    domain::cluster_state::View,
    ledger,
};
use change::TopologyFile;
use plan::Plan;
use serde::{Deserialize, Serialize};

/// What an operator wants.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Operation {
    /// A new node takes its share.
    AddNode {
        /// The node.
        node: NodeFile,
    },
    /// A node gives its replicas away, and stays.
    DrainNode {
        /// Its name.
        name: String,
    },
    /// A node that is drained leaves, or one that is being drained, once it is empty.
    RemoveNode {
        /// Its name.
        name: String,
    },
    /// A new node takes the place of one, which leaves.
    ReplaceNode {
        /// The name of the one that leaves.
        name: String,
        /// The new one.
        node: NodeFile,
    },
    /// A node's copies are gone: others stand in, and it is in the cluster no more.
    LostNode {
        /// Its name.
        name: String,
        /// Although it answers, or holds what nobody else has.
        force: bool,
    },
    /// Replicas go where weights and bounds want them.
    Rebalance,
    /// What moves goes on at another pace.
    Throttle,
    /// Another number of replicas a shard.
    SetReplication {
        /// How many.
        replicas: usize,
    },
    /// The cluster becomes what a file says.
    Apply {
        /// What it says.
        topology: TopologyFile,
    },
}

/// What an operator sends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Wanted {
    /// What is to be done.
    pub wanted: Operation,
    /// Nothing is to be done: only what it would be is asked.
    #[serde(default)]
    pub dry_run: bool,
    /// How fast, until another operation says otherwise.
    #[serde(default)]
    pub pace: Pace,
}

/// Where the ledger keeps the pace of what is under way.
const PACE: &str = "pace";

/// Sets the pace of what moves, also for the time after a crash.
///
/// # Errors
/// Nothing could be moved at it, or the ledger failed.
pub async fn set_pace(cluster: &Cluster, pace: Pace) -> Result<()> {
    let moves = pace.over(cluster.config.moves)?;
    let text = serde_json::to_string(&pace)?;
    cluster.ledger.call(move |connection| ledger::set_meta(connection, PACE, &text)).await?;
    cluster.mover.pace(moves);
    Ok(())
}

/// Takes up the pace that was set before a restart.
///
/// # Errors
/// The ledger failed.
pub async fn take_up_pace(cluster: &Cluster) -> Result<()> {
    let kept: Option<Pace> = cluster.ledger.call(|connection| ledger::meta_json(connection, PACE)).await?;
    let pace = kept.unwrap_or_default();
    cluster.mover.pace(pace.over(cluster.config.moves)?);
    Ok(())
}

/// Checks an operation, plans it, and unless it is a dry run starts it.
///
/// # Errors
/// All that is wrong with it, and what to do: nothing has changed.
pub async fn run(cluster: &Cluster, wanted: Wanted) -> Result<Plan> {
    let Wanted { wanted: operation, dry_run, pace } = wanted;
    pace.over(cluster.config.moves)?;
    // First what needs no node, so that an operator hears it at once.
    let before = cluster.view();
    let mut after = View::clone(&before);
    change::change(&mut after, &operation).map_err(Error::Refused)?;
    check::check(cluster, &before, &after, &operation).await?;
    let plan = plan::plan(cluster, &before, &after).await;
    if dry_run {
        return Ok(plan);
    }
    // Somebody else may have come first.
    cluster.try_change(|view| change::change(view, &operation).map_err(Error::Refused)).await?;
    // What only joins another that is under way leaves its pace alone.
    if pace.is_said() || !before.is_moving() || operation == Operation::Throttle {
        set_pace(cluster, pace).await?;
    }
    let text = json::text(&operation);
    tracing::info!(operation = text, replicas = plan.replicas, "an operation has started");
    Ok(Plan { version: cluster.view().version, ..plan })
}
