//! The ledger's storage in a simulation: it runs each call at once, in a transaction of its own, and can die at any of them.

use miroir_control::{
    base::error::{Error, Result},
    ledger::{Finish, Job, Storage, schema},
};
use rusqlite::Connection;
use std::sync::{Arc, Mutex};

/// What becomes of the control plane at a write to its ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// It dies before the write is durable.
    Before,
    /// It dies once the write is durable.
    After,
}

/// The database, which outlives the processes of the control plane.
pub struct Disk {
    connection: Mutex<Connection>,
    state: Mutex<DiskState>,
}

#[derive(Default)]
struct DiskState {
    /// The writes so far.
    writes: u64,
    /// At which write the process dies.
    death: Option<(u64, Death)>,
    /// Whether commits fail.
    is_full: bool,
}

impl Disk {
    /// An empty ledger.
    pub fn new() -> Arc<Self> {
        let connection = Connection::open_in_memory().unwrap();
        schema::migrate(&connection, 0).unwrap();
        Arc::new(Self { connection: Mutex::new(connection), state: Mutex::default() })
    }

    /// The process dies at the write after so many more.
    pub fn dies_after(&self, writes: u64, death: Death) {
        let mut state = self.state.lock().unwrap();
        state.death = Some((state.writes + writes, death));
    }

    /// Whether commits fail from now on.
    pub fn set_full(&self, is_full: bool) {
        self.state.lock().unwrap().is_full = is_full;
    }

    /// Reads what is durable.
    pub fn read<T>(&self, read: impl FnOnce(&Connection) -> T) -> T {
        read(&self.connection.lock().unwrap())
    }
}

/// The storage of one process of the control plane.
pub struct Process {
    disk: Arc<Disk>,
    dead: Arc<Mutex<Dead>>,
}

/// Whether a process has died, and the calls that it will never hear of.
#[derive(Default)]
pub struct Dead {
    is_dead: bool,
    unfinished: Vec<Finish>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Process")
    }
}

impl Process {
    /// The storage of a new process.
    pub fn new(disk: Arc<Disk>) -> Arc<Self> {
        Arc::new(Self { disk, dead: Arc::default() })
    }

    /// Whether it has died at a write.
    pub fn is_dead(&self) -> bool {
        self.dead.lock().unwrap().is_dead
    }

    fn die(&self, finish: Finish) {
        let mut dead = self.dead.lock().unwrap();
        dead.is_dead = true;
        dead.unfinished.push(finish);
    }
}

impl Storage for Process {
    fn submit(&self, job: Job) -> Result<()> {
        if self.is_dead() {
            // Nothing that a dead process does has an effect. What waits for this waits for ever.
            self.dead.lock().unwrap().unfinished.push(Box::new(move |_| drop(job)));
            return Ok(());
        }
        let connection = self.disk.connection.lock().unwrap();
        let changes =
            || -> i64 { connection.query_row("SELECT total_changes()", [], |row| row.get(0)).unwrap() };
        let before = changes();
        connection.execute_batch("BEGIN IMMEDIATE").map_err(Error::from)?;
        let (keep, finish) = job(&connection);
        let is_write = keep && changes() != before;
        let (death, is_full) = {
            let mut state = self.disk.state.lock().unwrap();
            state.writes += u64::from(is_write);
            let writes = state.writes;
            let death = state.death.filter(|(at, _)| is_write && writes > *at).map(|(_, death)| death);
            if death.is_some() {
                state.death = None;
            }
            (death, state.is_full && is_write)
        };
        let commits = keep && !is_full && death != Some(Death::Before);
        connection.execute_batch(if commits { "COMMIT" } else { "ROLLBACK" }).map_err(Error::from)?;
        drop(connection);
        match death {
            Some(_) => self.die(finish),
            None => finish(!is_full),
        }
        Ok(())
    }
}
