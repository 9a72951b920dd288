//! Edits by function: done in all documents, or in none.
//!
//! First nodes try the edit on their documents without changing them. If one node refuses it, or no replica of some shard can
//! try it, no node applies it. Once a node has it, it is sent until every shard has a replica that has it.
//!
//! The locks of all shards are held until then, so that later writes come after it in the nodes' queues.

mod trial;

use super::{accepted, commit};
use crate::{
    base::{
        error::{Error, Result},
        log,
    },
    cluster::{
        Cluster,
        missed::{self, WrittenIds},
        open_writes::{OpenWrite, UndecidedWrite},
    },
    disguise::messages,
    domain::{cluster_state::ClusterState, task::TaskStatus, task_details::nothing_done},
    fencing::{in_flight, write_keys::LATE_REQUESTS_END},
    ledger::{intents, late_tasks, tasks::Ending},
    node::{Node, Request, TIMEOUT},
};
use futures_util::future::join_all;
use miroir_core::{
    error::ErrorBody,
    node_name::NodeName,
    path::ApiPath,
    protocol::{WriteOperation, metadata},
    shard::Shard,
    write::{EDIT_LINES_BEFORE, Edit},
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tracing::Instrument;
use trial::Trial;

/// How long to wait before nodes that could not be reached are tried or asked again.
const PAUSE: Duration = Duration::from_millis(250);
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Runs an edit until every shard has a replica that has queued it, or its task has failed.
pub fn spawn(cluster: &Arc<Cluster>, write: OpenWrite) {
    let write = cluster.open.insert_taken(write);
    in_background(cluster, write, false);
}

/// Resumes an edit that was open before a restart, or that the ledger's failure has stopped; its locks are held. Nodes may have
/// queued it already.
pub fn resume(cluster: &Arc<Cluster>, write: UndecidedWrite) {
    in_background(cluster, write, true);
}

fn in_background(cluster: &Arc<Cluster>, write: UndecidedWrite, is_resumed: bool) {
    let (cluster, supervisor) = (Arc::clone(cluster), &cluster.supervisor);
    let span = log::write_span(Some(write.task.uid), &write.index);
    let running = async move {
        let uid = write.task.uid;
        let mut sending = Sending::new(&cluster, &write);
        let sent = async {
            if is_resumed {
                // The requests sent before carry keys that are deleted by now. After this pause, nodes have queued every request
                // that they had let in before.
                tokio::time::sleep(LATE_REQUESTS_END).await;
                sending.find().await?;
            }
            sending.run().await
        };
        if let Err(error) = sent.await {
            tracing::error!(uid, error = %error.chain(), "an edit could not be decided yet; it is resumed");
        } else {
            write.decided();
        }
    };
    supervisor.spawn("edit", running.instrument(span));
}

/// Who has an edit.
struct Sending<'a> {
    cluster: &'a Arc<Cluster>,
    write: &'a OpenWrite,
    shards_of: BTreeMap<NodeName, Vec<Shard>>,
    /// Nodes that have queued it, with their task's uid.
    taken: BTreeMap<NodeName, u32>,
    /// Nodes that may have queued it.
    silent: BTreeSet<NodeName>,
    /// Nodes that refuse it for good.
    refused: BTreeSet<NodeName>,
}

impl<'a> Sending<'a> {
    fn new(cluster: &'a Arc<Cluster>, write: &'a OpenWrite) -> Self {
        let shards_of = shards_by_node(&write.writers);
        let (taken, silent, refused) = Default::default();
        Self { cluster, write, shards_of, taken, silent, refused }
    }

    /// Asks nodes whether they have it, until one does, or each shard has a replica that does not.
    async fn find(&mut self) -> Result<()> {
        loop {
            self.ask().await?;
            let depends_on_silent = |(shard, writers): (&Shard, &Vec<NodeName>)| {
                let mut staying = writers.iter().filter(|node| self.stays(*shard, node)).peekable();
                staying.peek().is_some() && staying.all(|node| self.silent.contains(node))
            };
            if !self.taken.is_empty() || !self.write.writers.iter().any(depends_on_silent) {
                return Ok(());
            }
            tokio::time::sleep(LONGEST_PAUSE).await;
        }
    }

