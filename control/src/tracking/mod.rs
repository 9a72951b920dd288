//! Settling: asks nodes what became of their tasks, until the client's task has ended.

mod completing;
mod finish;
mod set_back;
pub mod webhooks;

use crate::domain::verdict::{Seen, State, Verdict, judge};
use crate::{
    base::{error::Result, time},
    cluster::Cluster,
    disguise::scrub,
    domain::task::{TaskKind, TaskStatus},
    ledger::tasks,
    node::{
        Node,
        answers::{task_error, task_uid},
    },
};
use finish::finish;
use futures_util::future::join_all;
use miroir_core::{
    error::{ApiError, Code},
    path::ApiPath,
};
use serde_json::Value;
use std::{collections::HashMap, sync::Arc, time::Duration};

/// A node that is away longer than this is not waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// Node tasks a request: their uids travel in the query.
const CHUNK: usize = 200;

/// Settles, for ever.
pub async fn run(cluster: Arc<Cluster>) {
    let mut pause = FAST;
    loop {
        if cluster.settler.count() == 0 {
            cluster.settler.wake.notified().await;
            pause = FAST;
        }
        let before = cluster.settler.count();
        if let Err(error) = round(&cluster).await {
            tracing::error!(%error, "tasks could not be settled; the next round will");
        }
        cluster.settler.rounds.send_modify(|rounds| *rounds += 1);
        // Long indexing is asked for ever less often; an end, or somebody who asks, makes it quick again.
        pause = if cluster.settler.count() < before { FAST } else { (pause * 5 / 4).min(SLOW) };
        if tokio::time::timeout(pause, cluster.settler.wake.notified()).await.is_ok() {
            pause = FAST;
        }
    }
}

const FAST: Duration = Duration::from_millis(20);
const SLOW: Duration = Duration::from_millis(500);

async fn round(cluster: &Arc<Cluster>) -> Result<()> {
    let mut wanted: HashMap<String, Vec<u32>> = HashMap::new();
    for pending in cluster.settler.pending().values() {
        for part in &pending.parts {
            if matches!(part.seen.state, State::Waiting | State::Processing | State::Away) {
                wanted.entry(part.node.clone()).or_default().push(part.node_task);
            }
        }
    }
    let asked = wanted.into_iter().map(async |(node, uids)| {
        let seen = ask(cluster, &node, &uids).await;
        (node, seen)
    });
    let seen: HashMap<String, HashMap<u32, Seen>> = join_all(asked).await.into_iter().collect();
    let mut started = Vec::new();
    let mut over = Vec::new();
    let behind = cluster.view().behind.clone();
    {
        let mut pending = cluster.settler.pending();
        for (uid, pending) in pending.iter_mut() {
            for part in &mut pending.parts {
                if let Some(seen) = seen.get(&part.node).and_then(|of_node| of_node.get(&part.node_task)) {
                    part.seen = seen.clone();
                }
            }
            match judge(&pending.parts, pending.decides(), &behind) {
                Verdict::Pending { started_at: Some(at) } if pending.task.started_at.is_none() => {
                    // The clocks of nodes are their own, and steps may have come before the uid.
                    let at = at.max(pending.task.enqueued_at);
                    pending.task.started_at = Some(at);
                    started.push((*uid, at));
                }
                Verdict::Pending { .. } => {}
                Verdict::Over(verdict) => over.push((*uid, verdict)),
            }
        }
    }
    if !started.is_empty() {
        cluster
            .ledger
            .call(move |connection| {
                started.iter().try_for_each(|(uid, at)| tasks::start(connection, *uid, *at))
            })
            .await?;
    }
    // A cancelation counts what it cancelled: it ends after that.
    let (cancelations, others): (Vec<_>, Vec<_>) =
        over.into_iter().partition(|(uid, _)| cluster.settler.kind(*uid) == Some(TaskKind::TaskCancelation));
    let mut all = Ok(());
    for group in [others, cancelations] {
        let ended = join_all(group.into_iter().map(|(uid, over)| finish(cluster, uid, *over))).await;
        // One that cannot end holds up no other.
        all = ended.into_iter().fold(all, Result::and);
    }
    all
}

/// What a node says of some of its tasks. A node that is away says it for them; one that hiccups says nothing.
async fn ask(cluster: &Cluster, node: &str, uids: &[u32]) -> HashMap<u32, Seen> {
    let mut seen = HashMap::new();
    let Some(node) = cluster.node(node) else {
        // It has left, or was given up: others have what it took.
        return uids.iter().map(|uid| (*uid, forgotten())).collect();
    };
    if node.away().is_some_and(|away| away > PATIENCE) {
        let away = Seen { state: State::Away, ..Seen::default() };
        return uids.iter().map(|uid| (*uid, away.clone())).collect();
    }
    for chunk in uids.chunks(CHUNK) {
        let list: Vec<String> = chunk.iter().map(u32::to_string).collect();
        let path =
            ApiPath::from("/tasks").with("limit", &chunk.len().to_string()).with("uids", &list.join(","));
        let Ok(answer) = node.ask("GET", path.clone(), None).await else { continue };
        match told(&node, &path, &answer) {
            Ok(told) => {
                // Its disk was lost, or its tasks were deleted: they will not end.
                seen.extend(chunk.iter().map(|uid| (*uid, forgotten())));
                seen.extend(told);
            }
            Err(error) => tracing::warn!(node = node.name, %error, "a node's tasks cannot be read"),
        }
    }
    seen
}

/// What a list of tasks says of each.
fn told(node: &Node, path: &ApiPath, answer: &Value) -> Result<Vec<(u32, Seen)>> {
    let request = format!("GET {path}");
    let uid = |task| task_uid(task).ok_or_else(|| node.unreadable(&request, task));
    node.results(&request, answer)?.iter().map(|task| Ok((uid(task)?, read(task)))).collect()
}

/// A task that nobody will hear of again.
fn forgotten() -> Seen {
    let error = ApiError::new(Code::INTERNAL, "a node has lost its tasks");
    Seen { state: State::Failed, error: Some(error.body), ..Seen::default() }
}

fn read(task: &Value) -> Seen {
    let moment = |name: &str| task.get(name).and_then(Value::as_str).and_then(time::parse);
    let mut error = task_error(task);
    if let Some(error) = &mut error {
        error.message = scrub::message(&error.message);
    }
    Seen {
        state: match TaskStatus::of_node(task) {
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
