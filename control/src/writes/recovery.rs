//! Recovers begins without a commit, after the gateway or the control plane has died: fence the key, wait, ask the nodes,
//! decide.

use super::{accepted, commit, edit};
use crate::{
    base::{error::Result, log},
    cluster::{
        Cluster,
        locks::Scope,
        missed::WrittenIds,
        open_writes::{OpenWrite, UndecidedWrite},
        write_keys::Late,
    },
    domain::intent::Intent,
    fencing::write_keys::GRACE,
    ledger::{intents, tasks},
};
use futures_util::future::join_all;
use miroir_core::{node_name::NodeName, protocol::WriteOperation, shard::Shard};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::sync::watch;
use tracing::Instrument;
use uuid::Uuid;

/// Recovers writes: fences their gateways' keys, waits for the last callouts, and commits what nodes say they have accepted. A
/// write that cannot be recovered stays open, with its locks, until the next attempt.
///
/// # Errors
/// The ledger failed.
pub async fn recover(cluster: &Arc<Cluster>, writes: Vec<UndecidedWrite>) -> Result<()> {
    if writes.is_empty() {
        return Ok(());
    }
    let mut failure = None;
    let found = ask(cluster, &writes).await?;
    for write in writes {
        let uid = write.task.uid;
        let taken = found.taken.get(&uid).cloned().unwrap_or_default();
        let span = log::write_span(Some(uid), &write.index);
        span.in_scope(|| {
            tracing::warn!(
                gateway = write.gateway,
                nodes = taken.len(),
                "a write without a commit was recovered"
            );
        });
        for node in write.writers.values().flatten().filter(|node| !taken.contains_key(*node)) {
            write.key.into_iter().for_each(|key| cluster.write_keys.late(node, key, Late::Documents));
        }
        // A gateway that sends no commit does not say which documents it wrote.
        let decided = commit::apply(cluster, &write, &taken, &found.silent, WrittenIds::new());
        match decided.instrument(span.clone()).await {
            Ok(decision) => {
                write.decision.send_replace(Some(decision));
                write.decided();
            }
            Err(error) => {
                span.in_scope(|| {
                    tracing::warn!(error = %error.chain(), "it is not decided yet what became of a write");
                });
                failure = Some(error);
            }
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Fences the keys of these writes. Once no callout can arrive any more, asks nodes which writes they have accepted.
async fn ask(cluster: &Cluster, writes: &[UndecidedWrite]) -> Result<accepted::AcceptedWrites> {
    let keys: BTreeSet<Uuid> = writes.iter().filter_map(|write| write.key).collect();
    let fenced = join_all(keys.into_iter().map(|key| cluster.write_keys.fence(cluster, key, GRACE))).await;
    fenced.into_iter().collect::<Result<()>>()?;
    tokio::time::sleep(cluster.options.callout_timeout).await;
    let nodes: BTreeSet<NodeName> =
        writes.iter().flat_map(|write| write.writers.values().flatten().cloned()).collect();
    let uids: BTreeSet<u32> = writes.iter().map(|write| write.task.uid).collect();
    let mut found = accepted::find(cluster, &nodes, &uids).await?;
    // A node that still has a fenced key may accept a write later than it answers.
    found.silent.extend(cluster.write_keys.nodes_with_fenced_keys().intersection(&nodes).cloned());
    Ok(found)
}

/// Reopens a write that was open before a restart, and takes its locks. `reopened` are the writes that were reopened before it:
/// it does not wait for locks that these hold, because all of them are recovered together.
///
/// # Errors
/// The ledger failed.
pub async fn reopen(
    cluster: &Arc<Cluster>,
    found: intents::StoredIntent,
    reopened: &[UndecidedWrite],
) -> Result<Option<UndecidedWrite>> {
    let uid = found.uid;
    let Intent::Write { gateway, index, operation, writers, begun } = found.intent else { return Ok(None) };
    let Some(task) = cluster.ledger.call(move |connection| tasks::get(connection, uid)).await? else {
        return Ok(None);
    };
    let writers: BTreeMap<Shard, Vec<NodeName>> = writers.into_iter().collect();
    let is_held = |shard: &Shard| {
        reopened.iter().any(|before| before.index == index && before.writers.contains_key(shard))
    };
    let shards: Vec<Shard> = writers.keys().copied().filter(|shard| !is_held(shard)).collect();
    let guard = cluster.locks.lock(Scope::shards(&index, &shards)).await;
    let record = Vec::new();
    Ok(Some(cluster.open.insert_taken(OpenWrite {
        task,
        gateway,
        index,
        operation,
        writers,
        record,
        guard,
        key: None,
        since: cluster.clock.monotonic(),
        begun,
        decision: watch::Sender::default(),
    })))
}

/// Recovers writes whose commit is overdue, forever.
pub async fn watch(cluster: Arc<Cluster>) {
    loop {
        tokio::time::sleep(Duration::from_millis(250).min(cluster.options.commit_timeout)).await;
        let overdue = cluster.open.take_older(cluster.options.commit_timeout);
        let is_edit = |write: &UndecidedWrite| matches!(write.operation, WriteOperation::Edit { .. });
        let (edits, overdue): (Vec<_>, Vec<_>) = overdue.into_iter().partition(is_edit);
        edits.into_iter().for_each(|write| edit::resume(&cluster, write));
        if let Err(error) = recover(&cluster, overdue).await {
            tracing::error!(error = %error.chain(), "a write could not be recovered yet");
        }
    }
}
