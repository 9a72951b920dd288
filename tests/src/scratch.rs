//! Folders for what tests write.

use nix::sys::statvfs::statvfs;
use std::path::Path;
use tempfile::TempDir;

/// Bytes that a whole run needs, and more.
const ENOUGH: u64 = 4 << 30;

/// A folder that goes with this value: in memory where the system has room there. In tests processes die and machines do not,
/// so nothing is lost by it, and nobody waits for a disk.
///
/// # Panics
/// It cannot be made.
#[must_use]
pub fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let free = statvfs(memory).map_or(0, |it| it.blocks_available() * it.fragment_size());
    let folder = if free > ENOUGH { TempDir::new_in(memory) } else { TempDir::new() };
    folder.expect("a temporary folder")
}
