//! Starts a cluster whose ledger is open, until it can serve clients.

use crate::{
    base::{
        error::{Error, Result},
        log,
    },
    cluster::{Cluster, missed::WrittenIds, tracked_tasks::TrackedTask},
    domain::{
        intent::{Effect, Intent, Step},
        key_holder::read_key,
        serving::Serving,
    },
    export,
    fencing::{instance, late_tasks, write_keys::create_key},
    indexes::{broadcast, creation, fields},
    ledger::{self, intents, leases, steps, tasks},
    membership, mover,
    node::FOREIGN,
    publish::folder,
    sync::{self, features, health, instance_change, node_queues},
    tracking::{self, task_deletion, webhooks},
    writes::{commit, edit, recovery},
};
use miroir_core::{node_name::NodeName, protocol::WriteOperation};
use std::{sync::Arc, time::Duration};
use tracing::Instrument;

/// How long all nodes are waited for, if every shard can be read without those that do not answer.
const READABLE: Duration = Duration::from_secs(10);
/// How long nodes are waited for, if there are shards that cannot be read without them.
const UNREADABLE: Duration = Duration::from_secs(30);
/// How often a ledger that fails is tried.
const PROBE: Duration = Duration::from_secs(1);
/// The longest pause between two attempts to prepare nodes.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How long nodes may be silent at a start before that is logged.
const LOG_AFTER: Duration = Duration::from_secs(2);

