//! The worker: one thread that processes batches of tasks, one after the other.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::error::{ApiError, Code, Result};
use crate::indexes::Renames;
use crate::node::Node;
use crate::process;
use crate::store::Changes;
use crate::tasks::queue::Batch;
use crate::tasks::{Status, Task, Work};

/// The changes of a batch besides those of its index.
#[derive(Default)]
pub struct Outcome {
    /// Changes of the names of indexes.
    pub renames: Renames,
    /// Other changes of the store.
    pub changes: Changes,
    /// Tasks to delete.
    pub removed: Vec<u32>,
    /// Tasks of other batches that this batch has cancelled.
    pub canceled: Vec<Task>,
}

/// Starts the worker.
pub fn start(node: Arc<Node>) -> std::io::Result<std::thread::JoinHandle<()>> {
    std::thread::Builder::new().name("worker".into()).spawn(move || {
        while let Some(batch) = node.queue.next_batch() {
            if let Err(error) = run(&node, batch) {
                tracing::error!(
                    "could not commit the end of a batch, the batch will be processed again: {error}"
                );
                node.queue.give_back();
                std::thread::sleep(std::time::Duration::from_secs(1));
            }
        }
    })
}

fn run(node: &Node, mut batch: Batch) -> Result<()> {
    let processed = std::panic::catch_unwind(AssertUnwindSafe(|| process::batch(node, &mut batch.tasks)));
    let outcome = match processed {
        Ok(Ok(outcome)) => outcome,
        _ if node.queue.must_stop.load(Ordering::Relaxed) => {
            node.queue.give_back();
            return Ok(());
        }
        Ok(Err(error)) => fail(&mut batch.tasks, &error),
        Err(panic) => {
            let text =
                panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
            let message = format!(
                "An unexpected crash occurred when processing the task: {}",
                text.unwrap_or("no message")
            );
            fail(&mut batch.tasks, &ApiError::new(Code::Internal, message))
        }
    };
    for task in &mut batch.tasks {
        if task.status == Status::Enqueued {
            task.status = if task.error.is_some() { Status::Failed } else { Status::Succeeded };
        }
        if task.status == Status::Failed {
            task.zero_counts();
        }
    }
    let Outcome { renames, mut changes, removed, canceled } = outcome;
    batch.tasks.extend(canceled);
    renames.record(&mut changes)?;
    node.queue.finish(&node.store, changes, batch, &removed, || node.indexes.apply(renames))
}

/// Lets all tasks of the batch fail with the same error.
fn fail(tasks: &mut [Task], error: &ApiError) -> Outcome {
    for task in tasks {
        task.error = Some(error.clone());
        if let Work::SwapIndexes { .. } = task.work {
            continue;
        }
        task.status = Status::Failed;
    }
    Outcome::default()
}
