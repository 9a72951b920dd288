//! Dumps and snapshots: archives of the node's database, which only this program can import.

use std::fs::File;
use std::path::Path;

use milli_core::heed::CompactionOption;
use time::macros::format_description;

use crate::error::{ApiError, Result};
use crate::node::{INDEXES, Node, STORE, UPDATE_FILES};
use crate::tasks::Task;

/// `POST /dumps`
pub fn dump(node: &Node, task: &mut Task) -> Result<()> {
    let format = format_description!("[year][month][day]-[hour][minute][second][subsecond digits:3]");
    let uid = time::OffsetDateTime::now_utc().format(format).map_err(ApiError::internal)?;
    archive(node, task.uid, &node.options.dump_dir.join(format!("{uid}.dump")))?;
    task.set_detail("dumpUid", uid);
    Ok(())
}

/// `POST /snapshots`
pub fn snapshot(node: &Node, task: &mut Task) -> Result<()> {
    let name = node.options.db_path.file_name().and_then(|name| name.to_str()).unwrap_or("data.ms");
    archive(node, task.uid, &node.options.snapshot_dir.join(format!("{name}.snapshot")))
}

/// Archives the database, without the task of the backup itself.
fn archive(node: &Node, task: u32, path: &Path) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let temporary = path.with_extension("tmp");
    let mut archive = tar::Builder::new(File::create(&temporary)?);
    let copy = path.with_extension("copy");
    for name in node.indexes.names() {
        let (Some(uuid), Ok(index)) = (node.indexes.folder_of(&name), node.indexes.get(&name)) else {
            continue;
        };
        let _ = std::fs::remove_file(&copy);
        drop(index.copy_to_path(&copy, CompactionOption::Disabled)?);
        archive.append_path_with_name(&copy, format!("{INDEXES}/{uuid}/data.mdb"))?;
    }
    let _ = std::fs::remove_file(&copy);
    node.store.copy_without(task, &copy)?;
    archive.append_path_with_name(&copy, STORE)?;
    std::fs::remove_file(&copy)?;
    archive.append_dir_all(UPDATE_FILES, node.options.db_path.join(UPDATE_FILES))?;
    archive.into_inner()?.sync_all()?;
    std::fs::rename(&temporary, path)?;
    Ok(())
}

/// Unpacks an archive into a new database.
pub fn import(path: &Path, database: &Path) -> Result<()> {
    tar::Archive::new(File::open(path)?).unpack(database)?;
    Ok(())
}
