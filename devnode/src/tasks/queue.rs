//! The queue of tasks: a copy in memory of the tasks in the store, which one worker processes.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value};
use time::OffsetDateTime;
use uuid::Uuid;

use super::query::Page;
use super::{Addition, Status, Task, Work};
use crate::error::Result;
use crate::store::{Changes, Store};

/// The tasks, and the batch that is being processed.
pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    /// Asks the worker to stop its current work.
    pub must_stop: AtomicBool,
    files: PathBuf,
    max_batch: usize,
}

#[derive(Default)]
struct State {
    tasks: BTreeMap<u32, Task>,
    next_uid: u32,
    next_batch: u32,
    processing: Option<Processing>,
    closed: bool,
}

struct Processing {
    uids: Vec<u32>,
    batch: u32,
    started_at: OffsetDateTime,
}

/// Tasks that are processed together.
pub struct Batch {
    /// The uid of the batch.
    pub uid: u32,
    /// When its processing started.
    pub started_at: OffsetDateTime,
    /// The tasks of the batch, oldest first.
    pub tasks: Vec<Task>,
}

/// A page of tasks.
pub struct Found {
    /// The number of all tasks that match.
    pub total: usize,
    /// The tasks of the page.
    pub tasks: Vec<Task>,
    /// The uid of the task after the page.
    pub next: Option<u32>,
}

