//! The state that handlers and the worker share.

use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};

use milli_core::ThreadPoolNoAbortBuilder;
use milli_core::update::IndexerConfig;
use serde::{Deserialize, Serialize};

use crate::auth::Keys;
use crate::cli::Options;
use crate::error::{ApiError, Code, Result};
use crate::indexes::Indexes;
use crate::process;
use crate::store::{Changes, Store};
use crate::tasks::queue::Queue;

/// The features of `/experimental-features`. This node only stores most of them, and does not implement them.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Features {
    pub metrics: bool,
    pub logs_route: bool,
    pub edit_documents_by_function: bool,
    pub contains_filter: bool,
    pub dynamic_search_rules: bool,
    pub network: bool,
    pub get_task_documents_route: bool,
    pub task_queue_compaction_route: bool,
    pub composite_embedders: bool,
    pub chat_completions: bool,
    pub multimodal: bool,
    pub foreign_keys: bool,
    pub disable_documents_fetch_queue: bool,
    pub legacy_search: bool,
    pub render_route: bool,
}

impl Features {
    /// Refuses an action whose feature is disabled.
    pub fn require(on: bool, action: &str, feature: &str, issue: &str) -> Result<()> {
        if on {
            return Ok(());
        }
        let message = format!("{action} requires enabling the `{feature}` experimental feature. See {issue}");
        Err(ApiError::new(Code::FeatureNotEnabled, message))
    }
}

/// The file of the store, in the folder of the database.
pub const STORE: &str = "devnode.redb";
/// The folder of the indexes.
pub const INDEXES: &str = "indexes";
/// The folder of the payloads of waiting tasks.
pub const UPDATE_FILES: &str = "update_files";

/// A running node.
pub struct Node {
    /// The command line.
    pub options: Options,
    /// The durable store of everything except the indexes.
    pub store: Store,
    /// The API keys.
    pub keys: Keys,
    /// The indexes.
    pub indexes: Indexes,
    /// The tasks.
    pub queue: Queue,
    /// The engine's resources for writing.
    pub indexer: IndexerConfig,
    features: RwLock<Features>,
}

impl Node {
    /// Opens or creates the database.
    pub fn open(options: Options) -> Result<Self> {
        let folder: PathBuf = options.db_path.clone();
        let may_exist = options.ignore_dump_if_db_exists || options.ignore_snapshot_if_db_exists;
        let may_be_missing = options.ignore_missing_dump || options.ignore_missing_snapshot;
        let archive = options.import_dump.as_ref().or(options.import_snapshot.as_ref());
        let wanted = archive
            .filter(|archive| !(may_exist && folder.exists()) && (archive.exists() || !may_be_missing));
        if let Some(archive) = wanted {
            if folder.exists() {
                let message =
                    format!("database already exists at {}, try to delete it or rename it", folder.display());
                return Err(ApiError::internal(message));
            }
            process::backup::import(archive, &folder)?;
        }
        std::fs::create_dir_all(&folder)?;
        let store = Store::open(&folder.join(STORE))?;
        let keys = Keys::load(&store, options.master_key.clone())?;
        let indexes = Indexes::load(&store, folder.join(INDEXES))?;
        let queue =
            Queue::load(&store, folder.join(UPDATE_FILES), options.experimental_max_number_of_batched_tasks)?;
        let features =
            store.section::<Features>("features")?.pop().map(|(_, features)| features).unwrap_or_default();
        let pool = ThreadPoolNoAbortBuilder::new()
            .thread_name(|i| format!("indexing-{i}"))
            .build()
            .map_err(ApiError::internal)?;
        let indexer = IndexerConfig { thread_pool: Some(pool), ..IndexerConfig::default() };
        Ok(Self { options, store, keys, indexes, queue, indexer, features: RwLock::new(features) })
    }

    /// The current experimental features.
    pub fn features(&self) -> Features {
        *self.features.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the experimental features, and stores them.
    pub fn set_features(&self, features: Features) -> Result<()> {
        let mut changes = Changes::default();
        changes.put("features", "all", &features)?;
        self.store.commit(changes)?;
        *self.features.write().unwrap_or_else(PoisonError::into_inner) = features;
        Ok(())
    }
}