    /// Whether no node has it, nor may have it.
    fn is_nowhere(&self) -> bool {
        self.taken.is_empty() && self.silent.is_empty()
    }

    /// Whether a node's replica of a shard is still one that gets the edit.
    fn stays(&self, shard: Shard, node: &NodeName) -> bool {
        self.cluster.cluster_state().writers(&self.write.index, shard).any(|writer| writer == node)
    }

    async fn run(&mut self) -> Result<()> {
        let (cluster, write) = (self.cluster, self.write);
        let WriteOperation::Edit { filter, context, function } = write.operation.clone() else {
            return Ok(());
        };
        let edit = Edit { filter, context, function };
        // If every node has every document, all nodes refuse what one of them refuses, and one that takes the edit has all
        // shards: a trial is not needed.
        let holds_all = |shards: &Vec<Shard>| shards.len() == write.writers.len();
        if self.taken.is_empty()
            && !self.shards_of.values().all(holds_all)
            && let Some(error) =
                Trial::new(cluster, &write.index, &edit, &self.shards_of).run(&write.writers).await
        {
            return self.fail(error).await;
        }
        self.send(&edit).await;
        let mut pause = PAUSE;
        while !self.is_nowhere() && !self.lacking().is_empty() {
            tracing::warn!(
                uid = write.task.uid,
                shards = ?self.lacking(),
                "no replica of some shards has an edit yet that others have: it is sent until one has it"
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
            self.ask().await?;
            self.send(&edit).await;
        }
        // The client has its 202 already: the task tells the result.
        let _ = commit::apply(cluster, write, &self.taken, &self.silent, WrittenIds::new()).await?;
        Ok(())
    }

    /// The shards of which no replica has it that stays, and some replica can still get it.
    fn lacking(&self) -> BTreeSet<Shard> {
        let is_lacking = |(shard, writers): &(&Shard, &Vec<NodeName>)| {
            let mut staying = writers.iter().filter(|node| self.stays(**shard, node));
            let is_taken = staying.clone().any(|node| self.taken.contains_key(node));
            !is_taken && staying.any(|node| !self.refused.contains(node))
        };
        self.write.writers.iter().filter(is_lacking).map(|(shard, _)| *shard).collect()
    }

    /// Sends it to the nodes that surely have not got it, and that have a shard that lacks it.
    async fn send(&mut self, edit: &Edit) {
        let (cluster, uid) = (self.cluster, self.write.task.uid);
        let lacking = self.lacking();
        let path = ApiPath::of_index(&self.write.index, &["documents", "edit"])
            .with("customMetadata", &metadata(uid));
        let secret = cluster.random.name();
        let wanted = |(name, shards): &(&NodeName, &Vec<Shard>)| {
            !self.taken.contains_key(*name)
                && !self.silent.contains(*name)
                && !self.refused.contains(*name)
                && shards.iter().any(|shard| lacking.contains(shard))
        };
        let answers = self.shards_of.iter().filter(wanted).map(async |(name, shards)| {
            let node = cluster.node(name)?;
            Some((name.clone(), send(cluster, &node, path.clone(), edit.of_shards(&secret, shards)).await))
        });
        for (name, answer) in join_all(answers).await.into_iter().flatten() {
            match answer {
                Answer::Queued(task) => drop(self.taken.insert(name, task)),
                Answer::Refused(error) => {
                    tracing::warn!(
                        uid,
                        node = name.as_str(),
                        error = error.message,
                        "a node refuses an edit"
                    );
                    self.refused.insert(name);
                }
                Answer::NotNow(error) => {
                    tracing::warn!(uid, node = name.as_str(), error = %error.chain(), "a node does not accept an edit now");
                }
                Answer::Unknown(error) => {
                    tracing::warn!(uid, node = name.as_str(), error = %error.chain(), "a node may not have accepted an edit");
                    self.silent.insert(name);
                }
            }
        }
    }

    /// Ends its task with an error: no node has it, or only some that others stand in for.
    async fn fail(&self, mut error: ErrorBody) -> Result<()> {
        let (cluster, write) = (self.cluster, self.write);
        let uid = write.task.uid;
        error.message = messages::shift_lines(&messages::message(&error.message), EDIT_LINES_BEFORE);
        let now = cluster.clock.wall();
        let ending = Ending {
            status: TaskStatus::Failed,
            details: nothing_done(write.task.details.as_ref()),
            error: Some(error),
            started_at: Some(now.max(write.task.enqueued_at)),
            finished_at: now,
        };
        let not_taken = commit::not_taken(write, &self.taken);
        let (index, silent, shards) =
            (write.index.clone(), self.silent.clone(), write.writers.keys().copied().collect::<Vec<_>>());
        let recorder = cluster.mover.recorder.clone();
        let end = move |connection: &_, cluster_state: &mut ClusterState| {
            let unknown = WrittenIds::new();
            for shard in &shards {
                let missed = missed::kind(&unknown, *shard);
                cluster_state.withdraw_or_keep_one(&index, *shard, |node| silent.contains(node), missed);
            }
            missed::record(connection, cluster_state, &recorder, &index, shards.iter().copied(), &unknown)?;
            late_tasks::store_missed(connection, uid, &not_taken)?;
            intents::end(connection, uid, &ending)
        };
        cluster.change_stored(end).await
    }

    /// Asks the nodes that have not said that they have it. A node that still has a fenced key may accept it later than it answers.
    async fn ask(&mut self) -> Result<()> {
        let uid = self.write.task.uid;
        let nodes: BTreeSet<NodeName> =
            self.shards_of.keys().filter(|node| !self.taken.contains_key(*node)).cloned().collect();
        for node in self.silent.iter().filter_map(|name| self.cluster.node(name)).filter(|node| node.is_up())
        {
            if let Err(error) = self.cluster.write_keys.fence_late(self.cluster, &node).await {
                tracing::warn!(uid, node = node.name.as_str(), error = %error.chain(), "a node may still receive an edit late");
            }
        }
        let mut found = accepted::find(self.cluster, &nodes, &BTreeSet::from([uid])).await?;
        self.taken.extend(found.taken.remove(&uid).unwrap_or_default());
        let may_accept_late = |node: &&NodeName| self.cluster.write_keys.may_accept_late(node);
        self.silent = found.silent;
        self.silent.extend(nodes.iter().filter(may_accept_late).cloned());
        self.silent.retain(|node| !self.taken.contains_key(node));
        Ok(())
    }
}

fn shards_by_node(writers: &BTreeMap<Shard, Vec<NodeName>>) -> BTreeMap<NodeName, Vec<Shard>> {
    let mut shards_of: BTreeMap<NodeName, Vec<Shard>> = BTreeMap::new();
    for (shard, nodes) in writers {
        for node in nodes {
            shards_of.entry(node.clone()).or_default().push(*shard);
        }
    }
    shards_of
}

/// What a node answers to an edit.
enum Answer {
    /// It has queued it under this uid.
    Queued(u32),
    /// It refuses it.
    Refused(ErrorBody),
    /// It has not queued it, but may when it is asked again.
    NotNow(Error),
    /// It may have queued it.
    Unknown(Error),
}

/// Sends an edit to a node.
async fn send(cluster: &Cluster, node: &Node, path: ApiPath, body: Vec<u8>) -> Answer {
    let request = Request { body: body.into(), ..Request::own("POST", path, Some(&Value::Null)) };
    let answer = match in_flight::send(cluster, node, request.clone(), TIMEOUT).await {
        Ok(answer) => answer,
        Err(error @ Error::Unreachable { is_unsent: true, .. }) => return Answer::NotNow(error),
        Err(error) => return Answer::Unknown(error),
    };
    match (answer.task_uid(), answer.error()) {
        (Some(task), _) if answer.is_success() => Answer::Queued(task),
        // The node lacks the key, and gets it again.
        _ if matches!(answer.status, 401 | 403 | 408 | 429) => {
            Answer::NotNow(node.unexpected(&request, &answer))
        }
        (_, Some(error)) if (400..500).contains(&answer.status) => Answer::Refused(error),
        _ => Answer::Unknown(node.unexpected(&request, &answer)),
    }
}
