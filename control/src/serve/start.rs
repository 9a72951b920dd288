//! Starts a cluster whose ledger is open, until it can serve clients.

use crate::{
    base::{
        error::{Error, Result},
        log,
    },
    cluster::{Cluster, locks::Scope, missed::WrittenIds, tracked_tasks::TrackedTask},
    domain::{
        intent::{Effect, Intent},
        key_holder::read_key,
    },
    export,
    fencing::write_keys::create_key,
    indexes::fields,
    ledger::{self, intents, leases, tasks},
    membership, mover,
    publish::folder,
    sync::{self, features, health},
    tracking::{self, webhooks},
    writes::{commit, edit, recovery},
};
use miroir_core::{node_name::NodeName, protocol::WriteOperation};
use std::{sync::Arc, time::Duration};
use tracing::Instrument;

/// How long nodes may be silent at a start before that is logged.
const LOG_AFTER: Duration = Duration::from_secs(2);

/// Starts the cluster: waits for nodes, sets up keys, resumes work that a crash interrupted, and starts the background loops.
/// Then clients can be served.
///
/// # Errors
/// The ledger failed.
pub async fn start(cluster: Arc<Cluster>) -> Result<()> {
    wait_for_nodes(&cluster).await;
    bootstrap_keys(&cluster).await?;
    cluster.write_keys.fence_all(&cluster).await?;
    for node in cluster.nodes().iter().filter(|node| node.is_up()) {
        if let Err(error) = cluster.write_keys.catch_up(&cluster, node).await {
            tracing::warn!(node = node.name.as_str(), error = %error.chain(), "write keys from before the start could not be deleted on a node yet");
        }
    }
    take_up(&cluster).await?;
    membership::take_up_pace(&cluster).await?;
    features::learn(&cluster).await?;
    tokio::spawn(tracking::run(cluster.clone()));
    let beginning = cluster.clone();
    tokio::spawn(async move { fields::complete_unknown(&beginning).await });
    tokio::spawn(know_leases(cluster.clone()));
    tokio::spawn(recovery::watch(cluster.clone()));
    tokio::spawn(health::watch(cluster.clone()));
    tokio::spawn(mover::watch(cluster.clone()));
    tokio::spawn(webhooks::watch(cluster.clone()));
    if let Some(folder) = &cluster.publisher.folder {
        tokio::spawn(folder::watch(folder.clone()));
    }
    cluster.publish()?;
    cluster.set_ready();
    tracing::info!(version = cluster.cluster_state().version, "ready");
    Ok(())
}

/// Waits until every shard can be read, and for some seconds also for all nodes.
async fn wait_for_nodes(cluster: &Cluster) {
    let begun = cluster.clock.monotonic();
    let mut is_logged = false;
    loop {
        health::check(cluster).await;
        let cluster_state = cluster.cluster_state();
        let is_up = |name: &NodeName| cluster.node(name).is_some_and(|node| node.is_up());
        let readable = cluster_state.shards().all(|shard| cluster_state.is_readable(shard, is_up));
        let whole = cluster.nodes().iter().all(|node| node.is_up());
        if whole || (readable && cluster.clock.since(begun) > Duration::from_secs(10)) {
            return;
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

/// Makes the API keys equal on all nodes: all get the default keys of the first node. This happens once in a cluster's life.
/// Nodes that are unreachable then get the keys when they sync.
async fn bootstrap_keys(cluster: &Arc<Cluster>) -> Result<()> {
    let done = cluster.ledger.call(|connection| ledger::meta(connection, "keys")).await?.is_some();
    if done {
        return Ok(());
    }
    let nodes = cluster.nodes();
    let up: Vec<_> = nodes.iter().filter(|node| node.is_up()).collect();
    let Some((first, others)) = up.split_first() else { return Err(Error::NoNode) };
    let uid = cluster.ledger.call(|connection| ledger::meta_as(connection, "read_key")).await?;
    let uid = uid.ok_or_else(|| Error::Other("the ledger has no key of gateways' reads".to_owned()))?;
    create_key(first, &read_key(uid)).await?;
    for node in others {
        sync::sync_keys(first, node).await?;
    }
    crate::indexes::creation::mark_behind(cluster, &[]).await?;
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
            (Intent::Broadcast { requests, effect }, false) => {
                let redone = crate::indexes::broadcast::redo(cluster, uid, requests, effect.clone());
                if let Err(error) = redone.instrument(log::task_span(Some(uid), None, None)).await {
                    tracing::error!(uid, error = %error.chain(), "an operation could not be resumed; the next start tries again");
                }
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
                    crate::indexes::broadcast::tell_changing(cluster, uid, &effect).await?;
                    // Effects that other mutations must not overtake keep their locks.
                    let scope = match &effect {
                        Effect::None | Effect::Settings { .. } | Effect::Rules { .. } => None,
                        Effect::UpdateIndex { index, rename, .. } => {
                            Some(Scope::indexes(std::iter::once(index.as_str()).chain(rename.as_deref())))
                        }
                        Effect::Swap { pairs } => Some(Scope::indexes(
                            pairs.iter().flat_map(|(left, right, _)| [left.as_str(), right.as_str()]),
                        )),
                    };
                    let guard = match scope {
                        Some(scope) => Some(cluster.locks.lock(scope).await),
                        None => None,
                    };
                    cluster.tracked_tasks.add(TrackedTask {
                        task,
                        node_tasks: found.tasks,
                        effect,
                        indexed,
                        // Which documents a write changed was not stored.
                        written: WrittenIds::new(),
                        guard,
                    });
                }
            }
        }
    }
    if !open.is_empty() {
        tracing::warn!(writes = open.len(), "recovering writes without a commit");
        let cluster = cluster.clone();
        tokio::spawn(async move {
            if let Err(error) = recovery::recover(&cluster, open).await {
                tracing::error!(error = %error.chain(), "writes could not be recovered yet");
            }
        });
    }
    edits.into_iter().for_each(|write| edit::resume(cluster, write));
    Ok(())
}