impl Queue {
    /// Loads the tasks from the store, and deletes payloads that no task needs.
    pub fn load(store: &Store, files: PathBuf, max_batch: usize) -> Result<Self> {
        std::fs::create_dir_all(&files)?;
        let tasks: BTreeMap<u32, Task> =
            store.tasks::<Task>()?.into_iter().map(|task| (task.uid, task)).collect();
        let wanted: Vec<String> = tasks
            .values()
            .filter(|task| !task.status.is_final())
            .filter_map(|task| match &task.work {
                Work::AddDocuments(addition) => Some(addition.file.to_string()),
                _ => None,
            })
            .collect();
        for entry in std::fs::read_dir(&files)? {
            let entry = entry?;
            if !wanted.iter().any(|name| entry.file_name().to_str() == Some(name)) {
                std::fs::remove_file(entry.path())?;
            }
        }
        let counters: BTreeMap<String, u32> = store.section("counters")?.into_iter().collect();
        let after_last = tasks.keys().next_back().map_or(0, |last| last + 1);
        let after_batch = tasks.values().filter_map(|task| task.batch_uid).max().map_or(0, |last| last + 1);
        let state = State {
            next_uid: counters.get("task").copied().unwrap_or(0).max(after_last),
            next_batch: counters.get("batch").copied().unwrap_or(0).max(after_batch),
            tasks,
            ..State::default()
        };
        let state = Mutex::new(state);
        Ok(Self {
            state,
            changed: Condvar::new(),
            must_stop: AtomicBool::new(false),
            files,
            max_batch: max_batch.max(1),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The path of a payload's file.
    pub fn file(&self, uuid: Uuid) -> PathBuf {
        self.files.join(uuid.to_string())
    }

    /// Registers a task. When this returns, the task is on disk.
    pub fn register(
        &self,
        store: &Store,
        work: Work,
        details: Option<Map<String, Value>>,
        custom_metadata: Option<String>,
    ) -> Result<Task> {
        let mut state = self.lock();
        let task = Task {
            uid: state.next_uid,
            batch_uid: None,
            status: Status::Enqueued,
            canceled_by: None,
            details,
            error: None,
            enqueued_at: OffsetDateTime::now_utc(),
            started_at: None,
            finished_at: None,
            custom_metadata,
            work,
        };
        let mut changes = Changes::default();
        changes.put_task(task.uid, &task)?;
        store.commit(changes)?;
        state.next_uid += 1;
        state.tasks.insert(task.uid, task.clone());
        if let (Work::CancelTasks { uids, .. }, Some(processing)) = (&task.work, &state.processing)
            && processing.uids.iter().any(|uid| uids.contains(uid))
        {
            self.must_stop.store(true, Ordering::Relaxed);
        }
        self.changed.notify_all();
        Ok(task)
    }

    /// Waits for the next batch. Returns `None` when the node stops.
    pub fn next_batch(&self) -> Option<Batch> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            let uids = pick(&state.tasks, self.max_batch);
            if !uids.is_empty() {
                self.must_stop.store(false, Ordering::Relaxed);
                let (batch, started_at) = (state.next_batch, OffsetDateTime::now_utc());
                let tasks = uids.iter().filter_map(|uid| state.tasks.get(uid).cloned()).collect();
                state.processing = Some(Processing { uids, batch, started_at });
                return Some(Batch { uid: batch, started_at, tasks });
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends a batch: commits the ends of its tasks together with the other changes. `durable` is called before clients can see
    /// that the tasks have ended.
    pub fn finish(
        &self,
        store: &Store,
        mut changes: Changes,
        batch: Batch,
        removed: &[u32],
        durable: impl FnOnce(),
    ) -> Result<()> {
        let mut state = self.lock();
        let finished_at = OffsetDateTime::now_utc();
        let mut tasks = batch.tasks;
        for task in &mut tasks {
            task.batch_uid = Some(batch.uid);
            if task.status != Status::Canceled {
                task.started_at = Some(batch.started_at);
            }
            task.finished_at = Some(finished_at);
            changes.put_task(task.uid, task)?;
        }
        for uid in removed {
            changes.remove_task(*uid);
        }
        changes.put("counters", "batch", &(batch.uid + 1))?;
        changes.put("counters", "task", &state.next_uid)?;
        store.commit(changes)?;
        durable();
        state.next_batch = batch.uid + 1;
        state.processing = None;
        for task in tasks {
            if let Work::AddDocuments(Addition { file, .. }) = &task.work {
                // A payload that is left over only costs space, and the next start deletes it.
                let _ = std::fs::remove_file(self.file(*file));
            }
            state.tasks.insert(task.uid, task);
        }
        for uid in removed {
            state.tasks.remove(uid);
        }
        self.changed.notify_all();
        Ok(())
    }

    /// Gives up the current batch: its tasks are enqueued again.
    pub fn give_back(&self) {
        self.lock().processing = None;
    }

    /// Stops the worker after its current batch.
    pub fn close(&self) {
        self.lock().closed = true;
        self.must_stop.store(true, Ordering::Relaxed);
        self.changed.notify_all();
    }

    /// The task with this uid.
    pub fn get(&self, uid: u32) -> Option<Task> {
        let state = self.lock();
        state.tasks.get(&uid).map(|task| as_seen(task, state.processing.as_ref()))
    }

    /// The tasks that match the query and that `allowed` accepts, newest first.
    pub fn find(&self, query: &Page, allowed: impl Fn(&Task) -> bool) -> Found {
        let state = self.lock();
        let reverse = query.reverse.is_some_and(|reverse| reverse.0);
        let mut matching: Vec<Task> = state
            .tasks
            .values()
            .map(|task| as_seen(task, state.processing.as_ref()))
            .filter(|task| query.matches(task))
            .collect();
        if !reverse {
            matching.reverse();
        }
        // Like Meilisearch, the total also counts tasks that the caller may not see, and swaps of the selected indexes,
        // although these are not listed.
        let total = matching.len();
        matching.retain(|task| allowed(task) && (!query.names_indexes() || task.work.indexes().len() == 1));
        let from = query.from.map(|from| from.0);
        let mut page = matching
            .into_iter()
            .filter(|task| from.is_none_or(|from| if reverse { task.uid >= from } else { task.uid <= from }));
        let tasks: Vec<Task> = page.by_ref().take(query.limit.0 as usize).collect();
        Found { total, tasks, next: page.next().map(|task| task.uid) }
    }

    /// Whether a task of this index is being processed.
    pub fn is_indexing(&self, index: &str) -> bool {
        let state = self.lock();
        let processing = state.processing.iter().flat_map(|processing| &processing.uids);
        processing.filter_map(|uid| state.tasks.get(uid)).any(|task| task.work.indexes().contains(&index))
    }
}

/// A stored task as clients see it: only the queue knows that a task is being processed.
fn as_seen(task: &Task, processing: Option<&Processing>) -> Task {
    let mut task = task.clone();
    if let Some(processing) = processing.filter(|processing| processing.uids.contains(&task.uid)) {
        task.status = Status::Processing;
        task.batch_uid = Some(processing.batch);
        task.started_at = Some(processing.started_at);
    }
    task
}

/// Chooses the next tasks: first cancelations, then deletions of tasks, then the oldest task together with the additions to the
/// same index that directly follow it.
fn pick(tasks: &BTreeMap<u32, Task>, max: usize) -> Vec<u32> {
    let waiting = || tasks.values().filter(|task| task.status == Status::Enqueued);
    let urgent = waiting()
        .find(|task| matches!(task.work, Work::CancelTasks { .. }))
        .or_else(|| waiting().find(|task| matches!(task.work, Work::DeleteTasks { .. })));
    if let Some(task) = urgent {
        return vec![task.uid];
    }
    let Some(first) = waiting().next() else {
        return Vec::new();
    };
    let Work::AddDocuments(addition) = &first.work else {
        return vec![first.uid];
    };
    waiting()
        .filter(|task| task.work.indexes().contains(&addition.index.as_str()) || task.work.index().is_none())
        .take_while(|task| {
            matches!(&task.work, Work::AddDocuments(next) if next.replace == addition.replace
                && next.primary_key == addition.primary_key
                && next.may_create == addition.may_create
                && !next.skip_new
                && (!addition.skip_new || task.uid == first.uid))
                || task.uid == first.uid
        })
        .take(max)
        .map(|task| task.uid)
        .collect()
}
