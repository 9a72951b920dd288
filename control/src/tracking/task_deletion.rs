//! Deletes ended tasks from the ledger: those that a client's task deletion selects, and the oldest ones when there are too many.
//!
//! Source of the limits and of the deletion's query: Meilisearch 1.50, `cleanup_task_queue` in `index-scheduler`.

use crate::{
    base::{error::Result, log, time},
    cluster::{Cluster, TaskLimits},
    domain::{
        intent::Intent,
        task::{TaskKind, TaskStatus},
    },
    ledger::{
        intents,
        tasks::{self, Ending, NewTask, Query, Task},
    },
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tracing::Instrument;

/// How often the tasks are counted.
const PERIOD: Duration = Duration::from_secs(10);
/// How many tasks are deleted in one call of the ledger: writes come in between.
const AT_ONCE: usize = 5_000;

/// The task of a deletion, with the text of its query.
///
/// # Errors
/// The ledger failed.
pub async fn begin(cluster: &Cluster, matched: usize, query: String) -> Result<Task> {
    let new = NewTask {
        index: None,
        kind: TaskKind::TaskDeletion,
        details: Some(json!({"matchedTasks": matched, "deletedTasks": null, "originalFilter": query})),
        custom_metadata: None,
    };
    // After a crash, the deletion ends with the tasks that it has deleted until then.
    let intent = Intent::without_requests();
    let clock = cluster.clock.clone();
    cluster.ledger.call(move |connection| intents::begin(connection, &new, &intent, clock.wall())).await
}

/// Deletes those of these tasks that have ended, and ends the task of the deletion.
///
/// # Errors
/// The ledger failed.
pub async fn run(cluster: &Cluster, deletion: Task, uids: Vec<u32>) -> Result<()> {
    let Task { uid, details, .. } = deletion;
    let mut details = details.unwrap_or_else(|| json!({}));
    let mut deleted = 0;
    for chunk in uids.chunks(AT_ONCE) {
        let (chunk, told) = (chunk.to_vec(), details.clone());
        deleted = cluster
            .ledger
            .call(move |connection| {
                let deleted = deleted + tasks::forget_ended(connection, &chunk)?;
                tasks::set_details(connection, uid, &with_count(told, deleted))?;
                Ok(deleted)
            })
            .await?;
    }
    details = with_count(details, deleted);
    let now = cluster.clock.wall();
    let ending = Ending {
        status: TaskStatus::Succeeded,
        details: Some(details),
        error: None,
        started_at: Some(now),
        finished_at: now,
    };
    cluster.ledger.call(move |connection| intents::end(connection, uid, &ending)).await
}

fn with_count(mut details: Value, deleted: usize) -> Value {
    details["deletedTasks"] = json!(deleted);
    details
}

/// Deletes the oldest ended tasks whenever there are too many, forever.
pub async fn watch(cluster: Arc<Cluster>) {
    loop {
        tokio::time::sleep(PERIOD).await;
        if let Err(error) = prune(&cluster, cluster.options.task_limits).await {
            tracing::error!(error = %error.chain(), "old tasks could not be deleted; the control plane tries again");
        }
    }
}

/// Deletes the oldest ended tasks, under a task of its own, if there are too many tasks.
async fn prune(cluster: &Cluster, TaskLimits { most, deleted }: TaskLimits) -> Result<()> {
    let ended = Query {
        limit: deleted,
        reverse: true,
        statuses: Some(vec![TaskStatus::Succeeded, TaskStatus::Failed, TaskStatus::Canceled]),
        ..Query::default()
    };
    let found = cluster
        .ledger
        .read(move |connection| {
            if tasks::count(connection)? < most {
                return Ok(None);
            }
            let uids = tasks::uids(connection, &ended)?;
            let newest = uids.last().map(|uid| tasks::get(connection, *uid)).transpose()?.flatten();
            Ok(Some((uids, newest.map(|task| task.enqueued_at))))
        })
        .await?;
    let Some((uids, newest)) = found else { return Ok(()) };
    // A deletion is a task too: one that deletes only another deletion would go on for ever.
    let Some(newest) = newest.filter(|_| uids.len() >= 2) else {
        tracing::warn!("the ledger has too many tasks, but none has ended that could be deleted");
        return Ok(());
    };
    let before = time::format(newest + 1);
    let query = format!("?beforeEnqueuedAt={before}&statuses=succeeded,failed,canceled");
    tracing::info!(tasks = uids.len(), "the ledger has too many tasks: the oldest ended ones are deleted");
    let task = begin(cluster, uids.len(), query).await?;
    let span = log::task_span(Some(task.uid), Some(task.kind.name()), None);
    run(cluster, task, uids).instrument(span).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ledger::tasks::Moment, testing::ClusterBuilder};

    #[tokio::test]
    async fn the_oldest_ended_tasks_go_when_there_are_too_many() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = ClusterBuilder::new(folder.path()).build();
        cluster
            .ledger
            .call(|connection| {
                for number in 0..40 {
                    let new = NewTask { index: Some("a".to_owned()), ..NewTask::default() };
                    let task = tasks::insert(connection, &new, 1000 * number)?;
                    // Each fourth one is enqueued.
                    if number % 4 != 0 {
                        let ending = Ending {
                            status: TaskStatus::Succeeded,
                            details: None,
                            error: None,
                            started_at: Some(1),
                            finished_at: 2,
                        };
                        tasks::finish(connection, task.uid, &ending)?;
                    }
                }
                Ok(())
            })
            .await
            .unwrap();
        prune(&cluster, TaskLimits { most: 41, deleted: 10 }).await.unwrap();
        assert_eq!(cluster.ledger.read(tasks::count).await.unwrap(), 40, "there are not too many");
        prune(&cluster, TaskLimits { most: 40, deleted: 10 }).await.unwrap();
        let all = Query { limit: 100, reverse: true, ..Query::default() };
        let (left, total) =
            cluster.ledger.read(move |connection| tasks::list(connection, &all)).await.unwrap();
        let uids: Vec<u32> = left.iter().map(|task| task.uid).collect();
        let expected: Vec<u32> = [0, 4, 8, 12].into_iter().chain(14..=40).collect();
        assert_eq!((uids, total), (expected, 31));
        let deletion = left.last().unwrap();
        assert_eq!((deletion.kind, deletion.status), (TaskKind::TaskDeletion, TaskStatus::Succeeded));
        let query = "?beforeEnqueuedAt=1970-01-01T00:00:00.000013001Z&statuses=succeeded,failed,canceled";
        let details = json!({"matchedTasks": 10, "deletedTasks": 10, "originalFilter": query});
        assert_eq!(deletion.details, Some(details));
        // What the query says is what was deleted.
        let again = Query {
            limit: 100,
            statuses: Some(vec![TaskStatus::Succeeded]),
            dates: vec![(Moment::Enqueued, false, 13_001)],
            ..Query::default()
        };
        assert_eq!(cluster.ledger.read(move |c| tasks::uids(c, &again)).await.unwrap(), Vec::<u32>::new());
    }

    #[tokio::test]
    async fn a_deletion_that_was_cut_short_says_what_it_has_deleted() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = ClusterBuilder::new(folder.path()).build();
        let deletion = begin(&cluster, 2, "?statuses=failed".to_owned()).await.unwrap();
        let uid = deletion.uid;
        // What is not there is not counted.
        run(&cluster, deletion, vec![7, 8]).await.unwrap();
        let task = cluster.ledger.call(move |connection| tasks::get(connection, uid)).await.unwrap().unwrap();
        assert_eq!(task.details.unwrap()["deletedTasks"], 0);
    }
}
