//! Task tracking: asks nodes for the state of their tasks, until the client's task has ended.

mod field_completion;
mod finish;
mod moving;
mod restarts;
mod roll_back;
pub mod task_deletion;
#[cfg(test)]
mod tests;
pub mod webhooks;

use crate::domain::verdict::{ReportedState, State, Verdict, judge};
use crate::{
    base::{
        error::{Error, Result},
        time,
    },
    cluster::Cluster,
    disguise::messages,
    domain::{
        intent::Effect,
        task::{TaskKind, TaskStatus},
    },
    ledger::{intents, tasks},
    node::TaskInfo,
};
use finish::{conclude, finish};
use futures_util::future::join_all;
use miroir_core::node_name::NodeName;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tracing::Instrument;

/// The tasks of a node that is unreachable for longer than this are not waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// The most node tasks asked for in one request: their uids are in the query string.
const CHUNK: usize = 200;

/// Tracks tasks, forever.
pub async fn run(cluster: Arc<Cluster>) {
    let mut pause = FAST;
    loop {
        if cluster.tracked_tasks.count() == 0 {
            cluster.tracked_tasks.wake.notified().await;
            pause = FAST;
        }
        let before = cluster.tracked_tasks.count();
        if let Err(error) = round(&cluster).await {
            tracing::error!(error = %error.chain(), "tasks could not be tracked in this round; the next round tries again");
        }
        cluster.tracked_tasks.rounds.notify_waiters();
        // While tasks run for long, nodes are asked less and less often. When a task ends, or somebody asks for tasks, the
        // interval is short again.
        pause = if cluster.tracked_tasks.count() < before { FAST } else { (pause * 5 / 4).min(SLOW) };
        if tokio::time::timeout(pause, cluster.tracked_tasks.wake.notified()).await.is_ok() {
            pause = FAST;
        }
    }
}

const FAST: Duration = Duration::from_millis(20);
const SLOW: Duration = Duration::from_millis(500);

async fn round(cluster: &Arc<Cluster>) -> Result<()> {
    let mut wanted: BTreeMap<NodeName, Vec<u32>> = BTreeMap::new();
    for pending in cluster.tracked_tasks.pending().values().filter(|pending| pending.ending.is_none()) {
        for part in &pending.parts {
            if matches!(part.seen.state, State::Waiting | State::Processing | State::Away) {
                wanted.entry(part.node.clone()).or_default().push(part.node_task);
            }
        }
    }
    let asked = wanted.into_iter().map(async |(node, uids)| {
        // A node whose answer nobody can digest must not hide the others': it is asked again in the next round.
        let asked = cluster.supervisor.catch("task states", ask(cluster, &node, &uids)).await;
        (node, asked.unwrap_or_else(|_| Some(BTreeMap::new())))
    });
    let mut seen: BTreeMap<NodeName, BTreeMap<u32, ReportedState>> = BTreeMap::new();
    let mut stopped: BTreeSet<NodeName> = BTreeSet::new();
    for (node, of_node) in join_all(asked).await {
        match of_node {
            Some(of_node) => _ = seen.insert(node, of_node),
            None => _ = stopped.insert(node),
        }
    }
    let mut started = Vec::new();
    let mut interrupted = Vec::new();
    let mut applied = Vec::new();
    let mut over = Vec::new();
    let behind = cluster.cluster_state().behind.clone();
    // Who has failed to do something with an index, in tasks that are not applied yet.
    let mut failed: Vec<(String, NodeName)> = Vec::new();
    {
        let mut pending = cluster.tracked_tasks.pending();
        for (uid, pending) in pending.iter_mut() {
            if pending.ending.is_some() {
                applied.push(*uid);
                continue;
            }
            for part in &mut pending.parts {
                let was_interrupted = part.is_interrupted;
                let seen = seen.get(&part.node).and_then(|of_node| of_node.get(&part.node_task));
                // The node may have lost its disk since it was asked.
                if let Some(seen) = seen.filter(|_| !part.seen.state.is_over()) {
                    part.report(seen.clone(), behind.contains(&part.node));
                }
                if stopped.contains(&part.node) {
                    part.stopped();
                }
                if part.is_interrupted && !was_interrupted && pending.task.kind.differs_if_repeated() {
                    interrupted.push((*uid, part.node.clone(), part.node_task));
                }
            }
            // They do not know which indexes there are.
            let ignorant = failed.iter().filter(|(index, _)| pending.names().any(|name| name == index));
            let ignorant = behind.iter().chain(ignorant.map(|(_, node)| node)).cloned().collect();
            let creates = matches!(pending.effect, Effect::Settings { creates: true, .. });
            if creates || pending.task.kind.is_about_whole_indexes() {
                // Where others have done it, they miss something.
                let is_done = pending.parts.iter().any(|part| part.seen.state == State::Succeeded);
                let by_itself = pending.parts.iter().filter(|part| is_done && part.seen.lacks_it());
                let by_itself = by_itself
                    .flat_map(|part| pending.names().map(move |name| (name.to_owned(), part.node.clone())));
                failed.extend(by_itself);
            }
            match judge(&pending.parts, pending.decides(), &ignorant) {
                Verdict::Pending { started_at: Some(at) } if pending.task.started_at.is_none() => {
                    // Nodes' clocks may differ, and a node's task may have started before the client's task got its uid.
                    let at = at.max(pending.task.enqueued_at);
                    pending.task.started_at = Some(at);
                    started.push((*uid, at));
                }
                Verdict::Pending { .. } => {}
                Verdict::Outcome(verdict) => over.push((*uid, verdict)),
            }
        }
    }
    if !started.is_empty() || !interrupted.is_empty() {
        cluster
            .ledger
            .call(move |connection| {
                let mut interrupted = interrupted.iter();
                interrupted
                    .try_for_each(|(uid, node, task)| intents::interrupt(connection, *uid, node, *task))?;
                started.iter().try_for_each(|(uid, at)| tasks::start(connection, *uid, *at))
            })
            .await?;
    }
    let mut all = Ok(());
    for uid in applied {
        let span = cluster.tracked_tasks.span(uid);
        all = all.and(conclude(cluster, uid).instrument(span).await);
    }
    // A cancelation counts the tasks that it cancelled, so it must end after them.
    let (cancelations, others): (Vec<_>, Vec<_>) = over
        .into_iter()
        .partition(|(uid, _)| cluster.tracked_tasks.kind(*uid) == Some(TaskKind::TaskCancelation));
    for group in [others, cancelations] {
        let ended = join_all(group.into_iter().map(|(uid, over)| {
            let span = cluster.tracked_tasks.span(uid);
            let ending = finish(cluster, uid, *over).instrument(span);
            async move { cluster.supervisor.catch("task end", ending).await.flatten() }
        }))
        .await;
        // A task that cannot end must not delay the others.
        all = ended.into_iter().fold(all, Result::and);
    }
    all
}

