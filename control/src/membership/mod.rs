//! Membership: operators add and remove nodes, and move replicas. An operation is checked, planned, and then only recorded as
//! the desired cluster state; the mover does the work.

pub mod change;
mod check;
pub mod plan;

use crate::{
    base::{
        config::{NodeFile, Pace},
        error::{Error, Result},
        json, log,
    },
    cluster::Cluster,
    domain::cluster_state::ClusterState,
    ledger,
};
use change::TopologyFile;
use plan::Plan;
use serde::{Deserialize, Serialize};
use tracing::Instrument;

/// An operation of an operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "operation", rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Operation {
    /// Adds a node, which gets its share of the replicas.
    AddNode {
        /// The new node.
        node: NodeFile,
    },
    /// Moves all replicas of a node to others. The node stays in the cluster.
    DrainNode {
        /// The node's name.
        name: String,
    },
    /// Removes a node that is drained, or is being drained: it leaves once it holds no replica.
    RemoveNode {
        /// The node's name.
        name: String,
    },
    /// Replaces a node by a new one. The old node leaves.
    ReplaceNode {
        /// The name of the node that leaves.
        name: String,
        /// The new node.
        node: NodeFile,
    },
    /// Declares a node lost: it is removed at once, and its replicas are rebuilt from others.
    LostNode {
        /// The node's name.
        name: String,
        /// Do so even if the node answers, or holds the only copy of a shard.
        force: bool,
    },
    /// Moves replicas so that they match the weights of nodes.
    Rebalance,
    /// Changes the pace of running moves.
    Throttle,
    /// Changes the number of replicas per shard.
    SetReplication {
        /// The number of replicas.
        replicas: usize,
    },
    /// Makes the cluster as a file describes it.
    Apply {
        /// The content of the file.
        topology: TopologyFile,
    },
}

impl Operation {
    /// Its name in requests.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::AddNode { .. } => "addNode",
            Self::DrainNode { .. } => "drainNode",
            Self::RemoveNode { .. } => "removeNode",
            Self::ReplaceNode { .. } => "replaceNode",
            Self::LostNode { .. } => "lostNode",
            Self::Rebalance => "rebalance",
            Self::Throttle => "throttle",
            Self::SetReplication { .. } => "setReplication",
            Self::Apply { .. } => "apply",
        }
    }

    /// The node that it is about; of two, the one that is in the cluster already.
    #[must_use]
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::AddNode { node } => Some(&node.name),
            Self::DrainNode { name }
            | Self::RemoveNode { name }
            | Self::ReplaceNode { name, .. }
            | Self::LostNode { name, .. } => Some(name),
            Self::Rebalance | Self::Throttle | Self::SetReplication { .. } | Self::Apply { .. } => None,
        }
    }
}

/// The body of an operator's request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Wanted {
    /// The operation.
    pub wanted: Operation,
    /// Only check and plan the operation; change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// The pace of moves, until another operation changes it.
    #[serde(default)]
    pub pace: Pace,
}

/// The name under which the ledger stores the pace of moves.
const PACE: &str = "pace";

/// Sets the pace of moves, and stores it, so that it is the same after a restart.
///
/// # Errors
/// The pace does not allow any move, or the ledger failed.
pub async fn set_pace(cluster: &Cluster, pace: Pace) -> Result<()> {
    let moves = pace.over(cluster.config.moves)?;
    let text = serde_json::to_string(&pace)?;
    cluster.ledger.call(move |connection| ledger::set_meta(connection, PACE, &text)).await?;
    cluster.mover.pace(moves);
    Ok(())
}

/// Restores the pace that was set before a restart.
///
/// # Errors
/// The ledger failed.
pub async fn take_up_pace(cluster: &Cluster) -> Result<()> {
    let kept: Option<Pace> = cluster.ledger.call(|connection| ledger::meta_json(connection, PACE)).await?;
    let pace = kept.unwrap_or_default();
    cluster.mover.pace(pace.over(cluster.config.moves)?);
    Ok(())
}

/// Checks an operation, plans it, and starts it unless it is a dry run.
///
/// # Errors
/// Everything that is wrong, and what to do about it. Nothing has changed then.
pub async fn run(cluster: &Cluster, wanted: Wanted) -> Result<Plan> {
    let span = log::operation_span(wanted.wanted.name(), wanted.wanted.node());
    start(cluster, wanted).instrument(span).await
}

async fn start(cluster: &Cluster, wanted: Wanted) -> Result<Plan> {
    let Wanted { wanted: operation, dry_run, pace } = wanted;
    pace.over(cluster.config.moves)?;
    if !cluster.is_ready() && !dry_run && !matches!(operation, Operation::LostNode { .. }) {
        return Err(Error::Refused(vec![
            "the cluster is starting: until it is ready, only `miroir node lost` can change it".to_owned(),
        ]));
    }
    // First the checks that need no node, so that the operator gets their errors at once.
    let before = cluster.cluster_state();
    let mut after = ClusterState::clone(&before);
    change::change(&mut after, &operation).map_err(Error::Refused)?;
    check::check(cluster, &before, &after, &operation).await?;
    let plan = plan::plan(cluster, &before, &after).await;
    if dry_run {
        return Ok(plan);
    }
    // Applied again to the current state, because another operation may have started meanwhile.
    cluster
        .try_change(|cluster_state| change::change(cluster_state, &operation).map_err(Error::Refused))
        .await?;
    // An operation that joins a running one keeps its pace, unless it names another.
    if pace.is_said() || !before.is_moving() || operation == Operation::Throttle {
        set_pace(cluster, pace).await?;
    }
    let text = json::text(&operation);
    tracing::info!(operation = text, replicas = plan.replicas, "an operation has started");
    Ok(Plan { version: cluster.cluster_state().version, ..plan })
}
