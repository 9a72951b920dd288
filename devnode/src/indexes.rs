//! The catalogue of indexes. Each index has its own folder, named by a UUID, so that a swap of names moves no files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{PoisonError, RwLock};

use milli_core::Index;
use milli_core::heed::EnvOpenOptions;
use uuid::Uuid;

use crate::error::{ApiError, Result};
use crate::store::{Changes, Store};

const SECTION: &str = "indexes";
/// The address space reserved for an index. The file grows only with its content.
const MAP_SIZE: usize = 64 << 30;

/// The node's indexes by name.
pub struct Indexes {
    folder: PathBuf,
    names: RwLock<BTreeMap<String, Uuid>>,
    open: RwLock<BTreeMap<Uuid, Index>>,
}

/// Changes of names, which become visible only after they are durable.
#[derive(Default)]
pub struct Renames(Vec<(String, Option<Uuid>)>);

impl Renames {
    /// Assigns the name to this folder, or removes the name.
    pub fn set(&mut self, name: &str, folder: Option<Uuid>) {
        self.0.push((name.to_string(), folder));
    }

    /// Adds the changes to those that will be committed.
    pub fn record(&self, changes: &mut Changes) -> Result<()> {
        for (name, folder) in &self.0 {
            match folder {
                Some(folder) => changes.put(SECTION, name, folder)?,
                None => changes.remove(SECTION, name),
            }
        }
        Ok(())
    }
}

impl Indexes {
    /// Loads the catalogue, and deletes folders without a name.
    pub fn load(store: &Store, folder: PathBuf) -> Result<Self> {
        std::fs::create_dir_all(&folder)?;
        let names: BTreeMap<String, Uuid> = store.section(SECTION)?.into_iter().collect();
        for entry in std::fs::read_dir(&folder)? {
            let entry = entry?;
            let known = names.values().any(|uuid| entry.file_name().to_str() == Some(&uuid.to_string()));
            if !known {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(Self { folder, names: RwLock::new(names), open: RwLock::default() })
    }

    /// The folder of the index with this name.
    pub fn folder_of(&self, name: &str) -> Option<Uuid> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }

    /// All names, sorted.
    pub fn names(&self) -> Vec<String> {
        self.names.read().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect()
    }

    /// The index with this name.
    pub fn get(&self, name: &str) -> Result<Index> {
        match self.folder_of(name) {
            Some(uuid) => self.open(uuid),
            None => Err(ApiError::index_not_found(name)),
        }
    }

    /// Creates an index that has no name yet.
    pub fn create(&self) -> Result<(Uuid, Index)> {
        let uuid = Uuid::new_v4();
        Ok((uuid, self.open(uuid)?))
    }

    /// Opens the index of a folder, or returns it if it is open already.
    pub fn open(&self, uuid: Uuid) -> Result<Index> {
        if let Some(index) = self.open.read().unwrap_or_else(PoisonError::into_inner).get(&uuid) {
            return Ok(index.clone());
        }
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = open.get(&uuid) {
            return Ok(index.clone());
        }
        let path = self.folder.join(uuid.to_string());
        std::fs::create_dir_all(&path)?;
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(MAP_SIZE).max_readers(1024);
        let index = Index::new(options, &path, true)?;
        open.insert(uuid, index.clone());
        Ok(index)
    }

    /// Makes durable changes of names visible, and deletes the folders that have no name any more.
    pub fn apply(&self, renames: Renames) {
        let mut lost = Vec::new();
        {
            let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
            for (name, folder) in renames.0 {
                let before = match folder {
                    Some(folder) => names.insert(name, folder),
                    None => names.remove(&name),
                };
                lost.extend(before);
            }
            lost.retain(|uuid| !names.values().any(|kept| kept == uuid));
        }
        for uuid in lost {
            self.open.write().unwrap_or_else(PoisonError::into_inner).remove(&uuid);
            // Running searches can still read the deleted files. A folder that is left over is deleted at the next start.
            if let Err(error) = std::fs::remove_dir_all(self.folder.join(uuid.to_string())) {
                tracing::warn!("could not remove the folder of a deleted index: {error}");
            }
        }
    }

    /// The size of all files of the node, in bytes.
    pub fn size_on_disk(database: &Path) -> u64 {
        let Ok(entries) = std::fs::read_dir(database) else {
            return 0;
        };
        entries
            .flatten()
            .map(|entry| match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => Self::size_on_disk(&entry.path()),
                Ok(metadata) => metadata.len(),
                Err(_) => 0,
            })
            .sum()
    }
}
