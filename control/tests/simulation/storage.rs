//! The ledger's storage in a simulation: it runs each call at once, in a transaction of its own, and can die at any of them.

use miroir_control::{
    base::error::{Error, Result},
    ledger::{Finish, Job, Storage, schema},
};
use rusqlite::Connection;
use std::{
    cell::RefCell,
    sync::{Arc, Mutex},
};

/// What becomes of the control plane at a write to its ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// It dies before the write is durable.
    Before,
    /// It dies once the write is durable.
    After,
}

thread_local! {
    /// The database of a history that has ended. The next one gets it without rows: its tables, and its parsed statements, are there.
    static EMPTY: RefCell<Option<Connection>> = const { RefCell::new(None) };
}

/// How many parsed statements a connection keeps.
const STATEMENTS: usize = 256;

/// The database, which outlives the processes of the control plane.
pub struct Disk {
    /// `None` once this is dropped.
    connection: Mutex<Option<Connection>>,
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
        let connection = EMPTY.take().unwrap_or_else(|| {
            let connection = Connection::open_in_memory().unwrap();
            schema::migrate(&connection, 0).unwrap();
            connection.set_prepared_statement_cache_capacity(STATEMENTS);
            assert!(tables(&connection).iter().all(|table| rows_of(&connection, table) == 0));
            connection
        });
        Arc::new(Self { connection: Mutex::new(Some(connection)), state: Mutex::default() })
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

    /// Whether commits fail.
    pub fn is_full(&self) -> bool {
        self.state.lock().unwrap().is_full
    }

    /// How many writes there were.
    pub fn writes(&self) -> u64 {
        self.state.lock().unwrap().writes
    }

    /// Reads what is durable.
    pub fn read<T>(&self, read: impl FnOnce(&Connection) -> T) -> T {
        read(self.connection.lock().unwrap().as_ref().unwrap())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let connection = self.connection.get_mut().ok().and_then(Option::take);
        let Some(connection) = connection.filter(Connection::is_autocommit) else { return };
        for table in tables(&connection) {
            connection.execute(&format!("DELETE FROM {table}"), []).unwrap();
        }
        EMPTY.set(Some(connection));
    }
}

fn tables(connection: &Connection) -> Vec<String> {
    let mut statement =
        connection.prepare_cached("SELECT name FROM sqlite_master WHERE type = 'table'").unwrap();
    let names = statement.query_map([], |row| row.get(0)).unwrap();
    names.map(Result::unwrap).collect()
}

fn rows_of(connection: &Connection, table: &str) -> i64 {
    connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

/// Runs a statement that has no parameters and no rows.
fn run(connection: &Connection, sql: &str) -> Result<()> {
    connection.prepare_cached(sql).and_then(|mut statement| statement.execute([])).map_err(Error::from)?;
    Ok(())
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
        let guard = self.disk.connection.lock().unwrap();
        let connection = guard.as_ref().unwrap();
        let before = connection.total_changes();
        run(connection, "BEGIN IMMEDIATE")?;
        let (keep, finish) = job(connection);
        let is_write = keep && connection.total_changes() != before;
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
        run(connection, if commits { "COMMIT" } else { "ROLLBACK" })?;
        drop(guard);
        match death {
            Some(_) => self.die(finish),
            None => finish(!is_full),
        }
        Ok(())
    }
}
