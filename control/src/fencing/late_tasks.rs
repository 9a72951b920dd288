//! Late tasks: requests that a node takes after the control plane has decided that it did not.
//!
//! A node judges a request's key when its headers arrive, and reads the body without a time limit. So no wait after a fence proves that
//! nothing can come any more. Instead every task of every node is examined once: it carries the mark of its request, and the ledger
//! knows which tasks the decision counted. A replica that took another one is not trusted any more.

mod registration;

use super::{in_flight, instance, lost_disk::note_loss};
use crate::{
    base::error::Result,
    cluster::{
        Cluster,
        late_tasks::{MarkedTask, Tail},
    },
    domain::{
        task::TaskStatus,
        task_mark::{TaskAnchor, TaskMark, WriteFate},
    },
    ledger::late_tasks as stored,
    node::{Node, NodeAnswer, Request, TIMEOUT, TaskInfo},
};
use miroir_core::shard::Shard;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use uuid::Uuid;

/// How often nodes are asked for their new tasks. Until then, a reader may see what a late task wrote.
const INTERVAL: Duration = Duration::from_millis(250);
/// How long a node may take to answer one of these requests.
const PATIENCE: Duration = Duration::from_secs(3);
/// How often the ledger stores how far a node's tasks have been examined. After a restart, tasks since then are examined again.
const STORED_EVERY: Duration = Duration::from_secs(1);

/// Examines the tasks of all nodes, forever.
pub async fn watch(cluster: Arc<Cluster>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        for node in cluster.nodes().iter().filter(|node| node.is_up()) {
            // A node that hangs must not delay the others, and one examination of a node at a time is enough.
            let Ok(mut tail) = cluster.late_tasks.tail(&node.name).try_lock_owned() else { continue };
            let (cluster, node) = (cluster.clone(), node.clone());
            let supervisor = cluster.supervisor.clone();
            supervisor.spawn("late tasks", async move {
                let examination = Examination { cluster: &cluster, node: &node, patience: PATIENCE };
                if let Err(error) = examination.run(&mut tail).await {
                    tracing::debug!(node = node.name.as_str(), error = %error.chain(), "a node does not tell of its tasks");
                }
            });
        }
    }
}

/// Examines a node's tasks up to the newest one, and stores that: after a restart, none of them is judged again. Returns the node's
/// tasks of writes that are not decided, by the writes' uids.
///
/// # Errors
/// The node did not answer, or the ledger failed.
pub async fn examine(cluster: &Cluster, node: &Node) -> Result<BTreeMap<u32, u32>> {
    let mut tail = cluster.late_tasks.tail(&node.name).lock_owned().await;
    tail.stored = None;
    Examination { cluster, node, patience: TIMEOUT }.run(&mut tail).await?;
    let of_write = |task: &MarkedTask| match task.mark {
        TaskMark::Write(uid) => Some((uid, task.node_task)),
        TaskMark::Copy { .. } => None,
    };
    Ok(tail.open.iter().filter_map(of_write).collect())
}

/// Sends a change of these shards' documents to a node, under the node's own write key and with a mark, so that it is found if the
/// node takes it late.
///
/// # Errors
/// The node did not answer completely in time, or the ledger failed.
pub async fn send_marked(
    cluster: &Cluster,
    node: &Node,
    shards: &[Shard],
    request: Request,
    patience: Duration,
) -> Result<NodeAnswer> {
    let id = cluster.random.uuid();
    let mark = TaskMark::Copy { request: id, shards: shards.to_vec() };
    let path = request.path.clone().with("customMetadata", &mark.to_string());
    let under_way = cluster.late_tasks.copying(&node.name, id);
    let answer = in_flight::send(cluster, node, Request { path, ..request }, patience).await?;
    under_way.answered(answer.task_uid().filter(|_| answer.is_success()));
    Ok(answer)
}

/// One look at a node's tasks.
struct Examination<'a> {
    cluster: &'a Cluster,
    node: &'a Node,
    patience: Duration,
}

