//! Begins without a commit: the gateway died, or the control plane did. Fence, wait, ask the nodes, decide.

use super::{OpenWrite, commit, metadata};
use crate::{
    cluster::Cluster,
    error::Result,
    ledger::{
        intents::{self, Intent},
        tasks,
    },
    locks::Scope,
};
use futures_util::future::join_all;
use miroir_core::shard::Shard;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

/// How far back nodes are asked, in tasks.
const RECENT: u32 = 1000;

/// What nodes say that they have taken.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// By the ledger's uid: node → its task.
    pub taken: HashMap<u32, BTreeMap<String, u32>>,
    /// The nodes that did not answer: they may have taken anything.
    pub silent: BTreeSet<String>,
}

/// Asks nodes which of their recent tasks carry these uids.
pub async fn find(cluster: &Cluster, nodes: &BTreeSet<String>, uids: &BTreeSet<u32>) -> Found {
    let wanted: HashMap<String, u32> = uids.iter().map(|uid| (metadata(*uid), *uid)).collect();
    let all = cluster.nodes();
    let asked = all.iter().filter(|node| nodes.contains(&node.name)).map(async |node| {
        let answer = node.ask("GET", &format!("/tasks?limit={RECENT}"), None).await;
        (node.name.clone(), answer)
    });
    let mut found = Found::default();
    for (node, answer) in join_all(asked).await {
        let Ok(answer) = answer else {
            found.silent.insert(node);
            continue;
        };
        for task in answer.get("results").and_then(Value::as_array).into_iter().flatten() {
            let uid = task.get("customMetadata").and_then(Value::as_str).and_then(|text| wanted.get(text));
            let node_task = task.get("uid").and_then(Value::as_u64).and_then(|uid| u32::try_from(uid).ok());
            if let (Some(uid), Some(node_task)) = (uid, node_task) {
                found.taken.entry(*uid).or_default().insert(node.clone(), node_task);
            }
        }
    }
    found
}

/// Recovers writes: fences their gateways, waits for the last callouts, and commits what nodes say they have.
///
/// # Errors
/// The ledger failed.
pub async fn recover(cluster: &Arc<Cluster>, writes: Vec<OpenWrite>) -> Result<()> {
    if writes.is_empty() {
        return Ok(());
    }
    let gateways: BTreeSet<&String> = writes.iter().map(|write| &write.gateway).collect();
    for gateway in gateways {
        cluster.epochs.fence(cluster, gateway).await?;
    }
    tokio::time::sleep(cluster.options.callout_timeout).await;
    let nodes: BTreeSet<String> =
        writes.iter().flat_map(|write| write.writers.values().flatten().cloned()).collect();
    let uids: BTreeSet<u32> = writes.iter().map(|write| write.task.uid).collect();
    let mut found = find(cluster, &nodes, &uids).await;
    for write in writes {
        let uid = write.task.uid;
        let taken = found.taken.remove(&uid).unwrap_or_default();
        tracing::warn!(
            uid,
            gateway = write.gateway,
            nodes = taken.len(),
            "a write without a commit was recovered"
        );
        commit::apply(cluster, write, &taken, &found.silent, None).await?;
    }
    Ok(())
}

/// Takes up an open write that a restart found. `reopened` are those before it: where they have its locks already, it does
/// not wait for them, since all are recovered together.
///
/// # Errors
/// The ledger failed.
pub async fn reopen(
    cluster: &Arc<Cluster>,
    found: intents::Found,
    reopened: &[OpenWrite],
) -> Result<Option<OpenWrite>> {
    let uid = found.uid;
    let Intent::Write { gateway, index, operation, writers } = found.intent else { return Ok(None) };
    let Some(task) = cluster.ledger.call(move |connection| tasks::get(connection, uid)).await? else {
        return Ok(None);
    };
    let writers: BTreeMap<Shard, Vec<String>> = writers.into_iter().collect();
    let is_held = |shard: &Shard| {
        reopened.iter().any(|before| before.index == index && before.writers.contains_key(shard))
    };
    let shards: Vec<Shard> = writers.keys().copied().filter(|shard| !is_held(shard)).collect();
    let guard = cluster.locks.lock(Scope::shards(&index, &shards)).await;
    let record = Vec::new();
    Ok(Some(OpenWrite { task, gateway, index, operation, writers, record, guard, since: Instant::now() }))
}

/// Looks after overdue commits, for ever.
pub async fn watch(cluster: Arc<Cluster>) {
    loop {
        tokio::time::sleep(Duration::from_millis(250).min(cluster.options.commit_timeout)).await;
        let overdue = cluster.open.take_older(cluster.options.commit_timeout);
        if let Err(error) = recover(&cluster, overdue).await {
            tracing::error!(%error, "a write could not be recovered; the next start will");
        }
    }
}
