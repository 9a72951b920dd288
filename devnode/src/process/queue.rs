//! Tasks about tasks.

use crate::node::Node;
use crate::tasks::{Status, Task};
use crate::worker::Outcome;

/// Cancels those of the tasks that still wait.
pub fn cancel(node: &Node, task: &mut Task, outcome: &mut Outcome, uids: &[u32]) {
    for uid in uids {
        let waiting = node.queue.get(*uid).filter(|found| !found.status.is_final() && found.uid != task.uid);
        if let Some(mut canceled) = waiting {
            canceled.status = Status::Canceled;
            canceled.canceled_by = Some(task.uid);
            canceled.zero_counts();
            outcome.canceled.push(canceled);
        }
    }
    task.set_detail("canceledTasks", outcome.canceled.len());
}

/// Deletes those of the tasks that have ended.
pub fn delete(node: &Node, task: &mut Task, outcome: &mut Outcome, uids: &[u32]) {
    let over = |uid: &&u32| node.queue.get(**uid).is_some_and(|found| found.status.is_final());
    outcome.removed = uids.iter().filter(over).copied().collect();
    task.set_detail("deletedTasks", outcome.removed.len());
}
