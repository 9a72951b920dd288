//! Settling: asks nodes what became of their tasks, until the client's task has ended.

pub mod judge;

use crate::{
    cluster::Cluster,
    error::Result,
    facet_values::FACETING,
    ledger::{
        catalogue as stored,
        intents::{self, Effect, NodeTask},
        tasks::{self, Ending, Task},
    },
    locks::LockGuard,
    ops::CHANGELESS,
    scrub, settings_tag, time,
    view::Index,
    writes::begin::nothing_done,
};
use futures_util::future::join_all;
use judge::{Over, Part, Seen, State, Verdict, judge};
use miroir_core::{
    error::{ApiError, Code, ErrorBody},
    shard::Shard,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::{Notify, watch};

/// A node that is away longer than this is not waited for.
const PATIENCE: Duration = Duration::from_secs(3);
/// Node tasks a request: their uids travel in the query.
const CHUNK: usize = 200;

/// Kinds of tasks that change all nodes alike.
const EVERYWHERE: [&str; 5] =
    ["indexCreation", "indexDeletion", "indexUpdate", "indexSwap", "settingsUpdate"];

/// A task to be settled.
#[derive(Debug)]
pub struct Unsettled {
    /// As the ledger has it.
    pub task: Task,
    /// What nodes call it.
    pub node_tasks: Vec<NodeTask>,
    /// What the catalogue learns when it has succeeded.
    pub effect: Effect,
    /// How many documents are indexed when it has succeeded, for an addition.
    pub indexed: Option<u64>,
    /// Held until it has ended, where others must not go on before.
    pub guard: Option<LockGuard>,
    /// The topology that leaves out the replicas that missed it, where some have.
    pub without_stale: Option<u64>,
}

#[derive(Debug)]
struct Pending {
    task: Task,
    parts: Vec<Part>,
    effect: Effect,
    indexed: Option<u64>,
    guard: Option<LockGuard>,
    /// The catalogue and the replicas are what the task's end makes of them.
    is_applied: bool,
    /// The topology that leaves out replicas that missed it, and since when that is published.
    without_stale: Option<(u64, Instant)>,
}

/// Tasks that nodes have not ended.
#[derive(Debug)]
pub struct Settler {
    pending: Mutex<BTreeMap<u32, Pending>>,
    wake: Notify,
    rounds: watch::Sender<u64>,
}

impl Default for Settler {
    fn default() -> Self {
        Self { pending: Mutex::default(), wake: Notify::new(), rounds: watch::Sender::new(0) }
    }
}

impl Settler {
    /// Adds a task.
    pub fn add(&self, unsettled: Unsettled) {
        let Unsettled { task, node_tasks, effect, indexed, guard, without_stale } = unsettled;
        let parts = node_tasks
            .into_iter()
            .map(|task| Part {
                node: task.node,
                node_task: task.node_task,
                main: task.main,
                shards: task.shards,
                seen: Seen::default(),
            })
            .collect();
        let without_stale = without_stale.map(|version| (version, Instant::now()));
        let pending = Pending { task, parts, effect, indexed, guard, is_applied: false, without_stale };
        self.pending().insert(pending.task.uid, pending);
        self.wake.notify_one();
    }

    fn kind(&self, uid: u32) -> Option<String> {
        self.pending().get(&uid).map(|pending| pending.task.kind.clone())
    }

    /// What pending tasks will do to the catalogue, oldest first: of those that `choose` wants.
    pub fn effects<T>(&self, choose: impl FnMut(&Effect) -> Option<T>) -> Vec<T> {
        self.pending().values().map(|pending| &pending.effect).filter_map(choose).collect()
    }

    /// How many tasks are pending.
    #[must_use]
    pub fn count(&self) -> usize {
        self.pending().len()
    }

    /// Asks the nodes now, if anything is pending, and waits for their answers for a moment.
    pub async fn refresh(&self) {
        if self.pending().is_empty() {
            return;
        }
        let mut rounds = self.rounds.subscribe();
        self.wake.notify_one();
        let _ = tokio::time::timeout(Duration::from_millis(500), rounds.changed()).await;
    }

    /// Marks pending tasks as cancelled by another, and returns what nodes are to cancel. Tasks end as their nodes' do.
    ///
    /// What changes all nodes alike is not cancelled, as if it had come too late. Where one node swaps indexes and others do
    /// not, a name stands for different documents on different nodes, and no copy of a shard mends that; where one node
    /// takes settings and others do not, none of them may be whole.
    pub fn cancel(&self, uids: &[u32], by: u32) -> BTreeMap<String, Vec<u32>> {
        let mut parts: BTreeMap<String, Vec<u32>> = BTreeMap::new();
        let mut all = self.pending();
        let wanted =
            all.iter_mut().filter(|(uid, p)| uids.contains(uid) && !EVERYWHERE.contains(&&*p.task.kind));
        for (_, pending) in wanted {
            pending.task.canceled_by = Some(by);
            for part in pending.parts.iter().filter(|part| part.main) {
                parts.entry(part.node.clone()).or_default().push(part.node_task);
            }
        }
        parts
    }

    /// Waits until a node has ended everything that is pending for it now.
    pub async fn drained(&self, node: &str) {
        let waited_for: Vec<u32> = {
            let pending = self.pending();
            pending
                .iter()
                .filter(|(_, p)| p.parts.iter().any(|part| part.node == node))
                .map(|(uid, _)| *uid)
                .collect()
        };
        while waited_for.iter().any(|uid| self.pending().contains_key(uid)) {
            self.refresh().await;
        }
    }

    /// Whether a node has operations on indexes, or their settings, before it.
    #[must_use]
    pub fn has_operations(&self, node: &str) -> bool {
        let is_operation = |pending: &&Pending| {
            !pending.task.kind.starts_with("document") && pending.parts.iter().any(|part| part.node == node)
        };
        self.pending().values().any(|pending| is_operation(&pending))
    }

    /// Whether a node has not indexed everything yet that it took for a shard.
    #[must_use]
    pub fn is_pending(&self, node: &str, shard: Shard) -> bool {
        let concerns =
            |part: &Part| part.node == node && (part.shards.is_empty() || part.shards.contains(&shard));
        let is_open = |part: &Part| concerns(part) && part.seen.state != State::Succeeded;
        self.pending().values().any(|pending| pending.parts.iter().any(is_open))
    }

    /// Waits until a node has indexed everything that is pending for some shards on it now. `false` if the node is away.
    ///
    /// What it failed to take is waited for until it is known what that means.
    pub async fn indexed(&self, node: &str, shards: &[Shard]) -> bool {
        let concerns = |part: &Part| {
            part.node == node && (part.shards.is_empty() || part.shards.iter().any(|s| shards.contains(s)))
        };
        let mut waited_for: Vec<u32> = {
            let pending = self.pending();
            pending.iter().filter(|(_, p)| p.parts.iter().any(concerns)).map(|(uid, _)| *uid).collect()
        };
        loop {
            let mut is_away = false;
            {
                let pending = self.pending();
                waited_for.retain(|uid| {
                    let parts = pending.get(uid).into_iter().flat_map(|p| &p.parts).filter(|p| concerns(p));
                    let mut open = parts.filter(|part| part.seen.state != State::Succeeded).peekable();
                    let is_open = open.peek().is_some();
                    is_away |= open.any(|part| part.seen.state == State::Away);
                    is_open
                });
            }
            match (waited_for.is_empty(), is_away) {
                (true, _) => return true,
                (_, true) => return false,
                _ => self.refresh().await,
            }
        }
    }

    fn pending(&self) -> std::sync::MutexGuard<'_, BTreeMap<u32, Pending>> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

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
    {
        let mut pending = cluster.settler.pending();
        for (uid, pending) in pending.iter_mut() {
            for part in &mut pending.parts {
                if let Some(seen) = seen.get(&part.node).and_then(|of_node| of_node.get(&part.node_task)) {
                    part.seen = seen.clone();
                }
            }
            match judge(&pending.parts) {
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
    let (cancelations, others): (Vec<_>, Vec<_>) = over
        .into_iter()
        .partition(|(uid, _)| cluster.settler.kind(*uid).as_deref() == Some("taskCancelation"));
    for group in [others, cancelations] {
        let ended = join_all(group.into_iter().map(|(uid, over)| finish(cluster, uid, *over))).await;
        ended.into_iter().collect::<Result<()>>()?;
    }
    Ok(())
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
        let path = format!("/tasks?limit={}&uids={}", chunk.len(), list.join(","));
        let Ok(answer) = node.ask("GET", &path, None).await else { continue };
        // Its disk was lost, or its tasks were deleted: they will not end.
        seen.extend(chunk.iter().map(|uid| (*uid, forgotten())));
        for task in answer.get("results").and_then(Value::as_array).into_iter().flatten() {
            if let Some(uid) = task.get("uid").and_then(Value::as_u64).and_then(|uid| u32::try_from(uid).ok())
            {
                seen.insert(uid, read(task));
            }
        }
    }
    seen
}

/// A task that nobody will hear of again.
fn forgotten() -> Seen {
    let error = ApiError::new(Code::INTERNAL, "a node has lost its tasks");
    Seen { state: State::Failed, error: Some(error.body), ..Seen::default() }
}

fn read(task: &Value) -> Seen {
    let moment = |name: &str| task.get(name).and_then(Value::as_str).and_then(time::parse);
    let mut error: Option<ErrorBody> =
        task.get("error").and_then(|error| serde_json::from_value(error.clone()).ok());
    if let Some(error) = &mut error {
        error.message = scrub::message(&error.message);
    }
    Seen {
        state: match task.get("status").and_then(Value::as_str) {
            Some("succeeded") => State::Succeeded,
            Some("failed") => State::Failed,
            Some("canceled") => State::Canceled,
            Some("processing") => State::Processing,
            _ => State::Waiting,
        },
        started_at: moment("startedAt"),
        finished_at: moment("finishedAt"),
        details: task.get("details").filter(|details| !details.is_null()).cloned(),
        error,
    }
}

/// Ends a task: first the truth about replicas and indexes, and its publication; and where replicas are not as the others, once
/// no gateway reads them any more.
async fn finish(cluster: &Arc<Cluster>, uid: u32, over: Over) -> Result<()> {
    let (task, effect, indexed, is_applied) = match cluster.settler.pending().get(&uid) {
        Some(pending) => (pending.task.clone(), pending.effect.clone(), pending.indexed, pending.is_applied),
        None => return Ok(()),
    };
    if !is_applied {
        apply(cluster, &task, &effect, &over).await?;
    }
    let without_stale = {
        let mut pending = cluster.settler.pending();
        let Some(pending) = pending.get_mut(&uid) else { return Ok(()) };
        if !is_applied && !(over.stale.is_empty() && over.behind.is_empty()) {
            pending.without_stale = Some((cluster.view().version, Instant::now()));
        }
        pending.is_applied = true;
        pending.without_stale
    };
    if without_stale.is_some_and(|(version, since)| !cluster.gateways.know(version, since)) {
        return Ok(());
    }
    end(cluster, task, effect, &over, indexed).await
}

/// What the end of a task means for replicas and the catalogue.
async fn apply(cluster: &Cluster, task: &Task, effect: &Effect, over: &Over) -> Result<()> {
    let uid = task.uid;
    let succeeded = over.status == "succeeded";
    let now = time::now();
    let index = task.index.clone();
    // An index that was deleted meanwhile has no settings any more.
    if let (true, Effect::Settings { index, change }) = (succeeded, effect.clone())
        && cluster.view().indexes.contains_key(&index)
    {
        let merge = move |connection: &_| stored::merge_settings(connection, &index, change.as_ref());
        cluster.ledger.call(merge).await?;
    }
    let settings = match &index {
        Some(index) if succeeded && task.kind == "settingsUpdate" => {
            let uid = index.clone();
            Some(cluster.ledger.call(move |connection| stored::settings(connection, &uid)).await?)
        }
        _ => None,
    };
    // Before the view: what the view loses of indexes, the ledger loses with their settings.
    let moves = if succeeded { effect.moves() } else { Vec::new() };
    if !moves.is_empty() {
        cluster.ledger.call(move |connection| stored::move_settings(connection, &moves)).await?;
    }
    cluster
        .change(|view| {
            for (shard, node) in &over.stale {
                tracing::warn!(
                    uid,
                    shard = shard.0,
                    node,
                    "a replica ended a write otherwise than the others"
                );
                view.mark_stale(*shard, node);
            }
            for node in over.behind.iter().filter(|_| !CHANGELESS.contains(&task.kind.as_str())) {
                tracing::warn!(uid, node, "a node ended an operation otherwise than the others");
                view.mark_behind(node);
            }
            if succeeded {
                crate::ops::apply(view, effect, now);
                let changed = index.as_ref().and_then(|index| view.indexes.get_mut(index));
                if let (Some(changed), Some(settings)) = (changed, settings) {
                    changed.settings = Index::published(settings);
                }
            }
        })
        .await
}

/// Its end, as clients see it.
async fn end(cluster: &Cluster, task: Task, effect: Effect, over: &Over, indexed: Option<u64>) -> Result<()> {
    let (uid, index, now) = (task.uid, task.index.clone(), time::now());
    let succeeded = over.status == "succeeded";
    let ending = Ending {
        status: over.status,
        details: details(&task, over, indexed, cluster.view().replication as u64),
        error: over.error.clone().map(|error| told(&task, error)),
        started_at: over.started_at.map(|at| at.max(task.enqueued_at)),
        finished_at: over.finished_at.unwrap_or(now),
    };
    cluster
        .ledger
        .call(move |connection| {
            let mut ending = ending;
            if task.kind == "taskCancelation"
                && let Some(details) = &mut ending.details
            {
                details["canceledTasks"] = json!(tasks::count_canceled(connection, uid)?);
            }
            tasks::finish(connection, uid, &ending)?;
            if let (true, Effect::Swap { pairs }) = (succeeded, &effect) {
                pairs
                    .iter()
                    .try_for_each(|(left, right, _)| tasks::swap_names(connection, uid, left, right))?;
            }
            if let (Some(by), "canceled") = (task.canceled_by, ending.status) {
                tasks::set_canceled_by(connection, uid, by)?;
            }
            intents::close(connection, uid)?;
            if let (true, Some(index)) = (succeeded, &index) {
                connection.execute(
                    "UPDATE indexes SET updated_at = ?2 WHERE uid = ?1",
                    rusqlite::params![index, ending.finished_at],
                )?;
            }
            Ok(())
        })
        .await?;
    let done = cluster.settler.pending().remove(&uid);
    drop(done.and_then(|pending| pending.guard));
    Ok(())
}

/// An error as the client is told it: positions in an edit's function are the client's own.
fn told(task: &Task, mut error: ErrorBody) -> ErrorBody {
    if task.kind == "documentEdition" {
        error.message = scrub::shift_lines(&error.message, miroir_core::write::EDIT_LINES_BEFORE);
    }
    error
}

/// The details of an ended task: the ledger's, with counts that count each document once, and the node's where the
/// control plane does not know better.
fn details(task: &Task, over: &Over, indexed: Option<u64>, replication: u64) -> Option<Value> {
    let mut details = task.details.clone().unwrap_or_else(|| json!({}));
    if over.status != "succeeded" {
        if task.kind == "indexDeletion" && over.details.is_some() {
            return over.details.clone();
        }
        return nothing_done(task.details.as_ref());
    }
    if let Some(received) = details.get("receivedDocuments").cloned() {
        details["indexedDocuments"] = indexed.map_or(received, Value::from);
        return Some(details);
    }
    if task.kind == "documentEdition" {
        details["deletedDocuments"] = json!(over.deleted.unwrap_or(0));
        details["editedDocuments"] = json!(over.edited.unwrap_or(0));
        return Some(details);
    }
    if details.get("deletedDocuments").is_some() {
        let deleted = over.deleted.unwrap_or(0);
        // An index is deleted on all nodes, and each says how many documents it had: every replica counted.
        let copies = if task.kind == "indexDeletion" { replication.max(1) } else { 1 };
        details["deletedDocuments"] = json!((deleted + copies / 2) / copies);
        return Some(details);
    }
    if CHANGELESS.contains(&task.kind.as_str()) && over.details.is_some() {
        return over.details.clone();
    }
    if task.kind == "settingsUpdate"
        && let Some(mut told) = over.details.clone()
    {
        scrub::value(&mut told);
        // What nodes got otherwise than the client sent it is told as the client sent it.
        let rewritten = [settings_tag::FILTERABLE, FACETING];
        for (name, set) in details.as_object().into_iter().flatten() {
            let is_reset = set.is_null() && (rewritten.contains(&&**name) || told.get(name).is_none());
            if is_reset || name == settings_tag::FILTERABLE {
                told[name] = set.clone();
            }
        }
        return Some(told);
    }
    task.details.clone()
}