/// A task that a node has taken after its request was decided.
struct LateTask {
    task: MarkedTask,
    /// The shards whose documents it changes.
    shards: Vec<Shard>,
}

/// Which list of tasks a node has, compared with the one that was examined before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TaskList {
    /// The same, which may have grown.
    Same,
    /// The task that was examined last is not in it any more, and newer ones are.
    Pruned,
    /// Another one: it ends before the task that was examined last, or has another one in its place. The node's disk is an older state of
    /// its own, or another node's.
    Other,
}

/// Marked tasks by what becomes of them.
#[derive(Default)]
struct Judged {
    open: Vec<MarkedTask>,
    late: Vec<LateTask>,
    /// Copies that were answered with their task. They are forgotten once the task is not judged again.
    copied: Vec<Uuid>,
    /// The uid of a write that the ledger has not begun: it is not the newest.
    not_given: Option<u32>,
}

impl Examination<'_> {
    async fn run(&self, tail: &mut Tail) -> Result<()> {
        self.load(tail).await?;
        // The positions only move once everything below is judged, so that an examination can be dropped at any await.
        let judged = self.judge(tail.open.clone(), false).await?;
        let asked = self.judge(tail.unsettled.clone(), false).await?;
        let mut unsettled = self.handle(asked.late, true).await?;
        unsettled.extend(self.handle(judged.late, false).await?);
        (tail.open, tail.unsettled) = (judged.open, unsettled);
        self.cluster.late_tasks.copied(&self.node.name, &judged.copied);
        loop {
            match self.read(tail).await? {
                TaskList::Same => break,
                TaskList::Pruned => {}
                TaskList::Other => {
                    tracing::warn!(
                        node = self.node.name.as_str(),
                        "a node's list of tasks is another one than before: it has another disk, or an older state of its own"
                    );
                    note_loss(self.cluster, self.node).await?;
                }
            }
            *tail = Tail { is_loaded: true, is_new: true, ..Tail::default() };
        }
        self.store(tail).await
    }

    async fn load(&self, tail: &mut Tail) -> Result<()> {
        if tail.is_loaded {
            return Ok(());
        }
        let node = self.node.name.clone();
        let position =
            self.cluster.ledger.call(move |connection| stored::position(connection, &node)).await?;
        tail.is_new = position.is_none();
        tail.position = position.unwrap_or_default();
        tail.is_loaded = true;
        Ok(())
    }

    async fn store(&self, tail: &mut Tail) -> Result<()> {
        let (position, now) = (tail.settled(), self.cluster.clock.monotonic());
        let is_due = match &tail.stored {
            None => true,
            Some((stored, at)) => *stored != position && self.cluster.clock.since(*at) >= STORED_EVERY,
        };
        if is_due {
            let (node, new) = (self.node.name.clone(), position.clone());
            self.cluster
                .ledger
                .call(move |connection| stored::store_position(connection, &node, &new))
                .await?;
            tail.stored = Some((position, now));
        }
        Ok(())
    }

    /// Reads the tasks that are new, page by page, as long as the node's list is the one that was examined before.
    async fn read(&self, tail: &mut Tail) -> Result<TaskList> {
        let anchor = tail.position.anchor.clone();
        let mut is_same = anchor.is_none();
        let mut from =
            anchor.as_ref().map_or(tail.position.next, |anchor| anchor.uid.min(tail.position.next));
        loop {
            let page = self.node.tasks_from(from, self.patience).await?;
            let (mut marked, mut last) = (Vec::new(), None);
            for task in &page.tasks {
                let Some(uid) = task.uid() else { continue };
                let found =
                    TaskAnchor { uid, enqueued_at: task.enqueued_at().unwrap_or_default().to_owned() };
                if let Some(anchor) = anchor.as_ref().filter(|anchor| !is_same && uid >= anchor.uid) {
                    if *anchor != found {
                        return Ok(if uid == anchor.uid { TaskList::Other } else { TaskList::Pruned });
                    }
                    is_same = true;
                }
                if uid >= tail.position.next {
                    marked.extend(marked_task(uid, task));
                    last = Some(found);
                }
            }
            let judged = self.judge(marked, tail.is_new).await?;
            // Before anything is done about late tasks: an older ledger takes for late what it does not know.
            let mut not_given = judged.not_given;
            if not_given.is_none() && page.next.is_some() && !tail.is_new {
                let newest = self.node.newest_tasks(self.patience).await?;
                let marked = newest.iter().filter_map(|task| marked_task(task.uid()?, task)).collect();
                not_given = self.judge(marked, false).await?.not_given;
            }
            if let Some(uid) = not_given {
                return Err(instance::has_unknown_write(self.cluster, self.node, uid));
            }
            let unsettled = self.handle(judged.late, false).await?;
            tail.open.extend(judged.open);
            tail.unsettled.extend(unsettled);
            if let Some(last) = last {
                tail.position.next = last.uid.saturating_add(1);
                if is_same {
                    tail.position.anchor = Some(last);
                }
            }
            self.cluster.late_tasks.copied(&self.node.name, &judged.copied);
            match page.next {
                Some(next) if next > from => from = next,
                _ => break,
            }
        }
        tail.is_new &= !is_same;
        Ok(if is_same { TaskList::Same } else { TaskList::Other })
    }

    /// Finds out which of these tasks are late. In a list that is new to the control plane, only tasks of open writes count:
    /// others are from before.
    async fn judge(&self, tasks: Vec<MarkedTask>, is_new: bool) -> Result<Judged> {
        let mut judged = Judged::default();
        let writes = tasks.iter().filter_map(|task| match task.mark {
            TaskMark::Write(uid) => Some((uid, task.node_task)),
            TaskMark::Copy { .. } => None,
        });
        let writes: Vec<(u32, u32)> = writes.collect();
        let mut fates = Vec::new().into_iter();
        if !writes.is_empty() {
            let node = self.node.name.clone();
            let fates_of = move |connection: &_| {
                let fate = |(uid, node_task): (u32, u32)| stored::fate(connection, uid, &node, node_task);
                writes.into_iter().map(fate).collect::<Result<Vec<_>>>()
            };
            fates = self.cluster.ledger.call(fates_of).await?.into_iter();
        }
        for task in tasks {
            let fate = match &task.mark {
                TaskMark::Write(_) => fates.next().unwrap_or(WriteFate::Open),
                TaskMark::Copy { request, shards } => {
                    match self.cluster.late_tasks.copy(&self.node.name, *request) {
                        Some(None) => WriteFate::Open,
                        Some(Some(answered)) if answered == task.node_task => {
                            judged.copied.push(*request);
                            WriteFate::Counted
                        }
                        Some(Some(_)) | None => WriteFate::Late(shards.clone()),
                    }
                }
            };
            match fate {
                WriteFate::Counted | WriteFate::Unknown => {}
                WriteFate::NotGiven => {
                    if let TaskMark::Write(uid) = task.mark {
                        judged.not_given = judged.not_given.max(Some(uid).filter(|_| !is_new));
                    }
                }
                WriteFate::Open => judged.open.push(task),
                WriteFate::Late(_) if is_new => {}
                WriteFate::Late(shards) => judged.late.push(LateTask { task, shards }),
            }
        }
        Ok(judged)
    }

    /// Cancels late tasks that the node has not begun; of all others, the node's replicas are not trusted any more. Returns those
    /// of which it is not known yet whether they are cancelled, or what they have changed. `is_asked`: the node was asked before.
    async fn handle(&self, all: Vec<LateTask>, is_asked: bool) -> Result<Vec<MarkedTask>> {
        let uids: Vec<u32> = all.iter().map(|late| late.task.node_task).collect();
        if uids.is_empty() {
            return Ok(Vec::new());
        }
        let told = self.node.tasks(&uids).await?;
        let status = |uid| told.iter().find(|task| task.uid() == Some(uid)).and_then(TaskInfo::status);
        let mut unsettled = Vec::new();
        for late in all {
            let task = &late.task;
            match status(task.node_task) {
                Some(TaskStatus::Canceled) => {
                    tracing::warn!(node = self.node.name.as_str(), task = task.node_task, mark = %task.mark, "a late task was cancelled before it changed anything");
                }
                _ if late.shards.is_empty() => {
                    let index = self.index_of(task).await?;
                    if !registration::examine(self.cluster, self.node, index.as_deref()).await? {
                        unsettled.push(late.task);
                    }
                }
                Some(TaskStatus::Enqueued) if is_asked || self.cancel(task).await => {
                    unsettled.push(late.task)
                }
                _ => self.distrust(late).await?,
            }
        }
        Ok(unsettled)
    }

    /// Asks the node to cancel a task. Returns whether it does.
    async fn cancel(&self, task: &MarkedTask) -> bool {
        let asked = self.node.cancel_tasks(&[task.node_task]).await;
        if let Err(error) = &asked {
            tracing::warn!(node = self.node.name.as_str(), error = %error.chain(), "a late task could not be cancelled");
        }
        asked.is_ok()
    }

    /// Makes the replicas stale that a late task may have changed, in its index. The other replicas have what was decided.
    async fn distrust(&self, late: LateTask) -> Result<()> {
        let LateTask { task, shards } = late;
        tracing::warn!(
            node = self.node.name.as_str(),
            task = task.node_task,
            mark = %task.mark,
            index = task.index,
            shards = shards.len(),
            "a node has taken a request after it was decided: its replicas are stale"
        );
        let mut index = self.index_of(&task).await.unwrap_or_else(|_| task.index.clone());
        loop {
            self.distrust_in(index.as_deref(), &task, &shards).await?;
            // A swap or a rename that had ended before the replicas were marked has moved the documents, and the node tells its tasks by
            // the new name. A later one finds the replicas marked.
            let now = self.index_of(&task).await?;
            if now == index {
                return Ok(());
            }
            index = now;
        }
    }

    /// The name that the index of a task has on the node now; `None` if the node does not have the task any more.
    async fn index_of(&self, task: &MarkedTask) -> Result<Option<String>> {
        let told = self.node.tasks(&[task.node_task]).await?;
        let told = told.iter().find(|told| told.uid() == Some(task.node_task));
        Ok(told.map_or_else(|| task.index.clone(), |told| told.index().map(ToOwned::to_owned)))
    }

    /// Makes the node's replicas of some shards stale in an index, and in those that it may just be swapped with; in all if the index
    /// is unknown.
    async fn distrust_in(&self, index: Option<&str>, task: &MarkedTask, shards: &[Shard]) -> Result<()> {
        let (cluster, name) = (self.cluster, &self.node.name);
        // Before the change, so that a hand-over sees the one or the other.
        cluster.late_tasks.note_seen(name);
        let mut alone = BTreeSet::<Shard>::new();
        cluster
            .change(|cluster_state| {
                // A late addition creates an index that was deleted meanwhile. In one that has no primary key no document is compared with
                // those of other nodes: there are none.
                let is_comparable = |index: &str| {
                    cluster_state.indexes.get(index).is_some_and(|index| index.primary_key.is_some())
                };
                if index.is_some_and(|index| !is_comparable(index)) {
                    cluster_state.mark_behind(name);
                }
                let all = || cluster_state.indexes.keys().cloned().collect();
                let indexes: BTreeSet<String> = index.map_or_else(all, |index| cluster.locks.with(index));
                for index in &indexes {
                    let is_alone = |shard: &Shard| !cluster_state.distrust(index, *shard, name);
                    alone.extend(shards.iter().copied().filter(is_alone));
                }
            })
            .await?;
        if !alone.is_empty() {
            tracing::error!(node = name.as_str(), mark = %task.mark, shards = ?alone, "no other replica of these shards can stand in: newer documents may have been overwritten");
        }
        Ok(())
    }
}

fn marked_task(uid: u32, task: &TaskInfo) -> Option<MarkedTask> {
    let mark = task.custom_metadata()?.parse().ok()?;
    Some(MarkedTask { node_task: uid, mark, index: task.index().map(ToOwned::to_owned) })
}

#[cfg(test)]
mod tests;
