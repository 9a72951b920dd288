//! Recovers begins without a commit, after the gateway or the control plane has died: fence the key, wait, ask the nodes,
//! decide.

use super::{
    accepted::{self, AcceptedWrites},
    commit, edit,
};
use crate::{
    base::{
        error::{Error, Result},
        log,
    },
    cluster::{
        Cluster,
        locks::Scope,
        missed::WrittenIds,
        open_writes::{OpenWrite, UndecidedWrite},
        write_keys::Late,
    },
    domain::{cluster_state::Told, intent::Intent},
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

/// How long to wait for a silent node without which nobody knows whether some shard is written. Until then, its shards take no other
/// write.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often such a node is asked.
const PAUSE: Duration = Duration::from_millis(500);

/// Recovers writes: fences their gateways' keys, waits for the last callouts, and commits what nodes say they have accepted. A
/// write that cannot be recovered stays open, with its locks, until the next attempt. One that depends on a silent node is decided later,
/// in the background.
///
/// # Errors
/// The ledger failed.
pub async fn recover(cluster: &Arc<Cluster>, writes: Vec<UndecidedWrite>) -> Result<()> {
    if writes.is_empty() {
        return Ok(());
    }
    fence(cluster, &writes).await?;
    let found = ask(cluster, writes.iter().map(|write| &**write)).await?;
    let mut writes: Vec<Recovered> = writes.into_iter().map(Recovered::of).collect();
    writes.iter_mut().for_each(|write| write.learn(&found));
    let (waiting, known): (Vec<_>, Vec<_>) =
        writes.into_iter().partition(|write| write.depends_on(cluster, &found.silent));
    wait_for_silent(cluster, waiting, found.silent.clone());
    decide(cluster, known, &found.silent).await
}

/// A write whose gateway will tell nothing more, and what is known of it.
pub(super) struct Recovered {
    /// The write.
    pub write: UndecidedWrite,
    /// The nodes that have it, with their task's uid.
    pub taken: BTreeMap<NodeName, u32>,
    /// The documents that it concerns, as far as the gateway has told them.
    pub written: WrittenIds,
}

impl Recovered {
    /// Nothing is known yet: a gateway that sends no commit does not say which documents it wrote.
    fn of(write: UndecidedWrite) -> Self {
        Self { write, taken: BTreeMap::new(), written: WrittenIds::new() }
    }

    fn learn(&mut self, found: &AcceptedWrites) {
        self.taken.extend(found.taken.get(&self.write.task.uid).cloned().unwrap_or_default());
    }

    fn depends_on(&self, cluster: &Cluster, silent: &BTreeSet<NodeName>) -> bool {
        depends_on_silent(cluster, &self.write, &self.taken, silent)
    }
}

/// Whether nobody knows of some shard whether it is written: each replica that is read may have it, and is on one of these silent nodes. One
/// that was away already when the write began is not waited for: it would hold up all writes to its shards.
pub(super) fn depends_on_silent(
    cluster: &Cluster,
    write: &OpenWrite,
    taken: &BTreeMap<NodeName, u32>,
    silent: &BTreeSet<NodeName>,
) -> bool {
    // How long ago a write from before a restart began is not known.
    let age = write.key.map(|_| cluster.clock.since(write.since));
    let was_there = |node: &NodeName| {
        let away = cluster.node(node).and_then(|node| node.away());
        away.is_none_or(|away| age.is_none_or(|age| away <= age))
    };
    cluster.cluster_state().depends_on(&write.index, &write.writers, |node| match taken.contains_key(node) {
        true => Told::Taken,
        false if silent.contains(node) && was_there(node) => Told::Nothing,
        false => Told::NotTaken,
    })
}

/// Decides writes that depend on silent nodes once these answer, or after [`PATIENCE`], in the background. They keep their locks until
/// then. Their keys must be fenced.
pub(super) fn wait_for_silent(
    cluster: &Arc<Cluster>,
    mut writes: Vec<Recovered>,
    mut silent: BTreeSet<NodeName>,
) {
    if writes.is_empty() {
        return;
    }
    for Recovered { write, .. } in &writes {
        tracing::warn!(
            uid = write.task.uid,
            "whether a write is done depends on a node that does not answer"
        );
    }
    let (cluster, supervisor) = (Arc::clone(cluster), &cluster.supervisor);
    let waiting = async move {
        let begun = cluster.clock.monotonic();
        while !writes.is_empty() {
            tokio::time::sleep(PAUSE).await;
            let left = PATIENCE.saturating_sub(cluster.clock.since(begun));
            let open: Vec<&OpenWrite> = writes.iter().map(|write| &*write.write).collect();
            // Where a node takes too long to tell, what was known before counts.
            if let Ok(found) = tokio::time::timeout(left, ask(&cluster, open)).await {
                let found = found?;
                writes.iter_mut().for_each(|write| write.learn(&found));
                silent = found.silent;
            }
            let is_over = cluster.clock.since(begun) >= PATIENCE;
            let (waiting, known): (Vec<_>, Vec<_>) = std::mem::take(&mut writes)
                .into_iter()
                .partition(|write| !is_over && write.depends_on(&cluster, &silent));
            writes = waiting;
            decide(&cluster, known, &silent).await?;
        }
        Ok::<_, Error>(())
    };
    supervisor.spawn("recovery", async move {
        // They are open again: the recovery takes them up.
        if let Err(error) = waiting.await {
            tracing::error!(error = %error.chain(), "writes could not be decided yet");
        }
    });
}

/// Commits what nodes say they have accepted of writes.
async fn decide(cluster: &Arc<Cluster>, writes: Vec<Recovered>, silent: &BTreeSet<NodeName>) -> Result<()> {
    let mut failure = None;
    for Recovered { write, taken, written } in writes {
        let uid = write.task.uid;
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
        let decided = commit::apply(cluster, &write, &taken, silent, written);
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

/// Fences the keys of these writes, and waits until no callout can arrive any more.
async fn fence(cluster: &Cluster, writes: &[UndecidedWrite]) -> Result<()> {
    let keys: BTreeSet<Uuid> = writes.iter().filter_map(|write| write.key).collect();
    let fenced = join_all(keys.into_iter().map(|key| cluster.write_keys.fence(cluster, key, GRACE))).await;
    fenced.into_iter().collect::<Result<()>>()?;
    tokio::time::sleep(cluster.options.callout_timeout).await;
    Ok(())
}

/// Asks nodes which writes they have accepted.
async fn ask(cluster: &Cluster, writes: impl IntoIterator<Item = &OpenWrite>) -> Result<AcceptedWrites> {
    let (mut nodes, mut uids) = (BTreeSet::new(), BTreeSet::new());
    for write in writes {
        nodes.extend(write.writers.values().flatten().cloned());
        uids.insert(write.task.uid);
    }
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
