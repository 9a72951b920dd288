//! Temporary folders for tests.

use nix::sys::statvfs::statvfs;
use std::path::Path;
use tempfile::TempDir;

/// More bytes than a whole run of the tests needs.
const ENOUGH: u64 = 4 << 30;

/// A folder that is deleted when this value is dropped. It is in memory if the system has enough of it: tests kill processes
/// but not machines, so nothing is lost, and tests do not wait for a disk.
///
/// # Panics
/// The client cannot be created.
#[must_use]
pub fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    let free = statvfs(memory).map_or(0, |it| it.blocks_available() * it.fragment_size());
    let folder = if free > ENOUGH { TempDir::new_in(memory) } else { TempDir::new() };
    folder.expect("a temporary folder")
}
