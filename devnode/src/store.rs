//! The store of everything that must survive a kill, except the indexes themselves: tasks, the catalogue of indexes, keys,
//! features.
//!
//! All values are small JSON documents in one redb file. When a commit returns, it is on disk.

use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Result;

const TASKS: TableDefinition<'_, u32, &[u8]> = TableDefinition::new("tasks");
const ROWS: TableDefinition<'_, (&str, &str), &[u8]> = TableDefinition::new("rows");

/// The durable store.
pub struct Store {
    database: Database,
}

/// Changes that become durable together.
#[derive(Default)]
pub struct Changes {
    tasks: Vec<(u32, Option<Vec<u8>>)>,
    rows: Vec<(&'static str, String, Option<Vec<u8>>)>,
}

impl Changes {
    /// Writes a task.
    pub fn put_task<T: Serialize>(&mut self, uid: u32, task: &T) -> Result<()> {
        self.tasks.push((uid, Some(serde_json::to_vec(task)?)));
        Ok(())
    }

    /// Removes a task.
    pub fn remove_task(&mut self, uid: u32) {
        self.tasks.push((uid, None));
    }

    /// Writes a row of a section.
    pub fn put<T: Serialize>(&mut self, section: &'static str, key: &str, value: &T) -> Result<()> {
        self.rows.push((section, key.into(), Some(serde_json::to_vec(value)?)));
        Ok(())
    }

    /// Removes a row of a section.
    pub fn remove(&mut self, section: &'static str, key: &str) {
        self.rows.push((section, key.into(), None));
    }
}

impl Store {
    /// Opens or creates the store.
    pub fn open(path: &Path) -> Result<Self> {
        let database = Database::create(path)?;
        let write = database.begin_write()?;
        write.open_table(TASKS)?;
        write.open_table(ROWS)?;
        write.commit()?;
        Ok(Self { database })
    }

    /// Commits all changes atomically.
    pub fn commit(&self, changes: Changes) -> Result<()> {
        let write = self.database.begin_write()?;
        {
            let mut tasks = write.open_table(TASKS)?;
            for (uid, task) in &changes.tasks {
                match task {
                    Some(bytes) => tasks.insert(uid, bytes.as_slice())?,
                    None => tasks.remove(uid)?,
                };
            }
            let mut rows = write.open_table(ROWS)?;
            for (section, key, value) in &changes.rows {
                match value {
                    Some(bytes) => rows.insert((*section, key.as_str()), bytes.as_slice())?,
                    None => rows.remove((*section, key.as_str()))?,
                };
            }
        }
        write.commit()?;
        Ok(())
    }

    /// Copies everything except one task to a new store.
    pub fn copy_without(&self, task: u32, path: &Path) -> Result<()> {
        let copy = Self::open(path)?;
        let (read, write) = (self.database.begin_read()?, copy.database.begin_write()?);
        {
            let mut tasks = write.open_table(TASKS)?;
            for entry in read.open_table(TASKS)?.iter()? {
                let (uid, bytes) = entry?;
                if uid.value() != task {
                    tasks.insert(uid.value(), bytes.value())?;
                }
            }
            let mut rows = write.open_table(ROWS)?;
            for entry in read.open_table(ROWS)?.iter()? {
                let (key, value) = entry?;
                rows.insert(key.value(), value.value())?;
            }
        }
        write.commit()?;
        Ok(())
    }

    /// Reads all tasks, in the order of their uids.
    pub fn tasks<T: DeserializeOwned>(&self) -> Result<Vec<T>> {
        let read = self.database.begin_read()?;
        let table = read.open_table(TASKS)?;
        let mut tasks = Vec::new();
        for entry in table.iter()? {
            tasks.push(serde_json::from_slice(entry?.1.value())?);
        }
        Ok(tasks)
    }

    /// Reads all rows of a section, in the order of their keys.
    pub fn section<T: DeserializeOwned>(&self, section: &str) -> Result<Vec<(String, T)>> {
        let read = self.database.begin_read()?;
        let table = read.open_table(ROWS)?;
        let mut found = Vec::new();
        for entry in table.iter()? {
            let (key, value) = entry?;
            let (name, key) = key.value();
            if name == section {
                found.push((key.to_string(), serde_json::from_slice(value.value())?));
            }
        }
        Ok(found)
    }
}
