//! The storage of production: one thread owns the connection. It commits all waiting calls in one transaction, each under its own
//! savepoint: many writers share one `fsync`, and a call that fails is rolled back alone.

use super::{Job, Storage};
use crate::base::error::{Error, Result};
use rusqlite::Connection;
use std::{
    io,
    sync::mpsc::{Receiver, Sender, channel},
};

/// The maximum number of calls that share a commit.
const GROUP: usize = 256;

/// A handle on the ledger's thread, which ends with it.
#[derive(Debug)]
pub struct GroupCommit {
    jobs: Sender<Job>,
}

impl GroupCommit {
    /// Starts the thread.
    ///
    /// # Errors
    /// The operating system has no thread.
    pub fn start(connection: Connection) -> io::Result<Self> {
        let (jobs, queue) = channel();
        std::thread::Builder::new().name("ledger".to_owned()).spawn(move || run(&connection, &queue))?;
        Ok(Self { jobs })
    }
}

impl Storage for GroupCommit {
    fn submit(&self, job: Job) -> Result<()> {
        self.jobs.send(job).map_err(|_| Error::LedgerClosed)
    }
}

fn run(connection: &Connection, queue: &Receiver<Job>) {
    while let Ok(first) = queue.recv() {
        let jobs = std::iter::once(first).chain(queue.try_iter().take(GROUP - 1));
        let begun = connection.execute_batch("BEGIN IMMEDIATE").is_ok();
        let mut finishes = Vec::new();
        for job in jobs {
            let _ = connection.execute_batch("SAVEPOINT call");
            let (keep, finish) = job(connection);
            let _ = connection.execute_batch(if keep {
                "RELEASE call"
            } else {
                "ROLLBACK TO call; RELEASE call"
            });
            finishes.push(finish);
        }
        let committed = begun
            && connection
                .execute_batch("COMMIT")
                .inspect_err(|error| {
                    tracing::error!(%error, "the ledger could not commit");
                    let _ = connection.execute_batch("ROLLBACK");
                })
                .is_ok();
        for finish in finishes {
            finish(committed);
        }
    }
}
