//! `miroir status`.

use super::{QueryArgs, client};
use crate::base::output::say;
use crate::{
    api::admin::Status,
    base::{error::Result, table::table},
};

/// Prints the cluster's nodes and state.
///
/// # Errors
/// The control plane does not answer.
pub async fn run(args: &QueryArgs) -> Result<()> {
    let status: Status = client::get(args, "/_miroir/status").await?;
    if args.json {
        say!("{}", serde_json::to_string_pretty(&status)?);
        return Ok(());
    }
    let mut nodes =
        table(&["node", "state", "for", "version", "active", "stale", "old", "weight", "zone", "url"]);
    for node in &status.nodes {
        let state = match (node.up, node.behind) {
            (false, _) => "unreachable",
            (true, true) => "catching up",
            (true, false) if node.leaving => "leaving",
            (true, false) if node.draining => "drained",
            (true, false) => "up",
        };
        nodes.add_row([
            node.name.to_string(),
            state.to_owned(),
            format!("{} s", node.since_seconds),
            node.version.clone().unwrap_or_else(|| "?".to_owned()),
            node.active.to_string(),
            node.stale.to_string(),
            node.old.to_string(),
            node.weight.to_string(),
            node.zone.clone().unwrap_or_default(),
            node.url.clone(),
        ]);
    }
    say!("{nodes}");
    say!(
        "{} shards × {} replicas, {} indexes, topology version {}{}",
        status.shards,
        status.replication,
        status.indexes,
        status.topology_version,
        if status.ready { "" } else { ", not ready yet" }
    );
    say!(
        "{} shards without a replica, {} stale replicas, {} open writes, {} waiting, {} unfinished tasks",
        status.shards_missing,
        status.replicas_stale,
        status.open_writes,
        status.waiting,
        status.unsettled_tasks
    );
    if status.ledger_failing {
        say!("the ledger cannot store anything: its disk fails, or is full");
    }
    for (work, count) in status.work_failures.iter().filter(|(_, count)| **count > 0) {
        say!("`{work}` has failed {count} times since the start: the log says why");
    }
    for node in &status.nodes {
        if let Some(error) = node.error.as_ref().filter(|_| !node.up) {
            say!("{}: {error}", node.name);
        }
        if let Some(trouble) = node.trouble.as_ref().filter(|_| node.up) {
            say!("{} cannot catch up: {trouble}", node.name);
        }
    }
    for node in status.nodes.iter().filter(|node| !node.stale_in_indexes.is_empty()) {
        let indexes = node.stale_in_indexes.iter().map(|(index, count)| format!("{index} ({count})"));
        say!("{}: replicas stale in {}", node.name, indexes.collect::<Vec<_>>().join(", "));
    }
    for subscriber in &status.subscribers {
        let has = subscriber.accepted.iter().map(|(kind, version)| format!("{kind} {version}"));
        let has: Vec<String> = has.collect();
        say!("{} by {} has {}", subscriber.name, subscriber.by, has.join(", "));
        if let Some(refused) = &subscriber.refused {
            say!("  and refused {} {}: {}", refused.kind, refused.version, refused.reason);
        }
    }
    for trouble in &status.troubles {
        say!("{} {}", trouble.gateway, trouble.what);
    }
    if let Some(trouble) = status.folder.as_ref().and_then(|folder| folder.trouble.as_ref()) {
        say!("{trouble}");
    }
    if status.moving || !status.moved.copies.is_empty() {
        say!(
            "moving: {} replicas to create or repair, {} old copies to delete; {} documents, {} copied so far",
            status.replicas_missing,
            status.replicas_surplus,
            status.moved.documents,
            indicatif::HumanBytes(status.moved.bytes)
        );
    }
    Ok(())
}
