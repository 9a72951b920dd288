//! The storage of production: one thread owns the connection that writes. It commits all waiting calls in one transaction, each under its
//! own savepoint: many writers share one `fsync`, and a call that fails is rolled back alone. Other threads have connections of their
//! own for calls that only read, so that a long list holds up no write.

use super::{Job, Storage, crash_points::CrashPoints};
use crate::base::error::{Error, Result};
use rusqlite::{Connection, ErrorCode};
use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
};

/// The maximum number of calls that share a commit.
const GROUP: usize = 256;

/// A handle on the ledger's threads, which end with it.
#[derive(Debug)]
pub struct GroupCommit {
    jobs: Sender<Job>,
    reads: Sender<Job>,
    has_no_space: Arc<AtomicBool>,
}

impl GroupCommit {
    /// Starts the threads: one that writes, and one for each connection that only reads. Tests may have the process
    /// killed at a commit.
    ///
    /// # Errors
    /// The operating system has no thread.
    pub(super) fn start(
        writer: Connection,
        readers: Vec<Connection>,
        crash_points: Option<CrashPoints>,
    ) -> io::Result<Self> {
        let (jobs, queue) = channel();
        let (reads, read_queue) = channel();
        let has_no_space = Arc::new(AtomicBool::new(false));
        let full = has_no_space.clone();
        let thread = || std::thread::Builder::new();
        thread().name("ledger".to_owned()).spawn(move || run(&writer, &queue, &full, crash_points))?;
        let read_queue = Arc::new(Mutex::new(read_queue));
        for reader in readers {
            let queue = read_queue.clone();
            thread().name("ledger reads".to_owned()).spawn(move || run_reads(&reader, &queue))?;
        }
        Ok(Self { jobs, reads, has_no_space })
    }
}

impl Storage for GroupCommit {
    fn submit(&self, job: Job) -> Result<()> {
        self.jobs.send(job).map_err(|_| Error::LedgerClosed)
    }

    fn submit_read(&self, job: Job) -> Result<()> {
        self.reads.send(job).map_err(|_| Error::LedgerClosed)
    }

    fn has_no_space(&self) -> bool {
        self.has_no_space.load(Ordering::Relaxed)
    }
}

/// Runs a call. One that panics is a call that fails: nobody else's is lost with it.
fn run_job(job: Job, connection: &Connection) -> Option<(bool, super::Finish)> {
    catch_unwind(AssertUnwindSafe(|| job(connection)))
        .inspect_err(|_| tracing::error!("a call of the ledger has panicked"))
        .ok()
}

fn run(
    connection: &Connection,
    queue: &Receiver<Job>,
    full: &AtomicBool,
    mut crash_points: Option<CrashPoints>,
) {
    while let Ok(first) = queue.recv() {
        let jobs: Vec<Job> = std::iter::once(first).chain(queue.try_iter().take(GROUP - 1)).collect();
        let mut finishes = Vec::new();
        let committed = commit(connection, jobs, &mut finishes, &mut crash_points);
        if let Err(error) = &committed {
            tracing::error!(%error, "the ledger could not commit");
            // Where nothing has begun, or SQLite has rolled it back, nothing is to be undone.
            let _ = connection.execute_batch("ROLLBACK");
        }
        let is_full =
            committed.as_ref().is_err_and(|error| error.sqlite_error_code() == Some(ErrorCode::DiskFull));
        full.store(is_full, Ordering::Relaxed);
        for finish in finishes {
            finish(committed.is_ok());
        }
    }
}

/// Runs calls in one transaction. Where that cannot go on, the rest of them are dropped, which their callers notice.
fn commit(
    connection: &Connection,
    jobs: Vec<Job>,
    finishes: &mut Vec<super::Finish>,
    crash_points: &mut Option<CrashPoints>,
) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    for job in jobs {
        connection.execute_batch("SAVEPOINT call")?;
        let done = run_job(job, connection);
        let keep = done.as_ref().is_some_and(|(keep, _)| *keep);
        finishes.extend(done.map(|(_, finish)| finish));
        // A full disk can make SQLite roll back the whole transaction. What came after it would be committed call by call.
        connection.execute_batch(if keep { "RELEASE call" } else { "ROLLBACK TO call; RELEASE call" })?;
    }
    let commit = || connection.execute_batch("COMMIT");
    match crash_points {
        Some(crash_points) => crash_points.commit(connection, commit),
        None => commit(),
    }
}

fn run_reads(connection: &Connection, queue: &Mutex<Receiver<Job>>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // One transaction, so that a list and its total are of one moment.
        let begun = connection.execute_batch("BEGIN").is_ok();
        let done = run_job(job, connection).map(|(_, finish)| finish);
        let _ = connection.execute_batch("ROLLBACK");
        done.into_iter().for_each(|finish| finish(begun));
    }
}