/// The state of some tasks of a node. If the node is unreachable for long, all of them are [`State::Away`]; if it only fails to
/// answer once, they are left out. `None` if nobody listens at the node's address: its process has stopped.
async fn ask(cluster: &Cluster, node: &str, uids: &[u32]) -> Option<BTreeMap<u32, ReportedState>> {
    let mut seen = BTreeMap::new();
    let Some(node) = cluster.node(node) else {
        // The node has left or was declared lost: other replicas have what it accepted.
        return Some(uids.iter().map(|uid| (*uid, ReportedState::forgotten())).collect());
    };
    if node.away().is_some_and(|away| away > PATIENCE) {
        let away = ReportedState { state: State::Away, ..ReportedState::default() };
        return Some(uids.iter().map(|uid| (*uid, away.clone())).collect());
    }
    for chunk in uids.chunks(CHUNK) {
        let told = match node.tasks(chunk).await {
            Ok(told) => told,
            Err(error @ Error::UnreadableAnswer { .. }) => {
                tracing::warn!(node = node.name.as_str(), error = %error.chain(), "a node's tasks cannot be read");
                continue;
            }
            Err(Error::Unreachable { is_unsent: true, .. }) => return None,
            // The next round asks again, soon: whether the node is away, its health says.
            Err(error) => {
                tracing::debug!(node = node.name.as_str(), error = %error.chain(), "a node does not tell of its tasks");
                continue;
            }
        };
        // If a task is missing in the answer, the node lost its disk, or the task was deleted: it will never end.
        seen.extend(chunk.iter().map(|uid| (*uid, ReportedState::forgotten())));
        seen.extend(told.iter().filter_map(|task| Some((task.uid()?, read(task)))));
    }
    Some(seen)
}

fn read(task: &TaskInfo) -> ReportedState {
    let moment = |name: &str| task.get(name).and_then(Value::as_str).and_then(time::parse);
    let mut error = task.error();
    if let Some(error) = &mut error {
        error.message = messages::message(&error.message);
    }
    ReportedState {
        state: match task.status() {
            Some(TaskStatus::Succeeded) => State::Succeeded,
            Some(TaskStatus::Failed) => State::Failed,
            Some(TaskStatus::Canceled) => State::Canceled,
            Some(TaskStatus::Processing) => State::Processing,
            // One that is not known yet is no end.
            Some(TaskStatus::Enqueued) | None => State::Waiting,
        },
        started_at: moment("startedAt"),
        finished_at: moment("finishedAt"),
        details: task.get("details").filter(|details| !details.is_null()).cloned(),
        error,
    }
}