/// Starts the cluster: waits for nodes, sets up keys, resumes work that a crash interrupted, and starts the background loops.
/// Then clients can be served.
///
/// # Errors
/// The ledger failed, or is not the cluster's newest; or another control plane serves the cluster.
pub async fn start(cluster: Arc<Cluster>) -> Result<()> {
    membership::take_up_pace(&cluster).await?;
    let mut pause = Duration::from_millis(100);
    let mut has_taken_over = false;
    loop {
        wait_for_nodes(&cluster).await?;
        match prepare(&cluster, &mut has_taken_over).await {
            Ok(()) => break,
            // A node may have become unreachable again.
            Err(
                error @ (Error::NoNode
                | Error::Unreachable { .. }
                | Error::Unexpected { .. }
                | Error::UnreadableAnswer { .. }),
            ) => {
                tracing::warn!(error = %error.chain(), ?pause, "nodes could not be prepared, and are tried again after a pause");
            }
            Err(error) => return Err(error),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    take_up(&cluster).await?;
    run_loops(&cluster);
    cluster.instance.check()?;
    cluster.publish()?;
    cluster.set_ready();
    tracing::info!(version = cluster.cluster_state().version, "ready");
    Ok(())
}

/// Starts what runs for as long as the process lives.
fn run_loops(cluster: &Arc<Cluster>) {
    fn keep<F: Future<Output = ()> + Send + 'static>(
        cluster: &Arc<Cluster>,
        name: &'static str,
        run: impl Fn(Arc<Cluster>) -> F + Send + 'static,
    ) {
        let shared = cluster.clone();
        cluster.supervisor.keep(name, move || run(shared.clone()));
    }
    keep(cluster, "tracking", tracking::run);
    keep(cluster, "recovery", recovery::watch);
    keep(cluster, "late tasks", late_tasks::watch);
    keep(cluster, "health", health::watch);
    keep(cluster, "moves", mover::watch);
    keep(cluster, "webhooks", webhooks::watch);
    keep(cluster, "old tasks", task_deletion::watch);
    keep(cluster, "ledger", probe_ledger);
    keep(cluster, "node queues", node_queues::watch);
    if let Some(folder) = cluster.publisher.folder.clone() {
        cluster.supervisor.keep("folder", move || folder::watch(folder.clone()));
    }
    let beginning = cluster.clone();
    cluster.supervisor.spawn("fields", async move { fields::complete_unknown(&beginning).await });
    cluster.supervisor.spawn("leases", know_leases(cluster.clone()));
}

/// Takes over the cluster, and prepares the nodes that are up. It can be done again.
async fn prepare(cluster: &Arc<Cluster>, has_taken_over: &mut bool) -> Result<()> {
    if !*has_taken_over {
        instance::hear_gateways(cluster).await?;
        instance::take_over(cluster).await?;
        *has_taken_over = true;
        // From now on another control plane that asks must find this one.
        let watched = cluster.clone();
        cluster.supervisor.keep("instance", move || instance::watch(watched.clone()));
    }
    bootstrap_keys(cluster).await?;
    cluster.write_keys.fence_all(cluster).await?;
    for node in cluster.nodes().iter().filter(|node| node.is_up()) {
        if let Err(error) = cluster.write_keys.catch_up(cluster, node).await {
            tracing::warn!(node = node.name.as_str(), error = %error.chain(), "write keys from before the start could not be deleted on a node yet");
        }
    }
    match features::learn(cluster).await {
        // Every node that answers is behind. The health's watch learns it from the first one that is not.
        Err(Error::NoNode) => Ok(()),
        learnt => learnt,
    }
}

/// Tries each second whether a ledger that was failing works again, forever: until it does, nobody may send a write that would tell.
async fn probe_ledger(cluster: Arc<Cluster>) {
    loop {
        tokio::time::sleep(PROBE).await;
        if cluster.ledger.is_failing() && cluster.ledger.probe(cluster.clock.wall()).await.is_ok() {
            tracing::info!("the ledger works again");
        }
    }
}

/// Waits for all nodes; after [`READABLE`], only until every shard can be read; and after [`UNREADABLE`], only for one node, so that
/// the shards that are there are served. Operators can declare nodes lost meanwhile.
///
/// # Errors
/// The ledger failed; or it is new, and nodes have the data of a cluster: a ledger was lost, or another control plane has these nodes.
async fn wait_for_nodes(cluster: &Cluster) -> Result<()> {
    let is_new = !are_keys_equal(cluster).await?;
    let begun = cluster.clock.monotonic();
    let mut is_logged = false;
    loop {
        health::check(cluster).await;
        cluster.instance.check()?;
        let cluster_state = cluster.cluster_state();
        let is_up = |name: &NodeName| cluster.node(name).is_some_and(|node| node.is_up());
        let unreadable =
            cluster_state.shards().filter(|shard| !cluster_state.is_readable(*shard, is_up)).count();
        let nodes = cluster.nodes();
        let waited = cluster.clock.since(begun);
        if nodes.iter().all(|node| node.is_up()) || (unreadable == 0 && waited > READABLE) {
            return Ok(());
        }
        let foreign = nodes.iter().filter(|node| is_new && node.health().is_foreign);
        let foreign: Vec<String> = foreign.map(|node| format!("node `{}`: {FOREIGN}", node.name)).collect();
        if !foreign.is_empty() {
            return Err(Error::Refused(foreign));
        }
        if waited > UNREADABLE && nodes.iter().any(|node| node.is_up()) {
            tracing::error!(
                shards = unreadable,
                "no node answers that has these shards: the others are served; if a node is gone for good, `miroir node lost`"
            );
            return Ok(());
        }
        if !is_logged && cluster.clock.since(begun) > LOG_AFTER {
            is_logged = true;
            for node in cluster.nodes().iter().filter(|node| !node.is_up()) {
                tracing::warn!(
                    node = node.name.as_str(),
                    error = node.health().error,
                    "a node is waited for"
                );
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whether the nodes have had the keys of this ledger's cluster once.
async fn are_keys_equal(cluster: &Cluster) -> Result<bool> {
    Ok(cluster.ledger.call(|connection| ledger::meta(connection, "keys")).await?.is_some())
}

/// Makes the API keys equal on all nodes: all get the default keys of the first node. This happens once in a cluster's life.
/// Nodes that are unreachable then get the keys when they sync.
async fn bootstrap_keys(cluster: &Arc<Cluster>) -> Result<()> {
    if are_keys_equal(cluster).await? {
        return Ok(());
    }
    let nodes = cluster.nodes();
    let up: Vec<_> = nodes.iter().filter(|node| node.is_up()).collect();
    let Some((first, others)) = up.split_first() else { return Err(Error::NoNode) };
    let key = read_key(cluster.options.read_key, Serving::by(cluster.instance.id));
    create_key(first, &key).await?;
    // Another control plane may start with these nodes at the same time.
    if first.belongs_to_another().await? {
        return Err(Error::Refused(vec![format!("node `{}`: {FOREIGN}", first.name)]));
    }
    for node in others {
        sync::sync_keys(first, node).await?;
    }
    creation::mark_behind(cluster, &[]).await?;
    cluster.ledger.call(|connection| ledger::set_meta(connection, "keys", "equal")).await
}

/// Notes that all leases are known, after the leases have ended that an older build may have granted.
async fn know_leases(cluster: Arc<Cluster>) {
    let Some(left) = cluster.gateways.unknown_for() else { return };
    tokio::time::sleep(left).await;
    if let Err(error) = cluster.ledger.call(leases::know_leases).await {
        tracing::warn!(error = %error.chain(), "could not note that all leases are known; the next start waits for unknown leases again");
    }
}

/// Resumes the work that was under way when the control plane stopped.
async fn take_up(cluster: &Arc<Cluster>) -> Result<()> {
    let (mut open, mut edits) = (Vec::new(), Vec::new());
    for found in cluster.ledger.call(intents::all).await? {
        let uid = found.uid;
        match (&found.intent, found.sent) {
            (Intent::Write { index, .. }, false) => {
                let span = log::write_span(Some(uid), index);
                let write = recovery::reopen(cluster, found, &open).instrument(span).await?;
                match write {
                    Some(write) if matches!(write.operation, WriteOperation::Edit { .. }) => {
                        edits.push(write)
                    }
                    write => open.extend(write),
                }
            }
            (Intent::Broadcast { .. }, false) => {
                let resumed = broadcast::resume(cluster, found);
                resumed.instrument(log::task_span(Some(uid), None, None)).await?;
            }
            (Intent::Export { export }, _) => {
                let task = cluster.ledger.call(move |connection| tasks::get(connection, uid)).await?;
                if let Some(task) = task {
                    export::spawn(cluster, task, export.clone());
                }
            }
            (intent, true) => {
                let (effect, indexed) = match intent {
                    Intent::Export { .. } => continue,
                    Intent::Broadcast { effect, .. } => (effect.clone(), None),
                    Intent::Write { operation, .. } => (Effect::None, commit::indexed(operation)),
                };
                let task = cluster.ledger.call(move |connection| tasks::get(connection, uid)).await?;
                if let Some(task) = task {
                    // What is applied changes nothing any more.
                    if found.ending.is_none() {
                        broadcast::tell_changing(cluster, uid, &effect).await?;
                    }
                    // Effects that other mutations must not overtake keep their locks.
                    let guard = match effect.holds_locks() {
                        true => Some(cluster.locks.lock(broadcast::scope(&task, &effect)).await),
                        false => None,
                    };
                    let unsettled = TrackedTask {
                        task,
                        node_tasks: found.tasks,
                        effect,
                        indexed,
                        // Which documents a write changed was not stored.
                        written: WrittenIds::new(),
                        guard,
                    };
                    cluster.tracked_tasks.restore(unsettled, found.ending, &found.interrupted);
                }
            }
        }
    }
    for (id, step) in cluster.ledger.call(steps::all).await? {
        match step {
            Step::Index { index, primary_key } => {
                creation::resume(cluster, id, &index, primary_key.as_deref()).await?;
            }
            step @ Step::Instance { .. } => instance_change::resume(cluster, id, step).await,
        }
    }
    if !open.is_empty() {
        tracing::warn!(writes = open.len(), "recovering writes without a commit");
        let (cluster, supervisor) = (cluster.clone(), &cluster.supervisor);
        supervisor.spawn("recovery", async move {
            if let Err(error) = recovery::recover(&cluster, open).await {
                tracing::error!(error = %error.chain(), "writes could not be recovered yet");
            }
        });
    }
    edits.into_iter().for_each(|write| edit::resume(cluster, write));
    Ok(())
}

#[cfg(test)]
mod tests;
